"""Foreign consumer groups against a real node in a process of its own: members that come, go, crash and return."""

from __future__ import annotations

import asyncio
import re
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.kafka_node import KafkaNode
from tests.support.peers import BUILT, kafka_tool, program

# kafka-python's and aiokafka's own imports and threads
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
PARTITIONS = 6
RECORDS = 300
# What a commit may be told and is tried again after: a rebalance, a node that restarts.
PASSING = {"_NO_OFFSET", "REBALANCE_IN_PROGRESS", "_TRANSPORT", "_WAIT_COORD", "COORDINATOR_NOT_AVAILABLE"}


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaNode]:
    made = KafkaNode(tmp_path_factory.mktemp("node"))
    yield made
    made.stop()


def until(condition: Callable[[], bool], what: str, within_s: float = 30) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def make_topic(node: KafkaNode, name: str, partitions: int = PARTITIONS) -> None:
    from confluent_kafka.admin import AdminClient, NewTopic

    admin = AdminClient({"bootstrap.servers": node.address})
    admin.create_topics([NewTopic(name, partitions, 1)])[name].result(20)


def fill(node: KafkaNode, topic: str, start: int = 0, count: int = RECORDS) -> set[bytes]:
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": node.address, "linger.ms": 5})
    values = [b"%d" % number for number in range(start, start + count)]
    for number, value in enumerate(values):
        producer.produce(topic, value, partition=number % PARTITIONS)
    assert producer.flush(20) == 0
    return set(values)


class Consumer(threading.Thread):
    """One librdkafka member; it commits what it has been given, and counts it."""

    def __init__(
        self,
        node: KafkaNode,
        topic: str,
        group: str,
        seen: Counter[bytes],
        **settings: Any,
    ) -> None:
        from confluent_kafka import Consumer as Rd

        super().__init__()
        self.seen = seen
        self.assigned: set[int] = set()
        self.revoked = 0
        self.failed: list[object] = []
        self.uncommitted = False
        self.ending = False
        self.consumer = Rd(
            {
                "bootstrap.servers": node.address,
                "group.id": group,
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
                "partition.assignment.strategy": "cooperative-sticky",
                "session.timeout.ms": 6000,
                "heartbeat.interval.ms": 200,
                **settings,
            }
        )
        self.consumer.subscribe([topic], on_assign=self._assign, on_revoke=self._revoke, on_lost=self._revoke)
        self.start()

    def _assign(self, _: object, parts: list[Any]) -> None:
        self.assigned |= {part.partition for part in parts}

    def _revoke(self, _: object, parts: list[Any]) -> None:
        self.revoked += len(parts)
        self.assigned -= {part.partition for part in parts}

    def run(self) -> None:
        while not self.ending:
            for message in self.consumer.consume(50, 0.1):
                if message.error():
                    self.failed.append(message.error())
                else:
                    self.seen[message.value()] += 1
                    self.uncommitted = True
            self._commit()

    def _commit(self) -> None:
        from confluent_kafka import KafkaException

        if not self.uncommitted:
            return
        try:
            answers = self.consumer.commit(asynchronous=False)
        except KafkaException as error:
            name = error.args[0].name()
            self.uncommitted = name != "_NO_OFFSET"
            if name not in PASSING:
                self.failed.append(error)
        else:
            self.uncommitted = any(answer.error for answer in answers)
            errors = [answer.error for answer in answers if answer.error]
            self.failed += [error for error in errors if error.name() not in PASSING]

    def stop(self) -> None:
        """End without leaving the group, if it is a static member."""
        self.ending = True
        self.join(20)
        self.consumer.close()

    def leave(self) -> None:
        self.stop()
        assert not self.failed
        assert not self.uncommitted


def seen_all(seen: Counter[bytes], sent: set[bytes]) -> bool:
    return set(seen) == sent


def shared_out(members: list[Consumer]) -> bool:
    """Every partition is one member's, and every member has some."""
    parts = [part for member in members for part in member.assigned]
    return sorted(parts) == list(range(PARTITIONS)) and all(member.assigned for member in members)


def test_librdkafka_members_come_and_go_and_each_record_is_read_once(node: KafkaNode) -> None:
    make_topic(node, "cooperative")
    seen: Counter[bytes] = Counter()
    sent = fill(node, "cooperative")
    members = [Consumer(node, "cooperative", "coop", seen)]
    until(lambda: set(seen) == sent, "the first member reads everything")
    members += [Consumer(node, "cooperative", "coop", seen) for _ in range(2)]
    until(lambda: shared_out(members), "three members share six partitions")
    assert members[0].revoked == 4  # cooperative: it gave away four and kept two
    sent |= fill(node, "cooperative", RECORDS)
    until(lambda: set(seen) == sent, "three members read everything")
    members.pop().leave()
    until(lambda: shared_out(members), "two members share what the third left")
    sent |= fill(node, "cooperative", 2 * RECORDS)
    until(lambda: set(seen) == sent, "two members read everything")
    for member in members:
        member.leave()
    assert set(seen.values()) == {1}


def test_a_static_member_comes_back_to_its_partitions(node: KafkaNode) -> None:
    make_topic(node, "static")
    seen: Counter[bytes] = Counter()
    settings = {"partition.assignment.strategy": "roundrobin"}
    members = [Consumer(node, "static", "statics", seen, **settings, **{"group.instance.id": name}) for name in "ab"]
    until(lambda: shared_out(members), "two static members share six partitions")
    rebalances = node.log().count("group statics rebalances")
    before, revoked = members[1].assigned.copy(), members[0].revoked  # it may have had all six before the other came
    members[1].stop()  # a static member's end is not a leave
    members[1] = Consumer(node, "static", "statics", seen, **settings, **{"group.instance.id": "b"})
    until(lambda: members[1].assigned == before, "it has its partitions back")
    assert node.log().count("group statics rebalances") == rebalances
    assert members[0].revoked == revoked
    members[1].stop()
    until(lambda: members[0].assigned == set(range(PARTITIONS)), "after its session its partitions are the other's")
    members[0].leave()


def committed(node: KafkaNode, group: str, topic: str) -> dict[int, int]:
    from confluent_kafka import Consumer as Rd
    from confluent_kafka import TopicPartition

    reader = Rd({"bootstrap.servers": node.address, "group.id": group})
    try:
        found = reader.committed([TopicPartition(topic, index) for index in range(PARTITIONS)], timeout=20)
        return {each.partition: each.offset for each in found if each.offset >= 0}
    finally:
        reader.close()


def test_offsets_and_members_survive_kills_of_the_node(tmp_path: Path) -> None:
    node = KafkaNode(tmp_path)
    try:
        make_topic(node, "killed")
        seen: Counter[bytes] = Counter()
        quick = {"reconnect.backoff.ms": 20, "reconnect.backoff.max.ms": 100, "log_level": 0}
        members = [Consumer(node, "killed", "survivors", seen, **quick) for _ in range(2)]
        until(lambda: shared_out(members), "two members share six partitions")
        sent: set[bytes] = set()
        for number in range(2):
            sent |= fill(node, "killed", number * RECORDS)
            until(partial(seen_all, seen, sent), "everything is read")
            before = committed(node, "survivors", "killed")
            rebalances = node.log().count("group survivors rebalances")
            node.kill()
            node.start()
            after = committed(node, "survivors", "killed")
            assert all(after[partition] >= offset for partition, offset in before.items())
        sent |= fill(node, "killed", 2 * RECORDS)
        until(lambda: set(seen) == sent, "everything is read after the last kill")
        assert node.log().count("group survivors rebalances") == rebalances  # they never noticed
        for member in members:
            member.leave()
        assert committed(node, "survivors", "killed") == dict.fromkeys(range(PARTITIONS), 3 * RECORDS // PARTITIONS)
    finally:
        node.stop()


def test_librdkafka_commits_offsets_in_transactions(node: KafkaNode) -> None:
    from confluent_kafka import Consumer as Rd
    from confluent_kafka import Producer

    make_topic(node, "txn-in")
    fill(node, "txn-in", count=60)
    producer = Producer({"bootstrap.servers": node.address, "transactional.id": "rd-offsets"})
    producer.init_transactions(20)

    def work(*, commit: bool) -> list[bytes]:
        reader = Rd(
            {
                "bootstrap.servers": node.address,
                "group.id": "txn-group",
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
            }
        )
        reader.subscribe(["txn-in"])
        values: list[bytes] = []
        try:
            while len(values) < 60:
                message = reader.poll(20)
                assert message is not None
                assert not message.error(), message.error()
                values.append(message.value())
            producer.begin_transaction()
            for value in values:
                producer.produce("txn-out", value)
            where = reader.position(reader.assignment())
            producer.send_offsets_to_transaction(where, reader.consumer_group_metadata(), 20)
            (producer.commit_transaction if commit else producer.abort_transaction)(20)
        finally:
            reader.close()
        return values

    first = work(commit=False)
    assert committed(node, "txn-group", "txn-in") == {}
    again = work(commit=True)  # an aborted transaction's offsets were never there
    assert set(again) == set(first)
    assert committed(node, "txn-group", "txn-in") == dict.fromkeys(range(PARTITIONS), 10)


def test_librdkafka_administration_of_groups(node: KafkaNode) -> None:
    from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition
    from confluent_kafka.admin import AdminClient

    make_topic(node, "administered")
    fill(node, "administered")
    admin = AdminClient({"bootstrap.servers": node.address})
    member = Consumer(node, "administered", "administered-group", Counter())
    until(lambda: len(member.seen) == RECORDS, "it reads everything")
    described = admin.describe_consumer_groups(["administered-group"])["administered-group"].result(20)
    assert described.state.name == "STABLE"
    (shown,) = described.members
    assert {part.partition for part in shown.assignment.topic_partitions} == set(range(PARTITIONS))
    member.leave()
    listed = {each.group_id: each.state.name for each in admin.list_consumer_groups().result(20).valid}
    assert listed["administered-group"] == "EMPTY"
    request = [ConsumerGroupTopicPartitions("administered-group", [TopicPartition("administered", 0, 3)])]
    admin.alter_consumer_group_offsets(request)["administered-group"].result(20)
    assert committed(node, "administered-group", "administered")[0] == 3
    admin.delete_consumer_groups(["administered-group"])["administered-group"].result(20)
    assert committed(node, "administered-group", "administered") == {}


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
