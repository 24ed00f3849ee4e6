"""Foreign Kafka clients against a real node in a process of its own: kcat, librdkafka, kafka-python, aiokafka."""

from __future__ import annotations

import asyncio
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.kafka_node import KafkaNode
from tests.support.peers import kafka_tool

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
# kafka-python's and aiokafka's own imports and threads
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaNode]:
    made = KafkaNode(tmp_path_factory.mktemp("node"))
    yield made
    made.stop()


def kcat(node: KafkaNode, *arguments: str, data: bytes = b"") -> bytes:
    command = ["kcat", "-b", node.address, *arguments]
    done = subprocess.run(command, input=data, capture_output=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def codec_bits(node: KafkaNode, topic: str) -> set[int]:
    """The codecs of the batches as they lie in the file."""
    from gateway.log.records import read_header, split_batches

    (path,) = (node.directory / "data" / "log" / f"{topic}-0").glob("*.log")
    return {read_header(batch).compression for batch in split_batches(path.read_bytes())}


@pytest.mark.peer("kcat")
@pytest.mark.parametrize(("number", "codec"), list(enumerate(CODECS)))
def test_kcat_writes_and_reads_with_every_codec(node: KafkaNode, number: int, codec: str) -> None:
    topic = f"kcat-{codec}"
    lines = b"".join(b"key%d:a line of some length, number %d\n" % (i, i) for i in range(200))
    kcat(node, "-P", "-t", topic, "-z", codec, "-K", ":", data=lines)
    assert kcat(node, "-C", "-t", topic, "-e", "-q", "-K", ":") == lines
    assert kcat(node, "-C", "-t", topic, "-e", "-q", "-o", "-5") == b"".join(
        line.split(b":", 1)[1] for line in lines.splitlines(keepends=True)[-5:]
    )
    assert kcat(node, "-Q", "-t", f"{topic}:0:-1").strip() == b"%s [0] offset 200" % topic.encode()
    # An old librdkafka compresses only for a broker that offers Produce 0. (Of one line it may not make less.)
    assert number in codec_bits(node, topic)


@pytest.mark.peer("kcat")
def test_kcat_lists_the_node(node: KafkaNode) -> None:
    kcat(node, "-P", "-t", "listed", data=b"x\n")
    shown = kcat(node, "-L").decode()
    assert f"broker 1 at {node.address} (controller)" in shown
    assert 'topic "listed" with 1 partitions' in shown


# librdkafka


def confluent_read(node: KafkaNode, topic: str, *, committed: bool = True) -> list[bytes]:
    from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

    consumer = Consumer(
        {
            "bootstrap.servers": node.address,
            "group.id": "none",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": "read_committed" if committed else "read_uncommitted",
        }
    )
    consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
    values: list[bytes] = []
    try:
        while True:
            message = consumer.poll(10)
            assert message is not None, "no end of the partition within 10 s"
            if message.error():
                assert message.error().name() == "_PARTITION_EOF", message.error()
                return values
            values.append(message.value())
    finally:
        consumer.close()


def test_librdkafka_writes_idempotently_with_every_codec(node: KafkaNode) -> None:
    from confluent_kafka import Producer

    failed: list[object] = []

    def delivered(error: object, _: object) -> None:
        if error is not None:
            failed.append(error)

    sent = [b"value %d, and some length to compress" % i for i in range(500)]
    for codec in CODECS:
        producer = Producer(
            {"bootstrap.servers": node.address, "enable.idempotence": True, "compression.type": codec, "linger.ms": 50}
        )
        for value in sent:
            producer.produce("rd-codecs", value, headers={"h": b"1"}, on_delivery=delivered)
        assert producer.flush(20) == 0
    assert not failed
    assert confluent_read(node, "rd-codecs") == sent * len(CODECS)
    assert codec_bits(node, "rd-codecs") >= set(range(len(CODECS)))


def test_librdkafka_transactions(node: KafkaNode) -> None:
    from confluent_kafka import KafkaException, Producer

    def begin(name: str) -> Any:
        settings = {"bootstrap.servers": node.address, "transactional.id": "rd-txn", "transaction.timeout.ms": 20_000}
        made = Producer({**settings, "client.id": name})
        made.init_transactions(20)
        return made

    topic = "rd-transactions"
    producer = begin("first")
    for number, commit in enumerate((True, False, True)):
        producer.begin_transaction()
        for index in range(10):
            producer.produce(topic, b"%d.%d" % (number, index))
        if commit:
            producer.commit_transaction(20)
        else:
            assert producer.flush(20) == 0
            producer.abort_transaction(20)
    expected = [b"%d.%d" % (number, index) for number in (0, 2) for index in range(10)]
    assert confluent_read(node, topic) == expected
    assert len(confluent_read(node, topic, committed=False)) == 30

    producer.begin_transaction()
    producer.produce(topic, b"zombie")
    assert producer.flush(20) == 0
    successor = begin("second")
    successor.begin_transaction()
    successor.produce(topic, b"successor")
    successor.commit_transaction(20)
    with pytest.raises(KafkaException) as fenced:
        producer.commit_transaction(20)
    assert fenced.value.args[0].name() in {"_FENCED", "PRODUCER_FENCED", "INVALID_PRODUCER_EPOCH"}
    assert confluent_read(node, topic) == [*expected, b"successor"]


def test_librdkafka_administration(node: KafkaNode) -> None:
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType

    admin = AdminClient({"bootstrap.servers": node.address})
    topic = NewTopic("made", num_partitions=3, replication_factor=1, config={"cleanup.policy": "compact"})
    admin.create_topics([topic])["made"].result(20)
    assert len(admin.list_topics(timeout=20).topics["made"].partitions) == 3
    resource = ConfigResource(ResourceType.TOPIC, "made")
    (described,) = admin.describe_configs([resource]).values()
    assert described.result(20)["cleanup.policy"].value == "compact"
    with pytest.raises(KafkaException, match="already exists"):
        admin.create_topics([topic])["made"].result(20)
    assert admin.describe_cluster().result(20).controller.id == 1
    admin.delete_topics(["made"])["made"].result(20)
    assert "made" not in admin.list_topics(timeout=20).topics


def test_librdkafka_is_told_that_a_compacted_topic_wants_keys(node: KafkaNode) -> None:
    from confluent_kafka import Producer
    from confluent_kafka.admin import AdminClient, NewTopic

    admin = AdminClient({"bootstrap.servers": node.address})
    topic = NewTopic("latest", 1, 1, config={"cleanup.policy": "compact"})
    admin.create_topics([topic])["latest"].result(20)
    producer = Producer({"bootstrap.servers": node.address, "linger.ms": 50})
    told: list[str | None] = []
    for key in (None, b"k"):
        producer.produce("latest", b"x", key=key, on_delivery=lambda error, _: told.append(error and error.name()))
        assert producer.flush(20) == 0
    assert told == ["INVALID_RECORD", None]
    assert confluent_read(node, "latest") == [b"x"]


def test_librdkafka_finds_offsets_by_time(node: KafkaNode) -> None:
    from confluent_kafka import Consumer, Producer, TopicPartition

    producer = Producer({"bootstrap.servers": node.address})
    for time in (1000, 2000, 3000):
        producer.produce("timed", b"x", timestamp=time)
        assert producer.flush(20) == 0
    consumer = Consumer({"bootstrap.servers": node.address, "group.id": "none", "enable.auto.commit": False})
    try:
        (found,) = consumer.offsets_for_times([TopicPartition("timed", 0, 1500)], timeout=20)
        assert found.offset == 1
        assert consumer.get_watermark_offsets(TopicPartition("timed", 0), timeout=20) == (0, 3)
    finally:
        consumer.close()


def test_an_idempotent_producer_survives_kills_of_the_node(tmp_path: Path) -> None:
    from confluent_kafka import Producer

    node = KafkaNode(tmp_path)
    try:
        acknowledged: list[int] = []
        producer = Producer(
            {
                "bootstrap.servers": node.address,
                "enable.idempotence": True,
                "linger.ms": 1,
                "batch.num.messages": 50,
                "reconnect.backoff.ms": 20,
                "reconnect.backoff.max.ms": 100,
                "retry.backoff.ms": 20,
            }
        )

        def delivered(error: object, message: Any) -> None:
            assert error is None
            acknowledged.append(int(message.value()))

        for number in range(2000):
            producer.produce("killed", b"%d" % number, on_delivery=delivered)
            producer.poll(0)
            if number % 1000 == 700:
                producer.flush(0.02)
                node.kill()
                node.start()
        assert producer.flush(30) == 0
        assert acknowledged == list(range(2000))
        assert confluent_read(node, "killed") == [b"%d" % number for number in range(2000)]
    finally:
        node.stop()


# kafka-python


def test_kafka_python(node: KafkaNode) -> None:
    from kafka import KafkaConsumer, KafkaProducer, TopicPartition

    producer = KafkaProducer(bootstrap_servers=node.address, transactional_id="py-txn", compression_type="gzip")
    producer.init_transactions()
    for number, commit in enumerate((True, False, True)):
        producer.begin_transaction()
        for index in range(5):
            producer.send("python", b"%d.%d" % (number, index), headers=[("h", b"1")])
        producer.flush()
        if commit:
            producer.commit_transaction()
        else:
            producer.abort_transaction()
    producer.close()
    consumer = KafkaConsumer(
        bootstrap_servers=node.address, isolation_level="read_committed", consumer_timeout_ms=20_000
    )
    where = TopicPartition("python", 0)
    consumer.assign([where])
    consumer.seek_to_beginning(where)
    values = [next(consumer).value for _ in range(10)]
    assert values == [b"%d.%d" % (number, index) for number in (0, 2) for index in range(5)]
    assert consumer.end_offsets([where])[where] == 18
    consumer.close()


# aiokafka


def test_aiokafka(node: KafkaNode) -> None:
    from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

    async def run() -> list[bytes]:
        producer = AIOKafkaProducer(bootstrap_servers=node.address, transactional_id="aio-txn", compression_type="zstd")
        await producer.start()
        try:
            for number, commit in enumerate((True, False, True)):
                await producer.begin_transaction()
                for index in range(5):
                    await producer.send_and_wait("aio", b"%d.%d" % (number, index))
                await (producer.commit_transaction() if commit else producer.abort_transaction())
        finally:
            await producer.stop()
        consumer = AIOKafkaConsumer(bootstrap_servers=node.address, isolation_level="read_committed")
        await consumer.start()
        try:
            where = TopicPartition("aio", 0)
            consumer.assign([where])
            await consumer.seek_to_beginning(where)
            return [(await asyncio.wait_for(consumer.getone(), 20)).value for _ in range(10)]
        finally:
            await consumer.stop()

    values = asyncio.run(run())
    assert values == [b"%d.%d" % (number, index) for number in (0, 2) for index in range(5)]


@pytest.mark.peer("kafka")
def test_kafkas_own_tool_reads_the_coordinators_records(node: KafkaNode, tmp_path: Path) -> None:
    from confluent_kafka import Producer

    producer = Producer(
        {"bootstrap.servers": node.address, "transactional.id": "dumped", "transaction.timeout.ms": 20_000}
    )
    producer.init_transactions(20)
    for commit in (True, False):
        producer.begin_transaction()
        producer.produce("rd-dumped", b"x")
        assert producer.flush(20) == 0
        (producer.commit_transaction if commit else producer.abort_transaction)(20)
    (segment,) = (node.directory / "data" / "log" / "__transaction_state-0").glob("*.log")
    copy = tmp_path / segment.name
    copy.write_bytes(segment.read_bytes())
    text = kafka_tool("dump-log", "--transaction-log-decoder", "--files", str(copy))
    assert "isvalid: false" not in text
    assert "invalid bytes" not in text
    values = [line for line in text.splitlines() if '"transactionalId":"dumped"' in line]
    states = [int(found[1]) for line in values if (found := re.search(r'"transactionStatus":(\d)', line))]
    # Empty, then Ongoing, PrepareCommit, CompleteCommit, then Ongoing, PrepareAbort, CompleteAbort
    assert states == [0, 1, 2, 4, 1, 3, 5]
    assert '"transactionPartitions":[{"topic":"rd-dumped","partitionIds":[0]}]' in values[1]
