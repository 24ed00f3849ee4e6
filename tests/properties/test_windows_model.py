"""Windows against a naive recomputation: any disorder, lateness, marks and backfill, and any split into blocks."""

from __future__ import annotations

import bisect
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from processors import late
from processors.rules.model import WindowRule
from tests.support import river
from tests.support.random_rivers import some_river
from tests.support.river import Row, run
from tests.support.window_model import Model, Overlapping, SideBySide, Silences

FIXTURES = (HealthCheck.function_scoped_fixture, HealthCheck.too_slow)  # it is the same for all examples
SIZE = 10_000
CIRCULAR = ("dir",)
RULE = river.window(fields={"dir": ["count", "mean", "min", "max", "circular_mean"]}, allowed_lateness_s=60)

rivers = st.builds(some_river, st.integers(0, 1 << 32), st.integers(1, 60))


def by(bounds: list[int]) -> Callable[[int], tuple[int, int]]:
    def around(time: int) -> tuple[int, int]:
        place = bisect.bisect_right(bounds, time)
        return bounds[place - 1], bounds[place]

    return around


def model_of(rule: WindowRule) -> Model:
    lateness = rule.allowed_lateness_ms
    more: dict[str, Any] = {"early_every": rule.early_every_ms, "until_backfilled": rule.lateness == "backfill"}
    match rule.kind:
        case "hopping":
            return Overlapping(rule.size_ms, rule.every_ms, lateness, **more)
        case "session":
            return Silences(rule.gap_ms, lateness, **more)
        case "calendar":
            # The first shifts of 1970 in Berlin, UTC+1: 00:00:30, 00:01 and 00:01:30 are as near as minutes allow.
            return SideBySide(by([-86_340_000, 0, 60_000, 120_000, 180_000, 86_400_000, 10**12]), lateness, **more)
    return SideBySide(lambda time: (time // SIZE * SIZE, time // SIZE * SIZE + SIZE), lateness, CIRCULAR, **more)


RULES = {
    "tumbling": RULE,
    "hopping": river.window(kind="hopping", size_s=25, every_s=10, allowed_lateness_s=60),
    "session": river.window(kind="session", size_s=None, gap_s=9, allowed_lateness_s=60),
    "calendar": river.window(
        kind="calendar",
        size_s=None,
        calendar="shifts",
        zone="Europe/Berlin",
        shifts={"a": "01:00", "b": "01:01", "c": "01:02", "d": "01:03"},
        allowed_lateness_s=60,
    ),
}
EARLY = {
    name: msgspec.structs.replace(rule, early_every_s=15)
    for name, rule in RULES.items()
    if name in ("tumbling", "hopping", "session")
}
UNTIL_BACKFILLED = {
    name: msgspec.structs.replace(RULES[name], allowed_lateness_s=0, lateness="backfill")
    for name in ("tumbling", "hopping")
}
RULES |= {f"{name}, early": rule for name, rule in EARLY.items()}
RULES |= {f"{name}, until backfill is done": rule for name, rule in UNTIL_BACKFILLED.items()}
kinds = pytest.mark.parametrize("kind", RULES)


def without(found: dict[str, Any]) -> dict[str, Any]:
    hidden = {"rule", "shift", *(("topic", "partition", "offset") if "reading" in found else ("cause",))}
    return {key: value for key, value in found.items() if key not in hidden}


@pytest.fixture(autouse=True)
def few_single_readings_and_short_hours(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a short river has sums of readings that came too late."""
    monkeypatch.setattr(late, "SINGLES", 2)
    monkeypatch.setattr(late, "HOUR_MS", 40_000)


@kinds
@settings(max_examples=70, deadline=None, suppress_health_check=FIXTURES)
@given(rows=rivers)
def test_windows_say_what_a_naive_recomputation_says(kind: str, rows: list[Row]) -> None:
    model = model_of(RULES[kind])
    for row in rows:
        model.take(row)
    outputs = run(RULES[kind], rows, [])
    assert [without(value) for value in river.values(outputs)] == model.outputs
    assert [without(value) for value in river.values(outputs, "late")] == model.told_late


@kinds
@settings(max_examples=25, deadline=None, suppress_health_check=FIXTURES)
@given(rows=rivers, data=st.data())
def test_any_split_into_blocks_gives_the_same_bytes(kind: str, rows: list[Row], data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(0, len(rows)), max_size=6)))
    assert run(RULES[kind], rows, cuts) == run(RULES[kind], rows, [])


@kinds
@settings(max_examples=15, deadline=None, suppress_health_check=FIXTURES)
@given(rows=rivers, data=st.data())
def test_a_restart_between_blocks_changes_no_byte(kind: str, rows: list[Row], data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(0, len(rows)), max_size=3)))
    assert run(RULES[kind], rows, cuts, restart=True) == run(RULES[kind], rows, [])
