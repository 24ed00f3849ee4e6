"""Hopping, session and calendar windows by hand-made examples; their bounds, and where they begin anew."""

from __future__ import annotations

from typing import Any

import msgspec

from headwater.app.status import notes
from processors.job import RuleJob
from processors.processor import PartitionProcessor
from processors.rules.model import Rules, WindowRule
from tests.support import river
from tests.support.river import Row, health

HOPPING = river.window(kind="hopping", size_s=20, every_s=10, every_field=["sum"])
SESSION = river.window(kind="session", size_s=None, gap_s=5, every_field=["sum"])


def at(second: float, value: float = 1, device: str = "a", **more: Any) -> Row:
    return Row(device, int(second * 1000), {"x": value}, **more)


def said(one: PartitionProcessor, *rows: Row) -> list[tuple[Any, ...]]:
    """Feed rows; (start and end in s, revision, cause, sum of x) of each result."""
    return [
        (
            *(value["start"] / 1000, value["end"] / 1000, value["revision"], value["cause"]),
            value["fields"].get("x", {}).get("sum"),
        )
        for value in river.values(one.process(river.block(rows)))
    ]


def restarted(one: PartitionProcessor, *rules: WindowRule) -> PartitionProcessor:
    other = river.processor(*rules)
    other.restore(msgspec.msgpack.decode(msgspec.msgpack.encode(one.snapshot())))
    return other


def test_a_reading_stands_in_every_window_that_holds_it() -> None:
    one = river.processor(HOPPING)
    assert said(one, at(3, 1), at(12, 2), at(25, 4), health(20_000)) == [
        (-10, 10, 0, "close", 1),
        (0, 20, 0, "close", 3),
    ]
    assert said(one, health(30_000)) == [(10, 30, 0, "close", 6)]
    assert said(one, health(90_000)) == [(20, 40, 0, "close", 4)]


def test_a_late_reading_revises_all_windows_that_hold_it() -> None:
    one = river.processor(HOPPING)
    said(one, at(3, 1), at(12, 2), health(30_000))
    assert said(one, at(13, 8), health(31_000)) == [(0, 20, 1, "late", 11), (10, 30, 1, "late", 10)]
    assert said(one, at(33, 1), health(41_000)) == [(20, 40, 0, "close", 1)]
    assert said(one, health(50_000)) == [(30, 50, 0, "close", 1)]


def test_windows_that_are_no_multiple_of_their_hop_are_made_of_smaller_panes() -> None:
    one = river.processor(river.window(kind="hopping", size_s=15, every_s=10, every_field=["sum"]))
    assert said(one, at(4, 1), at(5, 2), at(10, 4), at(15, 8), health(25_000)) == [
        (-10, 5, 0, "close", 1),
        (0, 15, 0, "close", 7),
        (10, 25, 0, "close", 12),
    ]


def test_panes_that_no_window_needs_any_more_are_forgotten() -> None:
    rule = river.window(kind="hopping", size_s=20, every_s=10, allowed_lateness_s=30)
    one = river.processor(rule)
    for second in range(0, 2000, 5):
        one.process(river.block([at(second), health(second * 1000)]))
    state = one._rules[0].state
    assert len(state.cells) <= 6
    assert len(state._panes) <= 8  # type: ignore[attr-defined]
    [late] = river.values(one.process(river.block([at(1), health(1_996_000)])), "late")
    assert (late["start"], late["end"], late["cause"]) == (0, 20_000, "device")
    assert one.counters()["too_late"] == 1


def test_when_memory_for_panes_is_short_the_oldest_are_forgotten() -> None:
    one = river.processor(river.window(kind="hopping", size_s=20, every_s=10, windows_max=16))
    for second in range(0, 1000, 10):
        one.process(river.block([at(second), health(second * 1000)]))
    assert one.counters()["overflow"] == 0
    assert one.counters()["windows_emitted"] == 99
    one.process(river.block([at(5), health(991_000)]))
    assert one.counters()["too_late"] == 1


def test_a_silent_node_has_its_overlapping_windows_told_once() -> None:
    one = river.processor(HOPPING)
    said(one, at(3, 1), health(5_000))
    silent = health(20_000, by="central")
    assert said(one, silent) == [(-10, 10, 0, "silent", 1), (0, 20, 0, "silent", 1)]
    assert said(one, silent) == []
    assert said(one, health(20_000)) == [(-10, 10, 1, "close", 1), (0, 20, 1, "close", 1)]


def test_a_session_ends_with_silence_and_closes_by_the_mark() -> None:
    one = river.processor(SESSION)
    assert said(one, at(1, 1), at(5.999, 2), at(10.999, 4), health(10_998)) == []
    assert said(one, health(10_999)) == [(1, 10.999, 0, "close", 3)]
    assert said(one, at(11, 8), health(15_999)) == []
    assert said(one, health(16_000)) == [(10.999, 16, 0, "close", 12)]


def test_a_late_reading_joins_two_sessions_and_what_was_told_of_the_second_is_taken_back() -> None:
    one = river.processor(SESSION)
    assert said(one, at(1, 1), at(8, 2), health(20_000)) == [(1, 6, 0, "close", 1), (8, 13, 0, "close", 2)]
    assert said(one, at(4.5, 4)) == []
    for after in (one, restarted(one, SESSION)):
        outputs = after.process(river.block([health(21_000)]))
        first, second = river.values(outputs)
        assert (first["start"], first["end"], first["revision"], first["cause"]) == (1000, 13_000, 1, "late")
        assert first["fields"] == {"x": {"sum": 7.0}}
        assert second == {
            "rule": "w",
            "group": "n1/a",
            "start": 8000,
            "end": 13_000,
            "revision": 1,
            "complete": True,
            "cause": "merged",
            "count": 0,
            "fields": {},
            "merged_into": 1000,
        }


def test_a_session_that_began_earlier_than_it_was_told_is_told_anew() -> None:
    one = river.processor(SESSION)
    said(one, at(8, 2), health(20_000))
    assert said(one, at(4, 1), health(21_000)) == [(4, 13, 0, "close", 3), (8, 13, 1, "merged", None)]


def test_what_is_owed_before_a_session_may_belong_to_it() -> None:
    one = river.processor(SESSION)
    held: dict[str, Any] = {"open": [[1000, 3001]]}
    assert said(one, at(8, 2), health(20_000, **held)) == [(8, 13, 0, "backfill", 2)]
    assert said(river.processor(SESSION), at(8, 2), health(20_000, open=[[1000, 3000]])) == [(8, 13, 0, "close", 2)]
    assert said(one, health(21_000)) == [(8, 13, 1, "backfill", 2)]


def test_a_session_that_may_have_begun_before_its_rule_is_not_told() -> None:
    one = river.processor(river.window(name="other"))
    one.process(river.block([at(10), health(9_000)]))
    begun = restarted(one, SESSION)
    assert said(begun, at(14, 1), at(18, 2), at(30, 4), health(40_000)) == [(30, 35, 0, "close", 4)]


def test_shifts_are_named_in_their_results() -> None:
    shifts = {"early": "06:00", "late": "14:00", "night": "22:00"}
    rule = river.window(kind="calendar", size_s=None, calendar="shifts", zone="Europe/Berlin", shifts=shifts)
    one = river.processor(rule)
    hour = 3_600_000
    [value] = river.values(one.process(river.block([Row("a", 6 * hour, {"x": 1}), health(13 * hour)])))
    assert (value["start"], value["end"], value["shift"]) == (5 * hour, 13 * hour, "early")
    assert list(value)[-1] == "shift"


def test_samples_are_bounded_and_what_lacks_some_says_nothing() -> None:
    one = river.processor(river.window(every_field=["count", "integral"], samples_max=1000))
    rows = [Row("a", second, {"x": 1}) for second in range(1200)]
    [value] = river.values(one.process(river.block([*rows, health(10_000)])))
    assert value["fields"] == {"x": {"count": 1200, "integral": None}}
    assert one.counters()["overflow"] == 200


def test_when_samples_are_many_the_oldest_closed_windows_are_forgotten() -> None:
    one = river.processor(river.window(every_field=["integral"], samples_max=1000))
    for start in range(0, 100_000, 10_000):
        rows = [Row("a", start + step * 50, {"x": 1}) for step in range(200)]
        [value] = river.values(one.process(river.block([*rows, health(start + 10_000)])))
        assert value["fields"] == {"x": {"integral": 10.0}}
    assert one.counters()["overflow"] == 0
    one.process(river.block([at(1), health(100_001)]))
    assert one.counters()["too_late"] == 1


def test_booleans_are_one_and_zero() -> None:
    asked = ["count", "mean", "last", "availability", "durations"]
    rule = river.window(every_field=[], fields={"running": asked})
    rows = [Row("a", 1000, {"running": True}), Row("a", 5000, {"running": False}), Row("a", 6000, {"running": None})]
    [value] = river.values(river.processor(rule).process(river.block([*rows, river.health(10_000)])))
    held = {"0": 5.0, "1": 5.0}
    assert value["fields"] == {
        "running": {"count": 2, "mean": 0.5, "last": 0.0, "availability": 0.5, "durations": held}
    }


def test_booleans_beside_numbers_and_in_rules() -> None:
    rule = river.window(every_field=[], compute={"y": "x if running else 0"}, fields={"y": ["sum"], "mixed": ["sum"]})
    rows = [
        Row("a", 1000, {"running": True, "x": 3, "mixed": True}),
        Row("a", 2000, {"running": False, "x": 5, "mixed": 2.5}),
        Row("a", 3000, {"running": "on", "x": 7, "mixed": "no number"}),
    ]
    [value] = river.values(river.processor(rule).process(river.block([*rows, river.health(10_000)])))
    assert value["fields"] == {"mixed": {"sum": 3.5}, "y": {"sum": 3.0}}


def test_devices_whose_zone_is_none_here_are_told() -> None:
    rule = river.window(kind="calendar", size_s=None, calendar="day", zone="device", default_zone="Asia/Tokyo")
    processor = river.processor(rule)
    processor.process(
        river.block([Row("a", 1_000, {"t": 1.0}, says={"zone": "Mars/Base"}), Row("b", 1_000, {"t": 1.0})])
    )
    assert processor.zones_unknown() == {"w": {"n1/a": "Mars/Base"}}
    job = RuleJob(Rules(windows=(rule,)), place="central", name="processors")
    [line] = notes({"now_ms": 0, "work": {"report": {"processors": job.about([processor])}}})
    assert line == "window w: n1/a says a zone that is none here (“Mars/Base”); default_zone is taken"
    processor.process(river.block([Row("a", 2_000, {"t": 1.0}, says={"zone": "Europe/Rome"})], 2))
    assert processor.zones_unknown() == {}


def test_early_results_of_overlapping_windows_leave_room_for_those_that_are_over() -> None:
    rule = river.window(kind="hopping", size_s=20, every_s=10, every_field=["sum"], early_every_s=5)
    one = river.processor(rule)
    said(one, health(1_000))
    assert said(one, at(3, 1), at(12, 2), health(4_000)) == []
    assert said(one, health(6_000)) == [(-10, 10, 0, "early", 1), (0, 20, 0, "early", 3)]
    assert said(one, health(10_000)) == [(-10, 10, 1, "close", 1), (10, 30, 0, "early", 2)]
    assert said(one, at(13, 4), health(15_000)) == [(0, 20, 1, "early", 7), (10, 30, 1, "early", 6)]
    assert said(one, health(20_000)) == [(0, 20, 2, "close", 7)]
    small = {"windows_max": 16, "allowed_lateness_s": 0}
    one = river.processor(river.window(kind="hopping", size_s=20, every_s=10, early_every_s=5, **small))
    rows = [at(12, 1, f"d{n:02}") for n in range(10)]
    found = river.values(one.process(river.block([*rows, health(10_000)])))
    assert [value["cause"] for value in found] == ["early"] * 12  # three quarters of 16
    found = river.values(one.process(river.block([health(20_000)])))
    assert sum(value["cause"] == "close" for value in found) == 10
    found = river.values(one.process(river.block([health(30_000)])))
    assert sum(value["cause"] == "close" for value in found) == 10
    assert one.counters()["overflow"] == 0
