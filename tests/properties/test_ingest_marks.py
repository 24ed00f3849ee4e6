"""Marks against a naive model: every reading kept in a list, T recomputed from design §9's words at each mark."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from gateway.ingest.marks import MarkMaker, MarkSettings
from gateway.log.own_headers import OwnMark

SETTINGS = MarkSettings(every_ms=1_000, lateness_ms=2_000, idle_ms=10_000, skew_max_ms=60_000)
WALL = 1_700_000_000_000
ids = st.sampled_from(["mqtt:a", "mqtt:b", "serial:c"])


@dataclass
class Naive:
    """What the outside saw of one source."""

    events: list[int] = field(default_factory=list)  # trusted event times
    last_ms: float = float("-inf")
    last_wall: int = 0
    said_goodbye: bool = False


class MarksMachine(RuleBasedStateMachine):
    """Connect, send, leave, wait, restart; every mark is compared with the model's."""

    @initialize()
    def start(self) -> None:
        self.now = 5_000.0
        self.started = self.now
        self.model: dict[str, Naive] = {}
        self.live = 0
        self.n = 0
        self.newest_arrival: int | None = None
        self.values: list[bytes] = []
        self.told: dict[str, Any] = {}
        self.maker = self.make()

    def make(self) -> MarkMaker:
        return MarkMaker(SETTINGS, node="edge", started_ms=self.now)

    def wall(self) -> int:
        return WALL + int(self.now)

    @rule(source=ids)
    def connect(self, source: str) -> None:
        self.maker.connected(self.maker.source(source))
        self.model.setdefault(source, Naive()).said_goodbye = False

    # ahead of its arrival, as usual, and too far behind; ages that only the passing of time moves over a limit
    @rule(source=ids, age_ms=st.integers(-3_000, 4_000) | st.integers(59_000, 62_000) | st.just(-250_000))
    def send(self, source: str, age_ms: int) -> None:
        naive = self.model.setdefault(source, Naive())
        event = self.wall() - age_ms
        self.maker.saw(self.maker.source(source), event, arrival_ms=self.wall(), now_ms=self.now)
        naive.events.append(event)
        naive.last_ms, naive.last_wall = self.now, self.wall()
        self.newest_arrival = self.wall()

    @rule(source=ids)
    def send_with_a_wrong_clock(self, source: str) -> None:
        naive = self.model.setdefault(source, Naive())
        self.maker.saw(self.maker.source(source), None, arrival_ms=self.wall(), now_ms=self.now)
        naive.last_ms, naive.last_wall = self.now, self.wall()
        self.newest_arrival = self.wall()

    @rule(source=ids, clean=st.booleans())
    def leave(self, source: str, clean: bool) -> None:
        self.maker.disconnected(self.maker.source(source), clean=clean)
        self.model.setdefault(source, Naive()).said_goodbye = clean

    @rule(ms=st.sampled_from([1, 300, 300, 999, 2_500, 7_000]))
    def wait(self, ms: int) -> None:
        self.now += ms

    @rule()
    def mark(self) -> None:
        value = self.maker.make(now_ms=self.now, wall_ms=self.wall(), epoch=3)
        mark = msgspec.json.decode(value)
        self.values.append(value)
        self.n += 1
        self.live = max(self.live, min(self.expected(), self.wall() - 2_000))  # never ahead of the clock
        assert (mark["n"], mark["live"]) == (self.n, self.live)
        assert list(mark) == ["v", "node", "epoch", "partition", "k", "n", "live", "src", "clock", "every_ms"]
        self.told |= mark["src"]
        for source, naive in self.model.items():
            if naive.events:
                assert self.told[source][1] == max(naive.events) - 2_000

    def expected(self) -> int:
        holding = [
            max(naive.events)
            for naive in self.model.values()
            if naive.events
            and not naive.said_goodbye
            and self.now - max(naive.last_ms, self.started) <= 10_000
            and naive.last_wall - max(naive.events) <= 60_000
        ]
        if not holding:
            return self.wall() - 2_000
        newest = min(holding) if self.newest_arrival is None else min(*holding, self.newest_arrival)
        return newest - 2_000

    @rule()
    def crash_and_restart(self) -> None:
        """Whoever comes back knows only the marks; the model forgets as much."""
        self.now += 500
        self.started = self.now
        self.newest_arrival = None
        self.maker = self.make()
        for value in self.values:
            self.maker.resume(msgspec.json.decode(value, type=OwnMark))
        for source, naive in self.model.items():
            marked = self.told.get(source)
            naive.events = [marked[1] + 2_000] if marked is not None else []
            naive.said_goodbye = marked is not None and marked[0] == "gone"
            naive.last_ms, naive.last_wall = float("-inf"), naive.events[0] if naive.events else 0

    @invariant()
    def never_falls(self) -> None:
        assert self.maker.live == self.live


MarksMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
test_marks_follow_the_naive_model = MarksMachine.TestCase
