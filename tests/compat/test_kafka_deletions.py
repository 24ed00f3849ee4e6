"""DeleteRecords as foreign clients ask for it, on a real node: what they are told, and what they read afterwards."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.kafka_node import KafkaNode
from tests.support.peers import Kafka, kafka_tool

# kafka-python and aiokafka, not we
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaNode]:
    made = KafkaNode(tmp_path_factory.mktemp("node"))
    yield made
    made.stop()


def fill(address: str, topic: str, *, compact: bool = False) -> None:
    """Twelve records in batches of four; of an id each, for compacted topics want a key."""
    from confluent_kafka import Producer
    from confluent_kafka.admin import AdminClient, NewTopic

    config = {"cleanup.policy": "compact" if compact else "delete"}
    admin = AdminClient({"bootstrap.servers": address})
    admin.create_topics([NewTopic(topic, 1, 1, config=config)])[topic].result(20)
    producer = Producer({"bootstrap.servers": address, "linger.ms": 1_000})
    for first in range(0, 12, 4):
        for number in range(first, first + 4):
            producer.produce(topic, b"%d" % number, key=b"%d" % number)
        assert producer.flush(20) == 0


def read(address: str, topic: str) -> list[int]:
    """All that a new reader is given."""
    from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

    settings = {"bootstrap.servers": address, "group.id": "none", "enable.partition.eof": True}
    consumer = Consumer({**settings, "enable.auto.commit": False})
    consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
    found: list[int] = []
    try:
        while (message := consumer.poll(20)) is not None and not message.error():
            found.append(int(message.value()))
        assert message is not None
        return found
    finally:
        consumer.close()


def test_librdkafka_deletes_and_goes_on_reading_through_a_sigkill(tmp_path: Path) -> None:
    from confluent_kafka import KafkaException, TopicPartition
    from confluent_kafka.admin import AdminClient

    node = KafkaNode(tmp_path)
    try:
        fill(node.address, "t")
        admin = AdminClient({"bootstrap.servers": node.address})
        (done,) = admin.delete_records([TopicPartition("t", 0, 6)]).values()
        assert done.result(20).low_watermark == 6
        assert read(node.address, "t") == [6, 7, 8, 9, 10, 11]
        node.kill()
        node.start()
        assert read(node.address, "t") == [6, 7, 8, 9, 10, 11]
        (done,) = admin.delete_records([TopicPartition("t", 0, 13)]).values()
        with pytest.raises(KafkaException, match="out of range"):
            done.result(20)
        (done,) = admin.delete_records([TopicPartition("t", 0, -1)]).values()  # to the end
        assert done.result(20).low_watermark == 12
        assert read(node.address, "t") == []
    finally:
        node.stop()


def test_kafka_python_deletes(node: KafkaNode) -> None:
    from kafka import TopicPartition
    from kafka.admin import KafkaAdminClient

    fill(node.address, "python")
    admin = KafkaAdminClient(bootstrap_servers=node.address)
    where = TopicPartition("python", 0)
    assert admin.delete_records({where: 5})[where]["low_watermark"] == 5
    assert read(node.address, "python") == list(range(5, 12))
    admin.close()


def test_aiokafka_deletes(node: KafkaNode) -> None:
    from aiokafka import TopicPartition
    from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

    fill(node.address, "aio")

    async def delete() -> int:
        admin = AIOKafkaAdminClient(bootstrap_servers=node.address)
        await admin.start()
        try:
            where = TopicPartition("aio", 0)
            return int((await admin.delete_records({where: RecordsToDelete(before_offset=3)}))[where])
        finally:
            await admin.close()

    assert asyncio.run(delete()) == 3
    assert read(node.address, "aio") == list(range(3, 12))


WISHES = [("middle", 6), ("beyond", 13), ("negative", -2), ("end", -1), ("keys", 1), ("__consumer_offsets", 0)]


def said_by_kafkas_tool(address: str, folder: Path) -> list[str]:
    """What it says of each deletion."""
    from confluent_kafka import Consumer, TopicPartition

    for topic, _ in WISHES[:-1]:
        fill(address, topic, compact=topic == "keys")
    consumer = Consumer({"bootstrap.servers": address, "group.id": "g"})
    consumer.commit(offsets=[TopicPartition("end", 0, 1)], asynchronous=False)  # which makes the topic of offsets
    consumer.close()
    file = folder / "wishes.json"
    partitions = [{"topic": topic, "partition": 0, "offset": offset} for topic, offset in WISHES]
    file.write_text(json.dumps({"version": 1, "partitions": partitions}))
    shown = kafka_tool("delete-records", "--bootstrap-server", address, "--offset-json-file", str(file))
    return sorted(line for line in shown.splitlines() if line.startswith("partition:"))


@pytest.mark.peer("kafka")
@pytest.mark.long("kafka-java")
@pytest.mark.timeout(300)
def test_kafkas_own_tool_is_told_what_a_broker_tells_it(node: KafkaNode, tmp_path: Path) -> None:
    ours = said_by_kafkas_tool(node.address, tmp_path)
    assert len(ours) == len(WISHES)
    broker = Kafka.start(tmp_path / "kafka")
    try:
        assert ours == said_by_kafkas_tool(broker.bootstrap, tmp_path)
    finally:
        broker.stop()
