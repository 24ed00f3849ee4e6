"""Fetch and ListOffsets: who reads how far, how long a poll waits, what is refused."""

from __future__ import annotations

import errno

import pytest

from gateway.log.partition import PartitionLog
from gateway.log.readable import ReadResult
from gateway.wire.errors import ErrorCode
from gateway.wire.schema import ApiKey
from tests.support.broker_world import Asked, World, make_batch, visible


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


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The offset of each read of a log."""
    seen: list[int] = []
    read = PartitionLog.read

    def noted(log: PartitionLog, offset: int, max_bytes: int, *, committed: bool = False) -> ReadResult:
        seen.append(offset)
        return read(log, offset, max_bytes, committed=committed)

    monkeypatch.setattr(PartitionLog, "read", noted)
    return seen


def test_who_waits_for_more_than_an_answer_may_hold_gets_what_it_may(world: World) -> None:
    world.produced("t", [b"a" * 5000])
    assert world.fetch("t", 0, max_wait_ms=500, min_bytes=9000, max_bytes=4000).answered
    assert not world.fetch("t", 0, max_wait_ms=500, min_bytes=9000, max_bytes=9000).answered


def test_what_a_long_poll_has_found_is_not_read_anew_at_every_sync(world: World, reads: list[int]) -> None:
    world.produced("t", [b"a" * 100_000])
    asked = world.fetch("t", 0, max_wait_ms=1000, min_bytes=400_000)
    for _ in range(10):
        world.produced("t", [b"b"])
    assert len(reads) == 1
    world.produced("t", [b"c" * 300_000])
    world.pass_time(20)
    assert asked.answered
    assert len(reads) == 2


def test_a_long_poll_of_many_partitions_reads_once_for_all_that_one_sync_brings(world: World, reads: list[int]) -> None:
    world.create("many", 100)
    asked = poll_of(world, "many", list(range(100)))
    for partition in range(100):
        world.produce("many", [b"a"], partition=partition)
    world.sync()
    world.pass_time(0)
    assert len(reads) == 200
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
