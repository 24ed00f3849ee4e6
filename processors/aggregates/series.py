"""Aggregates that need a window's readings in the order of their times, whatever order they came in.

The readings are kept as samples until the window is forgotten, and sorted when it is told; of equal times the log's
order counts. Sums are exactly rounded (`math.fsum`), so that they do not depend on any order.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from processors.aggregates.texts import TextTable

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

SAMPLE = np.dtype([("time", "<i8"), ("value", "<f8")])
STATES_MAX = 32
Aggregate = Callable[[Ints, Floats, int, int], Any]
"""(times, values, start and end of the window) -> what it says; there is at least one sample."""


def samples_of(values: Floats, times: Ints) -> npt.NDArray[Any]:
    """Values and their times as `SAMPLE`s."""
    found = np.empty(len(values), dtype=SAMPLE)
    found["time"], found["value"] = times, values
    return found


def result(function: Aggregate, samples: npt.NDArray[Any], start: int, end: int) -> Any:
    """What an aggregate says; None where numbers beyond all bounds leave nothing to say."""
    if not len(samples):
        return None
    ordered = samples[np.argsort(samples["time"], kind="stable")]
    try:
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            found = function(ordered["time"], ordered["value"], start, end)
    except (OverflowError, ValueError):  # fsum: beyond the largest number, or infinities of both signs
        return None
    return None if isinstance(found, float) and not math.isfinite(found) else found


def _area(times: Ints, values: Floats, start: int, end: int) -> float:
    """The area under straight lines between readings, level before the first and after the last; value × ms."""
    steps = np.diff(times)
    areas = (values[:-1] / 2 + values[1:] / 2) * steps
    edges = [float(values[0]) * int(times[0] - start), float(values[-1]) * int(end - times[-1])]
    return math.fsum([*areas.tolist(), *edges])


def time_weighted_mean(times: Ints, values: Floats, start: int, end: int) -> float:
    """The mean height of the area under the signal."""
    return _area(times, values, start, end) / (end - start)


def integral(times: Ints, values: Floats, start: int, end: int) -> float:
    """Value × seconds: of watts, the joules."""
    return _area(times, values, start, end) / 1000.0


def increase(times: Ints, values: Floats, start: int, end: int) -> float | None:
    """How far a counter rose from the first reading to the last; where it fell, it began again at 0."""
    if len(values) < 2:
        return None
    steps = np.diff(values)
    return math.fsum(np.where(steps < 0, values[1:], steps).tolist())


def rate(times: Ints, values: Floats, start: int, end: int) -> float | None:
    """`increase` per second between the first reading and the last."""
    rise, span = increase(times, values, start, end), int(times[-1] - times[0])
    return None if rise is None or not span else rise / (span / 1000.0)


def _held(times: Ints, start: int, end: int) -> Ints:
    """How long each value stood, in ms: until the next; the last until the end, the first from the start."""
    bounds = np.append(times, end)
    bounds[0] = start
    return np.diff(bounds)


def availability(times: Ints, values: Floats, start: int, end: int) -> float:
    """The share of the window in which the value was not 0."""
    return int(_held(times, start, end)[values != 0].sum()) / (end - start)


def durations_of(texts: TextTable | None) -> Aggregate:
    """Seconds per value, numbers and then texts, sorted; None for more than `STATES_MAX` values (then they are no
    states), and where one is a text that is not known.
    """

    def durations(times: Ints, values: Floats, start: int, end: int) -> dict[str, float] | None:
        # by their bits, as texts are no numbers; but -0 is 0
        states, which = np.unique(np.where(values == 0, 0.0, values).view(np.int64), return_inverse=True)
        if len(states) > STATES_MAX:
            return None
        held = np.zeros(len(states), dtype=np.int64)
        np.add.at(held, which, _held(times, start, end))
        values = states.view(np.float64)
        named = values.tolist() if texts is None else texts.listed(values)
        if None in named:
            return None
        found: dict[str, int] = {}
        for state, ms in sorted(zip(named, held.tolist(), strict=True), key=_numbers_first):
            name = state if isinstance(state, str) else _name(state)
            found[name] = found.get(name, 0) + ms  # the number 3 and the text "3" are one
        return {name: ms / 1000.0 for name, ms in found.items()}

    return durations


def _numbers_first(state: tuple[float | str, int]) -> tuple[bool, float | str]:
    return isinstance(state[0], str), state[0]


def _name(state: float) -> str:
    return str(int(state)) if state.is_integer() else repr(state)


AGGREGATES: dict[str, Aggregate] = {
    "time_weighted_mean": time_weighted_mean,
    "integral": integral,
    "increase": increase,
    "rate": rate,
    "availability": availability,
    "durations": durations_of(None),
}
