"""Kafka's verifiable and performance tools against a real node, which is killed while they run."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.wire.errors import ErrorCode, is_retriable
from tests.support.kafka_node import KafkaNode
from tests.support.peers import KAFKA_KIT, kafka_tool

pytestmark = [pytest.mark.peer("kafka"), pytest.mark.long("kafka-tools"), pytest.mark.timeout(300)]
MESSAGES = 20_000


@pytest.fixture
def node(tmp_path: Path) -> Iterator[KafkaNode]:
    made = KafkaNode(tmp_path)
    yield made
    made.stop()


class Verifiable:
    """One of the two, which say what happens as a JSON object a line."""

    def __init__(self, name: str, *arguments: str) -> None:
        command = [sys.executable, str(KAFKA_KIT), "tool", name, *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.events: list[dict[str, Any]] = []
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._news:
                self.events.append(json.loads(line))
                self._news.notify_all()

    def named(self, name: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["name"] == name]

    def wait_for(self, count: int, name: str) -> None:
        with self._news:
            assert self._news.wait_for(lambda: len(self.named(name)) >= count, 60), self.events[-3:]

    def end(self) -> int:
        """Until it is done."""
        code = self.process.wait(120)
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


def test_the_verifiable_producer_and_consumer_through_a_sigkill_of_the_node(node: KafkaNode, tmp_path: Path) -> None:
    # By itself this tool gives a record up at its first error.
    settings = tmp_path / "producer.properties"
    settings.write_text("enable.idempotence=true\nretries=2147483647\n")
    at = ("--bootstrap-server", node.address, "--topic", "verified")
    kafka_tool("topics", *at, "--create", "--partitions", "3")
    producer = Verifiable(
        "verifiable-producer", *at, "--max-messages", str(MESSAGES), "--throughput", "2000",
        "--command-config", str(settings),
    )  # fmt: skip
    producer.wait_for(MESSAGES // 4, "producer_send_success")
    node.kill()
    node.start()
    assert producer.end() == 0
    (data,) = producer.named("tool_data")
    assert (data["sent"], data["acked"]) == (MESSAGES, MESSAGES)
    acknowledged = {(event["partition"], event["offset"]): event["value"]
                    for event in producer.named("producer_send_success")}  # fmt: skip
    assert sorted(map(int, acknowledged.values())) == list(range(MESSAGES))

    group = ("--group-id", "verified", "--reset-policy", "earliest", "--max-messages", str(MESSAGES), "--verbose")
    consumer = Verifiable("verifiable-consumer", *at, *group)
    consumer.wait_for(500, "record_data")
    node.kill()
    node.start()
    assert consumer.end() == 0
    read = {(event["partition"], event["offset"]): event["value"] for event in consumer.named("record_data")}
    assert read == acknowledged  # what was acknowledged, each at its offset, and nothing else
    assert consumer.named("offsets_committed")[-1]["success"]


def test_the_performance_tools(node: KafkaNode) -> None:
    done = kafka_tool("producer-perf", "--bootstrap-server", node.address, "--topic", "perf", "--num-records",
                      str(MESSAGES), "--record-size", "100", "--throughput", "-1")  # fmt: skip
    assert f"{MESSAGES} records sent" in done
    kafka_tool("producer-perf", "--bootstrap-server", node.address, "--topic", "perf", "--num-records", str(MESSAGES),
               "--record-size", "100", "--throughput", "-1", "--transactional-id", "perf",
               "--transaction-duration-ms", "50")  # fmt: skip
    shown = kafka_tool("consumer-perf", "--bootstrap-server", node.address, "--topic", "perf", "--num-records",
                       str(2 * MESSAGES), "--timeout", "20000")  # fmt: skip
    names, values = ([cell.strip() for cell in line.split(",")] for line in shown.strip().splitlines()[-2:])
    assert dict(zip(names, values, strict=True))["data.consumed.in.nMsg"] == str(2 * MESSAGES)


@pytest.mark.peer("javac")
def test_errors_are_retriable_and_fatal_as_in_kafkas_own_classes() -> None:
    rows = [line.split() for line in kafka_tool(str(KAFKA_KIT.with_name("Errors.java"))).splitlines()]
    theirs = {int(code): (name, again == "true") for code, name, again in rows}
    ours = {int(code): (code.name, is_retriable(code)) for code in ErrorCode if code > 0}
    assert len(theirs) > 100
    assert ours == {code: theirs[code] for code in ours}
    assert [code for code in theirs if is_retriable(code) and not theirs[code][1]] == []
