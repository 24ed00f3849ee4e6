"""Texts in windows: states such as "run" and "stop", their tables, and what takes none."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from processors.aggregates.texts import ENTRY_BYTES, TEXT_MAX, TextTable, are_texts, boxed
from processors.budget import Limits
from processors.processor import PartitionProcessor
from processors.rules.model import Rules, WindowRule
from tests.support import river
from tests.support.river import Row, health

ASKED = ["count", "first", "last", "distinct", "durations"]
STATES = river.window(every_field=[], fields={"state": ASKED})


def at(second: float, state: Any, device: str = "a", **more: Any) -> Row:
    return Row(device, int(second * 1000), {"state": state}, **more)


def told(one: PartitionProcessor, *rows: Row) -> list[Any]:
    return [value["fields"].get("state") for value in river.values(one.process(river.block(rows)))]


def test_what_states_a_window_had_and_how_long_each() -> None:
    one = river.processor(STATES)
    rows = [at(1, "run"), at(6, "stop"), at(8, "run"), at(9, "Störung"), health(10_000)]
    assert told(one, *rows) == [
        {
            "count": 4,
            "first": "run",
            "last": "Störung",
            "distinct": 3,
            "durations": {"Störung": 1.0, "run": 7.0, "stop": 2.0},
        }
    ]


def test_numbers_and_truths_stand_beside_texts_in_the_order_of_their_times() -> None:
    one = river.processor(STATES)
    rows = [at(0, "3"), at(2, 3), at(5, True), at(6, "on"), at(8, -0.0), at(9, 0), health(10_000)]
    [found] = told(one, *rows)
    assert found["durations"] == {"0": 2.0, "1": 1.0, "3": 5.0, "on": 2.0}
    assert list(found["durations"]) == ["0", "1", "3", "on"]
    assert (found["first"], found["last"], found["distinct"], found["count"]) == ("3", 0.0, 5, 6)


def test_a_late_text_revises_and_says_what_was_before() -> None:
    one = river.processor(STATES)
    told(one, at(1, "run"), health(10_000))
    [value] = river.values(one.process(river.block([at(5, "stop"), health(11_000)])))
    assert value["fields"]["state"]["durations"] == {"run": 5.0, "stop": 5.0}
    assert value["before"]["fields"]["state"]["durations"] == {"run": 10.0}


def test_what_needs_numbers_takes_no_texts() -> None:
    one = river.processor(river.window(fields={"state": ["last", "max"]}))
    assert told(one, at(1, "run"), at(2, 7), at(3, "stop"), health(10_000)) == [{"last": 7.0, "max": 7.0}]
    one = river.processor()
    assert told(one, at(1, "run"), health(10_000)) == [None]


def test_a_computed_field_is_a_number_whatever_stands_under_its_name() -> None:
    rule = river.window(every_field=[], fields={"state": ["last"]}, compute={"state": "2"})
    assert told(river.processor(rule), at(1, "run"), health(10_000)) == [{"last": 2.0}]


def test_texts_beyond_texts_max_make_null_and_are_counted_and_old_ones_make_room() -> None:
    rule = river.window(every_field=[], fields={"state": ASKED}, texts_max=2, allowed_lateness_s=0)
    one = river.processor(rule)
    rows = [at(1, "a"), at(2, "b"), at(3, "c"), at(4, "a"), at(5, "d" * (TEXT_MAX + 1), "b"), health(10_000)]
    first, second = told(one, *rows)
    assert first == {"count": 4, "first": "a", "last": "a", "distinct": 3, "durations": None}
    assert second == {"count": 1, "first": None, "last": None, "distinct": 1, "durations": None}
    assert one.counters()["overflow"] == 2
    # what was missed made room at a mark, when no window had the old ones any more
    told(one, at(11, "e"), health(20_000))
    assert told(one, at(21, "e"), at(22, "f"), health(30_000))[0]["durations"] == {"e": 2.0, "f": 8.0}


def test_a_restart_between_any_two_records_changes_nothing() -> None:
    rule = river.window(every_field=[], fields={"state": ASKED}, texts_max=3, allowed_lateness_s=5)
    rows = []
    for second in range(60):
        rows.append(at(second, f"s{second * second % 7}" if second % 5 else second, "ab"[second % 2]))
        if second % 4 == 3:
            rows.append(health(second * 1000 - 2000))
    whole = river.run(rule, rows, [])
    assert river.run(rule, rows, list(range(1, len(rows))), restart=True) == whole
    assert river.run(rule, rows, [7, 8, 30]) == whole
    assert len(river.values(whole)) > 8


def test_texts_count_against_the_budget_and_none_is_taken_in_when_it_is_full() -> None:
    one = river.processor(STATES)
    state = one._rules[0].state
    told(one, at(1, 5))
    before = state.state_bytes()
    told(one, at(1, "é"))
    of_sample = 16
    assert state.state_bytes() - before == ENTRY_BYTES + 2 + of_sample + 4  # 4: its hash, for `distinct`
    state.set_full(full=True)
    told(one, at(2, "x"), at(3, "é"))
    assert one.counters()["overflow"] == 3  # no samples are kept either
    [found] = told(one, health(10_000))
    assert (found["last"], found["durations"], found["distinct"]) == ("é", None, 3)


def test_a_full_budget_is_met_at_the_same_record_however_the_log_is_cut() -> None:
    rule = river.window(every_field=[], fields={"state": ASKED}, texts_max=50_000)
    rows = [at(second / 100, f"state {second}", f"d{second % 50}") for second in range(12_000)]
    rows.append(health(200_000))
    found = []
    for size in (len(rows), 777):
        one = river.processor(rule, limits=Limits(state_bytes_max=1_500_000))
        outputs = []
        for begin in range(0, len(rows), size):
            outputs += one.process(river.block(rows[begin : begin + size], begin))
        found.append((outputs, one.counters()))
    assert found[0] == found[1]
    assert found[0][1]["overflow"] > 1_000


def test_a_field_that_takes_texts_only_since_an_edit_begins_with_whole_windows() -> None:
    old = river.window(every_field=[], fields={"state": ["count", "max"], "x": ["count"]})
    new = river.window(every_field=[], fields={"state": ["count", "last"], "x": ["count"]})
    one = river.processor(old)
    one.process(river.block([Row("a", 1000, {"state": "run", "x": 1}), health(1000)]))
    other = PartitionProcessor(Rules(windows=(new,)), "readings", 0, place="central")
    other.restore(msgspec.msgpack.decode(msgspec.msgpack.encode(one.snapshot())))
    rows = [Row("a", 2000, {"state": "stop", "x": 2}), Row("a", 12_000, {"state": "run"}), health(20_000)]
    found = [value["fields"] for value in river.values(other.process(river.block(rows, 2)))]
    assert found == [{"x": {"count": 2}}, {"state": {"count": 1, "last": "run"}}]


def test_an_alert_leaves_texts_alone() -> None:
    rule = river.window(every_field=[], fields={"state": ["last"]})
    hot = river.alert(field="state", aggregate="last", fire_above=5, clear_below=5, for_s=0)
    one = river.processor(rule, alerts=[hot])
    rows = [at(1, "run"), at(11, 7), at(21, "stop"), health(30_000)]
    states = [value["state"] for value in river.values(one.process(river.block(rows)), "alerts")]
    assert states == ["pending", "firing"]


def test_codes_are_given_in_the_order_of_the_log_and_given_again() -> None:
    table = TextTable(2)
    values = np.array([1.5, *boxed(np.array([1, 0, 1]))])
    found, others = table.take(values, ["b", "a"])
    assert table.listed(found) == [1.5, "a", "b", "a"]
    assert others == 0
    assert are_texts(found).tolist() == [False, True, True, True]
    assert table.snapshot() == {"texts": ["a", "b"], "missed": False}
    found, others = table.take(boxed(np.array([0])), ["c"])
    assert (table.listed(found), others, table.missed) == ([None], 1, True)
    table.keep(np.array([2]))
    found, _ = table.take(boxed(np.array([0])), ["c"])
    assert table.listed(found) == ["c"]
    assert table.snapshot()["texts"] == ["c", "b"]


@pytest.mark.parametrize("cuts", [[], [1], [1, 2, 3]])
def test_members_of_nested_objects_are_fields(cuts: list[int]) -> None:
    rule: WindowRule = river.window(
        every_field=["sum"],
        fields={"motor.state": ["last"]},
        where="motor.speed > 0 and motor.state != 'off' and field('motor/speed') > 0",
        compute={"twice": "2 * motor.speed"},
    )
    rows = [
        Row("a", 1, {"motor": {"speed": 2, "state": "on", "deep": {"er": 1}, "list": [1]}, "motor/speed": 1}),
        Row("a", 2, {"motor.speed": 3, "motor/speed": 1, "motor.state": "up"}),
        Row("a", 3, {"motor": {"speed": 5, "state": "off"}, "motor/speed": 1}),
        health(10_000),
    ]
    [value] = river.values(river.run(rule, rows, cuts))
    assert value["fields"] == {
        "motor.deep.er": {"sum": 1.0},
        "motor.speed": {"sum": 5.0},
        "motor.state": {"last": "up"},
        "motor/speed": {"sum": 2.0},
        "twice": {"sum": 10.0},
    }


@pytest.mark.parametrize("asked", [["distinct"], ["count"], ["count", "distinct"]])
def test_who_tells_no_text_keeps_none(asked: list[str]) -> None:
    one = river.processor(river.window(every_field=[], fields={"state": asked}, texts_max=1, allowed_lateness_s=0))
    rows = [at(1, "a"), at(2, "b"), at(3, "c"), at(4, "d" * (TEXT_MAX + 1)), at(5, "a"), health(10_000)]
    all_of_it = {"count": 5, "distinct": 4}
    assert told(one, *rows) == [{name: all_of_it[name] for name in asked}]
    assert one.counters()["overflow"] == 0
    assert told(one, at(11, "e"), health(20_000)) == [dict.fromkeys(asked, 1)]
