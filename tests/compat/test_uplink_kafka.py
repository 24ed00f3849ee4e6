"""The uplink against a real Apache Kafka, counted by librdkafka at read_committed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random

import msgspec
import pytest

from gateway.replicate.progress import decode
from gateway.replicate.search import PROGRESS_CONFIG
from tests.support.peers import Kafka
from tests.support.uplink_node import NODE, EdgeNode

pytestmark = [pytest.mark.peer("kafka"), pytest.mark.timeout(180)]
Row = tuple[int, int, bytes | None, bytes | None, dict[str, bytes]]


def consumed(bootstrap: str, topic: str) -> list[Row]:
    """(partition, offset, key, value, headers) of a whole topic, as a read_committed consumer of librdkafka gets it."""
    kafka = pytest.importorskip("confluent_kafka")
    settings = {
        "bootstrap.servers": bootstrap,
        "group.id": "judge",
        "isolation.level": "read_committed",
        "enable.auto.commit": False,
        "enable.partition.eof": True,
    }
    consumer = kafka.Consumer(settings)
    try:
        partitions = consumer.list_topics(topic, 10).topics[topic].partitions
        consumer.assign([kafka.TopicPartition(topic, number, 0) for number in partitions])
        rows: list[Row] = []
        ended: set[int] = set()
        while len(ended) < len(partitions):
            for message in consumer.consume(10_000, 1.0):
                if message.error() is None:
                    headers = dict(message.headers() or [])
                    rows.append((message.partition(), message.offset(), message.key(), message.value(), headers))
                else:
                    assert message.error().code() == kafka.KafkaError._PARTITION_EOF, message.error()
                    ended.add(message.partition())
        return rows
    finally:
        consumer.close()


def check(bootstrap: str, prefix: str, count: int) -> list[Row]:
    """Each of `count` readings once, in order, in one partition, under its own identity."""
    rows = consumed(bootstrap, f"{prefix}readings")
    assert [msgspec.json.decode(value or b"")["n"] for _, _, _, value, _ in rows] == list(range(count))
    assert len({partition for partition, *_ in rows}) <= 1
    assert [headers["hw"] for *_, headers in rows] == [b"%s/0/0/%d" % (NODE.encode(), n) for n in range(count)]
    return rows


def play(directory: Path, bootstrap: str, story: Callable[[EdgeNode], Awaitable[None]], **settings: object) -> EdgeNode:
    async def run() -> EdgeNode:
        edge = EdgeNode(directory, bootstrap, **settings)
        try:
            await story(edge)
        finally:
            await edge.stop()
        return edge

    return asyncio.run(run())


def test_each_reading_once_while_connections_die_in_the_middle(kafka: Kafka, tmp_path: Path) -> None:
    random = Random(4)

    async def story(edge: EdgeNode) -> None:
        edge.ingest(100)
        await edge.drained()
        edge.net.fault = lambda number: random.random() < 0.08
        while edge.net.faults < 8 or edge.number < 2_000:
            edge.ingest(100)
            await asyncio.sleep(0.05)
        edge.net.fault = lambda number: False
        await edge.drained()

    edge = play(tmp_path, kafka.bootstrap, story, topic_prefix="cut.", linger_ms=0)
    assert edge.uplink.status()["aborted"] > 0
    rows = check(kafka.bootstrap, "cut.", edge.number)
    records = [decode(value or b"") for _, _, key, value, _ in consumed(kafka.bootstrap, "cut.headwater.progress")]
    assert [record.txn for record in records] == list(range(1, len(records) + 1))
    assert records[-1].parts["readings/0"].done == edge.number
    assert records[-1].to.at["readings"] == (rows[-1][1], f"{NODE}/0/0/{edge.number - 1}")


def test_each_reading_once_while_the_node_starts_again(kafka: Kafka, tmp_path: Path) -> None:
    async def story(edge: EdgeNode) -> None:
        for number in range(6):
            for _ in range(20):
                edge.ingest(50)
            await asyncio.sleep(0.05 * number)  # some starts find a transaction that the one before left open
            await edge.stop()
            edge.start()
        await edge.drained()

    play(tmp_path, kafka.bootstrap, story, topic_prefix="again.", linger_ms=0)
    check(kafka.bootstrap, "again.", 6_000)


def test_the_topics_are_made_as_they_must_be(kafka: Kafka, tmp_path: Path) -> None:
    async def story(edge: EdgeNode) -> None:
        edge.ingest(1)
        await edge.drained()

    play(tmp_path, kafka.bootstrap, story, topic_prefix="made.")
    admin = pytest.importorskip("confluent_kafka.admin")
    client = admin.AdminClient({"bootstrap.servers": kafka.bootstrap})
    topics = client.list_topics(timeout=10).topics
    assert len(topics["made.headwater.progress"].partitions) == 16
    assert {"made.readings", "made.deadletter", "made.events"} <= set(topics)
    resource = admin.ConfigResource("topic", "made.headwater.progress")
    told = client.describe_configs([resource])[resource].result(10)
    assert {name: told[name].value for name in PROGRESS_CONFIG} == PROGRESS_CONFIG


def test_a_transaction_that_kafka_timed_out_is_seen_as_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An answer in the middle comes so late that Kafka has aborted the transaction and fenced its producer."""
    properties = tmp_path / "more.properties"
    properties.write_text("transaction.abort.timed.out.transaction.cleanup.interval.ms=100\n")
    monkeypatch.setenv("KAFKA_PROPS", str(properties))
    kafka = Kafka.start(tmp_path / "kafka")

    async def story(edge: EdgeNode) -> None:
        edge.ingest(10)
        await edge.drained()
        await asyncio.sleep(1.0)  # the markers of that transaction are written after its answer
        edge.net.hold_s = 4.0
        edge.ingest(10)
        await edge.drained()

    try:
        with caplog.at_level("INFO"):
            edge = play(tmp_path, kafka.bootstrap, story, transaction_timeout_ms=1_500, request_timeout_ms=10_000)
        assert edge.uplink.status()["fenced"] == 1
        lines = [record.getMessage() for record in caplog.records]
        assert sum("fenced by time-out" in line for line in lines) == 1
        assert sum("transaction aborted" in line for line in lines) == 1
        check(kafka.bootstrap, "", 20)
    finally:
        kafka.stop()


def test_a_hole_of_which_kafka_says_nothing_is_passed(kafka: Kafka, tmp_path: Path) -> None:
    """Requests arrive, answers vanish; afterwards Kafka takes the old epoch back (KIP-588): no fence is seen."""

    async def story(edge: EdgeNode) -> None:
        edge.ingest(10)
        await edge.drained()
        edge.net.hole = True
        edge.ingest(10)
        await asyncio.sleep(4.0)
        edge.net.hole = False
        began = edge.clock.monotonic_ms()
        await edge.drained()
        assert edge.clock.monotonic_ms() - began < 10_000

    edge = play(tmp_path, kafka.bootstrap, story, topic_prefix="hole.")
    assert edge.uplink.status()["aborted"] >= 1
    check(kafka.bootstrap, "hole.", 20)
