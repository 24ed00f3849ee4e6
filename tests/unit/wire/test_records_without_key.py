"""A compacted topic takes no record without a key: the batch is refused whole, and its client told which records."""

from __future__ import annotations

import pytest

from gateway.log.records import NO_HEADERS, Compression, encode_batch
from gateway.wire.errors import ErrorCode
from tests.support.broker_world import World, answer_of
from tests.support.transactions import Producer


@pytest.fixture
def world() -> World:
    made = World()
    made.store.create_topic("keys", config={"cleanup.policy": "compact"})
    made.create("t")
    return made


def batch(*keys: bytes | None, compression: Compression = Compression.NONE) -> bytes:
    return bytes(encode_batch([(1, key, b"v", NO_HEADERS) for key in keys], compression=compression))


@pytest.mark.parametrize("compression", [Compression.NONE, Compression.ZSTD])
def test_nothing_of_such_a_batch_is_written(world: World, compression: Compression) -> None:
    data = batch(b"a", None, b"c", None, compression=compression)
    answer = answer_of(world.produce("keys", [], data=data))
    assert (answer["error_code"], answer["base_offset"]) == (ErrorCode.INVALID_RECORD, -1)
    assert [each["batch_index"] for each in answer["record_errors"]] == [1, 3]
    assert "without key" in answer["record_errors"][0]["batch_index_error_message"]
    assert "2 records" in answer["error_message"]
    assert world.store.topics["keys"].partitions[0].log_end_offset == 0
    assert world.produced("keys", [], data=batch(b"a", b"", compression=compression))["error_code"] == 0
    assert world.produced("t", [], data=data)["error_code"] == 0


def test_a_version_that_knows_no_record_errors_is_told_the_code(world: World) -> None:
    asked = world.produce("keys", [], data=batch(None), version=7)
    assert answer_of(asked)["error_code"] == ErrorCode.INVALID_RECORD


def test_the_rule_comes_and_goes_with_the_topics_policy(world: World) -> None:
    for policy, code in (("compact,delete", ErrorCode.INVALID_RECORD), ("delete", ErrorCode.NONE)):
        world.store.configure_topic("keys", {"cleanup.policy": policy})
        assert world.produced("keys", [], data=batch(None))["error_code"] == code
        world.crash()
        assert world.produced("keys", [], data=batch(None))["error_code"] == code


def test_in_a_transaction_too(world: World) -> None:
    producer = Producer(world, "mine")
    assert producer.init() == 0
    assert producer.add("keys") == 0
    assert producer.send([b"x"], "keys") == ErrorCode.INVALID_RECORD
    assert producer.end(commit=False) == 0


def test_a_damaged_batch_is_told_as_one(world: World) -> None:
    data = bytearray(batch(None, b"b"))
    data[-1] ^= 1
    data[61] = 0xFF
    answer = answer_of(world.produce("keys", [], data=bytes(data)))
    assert (answer["error_code"], answer["record_errors"]) == (ErrorCode.CORRUPT_MESSAGE, [])
