"""What aggregates must say, from a plain list of (time in ms, value) in the order of the log."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from typing import Any

Readings = list[tuple[int, Any]]
"""(time in ms, a number, or a text where all that is asked takes texts)."""
OF_TEXTS = {"count", "first", "last", "distinct", "durations"}
SHARES = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.999)
QUANTILES = {f"p{share * 100:.4g}": share for share in SHARES}
QUANTILE_ERROR = 1 / 128  # of the value itself


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


def resultant(readings: Readings) -> tuple[float, float, float]:
    """The sums of sines and cosines, and the mean resultant length."""
    sines = math.fsum(math.sin(math.radians(value)) for _, value in readings)
    cosines = math.fsum(math.cos(math.radians(value)) for _, value in readings)
    return sines, cosines, math.hypot(sines, cosines) / len(readings)


def circular_spread(readings: Readings) -> float | None:
    _, _, length = resultant(readings)
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


def held(readings: Readings, start: int, end: int) -> dict[Any, int]:
    """Ms per value."""
    bounds = [start, *(time for time, _ in readings[1:]), end]
    found: dict[Any, int] = {}
    for (_, value), (begin, until) in zip(readings, pairwise(bounds), strict=True):
        found[value] = found.get(value, 0) + until - begin
    return found


def circular_mean(readings: Readings) -> float | None:
    sines, cosines, length = resultant(readings)
    return math.degrees(math.atan2(sines, cosines)) % 360 if length > 1e-9 else None


def rate(readings: Readings) -> float | None:
    span, rise = readings[-1][0] - readings[0][0], increase(readings)
    return None if rise is None or not span else rise / span * 1000


def durations(readings: Readings, start: int, end: int) -> dict[str, float] | None:
    states = held(readings, start, end)
    numbers, texts = ([one for one in states if isinstance(one, str) is are] for are in (False, True))
    named: dict[str, int] = {}
    for value in [*sorted(numbers), *sorted(texts)]:
        name = value if isinstance(value, str) else str(int(value)) if value % 1 == 0 else repr(value)
        named[name] = named.get(name, 0) + states[value]
    return {name: ms / 1000 for name, ms in named.items()} if len(states) <= 32 else None


def quantile(share: float) -> Callable[[Readings, int, int], float]:
    return lambda mine, start, end: sorted(numbers(mine))[math.floor(share * (len(mine) - 1))]


def numbers(readings: Readings) -> list[float]:
    return [value for _, value in readings]


MODELS: dict[str, Callable[[Readings, int, int], Any]] = {
    "count": lambda mine, start, end: len(mine),
    "sum": lambda mine, start, end: math.fsum(numbers(mine)),
    "mean": lambda mine, start, end: math.fsum(numbers(mine)) / len(mine),
    "min": lambda mine, start, end: min(numbers(mine)),
    "max": lambda mine, start, end: max(numbers(mine)),
    "range": lambda mine, start, end: max(numbers(mine)) - min(numbers(mine)),
    "first": lambda mine, start, end: mine[0][1],
    "last": lambda mine, start, end: mine[-1][1],
    "variance": lambda mine, start, end: variance(mine),
    "stddev": lambda mine, start, end: None if (found := variance(mine)) is None else math.sqrt(found),
    "slope": lambda mine, start, end: slope(mine),
    "circular_mean": lambda mine, start, end: circular_mean(mine),
    "circular_spread": lambda mine, start, end: circular_spread(mine),
    "distinct": lambda mine, start, end: len(set(numbers(mine))),
    "time_weighted_mean": lambda mine, start, end: float(area(mine, start, end) / (end - start)),
    "integral": lambda mine, start, end: float(area(mine, start, end) / 1000),
    "increase": lambda mine, start, end: increase(mine),
    "rate": lambda mine, start, end: rate(mine),
    "availability": lambda mine, start, end: (
        sum(ms for value, ms in held(mine, start, end).items() if value) / (end - start)
    ),
    "durations": durations,
    **{name: quantile(share) for name, share in QUANTILES.items()},
}
"""What each aggregate says of readings in the order of their times, in the window [start, end)."""


def expected(name: str, readings: Readings, start: int, end: int) -> Any:
    """One aggregate; readings of equal times stay in the order of the log."""
    return MODELS[name](sorted(readings, key=lambda reading: reading[0]), start, end)


EXACT = ("count", "min", "max", "range", "first", "last", "durations")


def close_to(name: str, found: Any, wanted: Any, readings: Readings, length_ms: int) -> bool:
    """Whether it is what was wanted, but for the error that docs/windows.md states and the rounding of doubles."""
    if found is None or wanted is None or name in EXACT:
        return bool(found == wanted)
    error = abs(found - wanted)
    if name in QUANTILES:
        return bool(error <= abs(wanted) * QUANTILE_ERROR)
    if name == "distinct":  # of more, two may have one hash
        return bool(found == wanted or (wanted > 20 and found == wanted - 1))
    if name.startswith("circular"):  # short resultants, and spreads near 0 and near their pole, magnify rounding
        _, _, resultant_length = resultant(readings)
        around = min(error, 360 - error) if name == "circular_mean" else error
        return bool(around < 1e-5 or resultant_length < 1e-6)
    return bool(error <= rounding(name, wanted, readings, length_ms))


def rounding(name: str, wanted: float, readings: Readings, length_ms: int) -> float:
    """The rounding of the values themselves counts as well, so what matters is the error against their size."""
    size, count = max(abs(value) for value in numbers(readings)), len(readings)
    spread = max(numbers(readings)) - min(numbers(readings))
    seconds = max(1, max(time for time, _ in readings) - min(time for time, _ in readings)) / 1000
    if name in ("variance", "stddev", "slope"):
        # of values far from zero the last digits are all there is
        scale = {"variance": spread * spread, "stddev": spread, "slope": spread / seconds}[name]
        far = {"variance": 1e-6 * size, "stddev": 1e-6 * size, "slope": 1e-5 * size / seconds}[name] * (size > 1e8)
        return 1e-9 * (abs(wanted) + scale + far)
    scale = size * {"integral": length_ms / 1000, "rate": count / seconds, "availability": 1 / size if size else 1}.get(
        name, 1 if name == "mean" or name == "time_weighted_mean" else count
    )
    return 1e-12 * abs(wanted) + 1e-13 * scale


class Near:
    """What one aggregate must say of readings: equal to all that is `close_to` it."""

    def __init__(self, name: str, readings: Readings, start: int, end: int) -> None:
        self.name, self.readings, self.length_ms = name, readings, end - start
        self.value = expected(name, readings, start, end)

    def __eq__(self, other: object) -> bool:
        return close_to(self.name, other, self.value, self.readings, self.length_ms)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{self.value!r} or near"


# Kinds of signals: far from zero with little noise, counters with resets, states, anything.
SIGNALS: dict[str, Callable[[random.Random, int], float]] = {
    "far": lambda chance, at: 1e9 + chance.random(),
    "counter": lambda chance, at: float(at // 100 % 300 + 1e6),
    "state": lambda chance, at: float(chance.choice([0, 1, 3])),
    "many": lambda chance, at: float(chance.randrange(100_000)),
    "signed": lambda chance, at: chance.choice([-1, 1]) * 10 ** chance.uniform(-6, 9),
    "same": lambda chance, at: 0.1,
}
