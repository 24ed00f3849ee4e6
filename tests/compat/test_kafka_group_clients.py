"""Groups of other clients than librdkafka on a real node, and what Kafka's own tool says of their records."""

from __future__ import annotations

import asyncio
import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.group_consumers import PARTITIONS, RECORDS, Consumer, committed, fill, make_topic
from tests.support.kafka_node import KafkaNode
from tests.support.peers import BUILT, kafka_tool, program
from tests.support.waiting import until

# kafka-python's and aiokafka's own imports and threads
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaNode]:
    made = KafkaNode(tmp_path_factory.mktemp("node"))
    yield made
    made.stop()


def test_kafka_python_group(node: KafkaNode) -> None:
    from kafka import KafkaConsumer

    make_topic(node, "python-group")
    sent = fill(node, "python-group")

    def read(count: int) -> list[bytes]:
        reader = KafkaConsumer(
            "python-group",
            bootstrap_servers=node.address,
            group_id="python-readers",
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            consumer_timeout_ms=20_000,
        )
        try:
            values = [next(reader).value for _ in range(count)]
            reader.commit()
        finally:
            reader.close()
        return values

    first = read(RECORDS)
    assert set(first) == sent
    assert set(read(60) if fill(node, "python-group", RECORDS, 60) else []) == {
        b"%d" % n for n in range(RECORDS, RECORDS + 60)
    }


def test_aiokafka_group(node: KafkaNode) -> None:
    from aiokafka import AIOKafkaConsumer

    make_topic(node, "aio-group")
    sent = fill(node, "aio-group")

    async def run() -> list[bytes]:
        readers = [
            AIOKafkaConsumer(
                "aio-group",
                bootstrap_servers=node.address,
                group_id="aio-readers",
                auto_offset_reset="earliest",
                enable_auto_commit=False,
                heartbeat_interval_ms=200,
            )
            for _ in range(2)
        ]
        values: list[bytes] = []
        await asyncio.gather(*(reader.start() for reader in readers))
        try:
            async with asyncio.timeout(30):
                while len(values) < RECORDS:
                    for reader in readers:
                        for records in (await reader.getmany(timeout_ms=100)).values():
                            values += [record.value for record in records]
                    await asyncio.gather(*(reader.commit() for reader in readers))
        finally:
            await asyncio.gather(*(reader.stop() for reader in readers))
        return values

    assert set(asyncio.run(run())) == sent
    assert committed(node, "aio-readers", "aio-group") == dict.fromkeys(range(PARTITIONS), RECORDS // PARTITIONS)


@pytest.mark.peer("kcat")
def test_kcat_balanced_consumer(node: KafkaNode) -> None:
    make_topic(node, "kcat-group")
    sent = fill(node, "kcat-group")
    kcat = program("kcat", "kafkacat")
    assert kcat is not None
    command = [kcat, "-b", node.address, "-q", "-X", "auto.offset.reset=earliest", "-c", str(RECORDS)]
    done = subprocess.run([*command, "-G", "kcat-readers", "kcat-group"], capture_output=True, timeout=40, check=False)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == sent
    until(
        lambda: sum(committed(node, "kcat-readers", "kcat-group").values()) == RECORDS, "kcat committed what it printed"
    )


@pytest.mark.peer("franz-go")
def test_franz_go(node: KafkaNode) -> None:
    done = subprocess.run([BUILT / "franz-go", node.address], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "group read 300",
        "transaction false 300",
        "transaction true 300",
        "committed read 300",
    ]
    assert committed(node, "go-txn", "go-in") == committed(node, "go-group", "go-in")


@pytest.mark.peer("kafka")
def test_kafkas_own_tool_reads_the_groups_records(node: KafkaNode, tmp_path: Path) -> None:
    make_topic(node, "dumped")
    fill(node, "dumped")
    member = Consumer(node, "dumped", "dumped-group", Counter())
    until(lambda: len(member.seen) == RECORDS, "it reads everything")
    member.leave()
    (segment,) = (node.directory / "data" / "log" / "__consumer_offsets-0").glob("*.log")
    copy = tmp_path / segment.name
    copy.write_bytes(segment.read_bytes())
    text = kafka_tool("dump-log", "--offsets-decoder", "--files", str(copy))
    assert not re.search(r"isvalid: false|invalid bytes|Could not decode|Exception", text)
    assert '"group":"dumped-group","topic":"dumped","partition":5' in text
    assert re.search(r'"offset":50,"leaderEpoch":0', text)
    assert re.search(r'"protocolType":"consumer","generation":1,"protocol":"cooperative-sticky"', text)
