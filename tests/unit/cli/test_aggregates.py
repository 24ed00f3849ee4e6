"""`headwater aggregates`: whatever holds a window is named, by what stands in a node's topics."""

from __future__ import annotations

import asyncio
import re
import sys
from typing import Any

import pytest

from headwater.cli.aggregates import latest
from headwater.cli.aggregates_why import explain, text
from headwater.cli.entry import main
from headwater.clock import ManualClock
from headwater.errors import UserError
from processors.processor import AGGREGATES, PartitionProcessor
from processors.rules.model import Rules, WindowRule
from tests.support import river
from tests.support.memory_log import MemoryNode
from tests.support.river import Row
from tests.support.tree import ROOT

T0 = 1_700_000_000_000
UP = {"work": {"report": {"processors": {"state": "up", "lag_records": 0}}}}
TUMBLING = river.window()


def at(second: float, device: str = "a", **more: Any) -> Row:
    return Row(device, T0 + round(second * 1000), {"x": 1}, **more)


def mark(second: float, **more: Any) -> Row:
    """A health reading at T0 + `second` of a clock that is right, all sources as far as that."""
    base: dict[str, Any] = {"clock": T0 + round(second * 1000), "src": {"mqtt:plc": ["connected", T0 + 1]}}
    for name in {"open", "lost"} & more.keys():
        more[name] = [[T0 + first * 1000, T0 + last * 1000, *count] for first, last, *count in more[name]]
    hw = more.pop("hw", None)
    return river.health(T0 + round(second * 1000), time=T0 + round(second * 1000), hw=hw, **{**base, **more})


class World:
    """A node whose readings were processed by the rules so far."""

    def __init__(self, *rules: WindowRule, rows: list[Row]) -> None:
        self.rules = Rules(windows=rules or (TUMBLING,))
        self.node = MemoryNode(ManualClock())
        self.node.topics = {"readings": [[]], AGGREGATES: [[]]}
        block = river.block(rows)
        self.node.feed(0, block)
        processor = PartitionProcessor(self.rules, "readings", 0, place="central")
        self.node.topics[AGGREGATES][0] += [output.record for output in processor.process(block)]

    def why(
        self, key: str = "n1/a", second: float | None = 5, *, now: float = 20, rule: str = "", status: Any = UP
    ) -> dict[str, Any]:
        time = None if second is None else T0 + round(second * 1000)
        found = self.all_why(key, time, now, rule, status)
        assert len(found) == 1
        return found[0]

    def all_why(self, key: str, time: int | None, now: float, rule: str, status: Any) -> list[dict[str, Any]]:
        async def ask() -> list[dict[str, Any]]:
            reader: Any = await self.node.connect()
            now_ms = T0 + round(now * 1000)
            return await explain(reader, self.rules, key, time, rule=rule, status=status, now_ms=now_ms)

        return asyncio.run(ask())

    def latest(self, rule: str = "", group: str = "", *, incomplete: bool = False) -> list[tuple[Any, ...]]:
        async def ask() -> list[dict[str, Any]]:
            return await latest(await self.node.connect(), rule, group, incomplete=incomplete)

        found = asyncio.run(ask())
        return [(one["group"], (one["start"] - T0) // 1000, one["revision"], one["count"]) for one in found]


def test_a_window_whose_time_is_not_over() -> None:
    found = World(rows=[at(5), mark(6)]).why(now=6)
    assert (found["start"], found["end"], found["readings"], found["told"]) == (T0, T0 + 10_000, 1, None)
    assert found["held_by"]["kind"] == "time"
    assert "2023-11-14T22:13:26Z, 4 s short of its end 2023-11-14T22:13:30Z" in found["reason"]


def test_a_source_that_is_behind_the_others_is_named() -> None:
    far = {"mqtt:plc": ["connected", T0 + 9_000], "serial:mast": ["connected", T0 + 4_000], "x": ["gone", T0]}
    found = World(rows=[at(5), mark(4, src=far, clock=T0 + 12_000)]).why(now=12)
    assert found["held_by"]["kind"] == "source"
    assert found["held_by"]["source"] == "serial:mast"
    assert found["reason"].startswith("Source serial:mast of n1 is the furthest behind, at 2023-11-14T22:13:24Z")


def test_the_only_source_is_named_when_the_nodes_own_clock_is_past_the_window() -> None:
    rows = [at(5), mark(5, src={"mqtt:plc": ["connected", T0 + 5_000]}, clock=T0 + 12_000)]
    assert World(rows=rows).why(now=12)["held_by"]["source"] == "mqtt:plc"


def test_a_silent_node_is_named() -> None:
    found = World(rows=[at(5), mark(6)]).why(now=126)
    assert found["held_by"]["kind"] == "silent"
    assert found["held_by"]["silent_ms"] == 120_000
    assert found["reason"].startswith("n1 is silent: the last, mark 1 of n1 (readings/0, offset 1) says")
    assert found["reason"].endswith("2 min 0 s ago. The gateway is off, or its link is cut.")


def test_of_several_partitions_the_slowest_is_named_and_one_that_said_nothing() -> None:
    copy: dict[str, Any] = {"k": 2, "hw": (0, 0, 1)}
    world = World(rows=[at(5, hw=(0, 0, 0)), mark(30, **copy)])
    assert world.why()["reason"] == "Only partition 0 of the 2 of n1 has made a mark so far."
    world = World(rows=[at(5, hw=(0, 0, 0)), mark(30, **copy), mark(8, partition=1, n=9, k=2, hw=(0, 1, 1))])
    found = world.why(now=8)
    assert (found["held_by"]["n"], found["held_by"]["offset"]) == (9, 2)


def test_what_backfill_owes_is_named() -> None:
    found = World(rows=[at(5), mark(15, open=[[2, 3], [50, 60]])]).why()
    assert found["held_by"] == {
        "kind": "backfill",
        "node": "n1",
        "live": T0 + 15_000,
        "partition": 0,
        "offset": 1,
        "n": 1,
        "owed": [(T0 + 2000, T0 + 3000)],
    }
    assert found["reason"].startswith("Backfill still owes data of 2023-11-14T22:13:22Z to 2023-11-14T22:13:23Z, says")
    assert found["told"]["cause"] == "backfill"


def test_a_closed_window_and_its_late_readings() -> None:
    rows = [at(5), mark(6), at(6), mark(12, n=7), at(3), mark(13, n=8), at(4)]
    found = World(rows=rows).why(now=14)
    assert found["held_by"]["kind"] == "nothing"
    assert "mark 7 of n1 (readings/0, offset 3) said that all of its sources had passed" in found["reason"]
    assert found["told"] == {"revision": 1, "complete": True, "cause": "late", "count": 3}
    assert (found["readings"], found["late_count"]) == (4, 2)
    assert found["late"][0] == {
        "key": "n1/a",
        "partition": 0,
        "offset": 4,
        "time": T0 + 3000,
        "live": T0 + 12_000,
        "backfill": False,
        "after_close": True,
    }
    assert found["late_reasons"][0] == (
        "readings/0 offset 4: its time 2023-11-14T22:13:23Z was 9 s behind what n1 had said; "
        "it came live, so the device's clock is behind, or the device had kept it; the window had closed by then"
    )


def test_a_silent_node_that_was_marked_so_is_told_with_the_place() -> None:
    rows = [at(5), mark(6), mark(80, by="central")]
    found = World(rows=rows).why(now=120)
    assert found["held_by"]["kind"] == "silent"
    assert found["reason"].endswith("It was marked as silent at 2023-11-14T22:14:40Z (readings/0, offset 2).")
    assert found["told"]["cause"] == "silent"


def test_what_was_given_up_is_named() -> None:
    found = World(rows=[at(5), mark(15, lost=[[2, 3, 7]])]).why()
    assert "2023-11-14T22:13:22Z to 2023-11-14T22:13:23Z was given up" in found["reason"]
    assert found["told"]["complete"] is False


def test_a_foreign_producer_makes_no_marks() -> None:
    found = World(rows=[at(5)]).why()
    assert found["held_by"] == {"kind": "no_marks"}
    assert "what Kafka clients write closes foreign_lateness_s behind it" in found["reason"]


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ({}, "The node's processors do not run."),
        (UP, ""),
        ({"work": {"report": {"processors": {"state": "connecting", "error": "refused"}}}}, "are connecting: refused."),
        ({"work": {"report": {"processors": {"state": "up", "lag_records": 3}}}}, "are 3 records behind the log."),
    ],
)
def test_processors_that_are_at_fault_are_named(status: dict[str, Any], said: str) -> None:
    found = World(rows=[at(5), mark(15)]).why(status=status)["processors"]
    assert found.endswith(said)
    assert bool(found) is bool(said)


def test_the_window_is_that_of_the_newest_reading_of_a_time_or_of_a_key() -> None:
    world = World(rows=[at(5), at(25), at(12), mark(30)])
    assert world.why(second=None)["start"] == T0 + 20_000
    assert world.why(second=12)["start"] == T0 + 10_000
    assert world.why(f"n1/a/w/{T0}", None)["end"] == T0 + 10_000


def test_windows_of_other_kinds() -> None:
    hopping = river.window(name="hop", kind="hopping", size_s=20, every_s=5)
    session = river.window(name="talk", kind="session", size_s=None, gap_s=5)
    world = World(hopping, session, rows=[at(5), at(9), mark(30)])
    found = world.all_why("n1/a", T0 + 9000, 31, "", UP)
    assert [(one["rule"], one["start"] - T0, one["end"] - T0) for one in found] == [
        ("hop", 5_000, 25_000),
        ("talk", 9_000, 14_000),
    ]
    talk = world.why(f"n1/a/talk/{T0 + 5000}", None)
    assert (talk["end"], talk["readings"], talk["told"]["count"]) == (T0 + 14_000, 2, 2)


def test_a_window_by_the_devices_own_clock() -> None:
    day = river.window(kind="calendar", calendar="day", zone="device", size_s=None)
    world = World(day, rows=[at(5, says={"zone": "Asia/Kathmandu"}), mark(6)])
    world.node.topics["devices"] = [[(T0, b"n1/a", b'{"zone":"Asia/Kathmandu"}', b"\0"), (T0, b"n1/b", None, b"\0")]]
    found = world.why()
    assert (found["start"], found["end"]) == (1_699_985_700_000, 1_700_072_100_000)  # 00:00 at +05:45
    assert found["readings"] == 1


@pytest.mark.parametrize(
    ("key", "rule", "second", "said"),
    [
        ("a", "", 5, "“a” is no key of a device"),
        ("n1/a", "hot", 5, "no window rule “hot” here is about n1/a"),
        ("n1/$gateway", "", 5, "no window rule here is about"),
        ("n1/b", "", None, "no reading of n1/b among the last 50,000 records of readings"),
    ],
)
def test_mistakes_are_named(key: str, rule: str, second: float | None, said: str) -> None:
    with pytest.raises(UserError) as caught:
        World(rows=[at(5)]).why(key, second, rule=rule)
    assert said in caught.value.what
    assert caught.value.hint


def test_the_list_has_the_latest_revision_of_each_window() -> None:
    rows = [at(5), at(6, "b"), mark(12), at(3), at(15), mark(22, open=[[15, 16]])]
    world = World(rows=rows)
    assert world.latest() == [("n1/a", 0, 1, 2), ("n1/b", 0, 0, 1), ("n1/a", 10, 0, 1)]
    assert world.latest(group="*/b") == [("n1/b", 0, 0, 1)]
    assert world.latest(rule="none") == []
    assert world.latest(incomplete=True) == [("n1/a", 10, 0, 1)]


@pytest.mark.parametrize("command", ["list", "why"])
def test_help_shows_an_example(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["headwater", "aggregates", command, "--help"])
    with pytest.raises(SystemExit):
        main()
    assert f"headwater aggregates {command}" in capsys.readouterr().out


def test_the_example_on_the_page_is_what_the_command_says() -> None:
    page = (ROOT / "docs" / "windows.md").read_text(encoding="utf-8")
    [example] = re.findall(r"\$ headwater aggregates why edge-1/t01\n(.*?)```", page, re.DOTALL)
    rows = [
        Row("t01", T0 + 1, {"power": 812}, node="edge-1"),
        Row("t01", T0 + 2, {"power": 7.5}, node="edge-1"),
        river.health(T0 + 6_000, "edge-1", T0 + 6_000, n=6, clock=T0 + 6_000),
    ]
    world = World(river.window(name="farm_10s"), rows=rows)
    assert text(world.why("edge-1/t01", None, now=126)) == example.strip()
