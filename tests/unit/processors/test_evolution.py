"""A changed rule keeps the state of what did not change, and says what it begins anew."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processors.processor import PartitionProcessor
from processors.rules.evolution import preview
from processors.rules.model import AlertRule, Rules, WindowRule
from tests.support import river
from tests.support.river import SECOND, Row, health

FIRST = [Row("a", 1_000, {"t": 4.0, "u": 1.0}), Row("b", 12_000, {"t": 1.0}, river.mark("n1", 11_000))]
THEN = [Row("a", 13_000, {"t": 6.0}), Row("b", 25_000, {"t": 3.0}), health(40_000)]


def edited(
    old: WindowRule, new: WindowRule, *, was: list[AlertRule] | None = None, now: list[AlertRule] | None = None,
    rows: list[Row] = FIRST,
) -> PartitionProcessor:  # fmt: skip
    """`rows` under the old definition, and then the new one behind them."""
    one = river.processor(old, alerts=was or ())
    one.process(river.block(rows))
    other = river.processor(new, alerts=now or ())
    other.restore(msgspec.msgpack.decode(msgspec.msgpack.encode(one.snapshot())))
    return other


def told(one: PartitionProcessor, rows: list[Row]) -> list[dict[str, Any]]:
    return river.values(one.process(river.block(rows)))


def by_window(found: list[dict[str, Any]]) -> dict[tuple[str, int, int], Any]:
    return {(value["group"], value["start"], value["revision"]): value["fields"].get("t") for value in found}


def test_an_aggregate_is_added_and_windows_under_way_go_on() -> None:
    one = edited(river.window(every_field=["count", "mean"]), river.window(every_field=["count", "mean", "p50", "sum"]))
    assert by_window(told(one, THEN)) == {
        # 12 s came before the edit, 13 s after it; of "sum" there was all that it needs
        ("n1/a", 10_000, 0): {"count": 1, "mean": 6.0, "p50": None, "sum": 6.0},
        ("n1/b", 10_000, 0): {"count": 1, "mean": 1.0, "p50": None, "sum": 1.0},
        ("n1/b", 20_000, 0): {"count": 1, "mean": 3.0, "p50": 3.0, "sum": 3.0},
    }
    assert [str(change) for change in one.changes] == [
        "window w: every_field changed: keeps its windows; p50, sum of other fields: from the next whole window on"
    ]


def test_what_is_young_stays_young_over_restarts_and_further_edits() -> None:
    new = river.window(every_field=["count", "max"])
    one = edited(river.window(every_field=["count"]), new)
    third = river.processor(river.window(every_field=["count", "max", "range"]))
    third.restore(msgspec.msgpack.decode(msgspec.msgpack.encode(one.snapshot())))
    found = by_window(told(third, THEN))
    assert found["n1/b", 10_000, 0] == {"count": 1, "max": None, "range": None}
    assert found["n1/b", 20_000, 0] == {"count": 1, "max": 3.0, "range": 0.0}


def test_a_field_that_was_left_out_begins_with_whole_windows() -> None:
    one = edited(river.window(fields={"t": []}), river.window(fields={"t": ["count"]}))
    found = by_window(told(one, THEN))
    assert found["n1/a", 10_000, 0] is None
    assert found["n1/b", 20_000, 0] == {"count": 1}


def test_lateness_and_bounds_change_nothing_of_what_is_held() -> None:
    one = edited(river.window(allowed_lateness_s=60), river.window(allowed_lateness_s=90, windows_max=99))
    assert [(value["revision"], value["count"]) for value in told(one, [Row("a", 2_000, {"t": 1.0}), *THEN])][:1] == [
        (1, 2)
    ]
    assert one.changes[0].kept


@pytest.mark.parametrize(
    "kind", [{}, {"kind": "hopping", "every_s": 5}, {"kind": "session", "size_s": None, "gap_s": 4}]
)
def test_devices_come_and_go(kind: dict[str, Any]) -> None:
    """b spoke before the edit, in windows that would be told without that; c is heard for the first time."""
    rows = [
        Row("b", 14_000, {"t": 1.0}),
        Row("c", 14_000, {"t": 1.0}),
        *THEN,
        Row("c", 31_000, {"t": 1.0}),
        health(50_000),
    ]
    one = edited(river.window(**kind, devices=["a"]), river.window(**kind, devices=["b", "c"]))
    found = by_window(told(one, rows))
    assert {device for device, _, _ in found} == {"n1/b", "n1/c"}
    assert min(start for device, start, _ in found if device == "n1/b") > 12_000
    assert min(start for device, start, _ in found if device == "n1/c") <= 14_000
    assert ("n1/b", 25_000 if kind else 20_000, 0) in found


@pytest.mark.parametrize(
    ("key", "more"),
    [
        ("size_s", {"size_s": 20}),
        ("kind, every_s", {"kind": "hopping", "every_s": 5}),
        ("where", {"where": "t > 2"}),
    ],
)
def test_what_changes_every_number_begins_anew(key: str, more: dict[str, Any]) -> None:
    one = edited(river.window(), river.window(**more))
    assert [value["start"] for value in told(one, THEN)][:1] == [20_000]
    assert f"{key.replace(', ', ' and ')} changed" in str(one.changes[0])
    assert not one.changes[0].kept


def test_a_computed_field_that_changes_is_fresh_and_the_others_are_not() -> None:
    old = river.window(compute={"x": "t * 2", "y": "t * 3"}, every_field=["sum"])
    one = edited(old, river.window(compute={"x": "t * 2", "y": "t * 4"}, every_field=["sum"]))
    found = {(value["group"], value["start"]): value["fields"] for value in told(one, THEN)}
    assert found["n1/b", 10_000] == {"t": {"sum": 1.0}, "x": {"sum": 2.0}}
    assert found["n1/b", 20_000] == {"t": {"sum": 3.0}, "x": {"sum": 6.0}, "y": {"sum": 12.0}}


HOT = {"for_s": 0, "field": "t", "aggregate": "max"}


def test_an_edited_alert_keeps_its_instances_and_goes_on_counting() -> None:
    rows = [Row("a", 1_000, {"t": 90.0}), health(11_000)]
    was, now = river.alert(**HOT), river.alert(**HOT, summary="Hot.", severity="critical")
    one = edited(river.window(), river.window(), was=[was], now=[now], rows=rows)
    assert [alert["state"] for alert in one.alerts()] == ["firing"]
    outputs = one.process(river.block([Row("a", 12_000, {"t": 20.0}), health(40_000)]))
    assert [(value["transition"], value["state"], value["summary"]) for value in river.values(outputs, "alerts")] == [
        (3, "recovering", "Hot."),
        (4, "resolved", "Hot."),
    ]
    assert [output.number for output in outputs if output.topic == "alerts"] == [0, 1]  # another version, other numbers
    assert [str(change) for change in one.changes] == ["alert hot: severity and summary changed: keeps its instances"]


def test_an_alert_keeps_its_instances_when_its_window_is_made_anew() -> None:
    rows = [Row("a", 1_000, {"t": 90.0}), health(11_000)]
    alert = river.alert(**HOT)
    one = edited(river.window(), river.window(size_s=5), was=[alert], now=[alert], rows=rows)
    assert [alert["state"] for alert in one.alerts()] == ["firing"]


@pytest.mark.parametrize(
    "more", [{"field": "u"}, {"aggregate": "min"}, {"fire_above": None, "fire_below": 3, "clear_below": None}]
)
def test_an_alert_about_something_else_begins_anew(more: dict[str, Any]) -> None:
    rows = [Row("a", 1_000, {"t": 90.0}), health(11_000)]
    one = edited(
        river.window(), river.window(), was=[river.alert(**HOT)], now=[river.alert(**{**HOT, **more})], rows=rows
    )
    assert one.alerts() == []
    assert "begins anew, without instances" in str(one.changes[0])


def test_going_back_to_the_old_definition_goes_on_with_its_numbers() -> None:
    old, new = river.window(), river.window(every_field=["sum"])
    one = river.processor(old)
    first = one.process(river.block(FIRST))
    other = river.processor(new)
    other.restore(one.snapshot())
    other.process(river.block([health(21_000)]))
    back = river.processor(old)
    back.restore(other.snapshot())
    numbers = [output.number for output in back.process(river.block(THEN))]
    assert numbers[0] == len(first)


def test_a_checkpoint_of_before_there_were_definitions() -> None:
    one = river.processor(river.window())
    one.process(river.block(FIRST))
    data = one.snapshot()
    del data["definitions"]
    same, changed = river.processor(river.window()), river.processor(river.window(every_field=["sum"]))
    assert same.restore(data) == []
    assert next(value["start"] for value in told(same, THEN)) == 10_000
    assert changed.restore(data) != []
    assert "does not say what it was before" in str(changed.changes[0])
    assert next(value["start"] for value in told(changed, THEN)) == 20_000


def test_a_preview_says_what_is_new_and_what_is_gone() -> None:
    one = river.processor(river.window(), river.window(name="gone"))
    one.process(river.block(FIRST))
    rules = Rules(windows=(river.window(), river.window(name="more")))
    assert [str(change) for change in preview(one.snapshot(), rules)] == [
        "window more: is new: begins with the next whole window",
        "window gone: is gone, and its state with it",
    ]


KINDS: dict[str, dict[str, Any]] = {
    "tumbling": {},
    "hopping": {"kind": "hopping", "size_s": 20, "every_s": 10},
    "session": {"kind": "session", "size_s": None, "gap_s": 9},
    "calendar": {"kind": "calendar", "size_s": None, "calendar": "day", "zone": "Europe/Berlin"},
}
AGGREGATES = ["count", "sum", "min", "max", "range", "p50", "distinct", "integral", "slope", "first"]


@st.composite
def rivers(draw: st.DrawFn) -> list[Row]:
    rows = []
    for _ in range(draw(st.integers(1, 40))):
        node = draw(st.sampled_from(["n1", "n2"]))
        spoken = river.mark(node, draw(st.integers(0, 90)) * SECOND) if draw(st.booleans()) else None
        fields = {name: float(draw(st.integers(-5, 5))) for name in draw(st.sets(st.sampled_from("tu")))}
        rows.append(Row(draw(st.sampled_from("ab")), draw(st.integers(0, 90)) * SECOND, fields, spoken, node))
    return rows


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=20, deadline=None)
@given(
    rows=rivers(), cut=st.integers(0, 40), before=st.sets(st.sampled_from(AGGREGATES), min_size=1),
    after=st.sets(st.sampled_from(AGGREGATES), min_size=1),
)  # fmt: skip
def test_an_edit_anywhere_says_what_the_new_rule_would_have_said_or_null(
    kind: str, rows: list[Row], cut: int, before: set[str], after: set[str]
) -> None:
    old, new = (
        river.window(**KINDS[kind], every_field=["mean", *sorted(some)], allowed_lateness_s=60)
        for some in (before, after)
    )
    if old == new:
        return
    whole = river.processor(new)
    heads, tails = told(whole, rows[:cut]), told(whole, rows[cut:])
    assert len(heads) + len(tails) >= 0
    one = edited(old, new, rows=rows[:cut])
    for found, expected in zip(told(one, rows[cut:]), tails, strict=True):
        for name, aggregates in expected["fields"].items():
            for aggregate, value in aggregates.items():
                said = found["fields"][name][aggregate]
                assert said == value or (said is None and aggregate not in before | {"mean"})
        assert {**found, "fields": 0, "before": 0} == {**expected, "fields": 0, "before": 0}
