"""DeleteRecords: a log begins later, for good, and says so."""

from __future__ import annotations

import errno
import logging
from typing import Any

import pytest

from gateway.log import checkpoints
from gateway.wire.errors import ErrorCode
from gateway.wire.internal_topics import OFFSETS_TOPIC
from gateway.wire.schema import ApiKey
from tests.support.broker_world import DATA, World, make_batch
from tests.support.transactions import Producer


@pytest.fixture
def world() -> World:
    made = World()
    made.create("t", 2)
    return made


def delete(world: World, offset: int, name: str = "t", partition: int = 0, *, version: int = 2) -> tuple[int, int]:
    """(error code, low watermark)"""
    partitions = [{"partition_index": partition, "offset": offset}]
    body = {"topics": [{"name": name, "partitions": partitions}], "timeout_ms": 1000}
    answer = world.call(ApiKey.DELETE_RECORDS, body, version=version)["topics"][0]["partitions"][0]
    return answer["error_code"], answer["low_watermark"]


def offsets(world: World, timestamp: int, partition: int = 0) -> int:
    body: dict[str, Any] = {"isolation_level": 0}
    body["topics"] = [{"name": "t", "partitions": [{"partition_index": partition, "timestamp": timestamp}]}]
    offset: int = world.call(ApiKey.LIST_OFFSETS, body)["topics"][0]["partitions"][0]["offset"]
    return offset


def fetched(world: World, offset: int) -> tuple[int, int, int]:
    """(error code, log start, bytes)"""
    part = world.fetch("t", offset).body["responses"][0]["partitions"][0]
    return part["error_code"], part["log_start_offset"], len(part["records"])


def test_a_log_begins_where_a_client_says_and_does_so_after_a_power_cut(world: World) -> None:
    for number in range(4):
        world.produced("t", [b"%d" % number, b"x", b"y"])
    assert delete(world, 4, version=0) == (0, 4)
    for _ in range(2):
        assert fetched(world, 3)[:2] == (ErrorCode.OFFSET_OUT_OF_RANGE, 4)
        assert fetched(world, 4)[:2] == (0, 4)
        assert fetched(world, 4)[2] > 0, "the batch that holds the first record is sent whole"
        assert offsets(world, -2) == 4
        world.crash()
    starts = checkpoints.decode_offsets(world.disk.read_file(f"{DATA}/log/{checkpoints.LOG_STARTS}"))
    assert starts[("t", 0)] == 4, "a broker that goes on with these files knows it too"
    assert delete(world, 2, version=1) == (0, 4), "a start that has been passed is no error"


def test_the_log_says_who_deleted_and_nothing_of_what_was_gone_already(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.produced("t", [b"a"] * 5)
    with caplog.at_level(logging.INFO):
        assert delete(world, 4) == (0, 4)
        assert delete(world, 2) == (0, 4)
    assert caplog.messages == ["t-0 begins at offset 4: test:1 deleted what is below"]


def test_minus_one_is_the_high_watermark_and_what_comes_later_stays(world: World) -> None:
    world.produced("t", [b"a", b"b"])
    world.produce("t", [b"not synced"])
    assert delete(world, -1) == (0, 2)
    world.settle()
    world.crash()
    assert world.values("t", partition=1) == []
    assert fetched(world, 2)[:2] == (0, 2)
    assert delete(world, -1) == (0, 3)
    assert (offsets(world, -2), offsets(world, -1)) == (3, 3)


def test_what_is_refused(world: World) -> None:
    world.store.create_topic("keys", config={"cleanup.policy": "compact"})
    world.store.create_topic("both", config={"cleanup.policy": "compact,delete"})
    world.produced("t", [b"a"])
    assert delete(world, 2) == (ErrorCode.OFFSET_OUT_OF_RANGE, -1)
    assert delete(world, -2) == (ErrorCode.OFFSET_OUT_OF_RANGE, -1)
    assert delete(world, 0, "keys") == (ErrorCode.POLICY_VIOLATION, -1)
    assert delete(world, 0, "both") == (0, 0)
    assert delete(world, 0, "nowhere") == (ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, -1)
    assert delete(world, 0, "t", 2) == (ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, -1)
    assert delete(world, 0, OFFSETS_TOPIC) == (ErrorCode.INVALID_TOPIC_EXCEPTION, -1)
    assert delete(world, 1) == (0, 1)


def test_nothing_is_deleted_when_the_disk_does_not_take_the_word_of_it(world: World) -> None:
    world.produced("t", [b"a"])
    world.disk.fail_next["replace_file"] = OSError(errno.ENOSPC, "No space left on device")
    assert delete(world, 1) == (ErrorCode.KAFKA_STORAGE_ERROR, -1)
    assert fetched(world, 0)[:2] == (0, 0)
    world.crash()
    assert world.values("t") == [b"a"]


def test_times_are_looked_for_in_what_is_left(world: World) -> None:
    for time_ms in (30, 10, 20):
        world.produced("t", [], data=make_batch([b"x", b"y"], time_ms))
    assert (offsets(world, 15), offsets(world, -3)) == (0, 1)
    assert delete(world, 1) == (0, 1)
    assert (offsets(world, 15), offsets(world, -3)) == (1, 1)
    assert delete(world, 2) == (0, 2)
    assert (offsets(world, 0), offsets(world, 15), offsets(world, 25)) == (2, 4, -1)
    assert delete(world, -1) == (0, 6)
    assert (offsets(world, 0), offsets(world, -3)) == (-1, -1)


def test_an_open_transaction_of_which_the_beginning_is_deleted_still_holds_back_the_rest(world: World) -> None:
    producer = Producer(world, "mine")
    producer.begin([b"a", b"b"])
    assert delete(world, 1) == (0, 1)
    part = world.fetch("t", 1, committed=True).body["responses"][0]["partitions"][0]
    assert (part["error_code"], part["last_stable_offset"], len(part["records"])) == (0, 1, 0)
    assert producer.end() == 0
    part = world.fetch("t", 1, committed=True).body["responses"][0]["partitions"][0]
    assert part["last_stable_offset"] == 3


def test_a_new_topic_of_the_name_begins_at_its_first_record(world: World) -> None:
    world.produced("t", [b"a"] * 5)
    assert delete(world, 5) == (0, 5)
    world.store.delete_topic("t")
    world.create("t")
    world.produced("t", [b"new"] * 7)
    world.crash()
    assert world.values("t") == [b"new"] * 7
