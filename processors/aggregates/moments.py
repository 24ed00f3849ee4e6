"""Variance and slope by Welford's updates: stable for values far from zero, and the same for any split into blocks.

Each row takes its values one after the other in the order of the log. Blocks are worked off in rounds, each with at
most one value per row, or row by row when a few rows have most of the values: both do the same arithmetic.
Merging two rows: Chan, Golub and LeVeque (1979).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Arrays = dict[str, Any]

VALUE = ("average", "m2")
"""Mean, and sum of squared differences from it."""
TIME = ("time_average", "time_m2", "product")
"""The same of time in seconds since `origin`, the row's first reading in the log, and the sum of joint products."""
_NO_TIME = 1 << 62


def add(arrays: Arrays, rows: Ints, values: Floats, times: Ints) -> None:
    """Take values into their rows; `arrays["n"]` must still count what was there before."""
    order = np.argsort(rows, kind="stable")
    ordered = rows[order]
    begins = np.flatnonzero(np.diff(ordered, prepend=-1))
    sizes = np.diff(np.append(begins, len(rows)))
    which = ordered[begins]
    with_time = "origin" in arrays
    if with_time:
        fresh = arrays["origin"][which] == _NO_TIME
        arrays["origin"][which[fresh]] = times[order[begins[fresh]]]
        seconds = (times - arrays["origin"][rows]) / 1000.0
    else:
        seconds = values  # not looked at
    names = (*VALUE, *TIME) if with_time else VALUE
    state = [arrays[name][which] for name in names]
    counts = arrays["n"][which]
    with np.errstate(over="ignore", invalid="ignore"):
        if sizes.max() * 8 > len(rows) and len(rows) > 64:
            _row_by_row(state, counts, begins, sizes, values[order], seconds[order])
        else:
            for turn in range(int(sizes.max())):
                more = np.flatnonzero(sizes > turn)
                picked = order[begins[more] + turn]
                now = [array[more] for array in state]
                found = _step(counts[more] + (turn + 1), now, values[picked], seconds[picked])
                for array, new in zip(state, found, strict=True):
                    array[more] = new
    for name, array in zip(names, state, strict=True):
        arrays[name][which] = array


def _step(n: Any, state: list[Any], value: Any, second: Any) -> list[Any]:
    """The state of each row after one more value, which is its n-th; scalars or arrays."""
    average, m2 = state[:2]
    off = value - average
    average = average + off / n
    rest = value - average
    m2 = m2 + off * rest
    if len(state) == 2:
        return [average, m2]
    time_average, time_m2, product = state[2:]
    off = second - time_average
    time_average = time_average + off / n
    return [average, m2, time_average, time_m2 + off * (second - time_average), product + off * rest]


def _row_by_row(state: list[Floats], counts: Ints, begins: Ints, sizes: Ints, values: Floats, seconds: Floats) -> None:
    places = zip(counts.tolist(), begins.tolist(), sizes.tolist(), strict=True)
    for row, (count, begin, size) in enumerate(places):
        now = [float(array[row]) for array in state]
        for value, second in zip(
            values[begin : begin + size].tolist(), seconds[begin : begin + size].tolist(), strict=True
        ):
            count += 1
            now = _step(count, now, value, second)
        for array, new in zip(state, now, strict=True):
            array[row] = new


def merge(arrays: Arrays, into: Ints, more: Arrays, rows: Ints) -> None:
    """Add `rows` of `more` to rows `into` of `arrays`; both `n` still count what was there before."""
    n, m = arrays["n"][into], more["n"][rows]
    share = m / np.maximum(n + m, 1)
    average, m2 = arrays["average"][into], arrays["m2"][into]
    with np.errstate(over="ignore", invalid="ignore"):
        off = more["average"][rows] - average
        arrays["average"][into] = average + off * share
        arrays["m2"][into] = m2 + more["m2"][rows] + off * off * (n * share)
        if "origin" not in arrays:
            return
        mine, theirs = arrays["origin"][into], more["origin"][rows]
        origin = np.where(mine == _NO_TIME, theirs, mine)
        moved = np.where((m == 0) | (n == 0), 0, theirs - origin) / 1000.0
        time_average = arrays["time_average"][into]
        time_off = np.where(m == 0, 0.0, more["time_average"][rows] + moved - time_average)
        arrays["origin"][into] = origin
        arrays["time_average"][into] = time_average + time_off * share
        arrays["time_m2"][into] += more["time_m2"][rows] + time_off * time_off * (n * share)
        arrays["product"][into] += more["product"][rows] + time_off * off * (n * share)


def variance(n: int, m2: float) -> float | None:
    """The sample variance (n − 1 below the line); None for a single value."""
    return m2 / (n - 1) if n > 1 else None


def stddev(n: int, m2: float) -> float | None:
    """The root of `variance`."""
    return math.sqrt(m2 / (n - 1)) if n > 1 and m2 >= 0 else None


def slope(n: int, time_m2: float, product: float) -> float | None:
    """The least-squares slope per second; None when all values have the same time."""
    return product / time_m2 if n > 1 and time_m2 > 0 else None
