"""Topics of many partitions are made a step at a time: other clients are served between any two."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import pytest

from gateway.log.steps import Step, run_steps
from gateway.wire.compiler import Body
from gateway.wire.errors import ErrorCode
from gateway.wire.peer import Reply
from gateway.wire.schema import ApiKey
from tests.support.broker_world import Asked, World
from tests.support.counted import most_lines

COUNT = 60
LINES_MAX = 1_000  # of the loop, at a time; all of them take many times that


class Later(World):
    """Nothing that is done in steps is done before the test does it."""

    def start(self) -> None:
        super().start()
        self.work: list[tuple[Generator[Step, None, Body], Reply]] = []
        self.broker.work = lambda steps, _, done: self.work.append((steps, done))

    def finish(self) -> None:
        while self.work:
            steps, done = self.work.pop(0)
            done(run_steps(steps))

    def create(self, name: str, partitions: int = 1) -> Asked:  # type: ignore[override]  # here it is not there at once
        asked = {"name": name, "num_partitions": partitions, "replication_factor": 1}
        return self.send(ApiKey.CREATE_TOPICS, {"topics": [asked]})

    def delete(self, name: str) -> Asked:
        body: dict[str, Any] = {"topics": [{"name": name}], "topic_names": [name], "timeout_ms": 1}
        return self.send(ApiKey.DELETE_TOPICS, body)

    def alter(self, name: str, key: str, value: str) -> Asked:
        change = [{"name": key, "config_operation": 0, "value": value}]
        resource = {"resource_type": 2, "resource_name": name, "configs": change}
        return self.send(ApiKey.INCREMENTAL_ALTER_CONFIGS, {"resources": [resource], "validate_only": False})

    def grow(self, name: str, partitions: int) -> Asked:
        body = {"topics": [{"name": name, "count": partitions, "assignments": None}]}
        return self.send(ApiKey.CREATE_PARTITIONS, body | {"timeout_ms": 1, "validate_only": False})


def codes(asked: Asked) -> list[int]:
    answers: Any = next(asked.body[key] for key in ("topics", "results", "responses") if asked.body.get(key))
    return [answer["error_code"] for answer in answers]


def begun(later: Later) -> tuple[Callable[[], None], Generator[Step, None, Body], Reply]:
    """The last request's work with its first step, which is one for a thread."""
    steps, done = later.work.pop()
    step = next(steps)
    assert step is not None
    return step, steps, done


@pytest.fixture
def later() -> Later:
    return Later()


def test_many_partitions_are_made_off_the_loop_one_by_one(later: Later) -> None:
    asked = later.create("many", COUNT)
    for make in (lambda: None, lambda: later.grow("many", 2 * COUNT)):
        asked = make() or asked
        ((steps, done),) = later.work
        count, most, body = most_lines(steps)
        assert count >= COUNT
        assert most < LINES_MAX
        done(body)
        assert codes(asked) == [ErrorCode.NONE]
        later.work.clear()
    assert len(later.store.topics["many"].partitions) == 2 * COUNT
    assert not later.store.recovered
    later.crash()
    assert len(later.store.topics["many"].partitions) == 2 * COUNT


def test_others_are_answered_meanwhile_and_see_nothing_of_it(later: Later) -> None:
    asked = later.create("many", 3)
    ((steps, done),) = later.work
    for step in (next(steps), next(steps)):
        assert step is not None
        step()
        found = later.call(ApiKey.METADATA, {"topics": None})["topics"]
        assert "many" not in [topic["name"] for topic in found]
        body = {"topics": [{"name": "many"}], "allow_auto_topic_creation": True}
        (one,) = later.call(ApiKey.METADATA, body)["topics"]
        assert one["error_code"] == ErrorCode.LEADER_NOT_AVAILABLE
        again = later.create("many", 3)
        other, answered = later.work.pop()
        answered(run_steps(other))
        assert codes(again) == [ErrorCode.TOPIC_ALREADY_EXISTS]
    done(run_steps(steps))
    assert codes(asked) == [ErrorCode.NONE]
    assert len(later.store.topics["many"].partitions) == 3


def test_partitions_that_are_being_made_count(later: Later) -> None:
    later.broker.settings = later.settings = type(later.settings)(partitions_max=10)
    first = later.create("first", 6)
    steps, done = later.work.pop()
    step = next(steps)
    assert step is not None
    second = later.create("second", 6)
    later.finish()
    assert codes(second) == [ErrorCode.INVALID_PARTITIONS]
    step()
    done(run_steps(steps))
    assert codes(first) == [ErrorCode.NONE]


@pytest.mark.parametrize("steps_done", [0, 1, 3])
def test_what_is_given_up_in_the_middle_is_not_there_and_may_be_asked_for_again(later: Later, steps_done: int) -> None:
    later.create("many", 3)
    steps, _ = later.work.pop()
    for _ in range(steps_done):
        step = next(steps)
        assert step is not None
        step()
    steps.close()
    assert "many" not in later.store.topics
    asked = later.create("many", 2)
    later.finish()
    assert codes(asked) == [ErrorCode.NONE]
    later.crash()
    assert len(later.store.topics["many"].partitions) == 2


def test_a_topic_deleted_while_it_grows_stays_deleted(later: Later) -> None:
    later.create("many", 1)
    later.finish()
    asked = later.grow("many", 3)
    steps, done = later.work.pop()
    step = next(steps)
    assert step is not None
    gone = later.delete("many")
    later.finish()
    assert codes(gone) == [ErrorCode.NONE]
    step()
    done(run_steps(steps))
    assert codes(asked) == [ErrorCode.KAFKA_STORAGE_ERROR]
    later.crash()
    assert "many" not in later.store.topics


def test_others_are_answered_between_any_two_that_are_deleted_or_changed(later: Later) -> None:
    names = [f"t{number}" for number in range(20)]
    for name in names:
        later.create(name, 2)
    later.finish()
    change = [{"name": "segment.bytes", "config_operation": 0, "value": "2048"}]
    resources = [{"resource_type": 2, "resource_name": name, "configs": change} for name in names]
    later.send(ApiKey.INCREMENTAL_ALTER_CONFIGS, {"resources": resources, "validate_only": False})
    topics = [{"name": name} for name in names]
    gone = later.send(ApiKey.DELETE_TOPICS, {"topics": topics, "topic_names": names, "timeout_ms": 1})
    while later.work:
        steps, done = later.work.pop(0)
        count, _, body = most_lines(steps)
        assert count >= len(names)
        done(body)
    assert {answer["error_code"] for answer in gone.body["responses"]} == {ErrorCode.NONE}
    assert not set(names) & set(later.store.topics)


def test_partitions_that_are_being_made_have_the_settings_that_change_meanwhile(later: Later) -> None:
    later.create("grows", 1)
    later.finish()
    asked = later.grow("grows", 3)
    ((steps, _),) = later.work
    step = next(steps)
    assert step is not None
    step()
    later.store.configure_topic("grows", {"cleanup.policy": "compact", "segment.bytes": "2048"})
    later.finish()
    assert codes(asked) == [ErrorCode.NONE]
    logs = later.store.topics["grows"].partitions
    assert [(log.compacts, log.segment_bytes) for log in logs] == [(True, 2048)] * 3


def test_topics_are_created_for_who_asks_about_them_off_the_loop(later: Later) -> None:
    names = [f"t{number}" for number in range(5)]
    asked = later.send(
        ApiKey.METADATA, {"topics": [{"name": name} for name in names], "allow_auto_topic_creation": True}
    )
    ((steps, done),) = later.work
    assert not later.store.topics
    count, most, body = most_lines(steps)
    assert count > len(names)
    assert most < LINES_MAX
    done(body)
    assert codes(asked) == [ErrorCode.NONE] * 5


def test_of_names_that_may_not_be_made_any_number_leaves_others_their_turns(later: Later) -> None:
    names = [f"not a name {number}" for number in range(300)]
    asked = later.send(
        ApiKey.METADATA, {"topics": [{"name": name} for name in [*names, "t"]], "allow_auto_topic_creation": True}
    )
    steps, done = later.work.pop()
    for _ in names:
        assert next(steps) is None
    done(run_steps(steps))
    assert codes(asked) == [ErrorCode.INVALID_TOPIC_EXCEPTION] * 300 + [ErrorCode.NONE]


def test_a_topic_is_served_until_its_deletion_is_on_disk_and_its_name_is_free_when_its_files_are_gone(
    later: Later,
) -> None:
    later.create("t")
    later.finish()
    asked = later.delete("t")
    step, steps, done = begun(later)
    assert "t" in later.store.topics
    again, made, grown = later.delete("t"), later.create("t"), later.grow("t", 2)
    later.finish()
    assert codes(again) == [ErrorCode.UNKNOWN_TOPIC_OR_PARTITION]
    assert codes(made) == [ErrorCode.TOPIC_ALREADY_EXISTS]
    assert codes(grown) == [ErrorCode.INVALID_PARTITIONS]
    step()
    remove = next(steps)
    assert remove is not None
    assert "t" not in later.store.topics
    made = later.create("t")
    later.finish()
    assert codes(made) == [ErrorCode.TOPIC_ALREADY_EXISTS]
    body = {"topics": [{"name": "t"}], "allow_auto_topic_creation": True}
    assert later.call(ApiKey.METADATA, body)["topics"][0]["error_code"] == ErrorCode.LEADER_NOT_AVAILABLE
    remove()
    done(run_steps(steps))
    assert codes(asked) == [ErrorCode.NONE]
    made = later.create("t", 2)
    later.finish()
    assert codes(made) == [ErrorCode.NONE]
    later.crash()
    assert len(later.store.topics["t"].partitions) == 2


@pytest.mark.parametrize("steps_done", [0, 1, 2])
def test_a_deletion_that_is_given_up_in_the_middle_is_whole_or_none_after_the_next_start(
    later: Later, steps_done: int
) -> None:
    later.create("t")
    later.finish()
    later.delete("t")
    steps, _ = later.work.pop()
    for _ in range(steps_done):
        step = next(steps)
        assert step is not None
        step()
    steps.close()
    later.crash()
    assert ("t" in later.store.topics) is (steps_done == 0)
    later.delete("t")
    later.create("t")
    later.finish()
    assert later.store.topics["t"].partitions[0].log_end_offset == 0


def test_settings_changed_at_the_same_time_are_all_changed(later: Later) -> None:
    later.create("t")
    later.finish()
    first = later.alter("t", "segment.bytes", "2048")
    step, steps, done = begun(later)
    second = later.alter("t", "retention.ms", "1000")
    other_step, other_steps, other_done = begun(later)
    step()
    other_step()
    done(run_steps(steps))
    other_done(run_steps(other_steps))
    assert codes(first) == codes(second) == [ErrorCode.NONE]
    assert later.store.topics["t"].config == {"segment.bytes": "2048", "retention.ms": "1000"}
    later.crash()
    assert later.store.topics["t"].config == {"segment.bytes": "2048", "retention.ms": "1000"}


def test_settings_of_a_topic_that_is_deleted_meanwhile_and_made_anew_are_its_own(later: Later) -> None:
    later.create("t")
    later.finish()
    asked = later.alter("t", "segment.bytes", "2048")
    step, steps, done = begun(later)
    later.delete("t")
    later.create("t")
    later.finish()
    step()
    done(run_steps(steps))
    assert codes(asked) == [ErrorCode.UNKNOWN_TOPIC_OR_PARTITION]
    later.crash()
    assert later.store.topics["t"].config == {}
