"""How often devices speak, learnt from their readings; and who is called silent by it."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.ingest.intervals import BURST_MS, Interval
from processors.budget import NO_LIMITS, Limits
from processors.processor import PartitionProcessor
from processors.results import NEVER
from processors.rhythms import STREAMS_MS, Rhythms
from processors.rules.model import AlertRule
from tests.support import river
from tests.support.river import Row, health

T0 = 1_700_000_000_000
WINDOW = river.window(name="w", size_s=3600, devices=["*"], allowed_lateness_s=0)
RULE = msgspec.convert({"name": "quiet", "window": "w", "missed": 3}, AlertRule)


def one_by_one(readings: list[tuple[int, int]], devices: int) -> list[int]:
    """What the gateway's own `Interval` says of each device, and of those that stream the length of a burst."""
    found = []
    for device in range(devices):
        interval, newest, began = Interval(), -math.inf, 0.0
        for _, time in (reading for reading in readings if reading[0] == device):
            if time - newest > BURST_MS:
                interval.spoke(time, newest)
                began = time
            newest = max(newest, time)
        learnt = interval.learnt_ms
        if learnt is not None and newest - began > 3 * learnt:
            learnt = None
        streams = learnt is None and newest - began >= STREAMS_MS
        found.append(BURST_MS if streams else learnt or 0)
    return found


STEP = st.sampled_from([0, 1, 500, 1_000, 1_001, 5_000, 30_000, 70_000, -3_000, 86_400_000])


@given(
    steps=st.lists(st.tuples(st.integers(0, 2), STEP, st.sampled_from([1, 6, 20])), max_size=30),
    cuts=st.lists(st.integers(0, 300), max_size=6),
    restarts=st.booleans(),
)
def test_many_at_once_learn_what_each_learns_by_itself(
    steps: list[tuple[int, int, int]], cuts: list[int], restarts: bool
) -> None:
    now = dict.fromkeys(range(3), T0)
    readings = []
    for device, step, times in steps:
        for _ in range(times):
            now[device] += step
            readings.append((device, now[device]))
    heard = np.full(4, NEVER, dtype=np.int64)
    rhythms = Rhythms()
    for begin, end in pairwise(sorted({0, len(readings), *(cut for cut in cuts if cut < len(readings))})):
        key, time = np.array(readings[begin:end], dtype=np.int64).T
        for device, first in zip(key.tolist(), time.tolist(), strict=True):
            if heard[device] == NEVER:
                heard[device] = first
        rhythms.grow(3)
        rhythms.take(key, time, heard)
        np.maximum.at(heard, key, time)
        if restarts:
            data, rhythms = rhythms.snapshot(), Rhythms()
            rhythms.restore(data)
    rhythms.grow(3)
    assert rhythms.intervals(np.arange(3), heard[:3]).tolist() == one_by_one(readings, 3)


def test_a_burst_longer_than_the_silence_behind_it_says_that_nothing_is_known_any_more() -> None:
    readings = [(0, T0 + second * 30_000) for second in range(7)]
    readings += [(0, T0 + 180_000 + tenth * 500) for tenth in range(1, 60)]  # half a minute without a pause
    readings += [(0, readings[-1][1] + second * 20_000) for second in range(1, 7)]
    key, time = np.array(readings, dtype=np.int64).T
    heard, rhythms, at_once = np.full(2, T0, dtype=np.int64), Rhythms(), Rhythms()
    for one in (rhythms, at_once):
        one.grow(1)
    at_once.take(key, time, heard)
    assert at_once.intervals(np.arange(1), time[-1:]).tolist() == [20_000]
    at_once = Rhythms()
    at_once.grow(1)
    at_once.take(key[:7], time[:7], heard)  # … and what was learnt before is gone
    at_once.take(key[7:-1], time[7:-1], time[6:7])
    assert at_once.intervals(np.arange(1), time[-2:-1]).tolist() == [0]
    for count, (_, at) in enumerate(readings):
        rhythms.take(np.array([0]), np.array([at]), heard)
        heard[0] = at
        assert rhythms.intervals(np.arange(1), heard[:1]).tolist() == one_by_one(readings[: count + 1], 1), count
    assert one_by_one(readings, 1) == [20_000]
    assert one_by_one(readings[:-1], 1) == [0]


class World:
    def __init__(self, rule: AlertRule = RULE, limits: Limits = NO_LIMITS) -> None:
        self.rule, self.limits = rule, limits
        self.processor = self._made()
        self.offset = 0
        self.told: list[dict[str, Any]] = []

    def _made(self) -> PartitionProcessor:
        return river.processor(WINDOW, alerts=[self.rule], limits=self.limits)

    def feed(self, rows: list[Row], cut: int = 1 << 30) -> None:
        for begin in range(0, len(rows), cut):
            block = river.block(rows[begin : begin + cut], self.offset)
            self.offset += len(rows[begin : begin + cut])
            self.told += river.values(self.processor.process(block), "alerts")

    def restart(self) -> None:
        data = msgspec.msgpack.decode(msgspec.msgpack.encode(self.processor.snapshot()))
        self.processor = self._made()
        assert self.processor.restore(data) == []

    @property
    def states(self) -> list[tuple[str, str, int]]:
        return [(one["instance"].removeprefix("n1/"), one["state"], one["at"] - T0) for one in self.told]


def says(device: str, second: float) -> Row:
    return Row(device, T0 + round(second * 1000), {"x": 1})


def marks(first: int, last: int, step: int = 1) -> list[Row]:
    return [
        health(T0 + second * 1000, time=T0 + second * 1000, clock=T0 + second * 1000)
        for second in range(first, last, step)
    ]


def until(first: int, last: int, step: int = 5, **every_s: float) -> list[Row]:
    """Devices that speak so often, and marks."""
    rows = marks(first, last, step)
    for device, every in every_s.items():
        rows += [says(device, first + index * every) for index in range(math.ceil((last - first) / every))]
    return sorted(rows, key=lambda row: row.time)


@pytest.mark.parametrize("cut", [1 << 30, 1, 7])
@pytest.mark.parametrize("restarted", [False, True])
def test_who_says_nothing_of_its_interval_is_judged_by_what_it_did(cut: int, restarted: bool) -> None:
    world = World()
    world.feed(until(0, 600, slow=60, quick=0.5, once=1000), cut)
    if restarted:
        world.restart()
    world.feed(marks(600, 900, 5), cut)
    # `quick` streams, and ten seconds are the least; of `once` nobody knows anything
    assert world.states == [("quick", "firing", 609_500), ("slow", "firing", 720_000)]
    world.feed(until(900, 910, slow=60, once=1000), cut)
    assert world.states[2:] == [("slow", "resolved", 900_000)]


def test_an_outage_moves_nothing_and_what_comes_late_teaches_nothing() -> None:
    world = World()
    world.feed(until(0, 300, slow=30, other=5))
    world.feed(until(3000, 3100, slow=30, other=5))
    world.feed([says("slow", second) for second in range(300, 3000, 7)])  # what was kept meanwhile
    world.feed(until(3100, 3300, other=5))
    assert world.states == [("slow", "firing", 3_180_000)]


def test_what_is_said_counts_before_what_was_learnt() -> None:
    world = World()
    world.feed([Row("slow", T0, {"x": 1}, says={"expected_interval_ms": 100_000})])
    world.feed(until(0, 300, slow=30))
    world.feed(marks(300, 620))
    assert world.states == [("slow", "firing", 570_000)]


def test_silent_after_s_counts_before_what_was_learnt() -> None:
    world = World(msgspec.structs.replace(RULE, silent_after_s=500))
    world.feed(until(0, 300, slow=30))
    world.feed(marks(300, 800))
    assert world.states == [("slow", "firing", 770_000)]


def test_a_device_that_was_forgotten_begins_to_be_known_anew() -> None:
    world = World(limits=Limits(forget_after_ms=7_200_000))
    world.feed(until(0, 600, 10, slow=60))
    world.feed(marks(600, 20_000, 600))
    assert world.processor.budget.roster.alive == 1  # the gateway alone
    told = len(world.told)
    world.feed([says("slow", 20_000)])
    world.feed(marks(20_000, 21_000))
    assert world.states[told:] == []
