"""A request that names one thing again and again, or very many things, costs what naming them once would."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.wire.acl import NO_RIGHTS, AccessList
from gateway.wire.errors import ErrorCode
from gateway.wire.guard import GUARDS
from gateway.wire.peer import Peer
from gateway.wire.schema import SERVED, ZERO_UUID, ApiKey
from gateway.wire.session import Request
from gateway.wire.settings import KafkaAclRule
from tests.support.broker_world import World

TIMES = 50
NAMED = 3_000


@pytest.fixture
def world() -> World:
    made = World()
    made.create("t", 2)
    part = {"partition_index": 0, "committed_offset": 1, "committed_metadata": "m" * 1000}
    commit = {"group_id": "g", "member_id": "", "topics": [{"name": "t", "partitions": [part]}]}
    made.call(ApiKey.OFFSET_COMMIT, {"generation_id_or_member_epoch": -1, **commit})
    return made


def test_what_is_named_again_is_answered_once(world: World) -> None:
    topic: dict[str, Any] = {"name": "t", "topic_id": ZERO_UUID}
    answer = world.call(ApiKey.METADATA, {"topics": [topic] * TIMES})
    assert [each["name"] for each in answer["topics"]] == ["t"]
    topic = {"name": None, "topic_id": world.store.topics["t"].topic_id}
    answer = world.call(ApiKey.METADATA, {"topics": [topic] * TIMES})
    assert [each["name"] for each in answer["topics"]] == ["t"]
    answer = world.call(ApiKey.DESCRIBE_GROUPS, {"groups": ["g", "h"] * TIMES})
    assert [each["group_id"] for each in answer["groups"]] == ["g", "h"]
    resource = {"resource_type": 2, "resource_name": "t", "configuration_keys": None}
    assert len(world.call(ApiKey.DESCRIBE_CONFIGS, {"resources": [resource] * TIMES})["results"]) == 1


def test_an_offset_that_is_asked_for_again_is_answered_once(world: World) -> None:
    topics = [{"name": "t", "partition_indexes": [0, 1] * TIMES}] * 2
    group = {"group_id": "g", "topics": topics}
    (answer,) = world.call(ApiKey.OFFSET_FETCH, {"groups": [group] * TIMES})["groups"]
    assert [part["committed_offset"] for part in answer["topics"][0]["partitions"]] == [1, -1]
    assert len(answer["topics"]) == 1


def test_a_second_search_of_one_partition_is_refused(world: World) -> None:
    world.produced("t", [b"x"])
    part = {"partition_index": 0, "timestamp": 0}
    answer = world.call(ApiKey.LIST_OFFSETS, {"topics": [{"name": "t", "partitions": [part] * 3}]})
    codes = [each["error_code"] for each in answer["topics"][0]["partitions"]]
    assert codes == [0, ErrorCode.INVALID_REQUEST, ErrorCode.INVALID_REQUEST]


class Name(str):
    """Counts how often it is compared."""

    __slots__ = ()
    compared = 0

    def __eq__(self, other: object) -> bool:
        Name.compared += 1
        return str.__eq__(self, other)

    __hash__ = str.__hash__


def names() -> list[Name]:
    return [Name(f"{number:x}") for number in range(NAMED)]


def listed(key: str, **more: Any) -> list[dict[str, Any]]:
    return [{key: name, **more} for name in names()]


REQUESTS: dict[ApiKey, dict[str, Any]] = {
    ApiKey.CREATE_TOPICS: {"topics": listed("name")},
    ApiKey.CREATE_PARTITIONS: {"topics": listed("name")},
    ApiKey.DELETE_TOPICS: {"topics": listed("name", topic_id=ZERO_UUID)},
    ApiKey.DELETE_RECORDS: {"topics": listed("name", partitions=[])},
    ApiKey.METADATA: {"topics": listed("name", topic_id=ZERO_UUID), "allow_auto_topic_creation": True},
    ApiKey.DESCRIBE_GROUPS: {"groups": names()},
    ApiKey.DELETE_GROUPS: {"groups_names": names()},
    ApiKey.FIND_COORDINATOR: {"key_type": 0, "coordinator_keys": names()},
    ApiKey.PRODUCE: {"transactional_id": None, "acks": 1, "topic_data": listed("name", partition_data=[])},
    ApiKey.FETCH: {"topics": listed("topic", partitions=[])},
    ApiKey.LIST_OFFSETS: {"topics": listed("name", partitions=[])},
    ApiKey.DESCRIBE_CONFIGS: {"resources": listed("resource_name", resource_type=2)},
    ApiKey.INCREMENTAL_ALTER_CONFIGS: {"resources": listed("resource_name", resource_type=2)},
    ApiKey.OFFSET_FETCH: {"groups": listed("group_id", topics=None)},
}


@pytest.mark.parametrize("api", REQUESTS, ids=lambda api: api.name.lower())
def test_a_long_list_from_a_client_without_rights_is_refused_in_one_pass(world: World, api: ApiKey) -> None:
    """Comparisons are counted, not time: each name is compared with few others, however many there are."""
    Name.compared = 0
    request = Request(api, SERVED[api][1], 1, None, REQUESTS[api])
    assert GUARDS[api](NO_RIGHTS, request, world.broker) is not None
    assert Name.compared < 10 * NAMED


def test_a_topics_id_beside_another_name_opens_nothing(world: World) -> None:
    """The handler looks a topic up by its id where there is one: so does the guard."""
    world.create("secret")
    peer = Peer("somebody:1")
    rule = KafkaAclRule(principals=("ann",), allow=("read",), topics=("t",))
    peer.principal, peer.rights = "ann", AccessList((rule,)).rights("ann")
    asked = {"topics": [{"name": "t", "topic_id": world.store.topics["secret"].topic_id}]}
    (answer,) = world.call(ApiKey.METADATA, asked, peer=peer)["topics"]
    assert (answer["error_code"], answer["partitions"]) == (ErrorCode.UNKNOWN_TOPIC_ID, [])
