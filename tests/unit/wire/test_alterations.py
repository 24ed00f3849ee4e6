"""Topics that change while they are in use."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from gateway.wire.errors import ErrorCode
from gateway.wire.internal_topics import OFFSETS_TOPIC
from gateway.wire.schema import ApiKey
from tests.support.broker_world import World


@pytest.fixture
def world() -> World:
    made = World(partitions_max=20)
    made.create("t", 2)
    return made


def grow(world: World, count: int, name: str = "t", *, version: int = 3, check: bool = False, **more: Any) -> int:
    topics = [{"name": name, "count": count, **more}]
    body = {"topics": topics, "timeout_ms": 1, "validate_only": check}
    code: int = world.call(ApiKey.CREATE_PARTITIONS, body, version=version)["results"][0]["error_code"]
    return code


def alter(world: World, changes: list[tuple[str, int, str | None]], name: str = "t", **more: Any) -> int:
    configs = [{"name": key, "config_operation": operation, "value": value} for key, operation, value in changes]
    resource = {"resource_type": more.pop("kind", 2), "resource_name": name, "configs": configs}
    body = {"resources": [resource], "validate_only": more.pop("check", False)}
    code: int = world.call(ApiKey.INCREMENTAL_ALTER_CONFIGS, body, **more)["responses"][0]["error_code"]
    return code


def test_a_topic_grows_and_stays_so(world: World) -> None:
    world.produced("t", [b"before"], partition=1)
    for version in range(4):
        assert grow(world, 3 + version, version=version) == 0
    assert world.produced("t", [b"new"], partition=5)["error_code"] == 0
    world.crash()
    assert len(world.store.topics["t"].partitions) == 6
    assert (world.values("t", partition=1), world.values("t", partition=5)) == ([b"before"], [b"new"])


def test_who_does_not_grow(world: World) -> None:
    assert grow(world, 2) == ErrorCode.INVALID_PARTITIONS
    assert grow(world, 21) == ErrorCode.INVALID_PARTITIONS
    assert grow(world, 3, "nowhere") == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert grow(world, 3, OFFSETS_TOPIC) == ErrorCode.INVALID_TOPIC_EXCEPTION
    assert grow(world, 3, assignments=[{"broker_ids": [1, 2]}]) == ErrorCode.INVALID_REPLICA_ASSIGNMENT
    assert grow(world, 3, check=True) == 0
    assert len(world.store.topics["t"].partitions) == 2
    assert grow(world, 3, assignments=[{"broker_ids": [1]}]) == 0


@pytest.mark.parametrize("step", ["open", "change_topic"])
def test_a_disk_that_refuses_leaves_the_topic_as_it_was(
    world: World, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    with monkeypatch.context() as patch:
        if step == "open":
            world.disk.fail_next["open"] = full
        else:

            def refuse(*_: object) -> None:
                raise full

            patch.setattr(world.store._catalog, "change_topic", refuse)
        assert grow(world, 4) == ErrorCode.KAFKA_STORAGE_ERROR
    assert len(world.store.topics["t"].partitions) == 2
    world.crash()
    assert len(world.store.topics["t"].partitions) == 2
    assert grow(world, 4) == 0
    assert world.produced("t", [b"x"], partition=3)["error_code"] == 0


def test_settings_change_one_by_one(world: World) -> None:
    for version in (0, 1):
        assert alter(world, [("retention.ms", 0, "5000"), ("cleanup.policy", 0, "delete")], version=version) == 0
    assert alter(world, [("cleanup.policy", 2, "compact"), ("own.setting", 0, "x")]) == 0
    assert world.store.topics["t"].config == {
        "retention.ms": "5000",
        "cleanup.policy": "delete,compact",
        "own.setting": "x",
    }
    assert alter(world, [("cleanup.policy", 3, "delete"), ("own.setting", 1, None)]) == 0
    world.crash()
    assert world.store.topics["t"].config == {"retention.ms": "5000", "cleanup.policy": "compact"}


def test_changes_are_all_or_none(world: World) -> None:
    assert alter(world, [("segment.ms", 0, "5000"), ("retention.ms", 0, "soon")]) == ErrorCode.INVALID_CONFIG
    assert alter(world, [("segment.ms", 0, "5000"), ("segment.ms", 1, None)]) == ErrorCode.INVALID_REQUEST
    assert alter(world, [("segment.ms", 0, None)]) == ErrorCode.INVALID_REQUEST
    assert alter(world, [("segment.ms", 9, "1")]) == ErrorCode.INVALID_REQUEST
    assert alter(world, [("retention.ms", 0, "soon")], check=True) == ErrorCode.INVALID_CONFIG
    assert alter(world, [("segment.ms", 0, "5000")], check=True) == 0
    assert alter(world, [("x", 0, "y")], kind=4) == ErrorCode.INVALID_REQUEST
    assert alter(world, [("x", 0, "y")], "nowhere") == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert alter(world, [("x", 0, "y")], "__transaction_state") == ErrorCode.INVALID_TOPIC_EXCEPTION
    assert world.store.topics["t"].config == {}
    world.disk.fail_next["replace_file"] = OSError(errno.ENOSPC, "No space left on device")
    assert alter(world, [("segment.ms", 0, "5000")]) == ErrorCode.KAFKA_STORAGE_ERROR
    assert world.store.topics["t"].config == {}
