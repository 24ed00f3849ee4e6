"""The alert table, every state against every band, held long enough and not; and what revisions may do."""

from __future__ import annotations

import math
from itertools import product
from typing import Any, get_args

import msgspec
import pytest

from processors.alerts import AlertState, Band, Instance, State, Transition
from processors.results import WindowResult
from tests.support import river

VALUE: dict[Band, float] = {"hot": 90.0, "between": 80.0, "clear": 70.0}
# (state, band) -> states after a result, when the hold time is over and when it is not
TABLE: dict[tuple[State, Band], tuple[list[State], list[State]]] = {
    ("inactive", "hot"): (["pending"], ["pending"]),
    ("inactive", "between"): ([], []),
    ("inactive", "clear"): ([], []),
    ("pending", "hot"): (["firing"], []),
    ("pending", "between"): (["inactive"], ["inactive"]),
    ("pending", "clear"): (["inactive"], ["inactive"]),
    ("firing", "hot"): ([], []),
    ("firing", "between"): ([], []),
    ("firing", "clear"): (["recovering"], ["recovering"]),
    ("recovering", "hot"): (["firing"], ["firing"]),
    ("recovering", "between"): (["firing"], ["firing"]),
    ("recovering", "clear"): (["resolved"], []),
    ("resolved", "hot"): (["pending"], ["pending"]),
    ("resolved", "between"): ([], []),
    ("resolved", "clear"): ([], []),
}


def result(start: int, value: float | None, **more: Any) -> WindowResult:
    given = {"revision": 0, "complete": True, "cause": "close", "retro": False, "first_complete": True, **more}
    return WindowResult("n1/a", start, start + 10_000, readings=3, fields={"t": {"mean": value}}, **given)


def states(found: list[Transition]) -> list[str]:
    return [transition.state for transition in found]


def fed(values: list[float | None], **rule: Any) -> list[Transition]:
    alerts = AlertState(river.alert(**rule))
    return [one for row, value in enumerate(values) for one in alerts.consume([result(row * 10_000, value)])]


def flapping(**rule: Any) -> list[tuple[int, str, bool]]:
    """(end in s, state, flapping) of a device that is hot and clear in turn for 200 s, then clear."""
    found = fed([*([90.0, 70.0] * 10), *([70.0] * 60)], for_s=0, **rule)
    return [(one.at // 1000, one.state, one.flapping) for one in found]


def test_what_flaps_fires_a_few_times_and_then_stays_firing_until_it_has_been_calm() -> None:
    firings = [at for at, state, _ in flapping() if state == "firing"]
    assert len(firings) == 10
    damped = flapping(flaps_max=3, flap_half_life_s=100)
    assert [at for at, state, _ in damped if state == "firing"] == [10, 30, 50, 70]
    assert [(at, state) for at, state, is_damped in damped if is_damped] == [(70, "pending"), (70, "firing")]
    # ten firings a score of about 4.4 at 190 s; half of flaps_max is left 100 * log2(4.4 / 1.5) s later
    score = sum(0.5 ** (20 * n / 100) for n in range(10))
    calm_s = 190 + 100 * math.log2(score / 1.5)
    [(recovering, _, _), (resolved, _, _)] = damped[-2:]
    assert recovering == resolved == math.ceil(calm_s / 10) * 10
    assert damped[-1][1:] == ("resolved", False)


def test_an_alert_that_fires_seldom_is_not_damped_and_keeps_its_hold_times() -> None:
    values: list[float | None] = [70, 90, 90, 70, 70, 70]
    with_limit = fed(values * 8, for_s=10, keep_firing_s=10, flaps_max=3, flap_half_life_s=30)
    assert with_limit == fed(values * 8, for_s=10, keep_firing_s=10)


def test_damping_survives_a_restart_at_any_result() -> None:
    rule = river.alert(for_s=0, flaps_max=2, flap_half_life_s=60)
    whole, parts = AlertState(rule), AlertState(rule)
    for row, value in enumerate([90, 70, 80] * 12 + [70] * 20):
        given = [result(row * 10_000, value)]
        assert parts.consume(given) == whole.consume(given)
        saved = msgspec.msgpack.decode(msgspec.msgpack.encode(parts.snapshot()))
        parts = AlertState(rule)
        parts.restore(saved)
    assert whole.instances["n1/a"].state == "resolved"


def test_the_table_below_is_whole() -> None:
    assert set(TABLE) == set(product(get_args(State), get_args(Band)))


@pytest.mark.parametrize("held", [True, False])
@pytest.mark.parametrize(("state", "band"), TABLE)
def test_every_state_against_every_band(state: State, band: Band, *, held: bool) -> None:
    alerts = AlertState(river.alert(for_s=30, keep_firing_s=30))
    alerts.instances["n1/a"] = Instance(state=state, since=100_000, transition=5, consumed=100_000)
    end = 130_000 if held else 129_999
    found = alerts.consume([result(end - 10_000, VALUE[band])])
    assert states(found) == TABLE[state, band][0 if held else 1]
    for number, transition in enumerate(found, 6):
        assert (transition.transition, transition.since, transition.at) == (number, end, end)
    kept = alerts.instances["n1/a"]
    assert (kept.state, kept.since) == ((found[-1].state, end) if found else (state, 100_000))


def test_without_hold_times_a_chain_runs_at_once() -> None:
    found = fed([90, 90, 70], for_s=0, keep_firing_s=0)
    assert [(one.state, one.transition, one.at) for one in found] == [
        ("pending", 1, 10_000),
        ("firing", 2, 10_000),
        ("recovering", 3, 30_000),
        ("resolved", 4, 30_000),
    ]


def test_the_whole_life_of_an_alert_with_its_causes() -> None:
    found = fed([60, 86, 87.5, 80, 76, 74, 74, 90], keep_firing_s=10)
    assert [(one.state, one.transition, one.since, one.value, one.window) for one in found] == [
        ("pending", 1, 20_000, 86, 10_000),
        ("firing", 2, 30_000, 87.5, 20_000),
        ("recovering", 3, 60_000, 74, 50_000),
        ("resolved", 4, 70_000, 74, 60_000),
        ("pending", 5, 80_000, 90, 70_000),
    ]
    assert [one.cause for one in found[:4]] == [
        "mean of t is 86, above 85",
        "mean of t is 87.5, above 85 for 10 s",
        "mean of t is 74, below 75",
        "mean of t is 74, below 75 for 10 s",
    ]


@pytest.mark.parametrize(("value", "band"), [(85.0, "between"), (85.01, "hot"), (75.0, "between"), (74.99, "clear")])
def test_a_level_itself_is_beyond_neither(value: float, band: str) -> None:
    assert AlertState(river.alert()).band(value) == band


def test_an_alert_that_fires_below_a_level() -> None:
    rule = {"fire_above": None, "clear_below": None, "fire_below": 5, "clear_above": 8, "for_s": 0}
    found = fed([6, 4, 6, 9], **rule)
    assert states(found) == ["pending", "firing", "recovering", "resolved"]
    assert found[1].cause == "mean of t is 4, below 5"
    assert found[2].cause == "mean of t is 9, above 8"


def test_without_a_clear_level_the_fire_level_clears() -> None:
    assert states(fed([86, 86, 84], clear_below=None)) == ["pending", "firing", "recovering", "resolved"]


def test_a_revision_annotates_and_never_transitions() -> None:
    alerts = AlertState(river.alert(for_s=0))
    alerts.consume([result(0, 90)])
    revision = {"revision": 1, "first_complete": False, "cause": "late"}
    found = alerts.consume([result(0, 60, **revision)])
    assert [(one.state, one.transition, one.annotation, one.cause) for one in found] == [
        ("firing", 2, (1, 60), "revision 1 (late): mean of t was 90, is 60")
    ]
    assert alerts.instances["n1/a"].state == "firing"
    assert alerts.consume([result(0, 60, **revision)]) == []  # says nothing new
    assert alerts.consume([result(10_000, 99, **revision)]) == []  # not the window behind the transition


def test_what_the_live_state_leaves_alone() -> None:
    alerts = AlertState(river.alert(for_s=0))
    assert alerts.consume([result(50_000, 60)]) == []
    assert alerts.consume([result(40_000, 90)]) == []  # older than what was consumed
    assert alerts.ignored == 1
    assert alerts.consume([result(60_000, 90, complete=False, first_complete=False)]) == []
    assert alerts.consume([result(60_000, 90, retro=True)]) == []
    assert alerts.retro == 1
    assert alerts.consume([result(60_000, None)]) == []
    assert alerts.consume([result(60_000, 90)._replace(fields={})]) == []
    assert states(alerts.consume([result(60_000, 90)])) == ["pending", "firing"]


def test_too_many_instances_are_counted_and_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("processors.alerts.INSTANCES_MAX", 1)
    alerts = AlertState(river.alert(for_s=0))
    assert states(alerts.consume([result(0, 90), result(0, 90)._replace(group="n1/b")])) == ["pending", "firing"]
    assert alerts.ignored == 1


def test_only_rules_of_this_place_run_here() -> None:
    one = river.processor(alerts=[river.alert(), river.alert(name="there", runs="edge")])
    assert [version.partition("@")[0] for version in one.versions] == [
        "w",
        "w",
        "hot",
        "hot",
    ]  # and what they find late


def test_an_instance_that_was_damped_recovers_when_the_rule_damps_no_more() -> None:
    before = AlertState(river.alert(for_s=0, flaps_max=3, flap_half_life_s=100))
    for row, value in enumerate([90.0, 70.0] * 10):
        before.consume([result(row * 10_000, value)])
    assert before.instances["n1/a"].damped
    after = AlertState(river.alert(for_s=0))
    after.restore(before.snapshot())
    found = after.consume([result(200_000, 70.0)])
    assert [(one.state, one.flapping) for one in found] == [("recovering", False), ("resolved", False)]
