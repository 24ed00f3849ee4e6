"""What aggregates must say, from a plain list of (time in ms, value) in the order of the log."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import pairwise
from typing import Any

Readings = list[tuple[int, float]]
QUANTILES = {"p1": 0.01, "p5": 0.05, "p50": 0.5, "p75": 0.75, "p95": 0.95, "p99": 0.99, "p99.9": 0.999}


def exact(readings: Readings) -> list[tuple[Fraction, Fraction]]:
    return [(Fraction(time), Fraction(value)) for time, value in readings]


def moment(pairs: list[tuple[Fraction, Fraction]], one: int, other: int) -> Fraction:
    """The sum of products of differences from the means."""
    means = [sum((pair[side] for pair in pairs), Fraction()) / len(pairs) for side in (0, 1)]
    return sum(((pair[one] - means[one]) * (pair[other] - means[other]) for pair in pairs), Fraction())


def variance(readings: Readings) -> float | None:
    return float(moment(exact(readings), 1, 1) / (len(readings) - 1)) if len(readings) > 1 else None


def slope(readings: Readings) -> float | None:
    pairs = exact(readings)
    below = moment(pairs, 0, 0)
    return float(moment(pairs, 0, 1) / below * 1000) if below else None


def circular_spread(readings: Readings) -> float | None:
    sines = math.fsum(math.sin(math.radians(value)) for _, value in readings)
    cosines = math.fsum(math.cos(math.radians(value)) for _, value in readings)
    length = math.hypot(sines, cosines) / len(readings)
    return math.degrees(math.sqrt(-2 * math.log(min(1.0, length)))) if length > 1e-9 else None


def area(readings: Readings, start: int, end: int) -> Fraction:
    """Value × ms under straight lines through the readings, level at both ends of the window."""
    pairs = exact(readings)
    corners = [(Fraction(start), pairs[0][1]), *pairs, (Fraction(end), pairs[-1][1])]
    return sum(((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in pairwise(corners)), Fraction())


def increase(readings: Readings) -> float | None:
    if len(readings) < 2:
        return None
    return float(sum(Fraction(b) - Fraction(a) if b >= a else Fraction(b) for (_, a), (_, b) in pairwise(readings)))


def held(readings: Readings, start: int, end: int) -> dict[float, int]:
    """Ms per value."""
    bounds = [start, *(time for time, _ in readings[1:]), end]
    found: dict[float, int] = {}
    for (_, value), (begin, until) in zip(readings, pairwise(bounds), strict=True):
        found[value] = found.get(value, 0) + until - begin
    return found


def expected(name: str, readings: Readings, start: int, end: int) -> Any:
    """One aggregate; readings of equal times stay in the order of the log."""
    values = [value for _, value in readings]
    ordered = sorted(readings, key=lambda reading: reading[0])
    match name:
        case "count":
            return len(values)
        case "range":
            return max(values) - min(values)
        case "first":
            return ordered[0][1]
        case "last":
            return ordered[-1][1]
        case "variance":
            return variance(readings)
        case "stddev":
            return None if (found := variance(readings)) is None else math.sqrt(found)
        case "slope":
            return slope(readings)
        case "circular_spread":
            return circular_spread(readings)
        case "distinct":
            return len(set(values))
        case "time_weighted_mean":
            return float(area(ordered, start, end) / (end - start))
        case "integral":
            return float(area(ordered, start, end) / 1000)
        case "increase":
            return increase(ordered)
        case "rate":
            span, rise = ordered[-1][0] - ordered[0][0], increase(ordered)
            return None if rise is None or not span else rise / span * 1000
        case "availability":
            return sum(ms for value, ms in held(ordered, start, end).items() if value) / (end - start)
        case "durations":
            states = {value: ms / 1000 for value, ms in sorted(held(ordered, start, end).items())}
            named = {str(int(value)) if value % 1 == 0 else repr(value): seconds for value, seconds in states.items()}
            return named if len(named) <= 32 else None
    return sorted(values)[math.floor(QUANTILES[name] * (len(values) - 1))]
