"""The transaction coordinator: what is answered, who is fenced, and what a power cut at each step leaves."""

from __future__ import annotations

import errno
import logging
from typing import Any

import pytest

from gateway.wire import transaction_log
from gateway.wire.broker import Broker
from gateway.wire.errors import ErrorCode
from gateway.wire.peer import Peer
from gateway.wire.schema import ApiKey
from gateway.wire.transactions import State, decode_key, decode_value, encode_key, encode_value
from tests.support.broker_world import Asked, World, answer_of

NAME = "headwater.edge-7"
TIMEOUT_MS = 10_000


class Producer:
    """A transactional client that does nothing on its own."""

    def __init__(self, world: World, name: str = NAME, *, peer: Peer | None = None) -> None:
        self.world = world
        self.name = name
        self.peer = peer
        self.id = self.epoch = -1
        self.sequence = 0

    def init(self, *, version: int = 4, given: tuple[int, int] = (-1, -1), timeout_ms: int = TIMEOUT_MS) -> int:
        body = {
            "transactional_id": self.name,
            "transaction_timeout_ms": timeout_ms,
            "producer_id": given[0],
            "producer_epoch": given[1],
        }
        found = self.world.call(ApiKey.INIT_PRODUCER_ID, body, version=version, peer=self.peer)
        if not found["error_code"]:
            self.id, self.epoch, self.sequence = found["producer_id"], found["producer_epoch"], 0
        code: int = found["error_code"]
        return code

    @property
    def who(self) -> dict[str, Any]:
        return {"transactional_id": self.name, "producer_id": self.id, "producer_epoch": self.epoch}

    def add(self, topic: str = "t", partition: int = 0, *, version: int = 3) -> int:
        body = {**self.who, "topics": [{"name": topic, "partitions": [partition]}]}
        found = self.world.call(ApiKey.ADD_PARTITIONS_TO_TXN, body, version=version, peer=self.peer)
        code: int = found["results_by_topic"][0]["results_by_partition"][0]["partition_error_code"]
        return code

    def send(self, values: list[bytes], topic: str = "t", partition: int = 0) -> int:
        asked = self.world.produce(
            topic,
            values,
            partition=partition,
            producer_id=self.id,
            producer_epoch=self.epoch,
            base_sequence=self.sequence,
            transactional=True,
            transactional_id=self.name,
            peer=self.peer,
        )
        self.world.settle()
        self.sequence += len(values)
        code: int = answer_of(asked)["error_code"]
        return code

    def ask_end(self, *, commit: bool = True, version: int = 3) -> Asked:
        body = {**self.who, "committed": commit}
        return self.world.send(ApiKey.END_TXN, body, version=version, peer=self.peer)

    def end(self, *, commit: bool = True, version: int = 3) -> int:
        asked = self.ask_end(commit=commit, version=version)
        self.world.settle()
        code: int = asked.body["error_code"]
        return code

    def begin(self, values: list[bytes]) -> None:
        """Everything up to the end of a transaction."""
        assert self.init() == 0
        assert self.add() == 0
        assert self.send(values) == 0


@pytest.fixture
def world() -> World:
    made = World()
    made.create("t", 2)
    return made


def counters(world: World) -> dict[str, int]:
    found: dict[str, int] = world.broker.status()["transactions"]
    return found


def stable(world: World) -> int:
    log = world.store.partition("t", 0)
    assert log is not None
    return log.last_stable_offset


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


# fencing


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


def test_ids_are_bounded_and_the_oldest_idle_one_is_forgotten(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.wire.lifecycle.TRANSACTIONAL_IDS_MAX", 3)
    producers = [Producer(world, f"id-{number}") for number in range(5)]
    for producer in producers:
        world.clock.advance(1)
        assert producer.init() == 0
    assert counters(world)["ids"] == 3
    world.crash()
    assert counters(world)["ids"] == 3
    assert producers[0].add() == ErrorCode.INVALID_PRODUCER_ID_MAPPING
    assert producers[4].add() == 0
