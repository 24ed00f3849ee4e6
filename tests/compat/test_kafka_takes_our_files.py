"""After a clean stop a real broker takes our indexes, transaction indexes and producers' states as they are."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition

from gateway.log import records
from gateway.wire.channel import Channel
from gateway.wire.errors import ErrorCode
from gateway.wire.schema import ApiKey
from headwater.net import RealNet
from tests.support.adoption import TOPICS, check, make_topics, to_kafka
from tests.support.kafka_node import KafkaNode
from tests.support.kafka_story import create, write
from tests.support.peers import Kafka

pytestmark = [pytest.mark.peer("kafka"), pytest.mark.long("kafka-adoption"), pytest.mark.timeout(300)]
PLACES = [(topic, number) for topic, count in TOPICS.items() for number in range(count)]
NAMES = [f"{topic}-{number}" for topic, number in PLACES]
SEQUENCES = "sequences"
# Kafka's LogLoader, LogSegment and indexes say these of what they do not believe. Its metadata log is no log of ours.
DISBELIEF = re.compile(r"unflushed|corrupt|found invalid|rebuilding index|could not find|inconsistent|stray", re.I)
PRODUCE_BY_NAME_MAX = 12  # later versions name topics by id


def consumer(bootstrap: str) -> Consumer:
    return Consumer({"bootstrap.servers": bootstrap, "group.id": "judge", "enable.auto.commit": False,
                     "isolation.level": "read_uncommitted"})  # fmt: skip


def layout(bootstrap: str) -> dict[tuple[str, int], list[tuple[int, int]]]:
    """(offset, timestamp) of each record of a partition."""
    reader = consumer(bootstrap)
    found: dict[tuple[str, int], list[tuple[int, int]]] = {}
    for topic, number in PLACES:
        _, end = reader.get_watermark_offsets(TopicPartition(topic, number), 10)
        reader.assign([TopicPartition(topic, number, 0)])
        rows = found[topic, number] = []
        while not rows or rows[-1][0] < end - 2:  # the last one is the marker of a transaction
            message = reader.poll(10)
            assert message is not None
            assert message.error() is None, message.error()
            rows.append((message.offset(), message.timestamp()[1]))
    reader.close()
    return found


def by_time(bootstrap: str, rows: Mapping[tuple[str, int], list[tuple[int, int]]]) -> dict[tuple[str, int, int], int]:
    """(topic, partition, time) to the offset that ListOffsets gives, for times in and around those of the records."""
    reader = consumer(bootstrap)
    found = {}
    for (topic, number), each in rows.items():
        times = sorted({at for _, at in each})
        for at_ms in sorted({times[0] - 1, times[-1] + 1, *times[::5], *(at + 1 for at in times[::9])}):
            answer = reader.offsets_for_times([TopicPartition(topic, number, at_ms)], 10)[0]
            assert answer.error is None, answer
            found[topic, number, at_ms] = answer.offset
    reader.close()
    return found


def check_seeks(bootstrap: str, rows: Mapping[tuple[str, int], list[tuple[int, int]]]) -> None:
    """A read from any offset begins there: what the offset index leads to."""
    reader = consumer(bootstrap)
    for (topic, number), each in rows.items():
        for offset, _ in each[::37]:
            reader.assign([TopicPartition(topic, number, offset)])
            message = reader.poll(10)
            assert message is not None
            assert message.error() is None, message.error()
            assert (message.topic(), message.partition(), message.offset()) == (topic, number, offset)
    reader.close()


class Sender:
    """An idempotent producer whose sequences are the test's to choose, over the project's own client."""

    def __init__(self) -> None:
        self.producer_id = self.epoch = -1
        self.begun_ms = time.time_ns() // 1_000_000  # a broker forgets producers whose last record is a day old

    def send(self, port: int, *sequences: int) -> list[tuple[int, int]]:
        """One batch of one record per sequence; (error, offset) of each."""
        return asyncio.run(self._send(port, sequences))

    async def _send(self, port: int, sequences: tuple[int, ...]) -> list[tuple[int, int]]:
        channel = await Channel.connect(RealNet(), "127.0.0.1", port, client_id="sender")
        channel.versions[ApiKey.PRODUCE] = min(channel.versions[ApiKey.PRODUCE], PRODUCE_BY_NAME_MAX)
        try:
            if self.producer_id < 0:
                body = {"transactional_id": None, "transaction_timeout_ms": 60_000}
                given = await channel.call(ApiKey.INIT_PRODUCER_ID, {**body, "producer_id": -1, "producer_epoch": -1})
                self.producer_id, self.epoch = given["producer_id"], given["producer_epoch"]
            return [await self._one(channel, sequence) for sequence in sequences]
        finally:
            channel.close()

    async def _one(self, channel: Channel, sequence: int) -> tuple[int, int]:
        batch = records.encode_batch(
            [(self.begun_ms + sequence, b"k", b"%d" % sequence, records.NO_HEADERS)],
            producer_id=self.producer_id,
            producer_epoch=self.epoch,
            base_sequence=sequence,
        )
        data = [{"name": SEQUENCES, "partition_data": [{"index": 0, "records": bytes(batch)}]}]
        body = {"transactional_id": None, "acks": -1, "timeout_ms": 5_000, "topic_data": data}
        answer = await channel.call(ApiKey.PRODUCE, body)
        part = answer["responses"][0]["partition_responses"][0]
        return part["error_code"], part["base_offset"]


def closed_files(directory: Path) -> dict[str, bytes]:
    """Logs and indexes of all segments but the last, by partition and name."""
    found = {}
    for name in NAMES:
        stems = sorted(path.stem for path in (directory / name).glob("*.log"))
        for stem in stems[:-1]:
            for path in (directory / name).glob(f"{stem}.*"):
                if path.suffix != ".snapshot":  # a broker keeps those of segments' bases as long as the segments
                    found[f"{name}/{path.name}"] = path.read_bytes()
    return found


@pytest.mark.parametrize("broker", ["believes", "rebuilds"])
def test_a_broker_takes_what_stands_beside_the_batches(tmp_path: Path, broker: str) -> None:
    node = KafkaNode(tmp_path)
    create(node.address, {**TOPICS, SEQUENCES: 1}, {"segment.bytes": "16384"})
    story = write(node.address, TOPICS, rounds=2)
    sender = Sender()
    assert sender.send(node.port, *range(7)) == [(0, number) for number in range(7)]
    rows = layout(node.address)
    times = by_time(node.address, rows)
    node.stop()
    ours = closed_files(tmp_path / "data" / "log")
    assert {Path(name).suffix for name in ours} == {".log", ".index", ".timeindex", ".txnindex"}

    kafka = Kafka.start(tmp_path / "kafka")
    kafka.stop()
    code, said = to_kafka(kafka, node)
    assert code == 1, said
    make_topics(kafka, said, len(TOPICS) + 1)
    code, said = to_kafka(kafka, node)
    assert (code, "as they are" in said) == (0, True), said
    theirs, broker_log = kafka.directory / "data", kafka.directory / "broker.log"
    if broker == "rebuilds":  # and comes to the same bytes
        (theirs / ".kafka_cleanshutdown").unlink()
    already = broker_log.stat().st_size
    kafka = Kafka.start(kafka.directory, kafka.port)
    try:
        told = [
            line for line in broker_log.read_bytes()[already:].decode().splitlines() if "cluster_metadata" not in line
        ]
        disbelief = [line for line in told if DISBELIEF.search(line)]
        if broker == "believes":
            assert disbelief == []
            assert any("since clean shutdown file was found" in line for line in told)
        else:
            assert len(disbelief) > len(ours) // 4  # or the words above are not the broker's any more
        assert by_time(kafka.bootstrap, rows) == times
        check_seeks(kafka.bootstrap, rows)
        assert sender.send(kafka.port, 6, 9, 7) == [(0, 6), (ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER, -1), (0, 7)]
        check(kafka.bootstrap, story, tag="-more")
    finally:
        kafka.stop()
    now = closed_files(theirs)
    assert {name for name, data in ours.items() if now.get(name) != data} == set()
