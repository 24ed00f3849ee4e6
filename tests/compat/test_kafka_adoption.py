"""A log changes hands: a real Apache Kafka broker goes on with what a node wrote, and a node with what Kafka wrote."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from gateway.log.settings import LogSettings
from gateway.log.store import LogStore
from headwater.clock import SystemClock
from headwater.disk import RealDisk
from tests.support.adoption import TOPICS, check, make_topics, to_kafka
from tests.support.kafka_node import KafkaNode
from tests.support.kafka_story import create, read, write
from tests.support.peers import Kafka, kafka_tool
from tests.support.processes import headwater

pytestmark = [pytest.mark.peer("kafka"), pytest.mark.long("kafka-adoption"), pytest.mark.timeout(300)]


def begin_epochs(data: Path) -> None:
    """Leader epochs, as damage or a replaced card begins them; a new broker's own count starts below them."""
    store = LogStore.open(
        str(data),
        node="test",
        settings=LogSettings(),
        disk=RealDisk(),
        clock=SystemClock(),
        call_in_loop=lambda callback: callback(),
        flusher="manual",
    )
    for _ in range(7):
        store.topics["plant"].partitions[0].begin_epoch()
    store.close()


def tear(directory: Path) -> None:
    """What a power cut leaves: the beginning of a batch that never became whole."""
    last = max(path for path in directory.glob("*.log") if path.stat().st_size)
    torn = last.read_bytes()[:100]
    with max(directory.glob("*.log")).open("ab") as file:
        file.write(torn)


@pytest.mark.parametrize("ended", ["stopped", "killed, with torn tails"])
def test_kafka_goes_on_with_what_a_node_wrote(tmp_path: Path, ended: str) -> None:
    node = KafkaNode(tmp_path)
    create(node.address, TOPICS, {"segment.bytes": "16384"})
    story = write(node.address, TOPICS, rounds=1)
    kafka = Kafka.start(tmp_path / "kafka")
    assert to_kafka(kafka, node)[0] == 2  # both run
    node.stop()
    begin_epochs(tmp_path / "data")
    node.start()
    story.add(write(node.address, TOPICS, rounds=1, tag="-next"))
    if ended == "stopped":
        node.stop()
    else:
        node.kill()
        for name in ("plant-0", "plant-1-0"):
            tear(tmp_path / "data" / "log" / name)
    code, said = to_kafka(kafka, node)
    assert (code, "the broker of" in said) == (2, True), said
    kafka.stop()

    code, said = to_kafka(kafka, node)
    assert code == 1, said
    make_topics(kafka, said)
    code, said = to_kafka(kafka, node)
    assert code == 0, said
    assert len(list((kafka.directory / "data" / "plant-0").glob("*.log"))) > 2
    code, said = to_kafka(kafka, node)
    assert (code, "holds records already" in said) == (2, True), said

    kafka = Kafka.start(kafka.directory, kafka.port)
    try:
        check(kafka.bootstrap, story, tag="-more")
    finally:
        kafka.stop()


@pytest.mark.parametrize("ended", ["stopped", "killed"])
@pytest.mark.parametrize("copied", ["the whole directory", "topics into a node's log"])
def test_a_node_goes_on_with_what_kafka_wrote(tmp_path: Path, ended: str, copied: str) -> None:
    kafka = Kafka.start(tmp_path / "kafka")
    create(kafka.bootstrap, TOPICS, {"segment.bytes": str(1 << 20)})
    story = write(kafka.bootstrap, TOPICS, rounds=2)
    # Java's producer ends its transactions by the newer protocol (KIP-890): each marker has the next epoch.
    create(kafka.bootstrap, {"java": 1}, {"segment.bytes": str(1 << 20)})
    sizes = ("--num-records", "6000", "--record-size", "500", "--throughput", "-1")
    transactions = ("--transactional-id", "java", "--transaction-duration-ms", "50")
    kafka_tool("producer-perf", "--bootstrap-server", kafka.bootstrap, "--topic", "java", *sizes, *transactions)
    if ended == "stopped":
        kafka.stop()
    else:
        kafka.kill()
        tear(kafka.directory / "data" / "plant-0")

    source, log = kafka.directory / "data", tmp_path / "data" / "log"
    if copied == "the whole directory":
        shutil.copytree(source, log)
        node = KafkaNode(tmp_path)
    else:
        node = KafkaNode(tmp_path)
        create(node.address, {"own": 1})
        node.stop()
        for name in [f"{topic}-{number}" for topic, count in {**TOPICS, "java": 1}.items() for number in range(count)]:
            shutil.copytree(source / name, log / name)
        node.start()
    try:
        assert len(read(node.address, {"java": 1})["java", 0]) == 6_000
        check(node.address, story, tag="-more")
        node.kill()
        node.start()
        assert len(read(node.address, {"java": 1})["java", 0]) == 6_000
        assert "__cluster_metadata" not in kafka_tool("topics", "--bootstrap-server", node.address, "--list")
    finally:
        node.stop()
    done = headwater(["log", "verify", str(tmp_path / "data")])
    assert done.returncode == 0, done.stdout
