"""Closed intervals of event time, as marks carry them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

Interval = tuple[int, int]
Bools = npt.NDArray[np.bool_]


def merged(intervals: Iterable[Interval]) -> list[Interval]:
    """The same times as few sorted intervals; ends stand inside, and an interval that ends before it begins is none."""
    joined: list[Interval] = []
    for start, end in sorted(interval for interval in intervals if interval[0] <= interval[1]):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        else:
            joined.append((start, end))
    return joined


def touching(starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64], intervals: Sequence[Interval]) -> Bools:
    """Which windows [start, end) share a time with an interval; an interval's two ends belong to it."""
    touched: Bools = np.zeros(len(starts), dtype=np.bool_)
    for first, last in intervals:
        touched |= (starts <= last) & (ends > first)
    return touched


def untouched(
    nodes: npt.NDArray[np.int64],
    starts: npt.NDArray[np.int64],
    ends: npt.NDArray[np.int64],
    of_nodes: Mapping[int, Sequence[Interval]],
) -> Bools:
    """Which windows [start, end) share no time with an interval of their node."""
    free: Bools = np.ones(len(starts), dtype=np.bool_)
    for node, intervals in of_nodes.items():
        if intervals:
            free &= (nodes != node) | ~touching(starts, ends, intervals)
    return free
