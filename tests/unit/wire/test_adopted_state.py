"""The coordinators' topics as Apache Kafka left them: several partitions, decisions whose markers are missing."""

from __future__ import annotations

import pytest

from gateway.log.records import NO_HEADERS, encode_batch, encode_control
from gateway.wire.groups.group import Committed
from gateway.wire.groups.records import encode_group_key, encode_offset, encode_offset_key
from gateway.wire.internal_topics import OFFSETS_TOPIC, TRANSACTION_TOPIC
from gateway.wire.transactions import Snapshot, State, encode_key, encode_value
from tests.support.broker_world import World, make_batch
from tests.support.group_member import GroupMember, committed

COMPACT = {"cleanup.policy": "compact"}


@pytest.fixture
def world() -> World:
    made = World()
    made.create("t", 2)
    made.produced("t", [b"x"] * 100)
    for topic in (TRANSACTION_TOPIC, OFFSETS_TOPIC):
        made.store.create_topic(topic, partitions=4, config=COMPACT)
    return made


def write(
    world: World, topic: str, partition: int, pairs: list[tuple[bytes, bytes | None]], producer_id: int = -1
) -> None:
    rows = [(1, key, value, NO_HEADERS) for key, value in pairs]
    log = world.store.partition(topic, partition)
    assert log is not None
    epoch = -1 if producer_id < 0 else 3
    batch = encode_batch(rows, producer_id=producer_id, producer_epoch=epoch, transactional=producer_id >= 0)
    log.append(batch, now_ms=1, verify=False, control=True)


def mark(world: World, topic: str, partition: int, producer_id: int, *, commit: bool) -> None:
    log = world.store.partition(topic, partition)
    assert log is not None
    marker = encode_control(
        commit=commit, producer_id=producer_id, producer_epoch=3, coordinator_epoch=0, timestamp_ms=1
    )
    log.append(marker, now_ms=1, verify=False, control=True)


def offset_row(group: str, offset: int) -> tuple[bytes, bytes]:
    return encode_offset_key(group, ("t", 0)), encode_offset(Committed(offset, -1, "", 1))


def decided(world: World, state: State, *places: tuple[str, int], partition: int = 2) -> None:
    snapshot = Snapshot(77, 3, 60_000, state, frozenset(places), 1, 1)
    write(world, TRANSACTION_TOPIC, partition, [(encode_key("theirs"), encode_value(snapshot))])


def again(world: World) -> None:
    world.settle()
    world.crash()
    world.settle()


@pytest.mark.parametrize(
    ("state", "seen"), [(State.PREPARE_COMMIT, [b"paid"]), (State.PREPARE_ABORT, []), (State.ONGOING, [])]
)
def test_a_decision_in_any_partition_is_carried_out(world: World, state: State, seen: list[bytes]) -> None:
    log = world.store.partition("t", 1)
    assert log is not None
    log.append(make_batch([b"paid"], producer_id=77, producer_epoch=3, base_sequence=0, transactional=True), now_ms=1)
    decided(world, state, ("t", 1))
    again(world)
    assert world.values("t", partition=1) == seen
    log = world.store.partition("t", 1)
    assert log is not None
    open_still = [producer_id for producer_id, *_ in log.open_transactions()]
    assert open_still == ([77] if state is State.ONGOING else [])  # its time-out runs anew, its producer may come back


def test_committed_offsets_of_every_partition_are_known_and_what_is_written_here_is_newer(world: World) -> None:
    for number in range(4):
        for offset in range(10 + 10 * number):  # the later partitions' offsets are far above the first's
            write(world, OFFSETS_TOPIC, number, [offset_row(f"g{number}", offset)])
    again(world)
    assert [committed(world, f"g{number}")["committed_offset"] for number in range(4)] == [9, 19, 29, 39]
    assert GroupMember(world, "g3").commit(7) == 0
    again(world)
    assert [committed(world, f"g{number}")["committed_offset"] for number in range(4)] == [9, 19, 29, 7]
    assert world.store.partition(OFFSETS_TOPIC, 3).log_end_offset == 40  # type: ignore[union-attr]


def test_offsets_in_a_transaction_that_was_decided_elsewhere_are_committed(world: World) -> None:
    write(world, OFFSETS_TOPIC, 3, [offset_row("held", 55)], producer_id=77)
    decided(world, State.PREPARE_COMMIT, (OFFSETS_TOPIC, 3))
    again(world)
    assert committed(world, "held", stable=True)["committed_offset"] == 55


def test_a_marker_speaks_of_its_own_partition_only(world: World) -> None:
    """Partition 3 is read first: what producer 77 holds there belongs to its next transaction, which was aborted."""
    write(world, OFFSETS_TOPIC, 3, [offset_row("third", 9)], producer_id=77)
    write(world, OFFSETS_TOPIC, 1, [offset_row("first", 5)], producer_id=77)
    mark(world, OFFSETS_TOPIC, 1, 77, commit=True)
    decided(world, State.PREPARE_ABORT, (OFFSETS_TOPIC, 3))
    again(world)
    assert committed(world, "first", stable=True)["committed_offset"] == 5
    assert committed(world, "third", stable=True)["committed_offset"] == -1


def test_a_group_forgotten_here_stays_forgotten(world: World) -> None:
    write(world, OFFSETS_TOPIC, 2, [offset_row("gone", 9)])
    write(world, OFFSETS_TOPIC, 0, [(encode_offset_key("gone", ("t", 0)), None), (encode_group_key("gone"), None)])
    again(world)
    assert committed(world, "gone")["committed_offset"] == -1
