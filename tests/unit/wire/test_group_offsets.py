"""Committed offsets: durable before they are acknowledged, alone or with a transaction, and never reset in silence."""

from __future__ import annotations

import errno
import logging
from typing import Any

import pytest

from gateway.log.errors import LogFailed
from gateway.wire.errors import ErrorCode
from gateway.wire.groups import records
from gateway.wire.groups.group import Committed, Group, Member, State
from gateway.wire.internal_topics import OFFSETS_TOPIC
from gateway.wire.schema import ApiKey
from headwater.errors import PeerError
from tests.support.broker_world import Asked, World
from tests.support.group_member import GroupMember, committed, gather

TXN = "app-1"


@pytest.fixture
def world() -> World:
    made = World()
    made.create("t", 2)
    made.produced("t", [b"x"] * 100)
    return made


# alone


def test_a_commit_is_answered_and_seen_when_it_is_on_disk(world: World) -> None:
    member = GroupMember(world)
    gather(member)
    asked = member.ask_commit(42, epoch=3, metadata="half way")
    assert not asked.answered
    assert committed(world)["committed_offset"] == -1
    world.sync()
    assert asked.body["topics"][0]["partitions"][0]["error_code"] == 0
    world.crash()
    found = committed(world)
    assert (found["committed_offset"], found["committed_leader_epoch"], found["metadata"]) == (42, 3, "half way")


@pytest.mark.parametrize("version", range(2, 10))
def test_every_version_of_the_two(world: World, version: int) -> None:
    assert GroupMember(world, version=version).commit(version) == 0  # a simple consumer: no member, no generation
    assert committed(world, version=version)["committed_offset"] == version
    assert committed(world, partition=1, version=version)["committed_offset"] == -1
    assert committed(world, "nobody", version=version)["committed_offset"] == -1


def test_version_1_of_the_fetch_and_all_topics_at_once(world: World) -> None:
    member = GroupMember(world)
    assert [member.commit(3), member.commit(4, partition=1)] == [0, 0]
    assert committed(world, version=1)["committed_offset"] == 3
    found = world.call(ApiKey.OFFSET_FETCH, {"group_id": "g", "topics": None}, version=7)["topics"]
    groups = [{"group_id": name, "topics": None} for name in ("g", "nobody")]
    several = world.call(ApiKey.OFFSET_FETCH, {"groups": groups})["groups"]
    assert [each["topics"] for each in several] == [found, []]
    assert [(each["partition_index"], each["committed_offset"]) for each in found[0]["partitions"]] == [(0, 3), (1, 4)]


def test_a_disk_that_refuses_leaves_the_last_commit(world: World) -> None:
    member = GroupMember(world)
    assert member.commit(1) == 0
    world.disk.fail_next["sync"] = OSError(errno.EIO, "Input/output error")
    assert member.commit(2) == ErrorCode.COORDINATOR_NOT_AVAILABLE
    assert committed(world)["committed_offset"] == 1
    world.disk.fail_next["append"] = OSError(errno.ENOSPC, "No space left on device")
    assert member.commit(3) == ErrorCode.COORDINATOR_NOT_AVAILABLE
    assert member.commit(4) == 0
    world.crash()
    assert committed(world)["committed_offset"] == 4


def test_who_may_not_commit(world: World) -> None:
    member, stranger = GroupMember(world), GroupMember(world)
    gather(member)
    assert stranger.commit(1) == ErrorCode.UNKNOWN_MEMBER_ID
    assert stranger.commit(1, member_id="x", generation_id_or_member_epoch=1) == ErrorCode.UNKNOWN_MEMBER_ID
    assert member.commit(1, generation_id_or_member_epoch=7) == ErrorCode.ILLEGAL_GENERATION
    assert member.commit(1, group_instance_id="x") == ErrorCode.UNKNOWN_MEMBER_ID
    assert member.commit(1, group_id="new") == ErrorCode.ILLEGAL_GENERATION
    assert member.commit(1, "nowhere") == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert member.commit(1, partition=9) == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert member.commit(1, metadata="m" * 5000) == ErrorCode.OFFSET_METADATA_TOO_LARGE
    assert committed(world)["committed_offset"] == -1
    waiting = stranger.ask_first_join()
    assert member.commit(1) == 0  # the join phase: it still owns what it commits
    member.join()
    stranger.joined(waiting)
    assert member.commit(2) == ErrorCode.REBALANCE_IN_PROGRESS
    assert committed(world)["committed_offset"] == 1


def test_a_static_members_predecessor_is_fenced(world: World) -> None:
    old = GroupMember(world, instance="a")
    gather(old)
    new = GroupMember(world, instance="a")
    new.join()
    assert old.commit(1) == ErrorCode.FENCED_INSTANCE_ID
    assert new.commit(2) == 0


def test_an_offset_past_the_logs_end_is_reported_and_kept(world: World, caplog: pytest.LogCaptureFixture) -> None:
    assert GroupMember(world).commit(250) == 0
    for _ in range(3):
        assert committed(world)["committed_offset"] == 250  # the client finds OFFSET_OUT_OF_RANGE and has its own rule
    said = "group g has committed offset 250 of t-0, whose log ends at 100"
    assert caplog.text.count(said) == 1
    assert world.fetch("t", 250).body["responses"][0]["partitions"][0]["error_code"] == ErrorCode.OFFSET_OUT_OF_RANGE
    caplog.clear()
    world.crash()
    assert caplog.text.count(said) == 1  # also at a start, when nobody has asked yet
    row = {"group": "g", "topic": "t", "partition": 0, "offset": 250, "end": 100}
    assert world.broker.groups.status()["past_the_end"] == [row]
    assert GroupMember(world).commit(90) == 0
    assert world.broker.groups.status()["past_the_end"] == []


def test_offsets_go_with_their_topic(world: World) -> None:
    member = GroupMember(world)
    assert [member.commit(5), member.commit(6, partition=1)] == [0, 0]
    world.create("other")
    assert member.commit(7, "other") == 0
    world.call(ApiKey.DELETE_TOPICS, {"topics": [{"name": "t"}], "timeout_ms": 1})
    world.create("t", 2)
    assert committed(world)["committed_offset"] == -1
    world.crash()
    assert committed(world)["committed_offset"] == -1
    assert committed(world, topic="other")["committed_offset"] == 7


# in a transaction


class Application:
    """Reads, writes and commits its offsets in transactions."""

    def __init__(self, world: World, version: int = 3) -> None:
        self.world = world
        self.version = version
        body = {"transactional_id": TXN, "transaction_timeout_ms": 10_000}
        found = world.call(ApiKey.INIT_PRODUCER_ID, body)
        self.who = {
            "transactional_id": TXN,
            "producer_id": found["producer_id"],
            "producer_epoch": found["producer_epoch"],
        }

    def enlist(self) -> int:
        body = {**self.who, "group_id": "g"}
        code: int = self.world.call(ApiKey.ADD_OFFSETS_TO_TXN, body, version=self.version)["error_code"]
        return code

    def ask(self, offset: int, **change: Any) -> Asked:
        part = {"partition_index": 0, "committed_offset": offset, "committed_metadata": None}
        topics = [{"name": "t", "partitions": [part]}]
        body = {**self.who, "group_id": "g", "topics": topics, **change}
        return self.world.send(ApiKey.TXN_OFFSET_COMMIT, body, version=self.version)

    def send(self, offset: int, **change: Any) -> int:
        asked = self.ask(offset, **change)
        self.world.settle()
        code: int = asked.body["topics"][0]["partitions"][0]["error_code"]
        return code

    def end(self, *, commit: bool) -> int:
        body = {**self.who, "committed": commit}
        code: int = self.world.call(ApiKey.END_TXN, body, version=self.version)["error_code"]
        return code


@pytest.mark.parametrize("version", range(4))
def test_offsets_of_a_transaction_are_seen_when_it_is_committed(world: World, version: int) -> None:
    application = Application(world, version)
    assert GroupMember(world).commit(1) == 0
    assert application.enlist() == 0
    asked = application.ask(10)
    assert not asked.answered
    world.settle()
    assert committed(world)["committed_offset"] == 1
    assert committed(world, stable=True)["error_code"] == ErrorCode.UNSTABLE_OFFSET_COMMIT
    assert committed(world, partition=1, stable=True)["error_code"] == 0
    assert application.end(commit=True) == 0
    assert committed(world, stable=True)["committed_offset"] == 10
    assert application.enlist() == 0
    assert application.send(20) == 0
    assert application.end(commit=False) == 0
    assert committed(world, stable=True)["committed_offset"] == 10
    world.crash()
    assert committed(world, stable=True)["committed_offset"] == 10


@pytest.mark.parametrize("commit", [True, False])
def test_a_power_cut_between_decision_and_markers_changes_no_outcome(world: World, commit: bool) -> None:
    application = Application(world)
    assert application.enlist() == 0
    assert application.send(10) == 0
    asked = world.send(ApiKey.END_TXN, {**application.who, "committed": commit})
    log = world.store.partition("__transaction_state", 0)
    assert log is not None
    world.sync_only(log)
    assert not asked.answered
    world.crash()
    world.settle()
    assert committed(world, stable=True)["committed_offset"] == (10 if commit else -1)


def test_an_open_transactions_offsets_stay_unseen_through_a_power_cut(world: World) -> None:
    application = Application(world)
    assert application.enlist() == 0
    assert application.send(10) == 0
    world.crash()
    assert committed(world, stable=True)["error_code"] == ErrorCode.UNSTABLE_OFFSET_COMMIT
    assert application.end(commit=True) == 0
    assert committed(world, stable=True)["committed_offset"] == 10


def test_a_transaction_that_nobody_ends_is_aborted_with_its_offsets(world: World) -> None:
    application = Application(world)
    assert application.enlist() == 0
    assert application.send(10) == 0
    world.pass_time(10_001)
    world.settle()
    assert committed(world, stable=True)["committed_offset"] == -1
    assert application.send(11) == ErrorCode.INVALID_PRODUCER_EPOCH


def test_offsets_whose_coordinator_was_lost_are_aborted(world: World) -> None:
    application = Application(world)
    assert application.enlist() == 0
    assert application.send(10) == 0
    world.settle()
    world.store.delete_topic("__transaction_state")
    world.crash()
    world.settle()
    assert committed(world, stable=True) == {**committed(world), "committed_offset": -1}
    log = world.store.partition(OFFSETS_TOPIC, 0)
    assert log is not None
    assert log.open_transactions() == []


def test_a_later_commit_wins_over_an_earlier_one_whose_transaction_ends_late(world: World) -> None:
    application = Application(world)
    assert application.enlist() == 0
    assert application.send(10) == 0
    assert GroupMember(world).commit(30) == 0
    assert application.end(commit=True) == 0
    assert committed(world)["committed_offset"] == 30
    world.crash()
    assert committed(world)["committed_offset"] == 30


def test_offsets_need_their_transaction_and_their_generation(world: World) -> None:
    application = Application(world)
    assert application.send(1) == ErrorCode.INVALID_TXN_STATE
    assert application.enlist() == 0
    assert application.send(1, producer_epoch=7) == ErrorCode.INVALID_PRODUCER_EPOCH
    assert application.send(1, transactional_id="other") == ErrorCode.INVALID_PRODUCER_ID_MAPPING
    member = GroupMember(world)
    gather(member)
    assert application.send(1, member_id="zombie", generation_id=1) == ErrorCode.UNKNOWN_MEMBER_ID
    assert application.send(1, member_id=member.id, generation_id=9) == ErrorCode.ILLEGAL_GENERATION
    assert application.send(1, member_id=member.id, generation_id=member.generation) == 0
    assert application.send(2) == 0  # clients before KIP-447 say nothing of themselves
    assert application.end(commit=True) == 0
    assert committed(world)["committed_offset"] == 2


def test_a_group_with_offsets_in_an_open_transaction_is_not_deleted(world: World) -> None:
    application = Application(world)
    assert application.enlist() == 0
    assert application.send(10) == 0
    names = {"groups_names": ["g"]}
    assert world.call(ApiKey.DELETE_GROUPS, names)["results"][0]["error_code"] == ErrorCode.NON_EMPTY_GROUP


def test_a_commit_that_comes_while_its_group_is_deleted_stays(world: World) -> None:
    member = GroupMember(world)
    assert member.commit(1) == 0
    asked = world.send(ApiKey.DELETE_GROUPS, {"groups_names": ["g"]})
    log = world.store.partition(OFFSETS_TOPIC, 0)
    assert log is not None
    result = log.sync_round()  # it takes in the deletion, and what comes now has to wait for the next
    assert result is not None
    late = member.ask_commit(2)
    log.complete(result)
    world.settle()
    assert asked.body["results"][0]["error_code"] == late.body["topics"][0]["partitions"][0]["error_code"] == 0
    for _ in range(2):
        assert committed(world)["committed_offset"] == 2
        world.crash()


def test_a_failed_sync_takes_a_transactions_offsets_back(world: World) -> None:
    application = Application(world)
    assert application.enlist() == 0
    world.disk.fail_next["sync"] = OSError(errno.EIO, "Input/output error")
    assert application.send(10) == ErrorCode.COORDINATOR_NOT_AVAILABLE
    assert committed(world, stable=True)["error_code"] == 0
    assert application.send(11) == 0
    assert application.end(commit=True) == 0
    assert committed(world)["committed_offset"] == 11


def test_a_log_that_cannot_be_made_is_an_answer(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise LogFailed("Cannot create topic __consumer_offsets: disk full")

    application = Application(world)
    monkeypatch.setattr(world.store, "create_topic", refuse)
    assert application.enlist() == ErrorCode.COORDINATOR_NOT_AVAILABLE
    assert GroupMember(world).commit(1) == ErrorCode.COORDINATOR_NOT_AVAILABLE


# records


def test_records_are_kafkas_to_the_byte() -> None:
    assert records.encode_offset_key("g", ("t", 3)) == b"\x00\x01\x00\x01g\x00\x01t\x00\x00\x00\x03"
    value = records.encode_offset(Committed(7, 2, "m", 1000))
    assert value == b"\x00\x03" + (7).to_bytes(8) + (2).to_bytes(4) + b"\x00\x01m" + (1000).to_bytes(8)
    assert records.decode_offset(value, 5) == Committed(7, 2, "m", 1000, 5)
    assert records.decode_key(b"\x00\x00\x00\x01g\x00\x01t\x00\x00\x00\x03") == ("g", ("t", 3))  # before Kafka 0.9
    assert records.encode_group_key("g") == b"\x00\x02\x00\x01g"
    group = Group("g", State.STABLE, 4, "consumer", "range", "m-1", changed_ms=9)
    group.add(Member("m-1", "i", "c", "/h", 10, 20, [("range", b"sub")], b"part"), "consumer")
    copy = Group("g")
    records.apply_group(copy, records.encode_group(group))
    assert (copy.state, copy.generation, copy.leader_id, copy.instances) == (State.STABLE, 4, "m-1", {"i": "m-1"})
    (member,) = copy.members.values()
    assert (member.session_timeout_ms, member.rebalance_timeout_ms, member.assignment) == (10, 20, b"part")


@pytest.mark.parametrize("key", [b"", b"\x00\x03\x00\x01g", b"\x00\x02\x00\x09g", b"\x00\x01"])
def test_records_of_other_kinds_are_passed_over(world: World, key: bytes, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(PeerError):
        records.decode_key(key)
    assert GroupMember(world).commit(1) == 0
    world.broker.groups.log.append([(key, b"x")])
    world.broker.groups.log.append([(records.encode_group_key("g"), b"\x00\x63")])
    assert GroupMember(world).commit(2) == 0
    caplog.set_level(logging.ERROR)
    world.crash()
    assert caplog.text.count("is passed over") == 2
    assert committed(world)["committed_offset"] == 2
