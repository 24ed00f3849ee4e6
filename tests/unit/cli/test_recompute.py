"""`headwater aggregates recompute`: the log replaces what stands, once, and only where nobody else revises."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from headwater.cli.aggregates import chosen
from headwater.cli.recompute import compare, tell, write
from headwater.clock import ManualClock
from headwater.errors import UserError
from processors.processor import PartitionProcessor
from processors.recompute import Finding
from processors.rules.model import Rules, WindowRule
from tests.support import river
from tests.support.memory_log import Killed, MemoryNode
from tests.support.river import Row, health

T0 = 1_700_000_000_000
KINDS = {
    "tumbling": river.window(allowed_lateness_s=60),
    "hopping": river.window(kind="hopping", size_s=20, every_s=10, allowed_lateness_s=60),
    "session": river.window(kind="session", size_s=None, gap_s=15, allowed_lateness_s=60),
    "calendar": river.window(kind="calendar", size_s=None, calendar="day", allowed_lateness_s=60),
}
DAY = 86_400


def at(second: float, x: float = 1, **more: Any) -> Row:
    return Row("a", T0 + round(second * 1000), {"x": x}, **more)


def mark(second: float, **more: Any) -> Row:
    time = T0 + round(second * 1000)
    return health(time, time=time, clock=time, **more)


class World:
    """A node, its log, and what its processors said of it."""

    def __init__(self, rule: WindowRule, *rows: Row) -> None:
        self.rule = rule
        self.node = MemoryNode(ManualClock())
        self.node.topics = {"readings": [[]], "aggregates": [[]]}
        self.processor = PartitionProcessor(Rules(windows=(rule,)), "readings", 0, place="central")
        self.feed(*rows)

    def feed(self, *rows: Row) -> None:
        block = river.block(rows, len(self.node.topics["readings"][0]))
        self.node.feed(0, block)
        said = [output.record for output in self.processor.process(block) if output.topic == "aggregates"]
        self.node.topics["aggregates"][0] += said

    def recompute(self, begin: float = -1, end: float = 100, *, dry: bool = False, unread: int = 0) -> list[Finding]:
        """`unread`: so many records at the log's end have come since the processors were asked."""

        async def run() -> list[Finding]:
            reader: Any = await self.node.connect()
            ends = {("readings", 0): len(self.node.topics["readings"][0]) - unread}
            status = {"begins": {"readings/0": self.processor.begins()}}
            span = (T0 + round(begin * 1000), T0 + round(end * 1000))
            found, self.windows = await compare(reader, [self.rule], span, status, ends)
            if not dry:
                await write(reader, found)
            return found

        return asyncio.run(run())

    def values(self) -> list[dict[str, Any]]:
        return [msgspec.json.decode(record[2] or b"") for record in self.node.topics["aggregates"][0]]

    def latest(self) -> dict[int, dict[str, Any]]:
        return {(value["start"] - T0) // 1000: value for value in self.values()}


def test_what_comes_behind_what_the_processors_have_read_counts_for_nothing() -> None:
    world = World(KINDS["tumbling"], at(1), mark(30), mark(2 * DAY), at(3, 10))
    assert world.recompute(dry=True, unread=1) == []
    assert [(one.verdict, one.readings) for one in world.recompute(dry=True)] == [("revised", 2)]


def refused() -> tuple[Row, ...]:
    """Two windows; then, when nothing of that time is taken any more, readings of the first and of a third."""
    return at(1), at(2), at(12), mark(30), mark(2 * DAY), at(3, 10), at(41, 5), mark(2 * DAY + 1)


def test_readings_that_came_too_late_make_a_revision_once() -> None:
    world = World(KINDS["tumbling"], *refused())
    assert [(value["start"] - T0, value["count"]) for value in world.values()] == [(0, 2), (10_000, 1)]
    assert [
        (one.verdict, (one.start - T0) // 1000, one.readings_before, one.readings) for one in world.recompute()
    ] == [
        ("revised", 0, 2, 3),
        ("revised", 40, None, 1),
    ]
    first, fresh = world.latest()[0], world.latest()[40]
    assert (first["revision"], first["cause"], first["complete"], first["count"]) == (1, "recompute", True, 3)
    assert first["fields"]["x"] == {"count": 3, "mean": 4.0, "min": 1.0, "max": 10.0}
    assert first["before"] == {"count": 2, "fields": {"x": {"count": 2, "mean": 1.0, "min": 1.0, "max": 1.0}}}
    assert (fresh["revision"], fresh["count"]) == (0, 1)
    assert "before" not in fresh
    assert world.recompute() == []
    assert world.windows == 3


@pytest.mark.parametrize("kind", KINDS)
def test_what_stands_is_then_what_processors_with_patience_say(kind: str) -> None:
    rows = [at(second * 3.7, second) for second in range(20)]
    late = [at(second * 3.1 + 1, -second) for second in range(20)]
    world = World(KINDS[kind], *rows, mark(500), mark(3 * DAY), *late, mark(3 * DAY + 1), mark(6 * DAY))
    patient = msgspec.structs.replace(KINDS[kind], allowed_lateness_s=9 * DAY)
    expected = World(patient, *rows, *late, mark(6 * DAY))
    assert world.recompute(-DAY)
    shown = ("start", "end", "count", "fields", "complete")

    def by_start(one: World) -> dict[int, Any]:
        return {start: [value[name] for name in shown] for start, value in one.latest().items() if value["count"]}

    assert by_start(world) == by_start(expected)
    assert world.recompute(-DAY) == []


def test_windows_that_may_still_be_revised_or_are_owed_data_are_left_to_the_processors() -> None:
    rule = river.window(allowed_lateness_s=60, windows_max=16)
    rows = [row for second in range(0, 400, 10) for row in (at(second), mark(second))]
    world = World(rule, *rows, at(355), at(5), mark(400))
    # 355 is in memory and has been revised; 5 is refused
    assert [(one.verdict, (one.start - T0) // 1000) for one in world.recompute(-1, 1000)] == [("revised", 0)]
    world.feed(at(15), mark(401, open=[[T0 + 10_000, T0 + 12_000]]))
    world.node.topics["aggregates"][0] = world.node.topics["aggregates"][0][:1]
    found = {(one.start - T0) // 1000: one.verdict for one in world.recompute(-1, 1000, dry=True)}
    assert (found[10], found[20], found[380]) == ("owed", "revised", "open")


def test_windows_from_before_a_rule_began_are_made_at_once() -> None:
    world = World(river.window(name="other"), at(1), at(25), mark(30))
    world.rule = KINDS["tumbling"]
    young = PartitionProcessor(Rules(windows=(world.rule,)), "readings", 0, place="central")
    young.restore(world.processor.snapshot())
    world.processor = young
    world.feed(at(26), at(41), mark(55))
    assert [(value["rule"], (value["start"] - T0) // 1000) for value in world.values()[-1:]] == [("w", 40)]
    assert [((one.start - T0) // 1000, one.readings) for one in world.recompute()] == [(0, 1), (20, 2)]
    assert world.recompute() == []


def test_where_readings_have_expired_windows_are_named_and_left() -> None:
    world = World(KINDS["tumbling"], *refused())
    world.node.starts["readings", 0] = 2  # the first two readings of the first window are gone
    found = world.recompute()
    assert {(one.verdict, (one.start - T0) // 1000) for one in found} == {
        ("readings expired", 0),
        ("readings expired", 40),
    }
    assert world.latest()[0]["count"] == 2
    world.feed(at(2 * DAY + 700), mark(2 * DAY + 800), mark(5 * DAY), at(2 * DAY + 701), mark(5 * DAY + 1))
    found = world.recompute(2 * DAY, 3 * DAY)
    assert [(one.verdict, one.readings) for one in found] == [("revised", 2)]


SAYS = {"site": "north", "zone": "Asia/Kathmandu"}
JOINED = {
    "where": river.window(allowed_lateness_s=60, where="device.site == 'north'"),
    "zone": river.window(
        kind="calendar", size_s=None, calendar="shifts", shifts={"a": "03:59", "b": "04:00"}, zone="device"
    ),
}


@pytest.mark.parametrize("kind", JOINED)
def test_what_a_device_is_was_said_before_the_span(kind: str) -> None:
    rows = [at(1, says=SAYS), *(at(12 + 10 * one) for one in range(8)), mark(200), mark(9 * DAY)]
    world = World(JOINED[kind], *rows)
    assert len(world.values()) == {"where": 9, "zone": 2}[kind]
    assert world.recompute(10, 100) == []
    world.feed(at(55, 3), mark(9 * DAY + 1))
    world.feed(*(at(9 * DAY + one) for one in (2, 3)), mark(20 * DAY))
    assert [one.readings for one in world.recompute(5 * DAY, 20 * DAY)] == []


def test_windows_that_may_lack_what_their_device_is_are_left() -> None:
    world = World(JOINED["where"], at(1, says=SAYS), mark(30), *(at(400 + one) for one in range(3)), mark(DAY))
    world.node.starts["readings", 0] = 1  # what is left begins with a mark, and says again within ten minutes
    assert {one.verdict for one in world.recompute(300, 500)} == {"readings expired"}


def test_a_run_that_dies_at_any_call_and_is_run_again_writes_each_revision_once() -> None:
    whole = World(KINDS["tumbling"], *refused())
    whole.recompute()
    calls = whole.node.calls
    for how in ("before", "after"):
        for call in range(1, calls + 1):
            world = World(KINDS["tumbling"], *refused())
            world.node.fail_at, world.node.how, world.node.error = call, how, Killed()
            with pytest.raises(Killed):
                world.recompute()
            world.recompute()
            assert world.values() == whole.values(), f"{how} call {call} of {calls}"


def test_what_was_given_up_stays_incomplete() -> None:
    world = World(KINDS["tumbling"], at(1), mark(30, lost=[[T0, T0 + 5_000, 3]]), mark(DAY), at(2), mark(DAY + 1))
    world.recompute()
    assert [(value["cause"], value["complete"]) for value in world.values()] == [("lost", False), ("recompute", False)]


def test_it_says_what_it_did(capsys: pytest.CaptureFixture[str]) -> None:
    world = World(KINDS["tumbling"], *refused())
    found = world.recompute()
    tell(found, world.windows, dry_run=False, as_json=False)
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "3 windows: 1 as the log says, 2 revised"
    assert told[1] == "  w of n1/a, 2023-11-14T22:13:20Z to 2023-11-14T22:13:30Z: 2 → 3 readings"
    tell(found, world.windows, dry_run=False, as_json=True)
    assert msgspec.json.decode(capsys.readouterr().out.splitlines()[1])["readings_before"] is None


def test_a_rule_that_is_not_there_is_named() -> None:
    with pytest.raises(UserError, match="there is no window rule “x” here"):
        chosen(Rules(windows=(river.window(),)), "x")
