"""The Java clients and Kafka's own tools against a real node in a process of its own."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.support.kafka_node import KafkaNode
from tests.support.peers import KAFKA_KIT, kafka_tool

# A dozen JVMs one after the other: a minute on a busy machine.
pytestmark = [pytest.mark.peer("kafka"), pytest.mark.long("kafka-java"), pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaNode]:
    made = KafkaNode(tmp_path_factory.mktemp("node"))
    yield made
    made.stop()


def fed(text: str, name: str, *arguments: str) -> None:
    """Run a tool that reads its standard input."""
    command = [sys.executable, str(KAFKA_KIT), "tool", name, *arguments]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.peer("javac")
def test_java_reads_writes_and_commits_offsets_in_transactions(node: KafkaNode) -> None:
    lines = kafka_tool(str(KAFKA_KIT.with_name("Transactions.java")), node.address).splitlines()
    assert lines == [
        "aborted 30",
        "offsets {}",
        "committed 30",
        "offsets {java-in-0=10, java-in-1=10, java-in-2=10}",
        "fenced",
        "read 30 done 30",
        "group Empty",
    ]


def test_kafkas_tools(node: KafkaNode) -> None:
    at = ("--bootstrap-server", node.address)
    assert "Created topic tools." in kafka_tool("topics", *at, "--create", "--topic", "tools", "--partitions", "2")
    shown = kafka_tool("topics", *at, "--describe", "--topic", "tools")
    assert "PartitionCount: 2" in shown
    assert shown.count("Leader: 1") == 2
    assert "tools" in kafka_tool("topics", *at, "--list").split()

    fed("a:1\nb:2\nc:3\n", "console-producer", *at, "--topic", "tools", "--property", "parse.key=true",
        "--property", "key.separator=:")  # fmt: skip
    read = kafka_tool(
        "console-consumer", *at, "--topic", "tools", "--group", "console", "--from-beginning", "--max-messages", "3"
    )
    assert sorted(read.split()) == ["1", "2", "3"]
    found = re.findall(r"tools:\d:(\d+)", kafka_tool("offsets", *at, "--topic", "tools"))
    assert sum(map(int, found)) == 3

    groups = kafka_tool("groups", *at, "--describe", "--group", "console")
    rows = [line.split() for line in groups.splitlines() if line.startswith("console ")]
    assert sum(int(row[3]) for row in rows) == 3  # the console consumer committed what it had printed
    assert {row[5] for row in rows} == {"0"}  # no lag
    reset = kafka_tool("groups", *at, "--group", "console", "--topic", "tools", "--reset-offsets", "--to-earliest",
                       "--execute")  # fmt: skip
    assert [line.split()[-1] for line in reset.splitlines() if line.startswith("console ")] == ["0", "0"]
    assert "console" in kafka_tool("groups", *at, "--list")
    kafka_tool("groups", *at, "--delete", "--group", "console")
    assert "console" not in kafka_tool("groups", *at, "--list").split()

    perf = kafka_tool("producer-perf", "--topic", "tools", "--num-records", "50000", "--record-size", "100",
                      "--throughput", "-1", "--bootstrap-server", node.address)  # fmt: skip
    assert "50000 records sent" in perf
    kafka_tool("topics", *at, "--alter", "--topic", "tools", "--partitions", "4")
    topic = ("--entity-type", "topics", "--entity-name", "tools")
    kafka_tool("configs", *at, "--alter", *topic, "--add-config", "retention.ms=60000")
    assert "retention.ms=60000" in kafka_tool("configs", *at, "--describe", *topic)
    assert "PartitionCount: 4" in kafka_tool("topics", *at, "--describe", "--topic", "tools")
    kafka_tool("topics", *at, "--delete", "--topic", "tools")
    assert "tools" not in kafka_tool("topics", *at, "--list").split()
