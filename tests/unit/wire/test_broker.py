"""Produce, Fetch, ListOffsets and the questions a client asks first, over a disk that forgets."""

from __future__ import annotations

import errno
import struct
from typing import Any

import pytest

from gateway.log.partition import PartitionLog
from gateway.log.readable import ReadResult
from gateway.log.records import Compression
from gateway.wire.errors import ErrorCode
from gateway.wire.schema import SERVED, ZERO_UUID, ApiKey
from headwater.errors import PeerError
from tests.support.broker_world import Asked, World, answer_of, make_batch, visible


@pytest.fixture
def world() -> World:
    made = World()
    made.create("t")
    return made


# Produce


@pytest.mark.parametrize("acks", [1, -1])
def test_an_acknowledgement_means_on_disk(world: World, acks: int) -> None:
    asked = world.produce("t", [b"a", b"b"], acks=acks)
    assert not asked.answered
    world.sync()
    assert (answer_of(asked)["error_code"], answer_of(asked)["base_offset"]) == (0, 0)
    world.crash()
    assert world.values("t") == [b"a", b"b"]


@pytest.mark.parametrize("version", range(3, 13))
def test_every_version_of_produce_and_the_bytes_as_they_came(world: World, version: int) -> None:
    sent = make_batch([b"payload"], 123)
    assert world.produced("t", [], data=sent, version=version)["base_offset"] == 0
    stored = bytes(world.fetch("t").body["responses"][0]["partitions"][0]["records"])
    assert stored[16:] == sent[16:]  # all but base offset, length and leader epoch


def test_without_acks_nothing_is_answered_and_a_refusal_closes(world: World) -> None:
    assert world.produce("t", [b"a"], acks=0).silent
    with pytest.raises(PeerError, match="UNKNOWN_TOPIC"):
        world.produce("nowhere", [b"a"], acks=0)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"data": b""}, ErrorCode.CORRUPT_MESSAGE),
        ({"data": make_batch([b"x"])[:-1]}, ErrorCode.INVALID_RECORD),
        ({"data": make_batch([b"x"]) * 2}, ErrorCode.INVALID_RECORD),
        ({"data": make_batch([b"x"])[:-1] + b"\x7f"}, ErrorCode.CORRUPT_MESSAGE),
        ({"data": make_batch([b"x"])[:16] + b"\x01" + make_batch([b"x"])[17:]}, ErrorCode.CORRUPT_MESSAGE),
        ({"acks": 2}, ErrorCode.INVALID_REQUIRED_ACKS),
        ({"partition": 9}, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
        ({"data": make_batch([b"x" * 2000])}, ErrorCode.MESSAGE_TOO_LARGE),
        ({"producer_id": 1, "producer_epoch": 0, "base_sequence": 0, "transactional": True}, 53),
    ],
)
def test_what_is_refused_and_how(change: dict[str, object], code: int) -> None:
    world = World(batch_bytes_max=1000)
    world.create("t")
    assert world.produced("t", [b"x"], **change)["error_code"] == code
    assert world.values("t") == []
    assert world.broker.status()["refused_batches"] == 1


def test_a_partition_named_twice_in_a_produce_is_refused_the_second_time(world: World) -> None:
    parts = [{"index": 0, "records": make_batch([each])} for each in (b"first", b"second")]
    topics = [{"name": "t", "partition_data": parts}]
    body = {"transactional_id": None, "acks": -1, "timeout_ms": 5000, "topic_data": topics}
    answers = world.call(ApiKey.PRODUCE, body)["responses"][0]["partition_responses"]
    assert [each["error_code"] for each in answers] == [0, ErrorCode.INVALID_REQUEST]
    assert world.values("t") == [b"first"]


def test_a_batch_of_too_many_records_is_refused_so_that_the_client_splits_it(world: World) -> None:
    many = [b""] * 100_001
    assert world.produced("t", many, compression=Compression.ZSTD)["error_code"] == ErrorCode.MESSAGE_TOO_LARGE
    assert world.produced("t", many[1:], compression=Compression.ZSTD)["error_code"] == 0


def test_clients_write_no_control_records_and_no_internal_topics(world: World) -> None:
    from gateway.log.records import encode_control

    marker = encode_control(commit=True, producer_id=1, producer_epoch=0, coordinator_epoch=0, timestamp_ms=1)
    assert world.produced("t", [], data=bytes(marker))["error_code"] == ErrorCode.INVALID_RECORD
    world.call(ApiKey.INIT_PRODUCER_ID, {"transactional_id": "x", "transaction_timeout_ms": 1000})
    assert world.produced("__transaction_state", [b"x"])["error_code"] == ErrorCode.INVALID_TOPIC_EXCEPTION


def test_idempotence_is_answered_with_kafkas_codes(world: World) -> None:
    producer = {"producer_id": 4, "producer_epoch": 1}
    assert world.produced("t", [b"a", b"b"], base_sequence=0, **producer)["base_offset"] == 0
    assert world.produced("t", [b"a", b"b"], base_sequence=0, **producer)["base_offset"] == 0
    assert world.produced("t", [b"c"], base_sequence=2, **producer)["base_offset"] == 2
    assert world.produced("t", [b"e"], base_sequence=5, **producer)["error_code"] == 45
    old = {"producer_id": 4, "producer_epoch": 0}
    assert world.produced("t", [b"z"], base_sequence=3, **old)["error_code"] == ErrorCode.INVALID_PRODUCER_EPOCH
    assert world.values("t") == [b"a", b"b", b"c"]
    assert world.broker.status()["transactions"]["fenced"] == 1


def test_a_batch_that_the_disk_loses_is_told_lost(world: World) -> None:
    asked = world.produce("t", [b"a"])
    world.disk.fail_next["sync"] = OSError(errno.EIO, "Input/output error")
    world.sync()
    assert answer_of(asked)["error_code"] == ErrorCode.KAFKA_STORAGE_ERROR
    assert world.produced("t", [b"b"])["error_code"] == 0
    assert world.values("t") == [b"b"]


def test_a_produce_that_the_disk_keeps_waiting_is_told_so(world: World) -> None:
    asked = world.produce("t", [b"a"])
    world.pass_time(4_900)
    assert not asked.answered
    world.pass_time(1_100)
    assert answer_of(asked)["error_code"] == ErrorCode.REQUEST_TIMED_OUT
    world.sync()  # the late sync answers nobody twice
    assert world.broker.status()["waiting_for_sync"] == 0


def test_two_partitions_one_answer(world: World) -> None:
    world.create("two", 2)
    parts = [{"index": index, "records": make_batch([b"x"])} for index in (0, 1, 5)]
    body = {"acks": -1, "timeout_ms": 1, "topic_data": [{"name": "two", "partition_data": parts}]}
    asked = world.send(ApiKey.PRODUCE, body)
    assert not asked.answered
    world.sync()
    codes = [part["error_code"] for part in asked.body["responses"][0]["partition_responses"]]
    assert codes == [0, 0, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION]


# Fetch


@pytest.mark.parametrize("version", range(4, 13))
def test_every_version_of_fetch(world: World, version: int) -> None:
    world.produced("t", [b"a"])
    part = world.fetch("t", version=version).body["responses"][0]["partitions"][0]
    assert visible(part["records"], []) == [b"a"]
    assert (part["high_watermark"], part["last_stable_offset"]) == (1, 1)


def test_nobody_reads_past_the_synced_end(world: World) -> None:
    world.produced("t", [b"a"])
    world.produce("t", [b"b"])
    assert world.values("t", committed=False) == [b"a"]
    assert offset_of(world, -1) == (0, 1)


def test_a_long_poll_ends_with_the_sync_or_its_time(world: World) -> None:
    asked = world.fetch("t", 0, max_wait_ms=500)
    world.produce("t", [b"a"])
    assert not asked.answered
    world.sync()
    assert visible(asked.body["responses"][0]["partitions"][0]["records"], []) == [b"a"]
    late = world.fetch("t", 1, max_wait_ms=500)
    world.pass_time(499)
    assert not late.answered
    world.pass_time(1)
    assert bytes(late.body["responses"][0]["partitions"][0]["records"]) == b""


def test_a_long_poll_waits_for_min_bytes(world: World) -> None:
    asked = world.fetch("t", 0, max_wait_ms=500, min_bytes=100)
    world.produced("t", [b"a"])
    assert not asked.answered
    world.produced("t", [b"b"])
    assert len(visible(asked.body["responses"][0]["partitions"][0]["records"], [])) == 2


def test_a_closed_connection_ends_its_poll(world: World) -> None:
    asked = world.fetch("t", 0, max_wait_ms=500)
    world.broker.disconnected(world.peer)
    world.produced("t", [b"a"])
    world.pass_time(1000)
    assert not asked.answered
    assert len(world.broker.timers) == 0


def test_the_first_batch_is_whole_whatever_the_limits(world: World) -> None:
    for value in (b"a" * 5000, b"b" * 5000):
        world.produced("t", [value])
    for limits in ({"partition_max_bytes": 10}, {"max_bytes": 10}, {"max_bytes": 0}):
        part = world.fetch("t", 0, **limits).body["responses"][0]["partitions"][0]
        assert visible(part["records"], []) == [b"a" * 5000]


def test_the_answer_of_many_partitions_stays_within_its_limit(world: World) -> None:
    world.create("many", 3)
    for index in range(3):
        world.produced("many", [b"x" * 1000], partition=index)
    parts = [{"partition": index, "fetch_offset": 0, "partition_max_bytes": 5000} for index in range(3)]
    body = {"max_wait_ms": 0, "min_bytes": 1, "max_bytes": 1500, "topics": [{"topic": "many", "partitions": parts}]}
    sizes = [len(part["records"]) for part in world.call(ApiKey.FETCH, body)["responses"][0]["partitions"]]
    assert sizes[0] > 1000
    assert sizes[1:] == [0, 0]


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"topic": "nowhere"}, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
        ({"partition": 7}, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
        ({"offset": 99}, ErrorCode.OFFSET_OUT_OF_RANGE),
        ({"offset": -1}, ErrorCode.OFFSET_OUT_OF_RANGE),
        ({"leader_epoch": 5}, ErrorCode.UNKNOWN_LEADER_EPOCH),
    ],
)
def test_a_fetch_that_cannot_be_served_is_answered_at_once(world: World, options: dict[str, object], code: int) -> None:
    world.produced("t", [b"a"])
    asked = world.fetch(**{"topic": "t", "max_wait_ms": 10_000, **options})  # type: ignore[arg-type]
    assert asked.body["responses"][0]["partitions"][0]["error_code"] == code


def poll_of(world: World, topic: str, partitions: list[int]) -> Asked:
    parts = [{"partition": each, "fetch_offset": 0, "partition_max_bytes": 1 << 20} for each in partitions]
    body = {"max_wait_ms": 1000, "min_bytes": 1 << 20, "topics": [{"topic": topic, "partitions": parts}]}
    return world.send(ApiKey.FETCH, body)


def test_a_partition_named_twice_in_a_fetch_is_refused_at_once(world: World) -> None:
    world.produced("t", [b"a"])
    answers = poll_of(world, "t", [0, 0]).body["responses"][0]["partitions"]
    assert [each["error_code"] for each in answers] == [0, ErrorCode.INVALID_REQUEST]


def test_a_long_poll_of_many_partitions_reads_once_for_all_that_one_sync_brings(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.create("many", 100)
    reads = 0
    read = PartitionLog.read

    def counted(log: PartitionLog, offset: int, max_bytes: int, *, committed: bool = False) -> ReadResult:
        nonlocal reads
        reads += 1
        return read(log, offset, max_bytes, committed=committed)

    monkeypatch.setattr(PartitionLog, "read", counted)
    asked = poll_of(world, "many", list(range(100)))
    for partition in range(100):
        world.produce("many", [b"a"], partition=partition)
    world.sync()
    world.pass_time(0)
    assert reads == 200
    assert not asked.answered
    world.pass_time(1000)
    assert all(each["records"] for each in asked.body["responses"][0]["partitions"])
    assert len(world.broker.timers) == 0


def test_fetch_sessions_are_declined(world: World) -> None:
    assert world.fetch("t", session_id=0, session_epoch=0).body["session_id"] == 0
    assert world.fetch("t", session_id=5, session_epoch=1).body["error_code"] == ErrorCode.FETCH_SESSION_ID_NOT_FOUND


def test_a_reader_hears_of_a_new_leader_epoch(world: World) -> None:
    world.produced("t", [b"a"])
    log = world.store.partition("t", 0)
    assert log is not None
    old = log.leader_epoch
    log.begin_epoch()
    part = world.fetch("t", 0, leader_epoch=old).body["responses"][0]["partitions"][0]
    assert part["error_code"] == ErrorCode.FENCED_LEADER_EPOCH
    (topic,) = world.call(ApiKey.METADATA, {"topics": [{"name": "t"}]})["topics"]
    assert topic["partitions"][0]["leader_epoch"] == log.leader_epoch


def test_a_disk_that_cannot_be_read_is_a_storage_error_and_said_once(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.produced("t", [b"a"])
    for _ in range(3):
        world.disk.fail_next["read_at"] = OSError(errno.EIO, "Input/output error")
        part = world.fetch("t").body["responses"][0]["partitions"][0]
        assert part["error_code"] == ErrorCode.KAFKA_STORAGE_ERROR
    world.disk.fail_next["read_at"] = OSError(errno.EIO, "Input/output error")
    assert offset_of(world, 5)[0] == ErrorCode.KAFKA_STORAGE_ERROR
    assert [record.getMessage() for record in caplog.records].count(
        "t-0 cannot be read: [Errno 5] Input/output error"
    ) == 1
    assert world.values("t") == [b"a"]


# ListOffsets


def offset_of(world: World, timestamp: int, *, version: int = 9, committed: bool = False) -> tuple[int, int]:
    part = {"partition_index": 0, "timestamp": timestamp}
    body = {"isolation_level": int(committed), "topics": [{"name": "t", "partitions": [part]}]}
    found = world.call(ApiKey.LIST_OFFSETS, body, version=version)["topics"][0]["partitions"][0]
    return found["error_code"], found["offset"]


def test_offsets_by_time_and_by_name(world: World) -> None:
    for time in (1000, 3000, 2000):
        world.produced("t", [], data=make_batch([b"x"], time))
    assert offset_of(world, -1) == (0, 3)
    assert offset_of(world, -2) == (0, 0)
    assert offset_of(world, -3) == (0, 1)
    assert offset_of(world, -4) == (0, 0)
    assert offset_of(world, -5) == (0, -1)
    assert offset_of(world, 0) == (0, 0)
    assert offset_of(world, 1001) == (0, 1)
    assert offset_of(world, 3001) == (0, -1)
    assert offset_of(world, -3, version=6)[0] == ErrorCode.UNSUPPORTED_VERSION
    for version in range(1, 10):
        assert offset_of(world, -1, version=version) == (0, 3)


# the questions that come first


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
    world.broker.handle(request, world.peer, answers.append)
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
