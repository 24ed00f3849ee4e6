"""Consumer groups: who is let in, who leads, what a sync is refused with, and what a power cut leaves."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from gateway.wire.errors import ErrorCode
from gateway.wire.groups.group import ENTERED_FROM, Group, Member, State
from gateway.wire.peer import Peer
from gateway.wire.schema import ApiKey
from tests.support.broker_world import World
from tests.support.group_member import SESSION_MS, GroupMember, described, gather

# the table


def test_the_states_of_a_group_and_nothing_between_them() -> None:
    for state, before in ENTERED_FROM.items():
        for other in State:
            group = Group("g", state=other)
            if other in before:
                group.to(state)
            else:
                with pytest.raises(ValueError, match="no transition"):
                    group.to(state)


def test_the_protocol_is_the_one_most_members_put_first_of_those_that_all_know() -> None:
    group = Group("g")
    for number, names in enumerate((["own", "sticky", "range"], ["range", "sticky"], ["sticky", "range"])):
        protocols = [(name, b"") for name in names]
        group.add(Member(str(number), None, "", "", 1, 1, protocols), "consumer")
    assert group.select_protocol() == "sticky"  # "own" is one member's alone, so that one votes for its next
    assert group.supports("consumer", ["range"])
    assert not group.supports("consumer", ["own"])
    assert not group.supports("connect", ["range"])


# joining


@pytest.mark.parametrize("version", range(10))
def test_every_version_of_a_life_in_a_group(world: World, version: int) -> None:
    first, second = (GroupMember(world, version=version) for _ in range(2))
    gather(first, second)
    assert (first.generation, second.generation) == (2, 2)
    assert [member.beat() for member in (first, second)] == [0, 0]
    assert first.commit(5) == 0
    shown = described(world, version=min(version, 5))
    assert (shown["group_state"], shown["protocol_type"], shown["protocol_data"]) == ("Stable", "consumer", "range")
    assert {each["member_id"]: each["member_assignment"] for each in shown["members"]} == {
        member.id: member.id.encode() for member in (first, second)
    }
    assert shown["members"][0]["client_id"] == "test"
    assert shown["members"][0]["client_host"].startswith("/10.0.0.")
    assert second.leave() == 0
    assert first.beat() == ErrorCode.REBALANCE_IN_PROGRESS
    assert first.join()["leader"] == first.id
    assert first.generation == 3
    assert first.leave() == 0
    assert described(world)["group_state"] == "Empty"


def test_the_leader_alone_is_told_of_the_members(world: World) -> None:
    first, second = GroupMember(world), GroupMember(world)
    second.protocols = [("range", b"other topics")]
    first.join()
    waiting = second.ask_first_join()
    assert not waiting.answered  # it waits for the first to join again
    assert first.beat() == ErrorCode.REBALANCE_IN_PROGRESS
    leader = first.join()
    assert leader["leader"] == first.id
    assert {each["member_id"]: each["metadata"] for each in leader["members"]} == {
        first.id: b"topics",
        second.joined(waiting)["member_id"]: b"other topics",
    }
    assert waiting.body["members"] == []
    assert (waiting.body["leader"], waiting.body["protocol_name"]) == (first.id, "range")


def test_an_id_is_handed_out_before_a_place_is(world: World) -> None:
    member = GroupMember(world)
    handed = member.ask_join().body
    assert handed["error_code"] == ErrorCode.MEMBER_ID_REQUIRED
    assert handed["member_id"].startswith("test-")
    assert described(world)["members"] == []
    assert member.ask_join(member_id="test-invented").body["error_code"] == ErrorCode.UNKNOWN_MEMBER_ID
    world.pass_time(SESSION_MS + 1)  # never used, it is forgotten
    assert member.ask_join(member_id=handed["member_id"]).body["error_code"] == ErrorCode.UNKNOWN_MEMBER_ID


def test_a_group_waits_for_an_id_that_was_handed_out(world: World) -> None:
    first, late = GroupMember(world), GroupMember(world)
    gather(first)
    late.ask_join()
    asked = first.ask_join()  # a leader that joins again asks for a rebalance
    assert not asked.answered
    world.pass_time(SESSION_MS + 1)
    assert first.joined(asked)["generation_id"] == 2


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"group_id": ""}, ErrorCode.INVALID_GROUP_ID),
        ({"group_id": "g" * 2000}, ErrorCode.INVALID_GROUP_ID),
        ({"session_timeout_ms": 10}, ErrorCode.INVALID_SESSION_TIMEOUT),
        ({"session_timeout_ms": 1 << 30}, ErrorCode.INVALID_SESSION_TIMEOUT),
        ({"protocols": []}, ErrorCode.INCONSISTENT_GROUP_PROTOCOL),
        ({"protocol_type": ""}, ErrorCode.INCONSISTENT_GROUP_PROTOCOL),
        ({"protocols": [{"name": "x", "metadata": b""}]}, ErrorCode.INCONSISTENT_GROUP_PROTOCOL),
        ({"protocol_type": "connect"}, ErrorCode.INCONSISTENT_GROUP_PROTOCOL),
        ({"group_instance_id": ""}, ErrorCode.INVALID_REQUEST),
        ({"protocols": [{"name": "range", "metadata": b"m" * 70_000}]}, ErrorCode.GROUP_MAX_SIZE_REACHED),
    ],
)
def test_who_is_not_let_in(change: dict[str, Any], code: int) -> None:
    world = World(group_metadata_bytes_max=1 << 16)
    gather(GroupMember(world))
    assert GroupMember(world).ask_join(**change).body["error_code"] == code
    assert len(described(world)["members"]) == 1


def test_members_and_groups_are_bounded_and_idle_groups_make_room(caplog: pytest.LogCaptureFixture) -> None:
    world = World(groups_max=2, group_members_max=2)
    world.create("t")
    first = GroupMember(world)
    gather(first, GroupMember(world))
    assert GroupMember(world).ask_join().body["error_code"] == ErrorCode.GROUP_MAX_SIZE_REACHED
    assert "group_members_max" in caplog.text
    passing = GroupMember(world, "passing")
    gather(passing)
    assert passing.leave() == 0
    keeper = GroupMember(world, "keeper")
    assert keeper.commit(1) == 0  # in the place of the one that has neither members nor offsets
    assert GroupMember(world, "third").ask_join().body["error_code"] == ErrorCode.GROUP_MAX_SIZE_REACHED
    assert GroupMember(world, "third").commit(1) == ErrorCode.GROUP_MAX_SIZE_REACHED
    assert "groups_max" in caplog.text
    assert world.broker.status()["groups"]["refused"] == 2
    world.crash()
    assert set(world.broker.groups.all) == {"g", "keeper"}


def test_a_lost_answer_is_given_again_and_changes_nothing(world: World) -> None:
    first, second = GroupMember(world), GroupMember(world)
    gather(first, second)
    again = second.ask_join().body
    assert (again["error_code"], again["generation_id"], again["leader"]) == (0, 2, first.id)
    assert second.sync() == (0, second.id.encode())
    assert described(world)["group_state"] == "Stable"
    second.protocols = [("range", b"changed")]
    assert not second.ask_join().answered  # what it wants has changed: everybody joins again
    assert first.beat() == ErrorCode.REBALANCE_IN_PROGRESS


def test_an_id_that_is_given_back_is_not_waited_for(world: World) -> None:
    first, late = GroupMember(world), GroupMember(world)
    gather(first)
    late.id = late.ask_join().body["member_id"]
    asked = first.ask_join()
    assert not asked.answered
    assert late.leave() == 0
    assert first.joined(asked)["generation_id"] == 2


# syncing


def test_an_assignment_is_handed_out_when_it_is_on_disk(world: World) -> None:
    first, second = GroupMember(world), GroupMember(world)
    first.join()
    waiting = second.ask_first_join()
    first.join()
    second.joined(waiting)
    follower = second.ask_sync()
    leader = first.ask_sync({second.id: b"all of it"})
    assert not leader.answered
    assert not follower.answered
    world.settle()
    assert (follower.body["assignment"], leader.body["assignment"]) == (b"all of it", b"")


def test_what_a_sync_is_refused_with(world: World) -> None:
    member = GroupMember(world)
    member.join()
    assert member.sync(generation_id=9)[0] == ErrorCode.ILLEGAL_GENERATION
    assert member.sync(member_id="other")[0] == ErrorCode.UNKNOWN_MEMBER_ID
    assert member.sync(group_id="other")[0] == ErrorCode.UNKNOWN_MEMBER_ID
    assert member.sync(protocol_name="sticky")[0] == ErrorCode.INCONSISTENT_GROUP_PROTOCOL
    GroupMember(world).ask_first_join()
    assert member.sync({})[0] == ErrorCode.REBALANCE_IN_PROGRESS


def test_a_disk_that_refuses_an_assignment_starts_the_rebalance_again(world: World) -> None:
    member = GroupMember(world)
    member.join()
    world.disk.fail_next["sync"] = OSError(errno.EIO, "Input/output error")
    assert member.sync({member.id: b"x"})[0] == ErrorCode.COORDINATOR_NOT_AVAILABLE
    assert member.beat() == ErrorCode.REBALANCE_IN_PROGRESS
    assert member.join()["generation_id"] == 2
    assert member.sync({member.id: b"x"}) == (0, b"x")


def test_a_rebalance_while_an_assignment_is_on_its_way_wins(world: World) -> None:
    first, second = GroupMember(world), GroupMember(world)
    first.join()
    late = first.ask_sync({first.id: b"mine alone"})
    waiting = second.ask_first_join()
    assert late.body["error_code"] == ErrorCode.REBALANCE_IN_PROGRESS
    first.join()
    second.joined(waiting)
    asked = second.ask_sync()
    assert first.sync({second.id: b"yours"}) == (0, b"")
    assert asked.body["assignment"] == b"yours"


def test_a_new_assignment_does_not_wait_for_the_old_one(world: World) -> None:
    first, second = GroupMember(world), GroupMember(world)
    first.join()
    first.ask_sync({first.id: b"mine alone"})
    waiting = second.ask_first_join()
    first.ask_join()
    second.id, first.generation = waiting.body["member_id"], 2
    leader = first.ask_sync({first.id: b"half"})  # before the disk has taken the first one
    world.settle()
    assert leader.body["assignment"] == b"half"


def test_who_never_syncs_is_out(world: World) -> None:
    first, second = GroupMember(world), GroupMember(world)
    first.join()
    waiting = second.ask_first_join()
    first.join()
    second.joined(waiting)
    asked = second.ask_sync()
    for _ in range(8):
        world.pass_time(SESSION_MS - 1)
        first.beat()
    assert asked.body["error_code"] == ErrorCode.REBALANCE_IN_PROGRESS  # the leader never said what to do
    assert first.beat() == ErrorCode.UNKNOWN_MEMBER_ID
    assert second.join()["leader"] == second.id


def test_an_operator_removes_a_static_member_by_its_name(world: World) -> None:
    member = GroupMember(world, instance="a")
    gather(member)
    members = [{"member_id": "", "group_instance_id": name} for name in ("a", "b")]
    body = {"group_id": "g", "members": members}
    found = world.call(ApiKey.LEAVE_GROUP, body)["members"]
    assert [each["error_code"] for each in found] == [0, ErrorCode.UNKNOWN_MEMBER_ID]
    assert described(world)["group_state"] == "Empty"


# a power cut


def test_a_stable_group_goes_on_after_a_power_cut(world: World) -> None:
    first, second = GroupMember(world, instance="a"), GroupMember(world)
    gather(first, second)
    world.crash()
    shown = described(world)
    assert (shown["group_state"], shown["protocol_data"], len(shown["members"])) == ("Stable", "range", 2)
    assert [member.beat() for member in (first, second)] == [0, 0]
    assert second.sync() == (0, second.id.encode())
    world.pass_time(SESSION_MS - 1)
    assert second.beat() == 0
    world.pass_time(2)  # who did not survive is missed as ever
    assert second.beat() == ErrorCode.REBALANCE_IN_PROGRESS


def test_a_group_whose_members_all_died_with_the_node_empties(world: World) -> None:
    gather(GroupMember(world), GroupMember(world))
    world.crash()
    world.pass_time(SESSION_MS + 1)
    world.settle()
    assert described(world)["group_state"] == "Empty"


def test_member_ids_are_never_given_twice(world: World) -> None:
    ids = {GroupMember(world).ask_join().body["member_id"] for _ in range(3)}
    world.crash()
    ids |= {GroupMember(world).ask_join().body["member_id"] for _ in range(3)}
    assert len(ids) == 6


# lists


def test_lists_by_state_and_unknown_groups_are_dead(world: World) -> None:
    gather(GroupMember(world))
    assert GroupMember(world, "simple").commit(1) == 0
    every = world.call(ApiKey.LIST_GROUPS, {"states_filter": []})["groups"]
    assert {(each["group_id"], each["group_state"], each["protocol_type"]) for each in every} == {
        ("g", "Stable", "consumer"),
        ("simple", "Empty", ""),
    }
    empty = world.call(ApiKey.LIST_GROUPS, {"states_filter": ["empty"]})["groups"]
    assert [each["group_id"] for each in empty] == ["simple"]
    for version in range(5):
        assert len(world.call(ApiKey.LIST_GROUPS, {"states_filter": []}, version=version)["groups"]) == 2
    assert described(world, "nobody")["group_state"] == "Dead"


@pytest.mark.parametrize("version", range(3))
def test_a_group_is_deleted_when_it_has_no_members(world: World, version: int) -> None:
    member = GroupMember(world)
    gather(member)
    assert member.commit(7) == 0
    names = {"groups_names": ["g", "nobody"]}

    def delete() -> list[int]:
        found = world.call(ApiKey.DELETE_GROUPS, names, version=version, peer=Peer("1.2.3.4:5"))["results"]
        return [each["error_code"] for each in found]

    assert delete() == [ErrorCode.NON_EMPTY_GROUP, ErrorCode.GROUP_ID_NOT_FOUND]
    member.leave()
    assert delete() == [0, ErrorCode.GROUP_ID_NOT_FOUND]
    assert delete() == [ErrorCode.GROUP_ID_NOT_FOUND] * 2
    world.crash()
    assert world.broker.groups.all == {}
