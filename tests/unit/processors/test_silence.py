"""Silent nodes: a mark in their name, once, written before it is acted upon; what it lets be told and what not."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from headwater.clock import ManualClock
from headwater.dashboard.model import PageModel
from headwater.disk import ForgetfulDisk
from processors.inline import Processors
from processors.marks import NodeMarks, parse_mark
from processors.rules.model import Rules, WindowRule
from processors.settings import ProcessorSettings
from processors.silence import SilenceWatch, silence_record
from tests.support import river
from tests.support.memory_log import Killed, MemoryNode
from tests.support.river import Row, health

T0 = 1_700_000_000_000
SETTINGS = ProcessorSettings(checkpoint_every_ms=20, backoff_min_ms=1, backoff_max_ms=1, silent_after_s=60)
ALERT = river.alert(field="x", fire_above=0.5, clear_below=0.1, for_s=0)
DAY = river.window(name="day", kind="calendar", size_s=None, calendar="day")
HOPS = river.window(name="hops", kind="hopping", size_s=40, every_s=20)


def copy(second: float, offset: int, **more: Any) -> Row:
    return Row("a", T0 + round(second * 1000), {"x": 1}, hw=(0, 0, offset), **more)


def mark(second: float, offset: int, **more: Any) -> Row:
    time = T0 + round(second * 1000)
    return health(time, time=time, hw=(0, 0, offset), **more)


class World:
    """A central whose one edge sent two readings and a mark between them, and then nothing more."""

    def __init__(self, *rules: WindowRule) -> None:
        self.clock = ManualClock(T0 + 12_000)
        self.disk = ForgetfulDisk()
        self.node = MemoryNode(self.clock)
        self.node.topics["readings"] = [[]]
        self.feed(copy(1, 0), mark(10, 1), copy(12, 2))
        self.rules = Rules(windows=rules or (river.window(),), alerts=() if rules else (ALERT,))

    def feed(self, *rows: Row) -> None:
        self.node.feed(0, river.block(rows, len(self.node.topics["readings"][0])))

    def run(self, seconds: float, step: float = 10) -> None:
        """So long, with nothing to read but what is there by then; a poll that brings nothing takes `step` seconds."""
        processors = Processors(
            SETTINGS, self.rules, connect=self.node.connect, clock=self.clock, data_dir="/data", disk=self.disk
        )
        until = self.clock.monotonic_ms() + seconds * 1000

        def idle() -> None:
            self.clock.advance(step * 1000)
            if self.clock.monotonic_ms() >= until:
                processors.stop()

        self.node.idle = idle
        asyncio.run(processors.run())

    def said(self, topic: str = "aggregates") -> list[dict[str, Any]]:
        return [msgspec.json.decode(record[2] or b"") for record in self.node.topics[topic][0]]

    def results(self) -> list[tuple[Any, ...]]:
        names = ("revision", "complete", "cause", "count")
        return [((one["start"] - T0) // 1000, *(one[name] for name in names)) for one in self.said()]

    def marks(self) -> list[dict[str, Any]]:
        return [value for value in self.said("readings") if "silent_s" in value]


def test_what_waits_is_told_once_incomplete_and_no_alert_sees_it() -> None:
    world = World()
    world.run(300)
    assert world.results() == [(0, 0, True, "close", 1), (10, 0, False, "silent", 1)]
    assert [one["silent_s"] for one in world.marks()] == [60]
    assert {value["window"] for value in world.said("alerts")} == {T0}
    assert world.node.topics["readings"][0][3][1:3] == (b"n1/$gateway", b'{"silent_s":60}')
    world.run(300)  # a new process hears the same silence, and has nothing to add
    assert len(world.marks()) == 1


def test_when_the_node_is_back_its_windows_are_told_whole_and_its_next_silence_again() -> None:
    world = World()
    world.run(100)
    world.feed(copy(13, 3), mark(25, 4), copy(26, 5))
    world.run(100)
    assert world.results() == [
        (0, 0, True, "close", 1),
        (10, 0, False, "silent", 1),
        (10, 1, True, "close", 2),
        (20, 0, False, "silent", 1),
    ]
    assert world.said()[2]["before"]["count"] == 1
    assert len(world.marks()) == 2


def test_longer_windows_are_told_when_their_time_is_over_too() -> None:
    world = World(DAY, HOPS)
    left = (T0 // 86_400_000 + 1) * 86_400 - T0 // 1000  # seconds left of that day
    world.run(left - 200, step=60)
    assert "day" not in {value["rule"] for value in world.said()}
    first = len(world.marks())
    assert first <= 2  # one for the hopping windows that were over, one for the last of them
    world.run(300)
    assert [(value["cause"], value["complete"]) for value in world.said() if value["rule"] == "day"] == [
        ("silent", False)
    ]
    assert len(world.marks()) == first + 1


def test_a_node_of_its_own_marks_and_a_backlog_are_no_silence() -> None:
    watch, pends = SilenceWatch(60_000), river.processor()
    nodes = {"here": NodeMarks(n=5), "edge": NodeMarks(heard=1)}
    assert watch.look(nodes, pends, now_ms=0, wall_ms=T0) == []
    nodes["edge"].heard = 2
    assert watch.look(nodes, pends, now_ms=59_000, wall_ms=T0) == []
    assert watch.look(nodes, pends, now_ms=118_000, wall_ms=T0) == []
    assert watch.look(nodes, pends, now_ms=119_000, wall_ms=T0) == [("edge", 60_000)]


@pytest.mark.parametrize("how", ["before", "after"])
def test_a_process_that_dies_at_any_call_says_each_result_once(how: str) -> None:
    whole = World()
    whole.run(100)
    for call in range(1, whole.node.calls + 1, 2):
        world = World()
        world.node.fail_at, world.node.how, world.node.error = call, how, Killed()
        try:
            world.run(100)
        except Killed:
            world.disk.power_cut()
            world.run(100)
        assert world.results() == whole.results(), f"call {call}"
        assert len(world.marks()) == 1


def test_a_pages_node_is_as_old_as_its_own_last_mark() -> None:
    page = PageModel(history_s=1, devices_max=1, series_max=1)
    record = silence_record("n1", 60_000, T0)
    assert parse_mark(msgspec.json.encode({"node": "n1", "live": T0, "by": "central"})).by == "central"
    page._mark(record[3], T0, live=True)
    assert page.nodes == {}


def test_a_process_that_was_stopped_reads_what_came_meanwhile_before_it_calls_anybody_silent() -> None:
    world = World()
    steps = 0

    def idle() -> None:
        nonlocal steps
        steps += 1
        world.clock.advance(1000)
        if steps == 3:  # between a poll that brought nothing and the look that follows it
            world.clock.advance(70_000)
            world.feed(mark(80, 3))
        elif steps == 20:
            processors.stop()

    processors = Processors(
        SETTINGS, world.rules, connect=world.node.connect, clock=world.clock, data_dir="/data", disk=world.disk
    )
    world.node.idle = idle
    asyncio.run(processors.run())
    assert steps == 20
    assert world.marks() == []
