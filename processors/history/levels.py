"""How results of windows are joined into coarser ones as they grow old: 10 minutes, hours, days. Pure arithmetic."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import NamedTuple

MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000


class Level(NamedTuple):
    """Rows at least `unit_ms` long; they are kept for `keep_ms` behind the newest one of their series."""

    unit_ms: int
    keep_ms: int


LEVELS = (
    Level(0, 6 * HOUR_MS),
    Level(10 * MINUTE_MS, 14 * DAY_MS),
    Level(HOUR_MS, 190 * DAY_MS),
    Level(DAY_MS, 1830 * DAY_MS),
)
"""What grows too old in one level is joined into rows of the next; of the last it goes."""


class Row(NamedTuple):
    """One window, or several joined: [start, end) in ms, readings, and a number per aggregate (NaN: none)."""

    start: int
    end: int
    readings: int
    complete: bool
    values: tuple[float, ...]


def level_of(length_ms: int) -> int:
    """The level of a window that is so long."""
    return max(level for level, one in enumerate(LEVELS) if one.unit_ms <= length_ms or not level)


def joined(aggregates: Sequence[str], rows: Iterable[Row], unit_ms: int) -> list[Row]:
    """Rows (sorted by start) put together by the `unit_ms` of UTC in which they start.

    Of windows that overlap, as hopping ones do, only those count that begin where the one before ended, or later.
    """
    found = []
    for bucket, some in groupby(rows, key=lambda row: row.start // unit_ms):
        picked: list[Row] = []
        for row in some:
            if not picked or row.start >= picked[-1].end:
                picked.append(row)
        start = bucket * unit_ms
        weights = _weights(aggregates, picked)
        values = (
            _JOIN.get(name, _weighted)([row.values[place] for row in picked], weights[name])
            for place, name in enumerate(aggregates)
        )
        found.append(
            Row(
                start,
                max(start + unit_ms, picked[-1].end),
                sum(row.readings for row in picked),
                all(row.complete for row in picked),
                tuple(values),
            )
        )
    return found


def _weights(aggregates: Sequence[str], rows: Sequence[Row]) -> dict[str, list[float]]:
    """What a row counts for: its time where the aggregate is one of time, else its values."""
    lengths = [float(row.end - row.start) for row in rows]
    counts = [float(row.readings) for row in rows]
    if "count" in aggregates:
        counts = [_number(row.values[aggregates.index("count")]) for row in rows]
    return {name: lengths if name in _BY_TIME else counts for name in aggregates}


_BY_TIME = ("time_weighted_mean", "availability", "rate")


def _number(value: float) -> float:
    return 0.0 if math.isnan(value) else value


def _known(values: Sequence[float]) -> list[float]:
    return [value for value in values if not math.isnan(value)]


def _of_known(function: Callable[[list[float]], float]) -> Callable[[Sequence[float], Sequence[float]], float]:
    return lambda values, _: function(known) if (known := _known(values)) else math.nan


def _weighted(values: Sequence[float], weights: Sequence[float]) -> float:
    pairs = [(value, weight) for value, weight in zip(values, weights, strict=True) if not math.isnan(value)]
    total = math.fsum(weight for _, weight in pairs)
    return math.fsum(value * (weight / total) for value, weight in pairs) if total else math.nan


def _direction(values: Sequence[float], weights: Sequence[float]) -> float:
    pairs = [(math.radians(value), weight) for value, weight in zip(values, weights, strict=True) if value == value]
    east = math.fsum(math.sin(angle) * weight for angle, weight in pairs)
    north = math.fsum(math.cos(angle) * weight for angle, weight in pairs)
    return math.degrees(math.atan2(east, north)) % 360.0 if east or north else math.nan


_JOIN: dict[str, Callable[[Sequence[float], Sequence[float]], float]] = {
    **dict.fromkeys(("count", "sum", "integral", "increase"), _of_known(math.fsum)),
    "min": _of_known(min),
    **dict.fromkeys(("max", "range", "distinct"), _of_known(max)),
    "first": _of_known(lambda known: known[0]),
    "last": _of_known(lambda known: known[-1]),
    "circular_mean": _direction,
}
