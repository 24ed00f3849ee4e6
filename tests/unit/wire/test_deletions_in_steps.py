"""DeleteRecords leaves what blocks on the disk to a thread; what others do meanwhile is neither lost nor hurt."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from typing import Any

import pytest

from gateway.log.steps import Step
from gateway.wire.compiler import Body
from gateway.wire.errors import ErrorCode
from gateway.wire.peer import Reply
from gateway.wire.schema import ApiKey
from tests.support.broker_world import Asked, World


class Later(World):
    """What is done in steps is done when the test says so."""

    def start(self) -> None:
        super().start()
        self.work: list[tuple[Generator[Step, None, Body], Reply]] = []
        self.broker.work = lambda steps, _, done: self.work.append((steps, done))

    def delete(self, offset: int) -> tuple[Asked, Generator[Step, None, Body], Reply]:
        body = {"topics": [{"name": "t", "partitions": [{"partition_index": 0, "offset": offset}]}], "timeout_ms": 1}
        asked = self.send(ApiKey.DELETE_RECORDS, body)
        return asked, *self.work.pop()


def call(steps: Generator[Step, None, Body]) -> Callable[[], None]:
    """The next step, which blocks on the disk."""
    step = next(steps)
    assert step is not None
    return step


def end(steps: Generator[Step, None, Body], done: Reply) -> None:
    while True:
        try:
            step = next(steps)
        except StopIteration as stopped:
            done(stopped.value)
            return
        if step is not None:
            step()


def answered(asked: Asked) -> tuple[int, int]:
    """(error code, low watermark)"""
    part: dict[str, Any] = asked.body["topics"][0]["partitions"][0]
    return part["error_code"], part["low_watermark"]


@pytest.fixture
def later() -> Later:
    world = Later()
    world.store.create_topic("t")
    world.produced("t", [b"a"] * 9)
    return world


def test_every_file_is_replaced_off_the_loop(later: Later, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[int] = []
    replace = later.disk.replace_file

    def replaced(path: str, data: bytes) -> None:
        threads.append(threading.get_ident())
        replace(path, data)

    monkeypatch.setattr(later.disk, "replace_file", replaced)
    asked, steps, done = later.delete(4)
    assert not threads, "nothing before the first step"
    log = later.store.partition("t", 0)
    assert log is not None
    starts = []
    for _ in range(2):
        thread = threading.Thread(target=call(steps))
        thread.start()
        thread.join()
        starts.append(log.log_start_offset)
    assert starts == [0, 4], "served until it is known for good"
    end(steps, done)
    assert answered(asked) == (0, 4)
    assert threads
    assert threading.get_ident() not in threads


def test_settings_that_change_meanwhile_and_the_deletion_are_both_kept(later: Later) -> None:
    later_one, steps, done = later.delete(4)
    step = call(steps)
    later.store.configure_topic("t", {"retention.ms": "5000"})
    step()
    later.store.configure_topic("t", {"retention.ms": "6000"})
    end(steps, done)
    assert answered(later_one) == (0, 4)
    later.crash()
    log = later.store.partition("t", 0)
    assert log is not None
    assert (log.log_start_offset, later.store.topics["t"].config) == (4, {"retention.ms": "6000"})


def test_of_two_deletions_at_once_the_later_start_counts_whoever_is_quicker(later: Later) -> None:
    low, low_steps, low_done = later.delete(3)
    high, high_steps, high_done = later.delete(5)
    first, second = call(low_steps), call(high_steps)
    second()
    first()
    end(high_steps, high_done)
    end(low_steps, low_done)
    assert answered(high) == answered(low) == (0, 5)
    later.crash()
    log = later.store.partition("t", 0)
    assert log is not None
    assert log.log_start_offset == 5


@pytest.mark.parametrize("steps_done", [0, 1])
def test_a_topic_that_is_made_anew_meanwhile_loses_nothing(later: Later, steps_done: int) -> None:
    asked, steps, done = later.delete(4)
    step = call(steps)
    if steps_done:
        step()
        step = call(steps)
    later.store.delete_topic("t")
    later.store.create_topic("t")
    later.produced("t", [b"new"] * 9)
    step()
    end(steps, done)
    assert answered(asked)[0] in (0, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
    for _ in range(2):
        log = later.store.partition("t", 0)
        assert log is not None
        assert log.log_start_offset == 0
        later.crash()
    assert ("t", 0) not in later.store.offsets.starts
