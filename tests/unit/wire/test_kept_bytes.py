"""What clients make the node keep is bounded in bytes, all of it together, and refused with a code that they know."""

from __future__ import annotations

import gc
import tracemalloc

import pytest

from gateway.wire import coordinator
from gateway.wire.errors import ErrorCode
from gateway.wire.groups.group import State
from gateway.wire.schema import ApiKey
from tests.support.broker_world import World
from tests.support.group_member import GroupMember, gather
from tests.support.transactions import Producer

ROOM = 1 << 16


@pytest.fixture
def world() -> World:
    made = World(groups_bytes_max=ROOM, transactional_ids_max=3)
    made.create("t", 30)
    return made


def kept(world: World) -> int:
    assert not world.broker.groups.has_room(1 << 40)  # which counts anew before it refuses
    size_bytes: int = world.broker.status()["groups"]["bytes"]
    assert size_bytes == sum(group.size_bytes for group in world.broker.groups.all.values())
    return size_bytes


def test_members_of_all_groups_have_so_much_room(world: World) -> None:
    members = [GroupMember(world, f"g{number}") for number in range(9)]
    for member in members:
        member.protocols = [("range", b"m" * 9_000)]
    codes = []
    for member in members:
        asked = member.ask_join()
        code = asked.body["error_code"]
        if code == ErrorCode.MEMBER_ID_REQUIRED:
            member.id = asked.body["member_id"]
            code = member.join()["error_code"]
        codes.append(code)
    full = ErrorCode.GROUP_MAX_SIZE_REACHED
    assert (codes[0], codes[-1], set(codes)) == (0, full, {0, full})
    assert kept(world) <= ROOM
    members[0].leave()
    assert members[-1].ask_join().body["error_code"] == ErrorCode.MEMBER_ID_REQUIRED, "who leaves makes room"


def test_an_assignment_that_does_not_fit_is_told_to_everybody_who_waits_for_it(world: World) -> None:
    leader, other = GroupMember(world), GroupMember(world)
    gather(leader, other)
    asked = leader.ask_join()
    assert other.join()["error_code"] == 0
    leader.joined(asked)
    waiting = other.ask_sync()
    told = leader.ask_sync({leader.id: b"a" * ROOM})
    assert (told.body["error_code"], waiting.body["error_code"]) == (-1, -1)
    assert world.broker.groups.all["g"].state is State.PREPARING_REBALANCE
    assert kept(world) < ROOM


def commit(world: World, group: str, metadata: str, partitions: range) -> set[int]:
    parts = [{"partition_index": n, "committed_offset": 1, "committed_metadata": metadata} for n in partitions]
    body = {"group_id": group, "generation_id_or_member_epoch": -1, "member_id": ""}
    body["topics"] = [{"name": "t", "partitions": parts}]
    return {each["error_code"] for each in world.call(ApiKey.OFFSET_COMMIT, body)["topics"][0]["partitions"]}


def test_offsets_of_all_groups_have_so_much_room_and_a_start_counts_them(world: World) -> None:
    assert commit(world, "a", "x" * 4_097, range(1)) == {ErrorCode.OFFSET_METADATA_TOO_LARGE}
    assert commit(world, "a", "x" * 4_096, range(10)) == {0}
    end = world.store.topics["__consumer_offsets"].partitions[0].log_end_offset
    assert commit(world, "b", "x" * 4_096, range(10)) == {ErrorCode.INVALID_COMMIT_OFFSET_SIZE}
    assert world.store.topics["__consumer_offsets"].partitions[0].log_end_offset == end, "nor does the disk keep them"
    assert commit(world, "a", "y" * 4_096, range(10)) == {0}, "what takes another's place needs no room"
    assert kept(world) <= ROOM
    world.crash()
    assert 10 * 4_096 < kept(world) <= ROOM
    assert commit(world, "b", "x" * 4_096, range(10)) == {ErrorCode.INVALID_COMMIT_OFFSET_SIZE}
    assert world.call(ApiKey.DELETE_GROUPS, {"groups_names": ["a"]})["results"][0]["error_code"] == 0
    assert commit(world, "b", "x" * 4_096, range(10)) == {0}


def test_a_text_of_wide_characters_counts_as_what_it_takes(world: World) -> None:
    assert commit(world, "a", "\N{THERMOMETER}" * 4_096, range(4)) == {ErrorCode.INVALID_COMMIT_OFFSET_SIZE}
    assert commit(world, "a", "\N{THERMOMETER}" * 4_096, range(3)) == {0}


def test_a_transactional_id_has_a_length(world: World) -> None:
    assert Producer(world, "n" * 1_000).init() == 0
    assert Producer(world, "n" * 1_001).init() == ErrorCode.INVALID_REQUEST


def test_while_no_transactional_id_is_idle_a_new_one_waits(world: World) -> None:
    producers = [Producer(world, f"id-{number}") for number in range(4)]
    for producer in producers[:3]:
        assert producer.init() == 0
        assert producer.add() == 0
    assert producers[3].init() == ErrorCode.COORDINATOR_NOT_AVAILABLE
    assert producers[1].init() == 0, "a known one goes on"
    assert producers[0].end(commit=False) == 0
    assert producers[3].init() == 0


def test_open_transactions_have_so_many_partitions_together(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coordinator, "ENLISTED_MAX", 40)
    first, second = Producer(world, "first"), Producer(world, "second")
    codes = []
    for producer in (first, second):
        assert producer.init() == 0
        codes.append([producer.add("t", number) for number in range(30)])
    assert codes[0] == [0] * 30
    assert codes[1] == [0] * 10 + [ErrorCode.COORDINATOR_NOT_AVAILABLE] * 20
    assert first.end(commit=False) == 0
    assert second.add("t", 29) == 0


def test_a_long_poll_keeps_nothing_that_it_does_not_wait_for(world: World) -> None:
    part = {"partition": 0, "fetch_offset": 0, "partition_max_bytes": 100}
    topics = [{"topic": "t", "partitions": [part]}, *[{"topic": "n" * 99, "partitions": []}] * 1_000]
    asked = world.send(ApiKey.FETCH, {"max_wait_ms": 1_000, "min_bytes": 1, "topics": topics})
    assert not asked.answered
    world.produced("t", [b"x"])
    assert len(asked.body["responses"]) == 1


def commit_body(group: str, partitions: int) -> dict[str, object]:
    parts = [
        {"partition_index": at % 30, "committed_offset": 0, "committed_metadata": "m" * 50} for at in range(partitions)
    ]
    topics = [{"name": "t", "partitions": parts}]
    return {"group_id": group, "generation_id_or_member_epoch": -1, "member_id": "", "topics": topics}


def test_commits_that_wait_for_the_disk_have_so_much_room_together(world: World) -> None:
    asked = [world.send(ApiKey.OFFSET_COMMIT, commit_body("g", 30)) for _ in range(9)]
    told = [{part["error_code"] for part in each.body["topics"][0]["partitions"]} for each in asked if each.answered]
    assert 0 < len(told) < len(asked)
    assert told == [{ErrorCode.COORDINATOR_LOAD_IN_PROGRESS}] * len(told)
    assert 0 < world.broker.status()["groups"]["waiting_bytes"] <= ROOM
    world.settle()
    assert all(each.answered for each in asked)
    assert world.broker.status()["groups"]["waiting_bytes"] == 0
    again = world.send(ApiKey.OFFSET_COMMIT, commit_body("g", 30))
    world.settle()
    assert {part["error_code"] for part in again.body["topics"][0]["partitions"]} == {0}


def test_of_a_commit_that_waits_little_is_kept(world: World) -> None:
    """A request may name one partition again and again: decoded it takes many times its bytes."""
    body = commit_body("g", 10_000)
    tracemalloc.start()
    try:
        asked = world.send(ApiKey.OFFSET_COMMIT, body)
        gc.collect()
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert not asked.answered
    assert held < 1 << 18
