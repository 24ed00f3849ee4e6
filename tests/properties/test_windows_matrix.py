"""Every kind of window × every aggregate against a naive recomputation from sorted readings, in any disorder.

Rivers by chance (disorder, marks, copies, backfill) go through a rule of each kind with every aggregate that a rule may
ask for; what each revision says is held against `window_model` and `aggregate_model`, exactly or within the error that
docs/windows.md states. Nothing that can be registered is left out: the first test counts.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from itertools import pairwise
from typing import Any, NamedTuple, get_args, get_type_hints
from zoneinfo import ZoneInfo

import pytest

from processors.aggregates import field_state
from processors.columns import KeyTable
from processors.rules.model import AGGREGATES, WindowRule
from processors.windows.closing import WindowState
from processors.windows.kinds import window_state
from tests.support import aggregate_model, river
from tests.support.random_rivers import SPAN_MS, some_river, stretched
from tests.support.river import Row, health, run
from tests.support.window_model import Model, Overlapping, SideBySide, Silences

DAY_MS, HOUR_MS = 86_400_000, 3_600_000
SECOND_RIVER_MS = 10_000
"""A window's length in a river as it is drawn; for others it is stretched."""
ZONES = {"a": "Europe/Berlin", "b/c": "America/New_York"}
SHIFTS = {"early": "06:00", "late": "14:00", "night": "22:00"}
OF_TEXTS: tuple[str, ...] = ("count", "first", "last", "distinct", "durations")
EVERY = {"x": AGGREGATES, "état": ("count", "last"), "state": OF_TEXTS}
STATES = ("run", "stop", "Störung", "3", "", 3, 0.5, True, None, {"deep": "run"}, ["run"])


def ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def local_bounds(unit: str, zone: str) -> Callable[[int], tuple[int, int]]:
    """The calendar window around a time, by `datetime` alone (in a zone and years whose clocks leap over no bound)."""
    place = ZoneInfo(zone)

    def at(day: date, hour: int = 0) -> int:
        return round(datetime.combine(day, time(hour), place).timestamp() * 1000)

    def bounds(time_ms: int) -> tuple[int, int]:
        day = datetime.fromtimestamp(time_ms / 1000, place).date()
        match unit:
            case "day":
                return at(day), at(day + timedelta(1))
            case "week":
                monday = day - timedelta(day.weekday())
                return at(monday), at(monday + timedelta(7))
            case "month":
                return at(day.replace(day=1)), at((day.replace(day=28) + timedelta(4)).replace(day=1))
            case "year":
                return at(date(day.year, 1, 1)), at(date(day.year + 1, 1, 1))
        days = [day + timedelta(n) for n in (-1, 0, 1)]
        begins = [at(one, hour) for one in days for hour in (6, 14, 22)]
        return next((start, end) for start, end in pairwise(begins) if start <= time_ms < end)

    return bounds


class ByZone(SideBySide):
    """Days by the clock of each device's own place."""

    def step(self, watermark: int) -> int:
        return watermark // HOUR_MS

    def bounds_of(self, row: Row) -> tuple[int, int]:
        return local_bounds("day", ZONES.get(row.device, "Asia/Tokyo"))(row.time)


class Kind(NamedTuple):
    """A rule, its naive counterpart, and how a river is stretched for its windows."""

    rule: WindowRule
    model: Callable[..., Model]
    factor: int = 1
    base_ms: int = 0

    def rows(self, seed: int, length: int) -> list[Row]:
        chance = random.Random(seed)
        signal = aggregate_model.SIGNALS[chance.choice(sorted(aggregate_model.SIGNALS))]
        rows = []
        for row in stretched(some_river(seed, length), self.factor, self.base_ms):
            fields = {"état" if name == "état" else "x": value for name, value in row.fields.items()}
            if type(fields.get("x")) in (int, float) or chance.random() < 0.7:
                fields["x"] = signal(chance, row.time)
            if chance.random() < 0.7:
                fields["state"] = chance.choice(STATES)
            says = {"zone": ZONES[row.device]} if row.device in ZONES and self.rule.zone == "device" else None
            spoken = row.mark if chance.random() < 0.3 else None
            rows.append(row._replace(fields=fields, says=says, mark=spoken))
        return rows + self._end(rows)

    def _end(self, rows: list[Row]) -> list[Row]:
        """Marks behind which nothing is under way or owed."""
        live = self.base_ms + 2 * SPAN_MS * self.factor
        parts = max([row.mark["k"] for row in rows if row.mark is not None], default=1)
        copied = any(row.hw is not None for row in rows)
        return [
            health(live, node, live, (0, part, 1_000) if copied else None, k=parts, partition=part)
            for node in ("n1", "n2")
            for part in range(parts)
        ]


def calendar(unit: str, base: str, **more: Any) -> Kind:
    """Windows of a calendar, about as many to a river as tumbling ones of ten seconds."""
    days = {"shifts": 1 / 3, "day": 1, "week": 7, "month": 30, "year": 365}[unit]
    factor = round(days * DAY_MS / SECOND_RIVER_MS)
    rule = river.window(
        **{"kind": "calendar", "size_s": None, "calendar": unit, "zone": "Europe/Berlin", "fields": EVERY, **more},
        allowed_lateness_s=60 * factor,
    )
    if rule.zone == "device":
        return Kind(rule, lambda *args, **named: ByZone(local_bounds("day", "UTC"), *args, **named), factor, ms(base))
    bounds = local_bounds(unit, "Europe/Berlin")
    return Kind(rule, lambda *args, **named: SideBySide(bounds, *args, **named), factor, ms(base))


def side(time: int) -> tuple[int, int]:
    return time // 10_000 * 10_000, time // 10_000 * 10_000 + 10_000


def seconds(**rule: Any) -> WindowRule:
    return river.window(**{"size_s": None, "fields": EVERY, "allowed_lateness_s": 60, **rule})


KINDS = {
    "tumbling": Kind(seconds(size_s=10), lambda *args, **named: SideBySide(side, *args, **named)),
    "hopping": Kind(
        seconds(kind="hopping", size_s=25, every_s=10),
        lambda *args, **named: Overlapping(25_000, 10_000, *args, **named),
    ),
    "session": Kind(seconds(kind="session", gap_s=9), lambda *args, **named: Silences(9_000, *args, **named)),
    "day, into summer time": calendar("day", "2022-03-15T05:00+01:00"),
    "day, out of summer time": calendar("day", "2022-10-20T05:00+02:00"),
    "day of each device's zone": calendar("day", "2022-03-05T03:00+00:00", zone="device", default_zone="Asia/Tokyo"),
    "week": calendar("week", "2022-01-05T00:00+01:00"),
    "month": calendar("month", "2022-01-20T12:00+01:00"),
    "year": calendar("year", "1999-05-01T00:00+02:00"),
    "shifts": calendar("shifts", "2022-03-24T00:00+01:00", shifts=SHIFTS),
}


def test_no_kind_of_window_and_no_aggregate_is_left_out() -> None:
    """Whoever registers one says here what it means."""
    hints = get_type_hints(WindowRule)
    assert {kind.rule.kind for kind in KINDS.values()} == set(get_args(hints["kind"]))
    calendars = {name for part in get_args(hints["calendar"]) for name in get_args(part)}
    assert {kind.rule.calendar for kind in KINDS.values()} - {None} == calendars
    states = {type(window_state(kind.rule, KeyTable())) for kind in KINDS.values()}
    assert states == descendants(WindowState)
    assert aggregate_model.MODELS.keys() == set(AGGREGATES) == field_state._NEEDS.keys()


def descendants(one: type) -> set[type]:
    """The classes that a rule can be given: all below but those that only prepare others."""
    found: set[type] = set(one.__subclasses__())
    return found.union(*map(descendants, found))


def without(found: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in found.items() if key not in ("rule", "shift", "cause")}


def check(kind: Kind, seed: int) -> int:
    """One river through one kind of window; returns the number of results."""
    chance = random.Random(~seed)
    rows = kind.rows(seed, 150 if seed % 2 else 15)
    model = kind.model(kind.rule.allowed_lateness_ms, near=kind.rule.fields)
    for row in rows:
        model.take(row)
    outputs = run(kind.rule, rows, [])
    found = river.values(outputs)
    for said, wanted in zip(found, model.outputs, strict=True):
        assert without(said) == wanted, seed
    for cuts, restart in ((3, False), (2, True)):
        chosen = sorted(chance.sample(range(len(rows) + 1), min(cuts, len(rows))))
        assert run(kind.rule, rows, chosen, restart=restart) == outputs, (seed, chosen)
    return len(found)


@pytest.mark.parametrize("name", KINDS)
def test_every_aggregate_in_every_kind_of_window(name: str) -> None:
    assert sum(check(KINDS[name], seed) for seed in range(2)) > 10


@pytest.mark.long("windows-matrix", count=400)
@pytest.mark.parametrize("name", KINDS)
def test_every_aggregate_in_every_kind_of_window_for_long(name: str, count: int) -> None:
    assert sum(check(KINDS[name], seed) for seed in range(100, 100 + count)) > 4 * count
