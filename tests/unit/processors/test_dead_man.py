"""Dead-man alerts: a silent device, a gateway that is cut off, and neither while nothing was read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from headwater.errors import UserError
from processors.processor import PartitionProcessor
from processors.rules.files import load_rules
from processors.rules.model import AlertRule
from processors.silence import silence_record
from tests.support import river
from tests.support.river import Row, health

T0 = 1_700_000_000_000
WINDOW = river.window(name="w", size_s=3600, devices=["*"])
RULE = msgspec.convert({"name": "quiet", "window": "w", "silent_after_s": 30}, AlertRule)


class World:
    """A central's partition; times are seconds after T0."""

    def __init__(self, rule: AlertRule = RULE) -> None:
        self.processor = river.processor(WINDOW, alerts=[rule])
        self.offset = 0
        self.told: list[dict[str, Any]] = []

    def feed(self, *rows: Row) -> None:
        block = river.block(rows, self.offset)
        self.offset += len(rows)
        self.told += river.values(self.processor.process(block), "alerts")

    def says(self, second: int, *devices: str) -> None:
        self.feed(*(Row(device, T0 + second * 1000, {"x": 1}, hw=(0, 0, self.offset)) for device in devices))

    def mark(self, second: int, **more: Any) -> None:
        time = T0 + second * 1000
        self.feed(health(time, time=time, hw=(0, 0, self.offset), clock=time, **more))

    def live(self, first: int, last: int, *devices: str) -> None:
        for second in range(first, last):
            self.says(second, *devices)
            self.mark(second)

    def silence(self, second: int) -> None:
        """What the owner of the partition writes in the node's name."""
        time, key, value, headers = silence_record("n1", 60_000, T0 + second * 1000)
        block = river.block([health(0)], self.offset)
        self.offset += 1
        block = block._replace(timestamps=[time], keys=[key], values=[value], headers=[headers])
        self.told += river.values(self.processor.process(block), "alerts")

    @property
    def states(self) -> list[tuple[str, str]]:
        return [(one["instance"].removeprefix("n1/"), one["state"]) for one in self.told]


def test_a_device_that_stops_is_named_once_and_when_it_speaks_again() -> None:
    world = World()
    world.live(0, 40, "a", "b")
    world.live(40, 120, "b")
    assert world.states == [("a", "firing")]
    told = world.told[0]
    assert (told["window"], told["at"]) == (T0 + 39_000, T0 + 69_000)
    assert told["cause"] == "the device is silent: nothing for 30 s"
    world.live(120, 200, "a", "b")
    assert world.states == [("a", "firing"), ("a", "resolved")]
    assert [one["transition"] for one in world.told] == [1, 2]
    assert world.told[1]["value"] == 81
    world.live(200, 300, "b")
    assert world.states[2:] == [("a", "firing")]


def test_a_cut_gateway_is_named_and_none_of_its_devices() -> None:
    world = World()
    world.live(0, 40, "a", "b")
    world.silence(100)
    world.silence(400)  # said again for longer windows: nobody is paged again
    assert world.states == [("$gateway", "firing")]
    assert world.told[0]["cause"] == (
        "the gateway is silent: no mark for 61 s. It is off, or its link is cut; its devices are not judged"
    )
    owed = {"open": [[T0 + 40_000, T0 + 500_000]]}
    world.mark(500, **owed)
    world.says(500, "b")
    for second in range(501, 600):  # the live lane goes on while backfill is owed
        world.says(second, "b")
        world.mark(second, **owed)
    assert world.states[1:] == [("$gateway", "resolved")]
    assert world.told[1]["cause"] == "the gateway is heard again: no mark for 461 s"
    assert (world.told[1]["value"], world.told[1]["at"]) == (461, T0 + 500_000)
    world.says(598, "a")  # backfill: it spoke all the while
    world.live(600, 620, "b")
    assert len(world.states) == 2
    world.live(620, 640, "b")
    assert world.states[2:] == [("a", "firing")]


def test_of_a_link_that_was_cut_only_the_least_time_is_known() -> None:
    """What the gateway marked meanwhile comes with its backlog, and the first of it is as old as the cut."""
    world = World()
    world.live(0, 40, "a")
    world.silence(100)
    world.silence(400)
    world.live(40, 500, "a")
    assert world.states == [("$gateway", "firing"), ("$gateway", "resolved")]
    assert world.told[1]["cause"] == "the gateway is heard again: no mark for at least 361 s"
    assert world.told[1]["at"] == T0 + 400_000


def test_after_a_gap_in_the_marks_devices_have_the_whole_time_to_speak() -> None:
    """The gateway was off: nothing is owed, and its devices need a while to find it again."""
    world = World()
    world.live(0, 40, "a", "b")
    world.live(1000, 1025)
    world.live(1025, 1035, "a")
    assert world.states == [("b", "firing")]
    assert world.told[0]["window"] == T0 + 39_000


def test_the_watermark_that_waits_for_a_source_is_no_gap() -> None:
    world = World()
    world.live(0, 10, "a", "b")
    for second in range(10, 60):
        world.feed(health(T0 + 9_000, time=T0, hw=(0, 0, world.offset), clock=T0 + second * 1000))
    assert world.states == []
    world.mark(60)
    assert world.states == [("a", "firing"), ("b", "firing")]


def test_a_checkpoint_between_any_two_records_changes_nothing() -> None:
    whole, parts = World(), World()
    for world in (whole, parts):
        for first, last, devices in ((0, 40, "ab"), (40, 100, "b"), (200, 300, "b"), (300, 310, "ab")):
            world.live(first, last, *devices)
            if world is parts:
                data = msgspec.msgpack.decode(msgspec.msgpack.encode(world.processor.snapshot()))
                world.processor = river.processor(WINDOW, alerts=[RULE])
                assert world.processor.restore(data) == []
    assert whole.told == parts.told
    assert whole.states == [("a", "firing"), ("a", "resolved")]


def test_devices_and_nodes_are_those_of_its_window() -> None:
    world = World()
    window = river.window(name="w", size_s=3600, devices=["a*"], nodes=["n2"])
    world.processor = river.processor(window, alerts=[RULE])
    world.live(0, 10, "a", "b")
    world.live(10, 100, "b")
    world.silence(200)
    assert world.states == []
    assert isinstance(world.processor, PartitionProcessor)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ("silent_after_s = 30\nfield = 'x'", "an alert with silent_after_s has no field"),
        ("silent_after_s = 30\nfire_above = 3", "an alert with silent_after_s has no fire_above"),
        ("silent_after_s = 30\nfor_s = 3", "an alert with silent_after_s has no for_s"),
        ("fire_above = 3", "an alert looks at a field, or has silent_after_s"),
    ],
)
def test_a_dead_man_has_no_level(tmp_path: Path, keys: str, said: str) -> None:
    file = tmp_path / "rules.toml"
    file.write_text(f"[[window]]\nname = 'w'\nsize_s = 10\n[[alert]]\nname = 'q'\nwindow = 'w'\n{keys}\n")
    with pytest.raises(UserError, match=said):
        load_rules([str(file)])


def test_a_dead_man_is_about_devices_not_groups(tmp_path: Path) -> None:
    file = tmp_path / "rules.toml"
    file.write_text(
        "[[window]]\nname = 'w'\nsize_s = 10\ngroup_by = ['site']\n"
        "[[alert]]\nname = 'q'\nwindow = 'w'\nsilent_after_s = 30\n"
    )
    with pytest.raises(UserError, match="a dead-man alert is about devices"):
        load_rules([str(file)])


BY_INTERVALS = msgspec.convert({"name": "quiet", "window": "w", "missed": 3}, AlertRule)


def expects(world: World, second: int, **intervals_ms: int) -> None:
    world.feed(
        *(
            Row(device, T0 + second * 1000, {"x": 1}, hw=(0, 0, world.offset), says={"expected_interval_ms": interval})
            for device, interval in intervals_ms.items()
        )
    )


def test_a_rule_may_go_by_each_devices_own_interval() -> None:
    world = World(BY_INTERVALS)
    expects(world, 0, quick=1_000, slow=30_000)
    world.says(0, "unknown")
    world.live(0, 120, "alive")
    assert world.states == [("quick", "firing"), ("slow", "firing")]  # of the others nobody said how often they speak
    assert [one["at"] - T0 for one in world.told] == [10_000, 90_000]  # ten seconds at least, as the page has it
    world.live(120, 125, "alive", "slow")
    expects(world, 125, slow=60_000)  # its profile was changed
    world.live(126, 300, "alive")
    assert world.states[2:] == [("slow", "resolved")]
    world.live(300, 310, "alive")
    assert world.states[3:] == [("slow", "firing")]
    assert world.told[3]["at"] == T0 + 305_000


def test_silent_after_s_is_for_devices_whose_interval_nobody_says() -> None:
    world = World(msgspec.structs.replace(BY_INTERVALS, silent_after_s=20))
    expects(world, 0, slow=30_000)
    world.says(0, "unknown")
    world.live(0, 100, "alive")
    assert [(name, one["at"] - T0) for (name, _), one in zip(world.states, world.told, strict=True)] == [
        ("unknown", 20_000),
        ("slow", 90_000),
    ]


@pytest.mark.parametrize(("before", "after", "fired"), [(600_000, 1_000, False), (1_000, 600_000, True)])
def test_an_interval_holds_from_the_reading_on_that_says_it_however_the_log_is_cut(
    before: int, after: int, fired: bool
) -> None:
    rows = [
        Row("a", T0, {"x": 1}, hw=(0, 0, 0), says={"expected_interval_ms": before}),
        *(health(T0 + at, time=T0 + at, hw=(0, 0, 1 + at // 1000), clock=T0 + at) for at in range(0, 60_000, 1000)),
        Row("a", T0 + 60_000, {"x": 1}, hw=(0, 0, 61), says={"expected_interval_ms": after}),
        health(T0 + 61_000, time=T0 + 61_000, hw=(0, 0, 62), clock=T0 + 61_000),
    ]
    whole, parts = World(BY_INTERVALS), World(BY_INTERVALS)
    whole.feed(*rows)
    for row in rows:
        parts.feed(row)
    assert whole.told == parts.told
    assert whole.states == ([("a", "firing"), ("a", "resolved")] if fired else [])


def test_what_is_known_of_intervals_is_part_of_the_checkpoint() -> None:
    world = World(BY_INTERVALS)
    expects(world, 0, quick=5_000)
    world.live(0, 5, "alive")
    state = world.processor.snapshot()
    world.processor = river.processor(WINDOW, alerts=[BY_INTERVALS])
    world.processor.restore(state)
    world.live(5, 30, "alive")
    assert world.states == [("quick", "firing")]


def test_an_alert_by_intervals_has_no_level(tmp_path: Path) -> None:
    file = tmp_path / "rules.toml"
    text = '[[window]]\nname = "w"\nsize_s = 60\n[[alert]]\nname = "a"\nwindow = "w"\nmissed = 3\nfield = "x"\n'
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match="an alert with missed has no field"):
        load_rules([str(file)])
    file.write_text(text.replace('field = "x"\n', ""), encoding="utf-8")
    assert load_rules([str(file)]).alerts[0].is_dead_man


def test_gaps_in_the_marks_give_time_to_those_alone_whom_they_are_long_for() -> None:
    """A gateway that is off for a minute four times an hour keeps no device that speaks rarely from being missed."""
    world = World(BY_INTERVALS)
    expects(world, 0, quick=5_000, slow=600_000)
    for start in range(0, 2700, 900):
        for second in range(start, start + 840, 5):
            world.says(second, "quick")
            world.mark(second)
    assert world.states == [("slow", "firing")]
    assert world.told[0]["at"] == T0 + 1_800_000
    for second in range(2700, 2705):  # half a minute was nothing to `quick`, a minute was
        world.mark(second)
    world.live(2705, 2712)
    assert len(world.states) == 1
    world.live(2712, 2720)
    assert world.states[1:] == [("quick", "firing")]


def test_a_gap_that_an_earlier_version_has_seen_counts() -> None:
    world = World()
    world.live(0, 40, "a")
    world.live(1000, 1010)
    state = world.processor.snapshot()
    [version] = state["alerts"]
    state["alerts"][version]["lives"] = {"n1": (T0 + 1_009_000, T0 + 1_000_000)}
    world.processor = river.processor(WINDOW, alerts=[RULE])
    world.processor.restore(state)
    world.live(1010, 1030)
    assert world.states == []
    world.live(1030, 1032)
    assert world.states == [("a", "firing")]
