"""Who stays in a group and who is out: sessions, rebalances that wait, static members (KIP-345)."""

from __future__ import annotations

import logging

import pytest

from gateway.wire.errors import ErrorCode
from tests.support.broker_world import World
from tests.support.group_member import REBALANCE_MS, SESSION_MS, GroupMember, described, gather


def test_a_silent_member_is_out_after_its_session(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    first, second = GroupMember(world), GroupMember(world)
    gather(first, second)
    world.pass_time(SESSION_MS - 1)
    assert first.beat() == 0
    world.pass_time(2)
    assert first.beat() == ErrorCode.REBALANCE_IN_PROGRESS
    assert f"member {second.id} was silent for {SESSION_MS} ms" in caplog.text
    assert second.beat() == ErrorCode.UNKNOWN_MEMBER_ID
    assert [each["member_id"] for each in first.join()["members"]] == [first.id]
    assert world.broker.status()["groups"]["members_expired"] == 1


def test_a_member_that_does_not_join_again_is_left_behind(world: World) -> None:
    first, second, third = (GroupMember(world) for _ in range(3))
    gather(first, second)
    waiting = [third.ask_first_join(), second.ask_join()]
    for _ in range(REBALANCE_MS // (SESSION_MS - 1) + 1):  # the leader is alive, and ignores the rebalance
        world.pass_time(SESSION_MS - 1)
        first.beat()
    second.joined(waiting[1])
    assert {each["member_id"] for each in waiting[1].body["members"]} == {second.id, third.id}
    assert waiting[0].body["leader"] == second.id
    assert first.beat() == ErrorCode.UNKNOWN_MEMBER_ID


def test_a_member_that_waits_needs_no_heartbeat_but_a_connection(world: World) -> None:
    first, second = GroupMember(world), GroupMember(world)
    gather(first)
    waiting = second.ask_first_join()
    world.pass_time(SESSION_MS - 1)
    first.beat()
    world.pass_time(SESSION_MS - 1)
    first.beat()
    assert len(described(world)["members"]) == 2
    world.broker.disconnected(second.peer)
    world.pass_time(SESSION_MS - 1)
    first.beat()
    world.pass_time(2)
    assert [each["member_id"] for each in first.join()["members"]] == [first.id]
    assert not waiting.answered


# static members (KIP-345)


@pytest.mark.parametrize("version", [5, 8, 9])
def test_a_static_member_comes_back_without_a_rebalance(world: World, version: int) -> None:
    leader, follower = (GroupMember(world, instance=name, version=version) for name in ("a", "b"))
    gather(leader, follower)
    old_id, part = follower.id, follower.id.encode()
    follower.id = ""
    back = follower.join()
    assert (back["error_code"], back["generation_id"], back["leader"]) == (0, 2, leader.id)
    assert follower.id != old_id
    assert follower.sync() == (0, part)
    assert leader.beat() == 0
    assert follower.beat(member_id=old_id) == ErrorCode.FENCED_INSTANCE_ID
    world.crash()  # the new id is on disk
    assert follower.beat() == 0


@pytest.mark.parametrize("version", [8, 9])
def test_a_static_leader_that_comes_back_does_not_assign_anew(world: World, version: int) -> None:
    leader, follower = (GroupMember(world, instance=name, version=version) for name in ("a", "b"))
    gather(leader, follower)
    old_id, part = leader.id, leader.id.encode()
    leader.id = ""
    back = leader.join()
    if version < 9:
        assert (back["leader"], back["members"]) == (old_id, [])
    else:
        assert (back["leader"], back["skip_assignment"], len(back["members"])) == (leader.id, True, 2)
    assert leader.sync() == (0, part)
    assert follower.beat() == 0


def test_a_static_member_that_waits_is_fenced_by_its_successor(world: World) -> None:
    first = GroupMember(world, instance="a")
    second = GroupMember(world, instance="b")
    gather(first)
    waiting = second.ask_first_join()
    successor = GroupMember(world, instance="b")
    asked = successor.ask_first_join()
    assert waiting.body["error_code"] == ErrorCode.FENCED_INSTANCE_ID
    first.join()
    assert successor.joined(asked)["error_code"] == 0


def test_a_static_member_is_missed_only_after_its_session(world: World) -> None:
    first, second = GroupMember(world, instance="a"), GroupMember(world, instance="b")
    gather(first, second)
    world.broker.disconnected(second.peer)
    assert first.beat() == 0
    world.pass_time(SESSION_MS - 1)
    assert first.beat() == 0
    world.pass_time(2)
    assert first.beat() == ErrorCode.REBALANCE_IN_PROGRESS
    assert second.beat() == ErrorCode.UNKNOWN_MEMBER_ID


def test_a_static_member_that_does_not_join_again_keeps_its_place(world: World) -> None:
    leader, static = GroupMember(world), GroupMember(world, instance="b")
    gather(leader, static)
    third = GroupMember(world)
    waiting = [third.ask_first_join(), leader.ask_join()]
    for _ in range(REBALANCE_MS // (SESSION_MS - 1) + 1):
        world.pass_time(SESSION_MS - 1)
        static.beat()
    assert leader.joined(waiting[1])["generation_id"] == 3
    assert {each["member_id"] for each in waiting[1].body["members"]} == {
        leader.id,
        static.id,
        third.joined(waiting[0])["member_id"],
    }
    static.generation = 3
    assert static.beat() == 0
