"""Transactions and producer ids after a power cut at each step, and after a lost or damaged file."""

from __future__ import annotations

import errno
import logging

import pytest

from gateway.wire.broker import Broker
from gateway.wire.errors import ErrorCode
from gateway.wire.schema import ApiKey
from tests.support.broker_world import World
from tests.support.transactions import TIMEOUT_MS, Producer, counters, stable

# a power cut


def test_a_decision_that_never_reached_the_disk_is_an_abort_after_the_restart(world: World) -> None:
    producer = Producer(world)
    producer.begin([b"a"])
    asked = producer.ask_end()
    world.crash()
    assert not asked.answered
    world.pass_time(2_000)  # our own id: its connection died with the node
    world.settle()
    assert world.values("t") == []
    assert stable(world) == 2
    assert producer.end() == ErrorCode.PRODUCER_FENCED


def test_a_durable_decision_is_carried_out_after_the_restart(world: World, caplog: pytest.LogCaptureFixture) -> None:
    for commit, expected in ((True, [b"a"]), (False, [b"a"])):
        producer = Producer(world)
        producer.begin([b"a" if commit else b"never"])
        asked = producer.ask_end(commit=commit)
        transaction_partition = world.store.partition("__transaction_state", 0)
        assert transaction_partition is not None
        # The decision alone reaches the disk: markers are written in the same round's callbacks and lost.
        world.sync_only(transaction_partition)
        assert not asked.answered
        with caplog.at_level(logging.INFO):
            world.crash()
        assert "is finished now" in caplog.text
        world.settle()
        assert world.values("t") == expected
        assert counters(world)["ending"] == 0


def test_a_crash_between_markers_and_answer_ends_the_transaction_once(world: World) -> None:
    producer = Producer(world)
    producer.begin([b"a"])
    assert producer.end() == 0
    world.crash()
    world.settle()
    assert world.values("t") == [b"a"]
    # the producer goes on with its epoch; a repeat of the end is answered like the first
    assert producer.end() == 0
    assert producer.end(commit=False) == ErrorCode.INVALID_TXN_STATE
    assert producer.add() == 0
    assert producer.send([b"b"]) == 0
    assert producer.end() == 0
    assert world.values("t") == [b"a", b"b"]


def test_an_open_transaction_of_another_client_goes_on_after_a_restart(world: World) -> None:
    producer = Producer(world, "flink-1")
    producer.begin([b"a"])
    world.crash()
    world.pass_time(2_500)
    assert producer.send([b"b"]) == 0
    assert producer.end() == 0
    assert world.values("t") == [b"a", b"b"]


def test_an_open_transaction_found_at_the_start_times_out(world: World) -> None:
    producer = Producer(world, "flink-1")
    producer.begin([b"a"])
    world.crash()
    world.pass_time(TIMEOUT_MS + 1)
    world.settle()
    assert world.values("t") == []
    assert stable(world) == 2
    assert counters(world)["timed_out"] == 1


def test_orphans_are_aborted_when_the_coordinators_topic_is_lost(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    producer = Producer(world)
    producer.begin([b"a"])
    first = producer.id
    world.store.delete_topic("__transaction_state")
    world.crash()
    world.settle()
    assert "no coordinator state knows it" in caplog.text
    assert counters(world)["orphans"] == 1
    assert stable(world) == 2
    assert world.values("t") == []
    assert producer.init() == 0
    assert producer.id > first


def test_a_node_starts_although_the_coordinators_topic_is_unreadable(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    producer = Producer(world)
    producer.begin([b"a"])
    log = world.store.partition("__transaction_state", 0)
    assert log is not None

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    log.read = refuse  # type: ignore[method-assign, assignment]
    world.broker = Broker(world.store, world.clock)
    world.settle()
    assert "can be read only in part" in caplog.text
    assert stable(world) == 2
    first = producer.id
    assert producer.init() == 0
    assert producer.id > first


# producer ids


def test_producer_ids_are_never_given_twice(world: World) -> None:
    seen = []
    for _ in range(4):
        for _ in range(3):
            body = {"transactional_id": None, "transaction_timeout_ms": 1}
            found = world.call(ApiKey.INIT_PRODUCER_ID, body)
            assert (found["error_code"], found["producer_epoch"]) == (0, 0)
            seen.append(found["producer_id"])
        world.crash()
    assert len(set(seen)) == len(seen)
    world.disk.replace_file("/data/node/producer-ids", b"\x00garbage")
    world.crash()
    producer = Producer(world)
    assert producer.init() == 0
    assert producer.id > max(seen)


def test_producer_ids_begin_where_a_broker_never_comes_to(world: World) -> None:
    """One that goes on with this log counts from 0, and would take its new producers' batches for repeats of ours."""
    body = {"transactional_id": None, "transaction_timeout_ms": 1}
    assert world.call(ApiKey.INIT_PRODUCER_ID, body)["producer_id"] >= 1 << 40
    world.store.close()
    world.disk.replace_file("/data/node/producer-ids", b"2000\n")  # as earlier versions counted
    world.start()
    assert world.call(ApiKey.INIT_PRODUCER_ID, body)["producer_id"] >= 1 << 40


@pytest.mark.parametrize("damage", ["lost", "too long", "bad sector"])
def test_a_lost_file_gives_no_producer_id_that_batches_bear(world: World, damage: str) -> None:
    body = {"transactional_id": None, "transaction_timeout_ms": 1}
    given = world.call(ApiKey.INIT_PRODUCER_ID, body)["producer_id"]
    world.produced("t", [b"old"], producer_id=given, producer_epoch=0, base_sequence=0)
    # One that nobody gave must not drive ours out of Kafka's 63 bits.
    world.produced("t", [b"odd"], producer_id=(1 << 63) - 1, producer_epoch=0, base_sequence=0)
    world.store.close()
    if damage == "lost":
        world.disk.remove("/data/node/producer-ids")
        world.disk.sync_directory("/data/node")
    elif damage == "too long":
        world.disk.replace_file("/data/node/producer-ids", b"9" * 5_000)
    else:
        world.disk.bad_files.add("/data/node/producer-ids")
    world.start()
    found = world.call(ApiKey.INIT_PRODUCER_ID, body)["producer_id"]
    assert given < found < 1 << 62
    world.produced("t", [b"new"], producer_id=found, producer_epoch=0, base_sequence=0)
    assert world.values("t") == [b"old", b"odd", b"new"]


def test_no_producer_id_without_a_disk(world: World) -> None:
    world.disk.fail_next["replace_file"] = OSError(errno.ENOSPC, "No space left on device")
    body = {"transactional_id": None, "transaction_timeout_ms": 1}
    assert world.call(ApiKey.INIT_PRODUCER_ID, body)["error_code"] == ErrorCode.COORDINATOR_NOT_AVAILABLE
    assert world.call(ApiKey.INIT_PRODUCER_ID, body)["error_code"] == 0
