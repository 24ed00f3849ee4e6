"""The transaction coordinator: what is answered, what does not fit, and its records."""

from __future__ import annotations

import errno

import pytest

from gateway.wire import transaction_log
from gateway.wire.errors import ErrorCode
from gateway.wire.schema import ApiKey
from gateway.wire.transactions import State, decode_key, decode_value, encode_key, encode_value
from tests.support.broker_world import World
from tests.support.transactions import Producer, counters, stable


def test_committed_is_read_and_aborted_is_not(world: World) -> None:
    producer = Producer(world)
    producer.begin([b"a", b"b"])
    assert world.values("t") == []
    assert world.values("t", committed=False) == [b"a", b"b"]
    assert producer.end() == 0
    assert world.values("t") == [b"a", b"b"]
    assert producer.add() == 0
    assert producer.send([b"lost"]) == 0
    assert producer.end(commit=False) == 0
    assert producer.add() == 0
    assert producer.send([b"c"]) == 0
    assert producer.end() == 0
    assert world.values("t") == [b"a", b"b", b"c"]
    assert stable(world) == 7  # four records, three markers
    assert {key: counters(world)[key] for key in ("committed", "aborted", "open")} == {
        "committed": 2,
        "aborted": 1,
        "open": 0,
    }


def test_every_version_of_the_requests(world: World) -> None:
    for version in range(5):
        producer = Producer(world, f"id-{version}")
        assert producer.init(version=version) == 0
        assert producer.add(version=min(version, 3)) == 0
        assert producer.send([b"x"]) == 0
        assert producer.end(version=min(version, 3)) == 0


def test_an_end_is_answered_after_decision_and_markers_are_on_disk(world: World) -> None:
    producer = Producer(world)
    producer.begin([b"a"])
    asked = producer.ask_end()
    log = world.store.partition("t", 0)
    assert log is not None
    assert log.log_end_offset == 1  # no marker before the decision is durable
    world.sync()
    assert log.log_end_offset == 2
    assert asked.answered == (log.synced_offset == 2)
    world.settle()
    assert asked.body["error_code"] == 0


# what does not fit


def test_requests_that_do_not_fit_the_state(world: World) -> None:
    producer = Producer(world)
    assert producer.end() == ErrorCode.INVALID_PRODUCER_ID_MAPPING
    assert producer.add() == ErrorCode.INVALID_PRODUCER_ID_MAPPING
    assert producer.init(timeout_ms=0) == ErrorCode.INVALID_TRANSACTION_TIMEOUT
    assert producer.init(timeout_ms=10_000_000) == ErrorCode.INVALID_TRANSACTION_TIMEOUT
    assert Producer(world, "").init() == ErrorCode.INVALID_REQUEST
    assert producer.init() == 0
    assert producer.end() == ErrorCode.INVALID_TXN_STATE
    assert producer.add("nowhere") == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert producer.add("__transaction_state") == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    # a batch outside a transaction, or into a partition that it did not name, would hang there for good
    assert producer.send([b"a"]) == ErrorCode.INVALID_TXN_STATE
    assert producer.add(partition=0) == 0
    assert producer.send([b"a"], partition=1) == ErrorCode.INVALID_TXN_STATE
    stranger = Producer(world, "nobody")
    stranger.id, stranger.epoch = producer.id, producer.epoch
    assert stranger.send([b"a"]) == ErrorCode.INVALID_PRODUCER_ID_MAPPING
    assert producer.end() == 0
    assert stable(world) == 1


def test_partitions_are_added_all_or_none(world: World) -> None:
    producer = Producer(world)
    assert producer.init() == 0
    topics = [{"name": "t", "partitions": [0]}, {"name": "nowhere", "partitions": [0]}]
    body = {**producer.who, "topics": topics}
    found = world.call(ApiKey.ADD_PARTITIONS_TO_TXN, body)["results_by_topic"]
    codes = [topic["results_by_partition"][0]["partition_error_code"] for topic in found]
    assert codes == [ErrorCode.OPERATION_NOT_ATTEMPTED, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION]
    assert counters(world)["open"] == 0


def test_a_second_request_meets_the_first_one_under_way(world: World) -> None:
    producer = Producer(world)
    producer.begin([b"a"])
    first = producer.ask_end()
    second = producer.ask_end()
    assert second.body["error_code"] == ErrorCode.CONCURRENT_TRANSACTIONS
    assert producer.ask_end(commit=False).body["error_code"] in {51, 48}
    world.settle()
    assert first.body["error_code"] == 0


def test_a_disk_that_fails_leaves_the_decision_open(world: World) -> None:
    producer = Producer(world)
    producer.begin([b"a"])
    asked = producer.ask_end()
    world.disk.fail_next["sync"] = OSError(errno.EIO, "Input/output error")
    world.sync()
    assert asked.body["error_code"] == ErrorCode.COORDINATOR_NOT_AVAILABLE
    assert producer.end() == 0
    assert world.values("t") == [b"a"]


def test_a_marker_that_the_disk_loses_is_written_again(world: World) -> None:
    producer = Producer(world)
    producer.begin([b"a"])
    asked = producer.ask_end()
    partition = world.store.partition("__transaction_state", 0)
    assert partition is not None
    world.sync_only(partition)
    marked = world.store.partition("t", 0)
    assert marked is not None
    world.disk.fail_next["sync"] = OSError(errno.EIO, "Input/output error")
    world.sync_only(marked)
    world.settle()
    assert not asked.answered
    world.pass_time(1_000)
    world.settle()
    assert asked.body["error_code"] == 0
    assert world.values("t") == [b"a"]


# the records


def test_records_are_kafkas_own() -> None:
    from gateway.wire.transactions import Snapshot

    key = encode_key("tx")
    assert key == b"\0\0\0\x02tx"
    assert decode_key(key) == "tx"
    empty = Snapshot(7, 3, 60_000, State.EMPTY, frozenset(), 1000, -1)
    # version, producer id, epoch, time-out, state, null partitions, last update, start
    expected = "0000 0000000000000007 0003 0000ea60 00 ffffffff 00000000000003e8 ffffffffffffffff"
    assert encode_value(empty).hex() == expected.replace(" ", "")
    ongoing = Snapshot(7, 3, 60_000, State.ONGOING, frozenset({("b", 0), ("a", 1), ("a", 0)}), 1000, 900)
    partitions = "00000002 0001 61 00000002 00000000 00000001 0001 62 00000001 00000000"
    expected = f"0000 0000000000000007 0003 0000ea60 01 {partitions} 00000000000003e8 0000000000000384"
    assert encode_value(ongoing).hex() == expected.replace(" ", "")
    for snapshot in (empty, ongoing):
        assert decode_value(encode_value(snapshot)) == snapshot
    # version 1, as a broker with transaction.version 2 writes it: compact, with tagged fields behind
    flexible = "0001 0000000000000007 0003 0000ea60 00 00 00000000000003e8 ffffffffffffffff 01 02 02 0002"
    assert decode_value(bytes.fromhex(flexible)) == empty


def test_a_long_history_is_listed_so_that_starts_stay_quick(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.wire.lifecycle.LISTING_EVERY", 50)
    producers = [Producer(world, f"id-{number}") for number in range(5)]
    for producer in producers:
        producer.begin([b"x"])
        assert producer.end() == 0
    for _ in range(20):
        assert producers[0].add() == 0
        assert producers[0].end() == 0
    before = {name: each.now for name, each in world.broker.transactions._transactions.items()}
    assert world.disk.exists("/data/node/transaction-listing")
    world.settle()
    world.crash()
    log: transaction_log.TransactionLog = world.broker.transactions._log
    assert log.records_since_listing < 50
    assert {name: each.now for name, each in world.broker.transactions._transactions.items()} == before
    assert producers[3].add() == 0
    assert producers[3].end() == 0


def test_ids_are_bounded_and_the_oldest_idle_one_is_forgotten() -> None:
    world = World(transactional_ids_max=3)
    world.create("t")
    producers = [Producer(world, f"id-{number}") for number in range(5)]
    for producer in producers:
        world.clock.advance(1)
        assert producer.init() == 0
    assert counters(world)["ids"] == 3
    world.crash()
    assert counters(world)["ids"] == 3
    assert producers[0].add() == ErrorCode.INVALID_PRODUCER_ID_MAPPING
    assert producers[4].add() == 0


def test_who_holds_the_last_stable_offset_is_named(world: World) -> None:
    assert counters(world)["held_back"] == []
    world.produced("t", [b"plain"])
    producer = Producer(world, "pay-7")
    producer.begin([b"a"])
    world.pass_time(3000)
    (row,) = counters(world)["held_back"]
    assert (row["topic"], row["partition"], row["last_stable_offset"], row["end"]) == ("t", 0, 1, 2)
    assert (row["transactional_id"], row["producer_id"]) == ("pay-7", producer.id)
    assert row["age_ms"] >= 3000
    world.pass_time(60_000)
    world.settle()
    assert counters(world)["held_back"] == []
    assert counters(world)["last_aborted"]["id"] == "pay-7"
