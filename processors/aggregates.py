"""Aggregates as columns of state: one row per window of one device, one set of arrays per field.

Values are accumulated in the order of the log, record by record (`ufunc.at`), so any split of the same records into
blocks gives the same bytes. Sines and cosines are taken value by value for the same reason: a vectorised one may
round the last lanes of an array differently from the others.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

CIRCULAR = "circular_mean"
_RESULTANT_MIN = 1e-9  # shorter than this, the mean direction is rounding noise: there is none


class _Column(NamedTuple):
    """One array of state: what an empty row holds."""

    name: str
    empty: float
    integer: bool = False


_COUNT = _Column("n", 0, integer=True)
_NEEDS: dict[str, tuple[_Column, ...]] = {
    "count": (),
    "sum": (_Column("sum", 0.0),),
    "mean": (_Column("sum", 0.0),),
    "min": (_Column("min", math.inf),),
    "max": (_Column("max", -math.inf),),
    CIRCULAR: (_Column("sin", 0.0), _Column("cos", 0.0)),
}


class FieldState:
    """The state of one field over all rows. `aggregates` are those that the rule asks for."""

    def __init__(self, aggregates: tuple[str, ...], capacity: int) -> None:
        self.aggregates = tuple(dict.fromkeys(aggregates))
        self._columns = {_COUNT.name: _COUNT}
        for aggregate in self.aggregates:
            self._columns |= {column.name: column for column in _NEEDS[aggregate]}
        self.arrays = {name: _empty(column, capacity) for name, column in self._columns.items()}

    def grow(self, capacity: int) -> None:
        for name, column in self._columns.items():
            more = capacity - len(self.arrays[name])
            self.arrays[name] = np.concatenate([self.arrays[name], _empty(column, more)])

    def clear(self, rows: Ints) -> None:
        """Make rows empty, for other windows."""
        for name, column in self._columns.items():
            self.arrays[name][rows] = column.empty

    def add(self, rows: Ints, values: Floats) -> None:
        """Take values into their rows, in this order."""
        arrays = self.arrays
        np.add.at(arrays["n"], rows, 1)
        if "sum" in arrays:
            np.add.at(arrays["sum"], rows, values)
        if "min" in arrays:
            np.minimum.at(arrays["min"], rows, values)
        if "max" in arrays:
            np.maximum.at(arrays["max"], rows, values)
        if "sin" in arrays:
            angles = [math.radians(value) for value in values.tolist()]
            np.add.at(arrays["sin"], rows, np.array([_sine(math.sin, angle) for angle in angles]))
            np.add.at(arrays["cos"], rows, np.array([_sine(math.cos, angle) for angle in angles]))

    def results(self, rows: Ints) -> list[dict[str, float | int | None] | None]:
        """The aggregates of each row in the rule's order; None for a row without a value of this field."""
        lists = {name: array[rows].tolist() for name, array in self.arrays.items()}
        counts = lists["n"]
        columns = [_result(aggregate, lists) for aggregate in self.aggregates]
        return [
            dict(zip(self.aggregates, row, strict=True)) if count else None
            for count, row in zip(counts, zip(*columns, strict=True), strict=True)
        ]

    def snapshot(self, rows: Ints) -> dict[str, Any]:
        return {name: pack(array[rows]) for name, array in self.arrays.items()}

    def restore(self, data: dict[str, Any], count: int) -> None:
        """Put a snapshot's rows into the first `count` rows."""
        for name, array in self.arrays.items():
            array[:count] = unpack(data[name], array.dtype.str[1:])


def _sine(function: Any, angle: float) -> float:
    return function(angle) if math.isfinite(angle) else math.nan


def _result(aggregate: str, lists: dict[str, list[Any]]) -> list[float | int | None]:
    counts = lists["n"]
    if aggregate == "count":
        return counts
    if aggregate == "mean":
        return [total / count if count else None for total, count in zip(lists["sum"], counts, strict=True)]
    if aggregate == CIRCULAR:
        return [
            circular_mean(sine, cosine, count)
            for sine, cosine, count in zip(lists["sin"], lists["cos"], counts, strict=True)
        ]
    return lists[aggregate]


def circular_mean(sine: float, cosine: float, count: int) -> float | None:
    """The mean direction in degrees, in [0, 360), of `count` directions from the sums of their sines and cosines.

    None when they cancel each other out, as north and south do: then no direction is their mean.
    """
    if not count or not math.hypot(sine, cosine) > _RESULTANT_MIN * count:
        return None
    degrees = math.degrees(math.atan2(sine, cosine)) % 360.0
    return degrees if degrees < 360.0 else 0.0  # a tiny negative angle rounds up to 360


def _empty(column: _Column, size: int) -> npt.NDArray[Any]:
    return np.full(size, column.empty, dtype=np.int64 if column.integer else np.float64)


def pack(array: npt.NDArray[Any]) -> bytes:
    """An array as little-endian bytes."""
    return array.astype(array.dtype.newbyteorder("<")).tobytes()


def unpack(data: bytes, kind: str) -> npt.NDArray[Any]:
    """The array behind `pack`; `kind` is a NumPy type without byte order, such as `i8`."""
    return np.frombuffer(data, dtype=f"<{kind}").astype(kind)
