"""Produce: acknowledged is on disk, what is refused, and Kafka's codes."""

from __future__ import annotations

import errno

import pytest

from gateway.log.records import Compression
from gateway.wire.errors import ErrorCode
from gateway.wire.schema import ApiKey
from headwater.errors import PeerError
from tests.support.broker_world import World, answer_of, make_batch


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
