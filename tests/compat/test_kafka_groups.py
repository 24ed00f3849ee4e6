"""librdkafka's consumer groups on a real node in a process of its own: members that come, go, crash and return."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.support.group_consumers import PARTITIONS, RECORDS, Consumer, committed, fill, make_topic
from tests.support.kafka_node import KafkaNode
from tests.support.waiting import until


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaNode]:
    made = KafkaNode(tmp_path_factory.mktemp("node"))
    yield made
    made.stop()


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
