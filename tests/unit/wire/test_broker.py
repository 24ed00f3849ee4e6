"""The questions a client asks first, and administration, over a disk that forgets."""

from __future__ import annotations

import struct
from typing import Any

from gateway.wire import apis
from gateway.wire.errors import ErrorCode
from gateway.wire.schema import SERVED, ZERO_UUID, ApiKey
from tests.support.broker_world import World


def test_versions_are_advertised_so_that_old_librdkafka_compresses(world: World) -> None:
    for version in range(5):
        body = world.call(ApiKey.API_VERSIONS, {}, version=version)
        ranges = {key["api_key"]: (key["min_version"], key["max_version"]) for key in body["api_keys"]}
        assert ranges[0] == (0, 12)
        assert ranges.keys() == set(SERVED)


def test_an_unknown_version_of_apiversions_is_answered_in_version_0(world: World) -> None:
    from gateway.wire.compiler import decoder
    from gateway.wire.framing import join_frame
    from gateway.wire.session import ServerSession, encode_response

    session = ServerSession()
    session.feed(join_frame([b"", struct.pack(">hhih", 18, 99, 5, -1), b"\0whatever"]))
    request = session.next_request()
    assert request is not None
    answers: list[Any] = []
    apis.handle(world.broker, request, world.peer, answers.append)
    frame = encode_response(request.api, 0, 5, answers[0])
    body, end = decoder("ApiVersions", 0, response=True)(memoryview(frame), 8)
    assert end == len(frame)
    assert body["error_code"] == ErrorCode.UNSUPPORTED_VERSION
    assert {"api_key": 18, "min_version": 0, "max_version": 4} in body["api_keys"]


def test_metadata_names_the_node_and_keeps_topic_ids(world: World) -> None:
    for version in range(13):
        body = world.call(ApiKey.METADATA, {"topics": [] if version == 0 else None}, version=version)
        assert body["brokers"] == [{"node_id": 1, "host": "127.0.0.1", "port": 9092, "rack": None}]
        assert [topic["name"] for topic in body["topics"]] == ["t"]
    topic_id = body["topics"][0]["topic_id"]
    assert topic_id != ZERO_UUID
    world.crash()
    by_id = world.call(ApiKey.METADATA, {"topics": [{"topic_id": topic_id, "name": None}]})["topics"]
    assert (by_id[0]["name"], by_id[0]["topic_id"]) == ("t", topic_id)
    assert world.call(ApiKey.METADATA, {"topics": []})["topics"] == []


def test_topics_are_created_when_asked_for_and_not_otherwise(world: World) -> None:
    def ask(name: str, *, create: bool = True) -> int:
        body = {"topics": [{"name": name}], "allow_auto_topic_creation": create}
        code: int = world.call(ApiKey.METADATA, body)["topics"][0]["error_code"]
        return code

    assert ask("new", create=False) == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert ask("new") == 0
    assert "new" in world.store.topics
    for name in ("a b", "", ".", "..", "x" * 250, "ä", "a\n", "__transaction_state", "__consumer_offsets"):
        assert ask(name) == ErrorCode.INVALID_TOPIC_EXCEPTION, name
    closed = World(auto_create_topics=False, partitions={"readings": 16})
    body = {"topics": [{"name": "new"}]}
    assert closed.call(ApiKey.METADATA, body)["topics"][0]["error_code"] == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    open_ = World(partitions={"readings": 16}, partitions_max=20)
    found = open_.call(ApiKey.METADATA, {"topics": [{"name": "readings"}, {"name": "other"}]})["topics"]
    assert [len(topic["partitions"]) for topic in found] == [16, 1]
    assert (
        open_.call(ApiKey.METADATA, {"topics": [{"name": "x"}, {"name": "y"}, {"name": "z"}, {"name": "v"}]})["topics"][
            3
        ]["error_code"]
        == ErrorCode.INVALID_PARTITIONS
    )


def test_one_request_creates_only_so_many_topics_at_once(world: World) -> None:
    body = {"topics": [{"name": f"n{number}"} for number in range(25)]}
    codes = [topic["error_code"] for topic in world.call(ApiKey.METADATA, body)["topics"]]
    assert codes == [0] * 20 + [ErrorCode.LEADER_NOT_AVAILABLE] * 5
    codes = [topic["error_code"] for topic in world.call(ApiKey.METADATA, body)["topics"]]
    assert codes == [0] * 25


def test_coordinators(world: World) -> None:
    for version in range(6):
        body = {"key": "x", "key_type": 1, "coordinator_keys": ["x", "y"]}
        found = world.call(ApiKey.FIND_COORDINATOR, body, version=version)
        if version == 0:
            assert found["error_code"] == 0  # version 0 knows groups only
        elif version < 4:
            assert (found["error_code"], found["node_id"], found["port"]) == (0, 1, 9092)
        else:
            assert [(each["key"], each["error_code"]) for each in found["coordinators"]] == [("x", 0), ("y", 0)]
    for key_type, code in ((0, 0), (2, ErrorCode.INVALID_REQUEST)):
        body = {"key_type": key_type, "coordinator_keys": ["g"]}
        assert world.call(ApiKey.FIND_COORDINATOR, body)["coordinators"][0]["error_code"] == code


# administration


def created(world: World, version: int = 7, **topic: object) -> tuple[int, int]:
    asked = {"num_partitions": 1, "replication_factor": 1, **topic}
    (answer,) = world.call(ApiKey.CREATE_TOPICS, {"topics": [asked]}, version=version)["topics"]
    return answer["error_code"], answer["num_partitions"]


def test_create_topics(world: World) -> None:
    assert created(world, name="a", num_partitions=3) == (0, 3)
    assert len(world.store.topics["a"].partitions) == 3
    assert created(world, name="b", num_partitions=-1, replication_factor=-1) == (0, 1)
    homes = [{"partition_index": index, "broker_ids": [1]} for index in range(2)]
    assert created(world, name="c", num_partitions=-1, replication_factor=-1, assignments=homes) == (0, 2)
    away = [{"partition_index": 0, "broker_ids": [9]}]
    assert created(world, name="d", assignments=away)[0] == ErrorCode.INVALID_REPLICA_ASSIGNMENT
    assert created(world, name="a")[0] == ErrorCode.TOPIC_ALREADY_EXISTS
    assert created(world, name="e", num_partitions=0)[0] == ErrorCode.INVALID_PARTITIONS
    assert created(world, name="e", num_partitions=10_000)[0] == ErrorCode.INVALID_PARTITIONS
    assert created(world, name="e", replication_factor=3)[0] == ErrorCode.INVALID_REPLICATION_FACTOR
    assert created(world, name="e/f")[0] == ErrorCode.INVALID_TOPIC_EXCEPTION
    for version in range(2, 8):
        assert created(world, version, name=f"v{version}")[0] == 0
    dry = {"topics": [{"name": "dry", "num_partitions": 1, "replication_factor": 1}], "validate_only": True}
    assert world.call(ApiKey.CREATE_TOPICS, dry)["topics"][0]["error_code"] == 0
    assert "dry" not in world.store.topics
    twice = {"topics": [dict(dry["topics"][0]), dict(dry["topics"][0])]}  # type: ignore[index]
    codes = [topic["error_code"] for topic in world.call(ApiKey.CREATE_TOPICS, twice)["topics"]]
    assert codes == [ErrorCode.INVALID_REQUEST] * 2


def test_delete_topics(world: World) -> None:
    body = {"topics": [{"name": "t"}, {"name": "nowhere"}], "topic_names": ["t", "nowhere"], "timeout_ms": 1}
    codes = [answer["error_code"] for answer in world.call(ApiKey.DELETE_TOPICS, body)["responses"]]
    assert codes == [0, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION]
    assert "t" not in world.store.topics
    world.create("old")
    old = {"topic_names": ["old"], "timeout_ms": 1}
    assert world.call(ApiKey.DELETE_TOPICS, old, version=3)["responses"][0]["error_code"] == 0


def test_settings_can_be_looked_at(world: World) -> None:
    configs = [{"name": "cleanup.policy", "value": "compact"}]
    assert created(world, name="c", configs=configs)[0] == 0
    for version in range(1, 5):
        resources = [
            {"resource_type": 2, "resource_name": "c", "configuration_keys": None},
            {"resource_type": 2, "resource_name": "nowhere", "configuration_keys": None},
            {"resource_type": 4, "resource_name": "1", "configuration_keys": ["message.max.bytes"]},
        ]
        topic, missing, broker = world.call(ApiKey.DESCRIBE_CONFIGS, {"resources": resources}, version=version)[
            "results"
        ]
        assert {entry["name"]: entry["value"] for entry in topic["configs"]}["cleanup.policy"] == "compact"
        assert missing["error_code"] == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        assert [entry["name"] for entry in broker["configs"]] == ["message.max.bytes"]


def test_describe_cluster(world: World) -> None:
    for version in range(2):
        body = world.call(ApiKey.DESCRIBE_CLUSTER, {}, version=version)
        assert [(each["broker_id"], each["port"]) for each in body["brokers"]] == [(1, 9092)]
        assert body["cluster_id"] == world.store.cluster_id
