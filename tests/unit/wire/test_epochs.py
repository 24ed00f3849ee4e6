"""Where an epoch ended: how a client whose records a failed disk took back finds out."""

from __future__ import annotations

import errno

import pytest

from gateway.wire.epochs import end_of, epoch_of
from gateway.wire.errors import ErrorCode
from gateway.wire.schema import ApiKey
from tests.support.broker_world import World, answer_of


@pytest.fixture
def world() -> World:
    """Offsets 0 and 1 are of epoch 0; 2 to 4 of the epoch after a failed sync, which lost one record."""
    made = World()
    made.create("t")
    made.produced("t", [b"a", b"b"])
    lost = made.produce("t", [b"lost"])
    made.disk.fail_next["sync"] = OSError(errno.EIO, "Input/output error")
    made.settle()
    assert answer_of(lost)["error_code"] == ErrorCode.KAFKA_STORAGE_ERROR
    made.produced("t", [b"c", b"d", b"e"])
    return made


def ask(world: World, epoch: int, *, current: int = -1, topic: str = "t", version: int = 4) -> tuple[int, int, int]:
    part = {"partition": 0, "leader_epoch": epoch, "current_leader_epoch": current}
    body = {"topics": [{"topic": topic, "partitions": [part]}]}
    found = world.call(ApiKey.OFFSET_FOR_LEADER_EPOCH, body, version=version)["topics"][0]["partitions"][0]
    return found["error_code"], found["leader_epoch"], found["end_offset"]


def test_a_client_that_read_what_was_lost_learns_where_its_epoch_ended(world: World) -> None:
    for version in (2, 3, 4):
        assert ask(world, 0, version=version) == (0, 0, 2)
        assert ask(world, 1, version=version) == (0, 1, 5)
    world.crash()
    assert ask(world, 0) == (0, 0, 2)


def test_epochs_that_the_log_does_not_know(world: World) -> None:
    assert ask(world, 7) == (0, -1, -1)
    assert ask(world, -1) == (0, -1, -1)
    assert ask(world, 0, topic="nowhere") == (ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, -1, -1)
    assert ask(world, 0, current=0) == (ErrorCode.FENCED_LEADER_EPOCH, -1, -1)
    assert ask(world, 0, current=9) == (ErrorCode.UNKNOWN_LEADER_EPOCH, -1, -1)


def test_gaps_between_epochs(world: World) -> None:
    log = world.store.partition("t", 0)
    assert log is not None
    log.epochs = [(2, 0), (5, 3), (6, 3)]
    assert [end_of(log, epoch) for epoch in (0, 2, 3, 5, 6, 7)] == [(0, 0), (2, 3), (2, 3), (5, 3), (6, 5), (-1, -1)]
    assert [epoch_of(log, offset) for offset in (0, 2, 3, 4, 99)] == [2, 2, 6, 6, 6]


def test_list_offsets_names_the_epoch_of_the_offset(world: World) -> None:
    def listed(timestamp: int) -> tuple[int, int]:
        part = {"partition_index": 0, "timestamp": timestamp}
        body = {"topics": [{"name": "t", "partitions": [part]}]}
        found = world.call(ApiKey.LIST_OFFSETS, body)["topics"][0]["partitions"][0]
        return found["offset"], found["leader_epoch"]

    assert (listed(-2), listed(-1)) == ((0, 0), (5, 1))
