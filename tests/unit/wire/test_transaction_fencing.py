"""Who is fenced: by a new producer, by time, by its own new epoch (KIP-360)."""

from __future__ import annotations

import pytest

from gateway.wire.errors import ErrorCode
from gateway.wire.peer import Peer
from gateway.wire.transactions import State
from tests.support.broker_world import World
from tests.support.transactions import NAME, TIMEOUT_MS, Producer, counters, stable


def test_a_new_producer_fences_the_old_one_and_aborts_its_transaction(world: World) -> None:
    old = Producer(world)
    old.begin([b"zombie"])
    new = Producer(world, peer=Peer("test:2"))
    assert new.init() == 0
    assert new.id == old.id
    assert new.epoch > old.epoch
    assert stable(world) == 2
    assert old.send([b"more"]) == ErrorCode.INVALID_PRODUCER_EPOCH
    assert old.add() == ErrorCode.PRODUCER_FENCED
    assert old.add(version=1) == ErrorCode.INVALID_PRODUCER_EPOCH
    assert old.end() == ErrorCode.PRODUCER_FENCED
    assert old.end(version=1) == ErrorCode.INVALID_PRODUCER_EPOCH
    assert new.add() == 0
    assert new.send([b"good"]) == 0
    assert new.end() == 0
    assert world.values("t") == [b"good"]
    assert counters(world)["fenced"] == 5


def test_time_out_aborts_bumps_the_epoch_and_says_so(world: World, caplog: pytest.LogCaptureFixture) -> None:
    producer = Producer(world)
    producer.begin([b"a"])
    world.pass_time(TIMEOUT_MS - 1)
    world.settle()
    assert stable(world) == 0
    world.pass_time(1)
    world.settle()
    assert stable(world) == 2
    assert world.values("t") == []
    (line,) = [record for record in caplog.records if "aborted by time-out" in record.getMessage()]
    assert line.name == "gateway.wire.lifecycle"
    assert NAME in line.getMessage()
    assert f"epoch {producer.epoch} is fenced by epoch {producer.epoch + 1}" in line.getMessage()
    # the old epoch is out, everywhere
    assert producer.send([b"b"]) == ErrorCode.INVALID_PRODUCER_EPOCH
    assert producer.end() == ErrorCode.PRODUCER_FENCED
    assert producer.init(given=(producer.id, producer.epoch)) == ErrorCode.PRODUCER_FENCED
    assert producer.init(version=3, given=(producer.id, producer.epoch)) == ErrorCode.INVALID_PRODUCER_EPOCH
    counted = counters(world)
    assert (counted["timed_out"], counted["aborted"], counted["fenced"]) == (1, 1, 4)
    # without the old id it starts afresh
    assert producer.init() == 0
    assert producer.add() == 0
    assert producer.send([b"c"]) == 0
    assert producer.end() == 0
    assert world.values("t") == [b"c"]


def test_a_fence_by_time_out_survives_a_power_cut(world: World) -> None:
    producer = Producer(world, "flink-1")
    producer.begin([b"a"])
    world.pass_time(TIMEOUT_MS)
    world.settle()
    world.crash()
    assert producer.send([b"b"]) == ErrorCode.INVALID_PRODUCER_EPOCH
    assert producer.add() == ErrorCode.PRODUCER_FENCED


def test_time_runs_only_while_a_transaction_is_open(world: World) -> None:
    producer = Producer(world)
    producer.begin([b"a"])
    assert producer.end() == 0
    world.pass_time(TIMEOUT_MS * 3)
    assert producer.add() == 0
    assert producer.send([b"b"]) == 0
    world.pass_time(TIMEOUT_MS - 1)
    assert producer.end() == 0
    assert world.values("t") == [b"a", b"b"]
    assert counters(world)["timed_out"] == 0


def test_our_own_transactions_end_soon_after_their_connection(world: World, caplog: pytest.LogCaptureFixture) -> None:
    gone = Peer("test:9")
    ours, theirs = Producer(world, peer=gone), Producer(world, "flink-1", peer=gone)
    ours.begin([b"a"])
    theirs.begin([b"b"])
    world.broker.disconnected(gone)
    world.pass_time(1_999)
    world.settle()
    assert counters(world)["open"] == 2
    world.pass_time(1)
    world.settle()
    assert (counters(world)["open"], counters(world)["abandoned"]) == (1, 1)
    assert "its connection ended" in caplog.text
    assert ours.end() == ErrorCode.PRODUCER_FENCED
    assert theirs.end() == 0


def test_a_transaction_that_another_connection_took_over_is_not_abandoned(world: World) -> None:
    gone = Peer("test:9")
    producer = Producer(world, peer=gone)
    producer.begin([b"a"])
    world.broker.disconnected(gone)
    world.pass_time(1_000)
    producer.peer = Peer("test:10")
    assert producer.send([b"b"]) == 0
    world.pass_time(5_000)
    assert producer.end() == 0
    assert world.values("t") == [b"a", b"b"]


# KIP-360


def test_a_fenced_producer_does_not_take_the_transaction_with_it(world: World) -> None:
    old = Producer(world, peer=Peer("test:9"))
    assert old.init() == 0
    new = Producer(world)
    new.begin([b"live"])
    assert old.peer is not None
    assert old.send([b"late"]) == ErrorCode.INVALID_PRODUCER_EPOCH
    assert old.init(given=(old.id, 7)) == ErrorCode.PRODUCER_FENCED
    world.broker.disconnected(old.peer)
    world.pass_time(3_000)
    world.settle()
    assert new.end() == 0
    assert world.values("t") == [b"live"]


def test_a_producer_bumps_its_own_epoch(world: World) -> None:
    producer = Producer(world)
    assert producer.init() == 0
    first = (producer.id, producer.epoch)
    assert producer.init(given=first) == 0
    assert (producer.id, producer.epoch) == (first[0], first[1] + 1)
    # its answer was lost: the same request again gives the same epoch
    bumped = producer.epoch
    assert producer.init(given=first) == 0
    assert producer.epoch == bumped
    assert producer.init(given=(first[0], bumped)) == 0
    # by now the first one is two behind
    assert producer.init(given=first) == ErrorCode.PRODUCER_FENCED
    assert producer.init(given=(first[0] + 50, 0)) == ErrorCode.PRODUCER_FENCED


def test_an_exhausted_epoch_gets_a_new_producer_id(world: World) -> None:
    producer = Producer(world)
    assert producer.init() == 0
    old = producer.id
    transaction = world.broker.transactions._transactions[NAME]
    transaction.now = transaction.now.to(State.EMPTY, 1, epoch=32766)
    assert producer.init() == 0
    assert (producer.id != old, producer.epoch) == (True, 0)
