"""Aggregates as columns of state: one row per window of one device, one set of arrays per field.

Values are accumulated in the order of the log, record by record, so any split of the same records into blocks gives
the same bytes. Sines and cosines are taken value by value for the same reason: a vectorised one may round the last
lanes of an array differently from the others. What an aggregate means: docs/windows.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from processors.aggregates import moments, series, sketches, texts
from processors.aggregates.piles import Pile
from processors.aggregates.texts import TextTable

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Columns = dict[str, Any]
"""Arrays of state and lists of what is kept beside them, an entry a row."""

_RESULTANT_MIN = 1e-9  # shorter than this, the mean direction is rounding noise: there is none
_NO_TIME = 1 << 62


class _Column(NamedTuple):
    """One array of state: what an empty row holds."""

    name: str
    empty: float
    integer: bool = False


_COUNT = _Column("n", 0, integer=True)
_SUM = _Column("sum", 0.0)
_MIN, _MAX = _Column("min", math.inf), _Column("max", -math.inf)
_FIRST = (_Column("first_time", _NO_TIME, integer=True), _Column("first", 0.0))
_LAST = (_Column("last_time", -_NO_TIME, integer=True), _Column("last", 0.0))
_MOMENTS = tuple(_Column(name, 0.0) for name in moments.VALUE)
_SLOPE = (*_MOMENTS, *(_Column(name, 0.0) for name in moments.TIME), _Column("origin", _NO_TIME, integer=True))
_CIRCLE = (_Column("sin", 0.0), _Column("cos", 0.0))
_SPILT = _Column("spilt", 0, integer=True)  # samples that found no room
_NEEDS: dict[str, tuple[_Column, ...]] = {
    "count": (),
    "sum": (_SUM,),
    "mean": (_SUM,),
    "min": (_MIN,),
    "max": (_MAX,),
    "range": (_MIN, _MAX),
    "first": _FIRST,
    "last": _LAST,
    "variance": _MOMENTS,
    "stddev": _MOMENTS,
    "slope": _SLOPE,
    "circular_mean": _CIRCLE,
    "circular_spread": _CIRCLE,
    "distinct": (),
    **dict.fromkeys(series.AGGREGATES, (_SPILT,)),
    **dict.fromkeys(sketches.QUANTILES, (_MIN, _MAX)),
}

TELL_TEXTS = frozenset(("first", "last", "durations"))
"""Aggregates that say which text it was; for them a field's texts are kept."""


class FieldState:
    """The state of one field over all rows. `aggregates` are those that the rule asks for.

    `texts`: of a field that may have texts among its values, what their codes mean, where an aggregate tells them;
    then all `aggregates` are such as take texts. States that are merged have the same one.
    """

    def __init__(
        self,
        aggregates: tuple[str, ...],
        capacity: int,
        *,
        samples_max: int = 1_000_000,
        texts: TextTable | None = None,
    ) -> None:
        self.aggregates = tuple(dict.fromkeys(aggregates))
        self._columns = {_COUNT.name: _COUNT}
        for aggregate in self.aggregates:
            self._columns |= {column.name: column for column in _NEEDS[aggregate]}
        self.arrays = {name: _empty(column, capacity) for name, column in self._columns.items()}
        self._samples_max = samples_max
        self.full = False
        self.texts = texts
        asked = set(self.aggregates)
        self.samples = Pile(series.SAMPLE) if asked & set(series.AGGREGATES) else None
        self._buckets = Pile(sketches.BUCKET, sketches.squeeze) if asked & sketches.QUANTILES.keys() else None
        self._hashes = Pile(sketches.HASH, sketches.squeeze_hashes) if "distinct" in asked else None
        piles = {"samples": self.samples, "buckets": self._buckets, "hashes": self._hashes}
        self._piles = {name: pile for name, pile in piles.items() if pile is not None}

    def grow(self, capacity: int) -> None:
        for name, column in self._columns.items():
            more = capacity - len(self.arrays[name])
            self.arrays[name] = np.concatenate([self.arrays[name], _empty(column, more)])

    def clear(self, rows: Ints) -> None:
        """Make rows empty, for other windows."""
        for name, column in self._columns.items():
            self.arrays[name][rows] = column.empty
        for pile in self._piles.values():
            pile.clear(rows)

    def set_full(self, *, full: bool) -> None:
        """While memory is short no sample is kept and no new text taken in."""
        self.full = full
        if self.texts is not None:
            self.texts.full = full

    def add(self, rows: Ints, values: Floats, times: Ints, texts_of: Sequence[str] = ()) -> int:
        """Take values into their rows, in this order. Returns how many found no room, as samples or as texts.

        `texts_of`: values that are texts are codes of places in it.
        """
        if self._hashes is not None:
            self._hashes.add(rows, sketches.items_of(_hashes(values, texts_of)))
        others = 0
        if texts_of and self.texts is not None:
            values, others = self.texts.take(values, texts_of)
        return others + self._add(rows, values, times)

    def _add(self, rows: Ints, values: Floats, times: Ints) -> int:
        arrays = self.arrays
        if "m2" in arrays:
            moments.add(arrays, rows, values, times)  # before `n` grows: it counts from there
        np.add.at(arrays["n"], rows, 1)
        if "sum" in arrays:
            np.add.at(arrays["sum"], rows, values)
        if "min" in arrays:
            np.minimum.at(arrays["min"], rows, values)
        if "max" in arrays:
            np.maximum.at(arrays["max"], rows, values)
        if "first" in arrays:
            _add_first(arrays, rows, values, times)
        if "last" in arrays:
            _add_last(arrays, rows, values, times)
        if "sin" in arrays:
            angles = [math.radians(value) for value in values.tolist()]
            np.add.at(arrays["sin"], rows, np.array([_sine(math.sin, angle) for angle in angles]))
            np.add.at(arrays["cos"], rows, np.array([_sine(math.cos, angle) for angle in angles]))
        if self._buckets is not None:
            self._buckets.add(rows, sketches.buckets_of(values))
        return self._add_samples(rows, values, times) if self.samples is not None else 0

    def _add_samples(self, rows: Ints, values: Floats, times: Ints) -> int:
        assert self.samples is not None  # noqa: S101 - checked by the caller
        room = 0 if self.full else self._samples_max - self.samples.held
        self.samples.add(rows[:room], series.samples_of(values[:room], times[:room]))
        if room < len(rows):
            self.arrays["spilt"][rows[room:]] = 1
        return max(0, len(rows) - room)

    def merge(self, into: Ints, other: FieldState, rows: Ints) -> None:
        """Add `rows` of `other` (a state of the same aggregates) to rows `into` of this one, one after the other."""
        arrays, more = self.arrays, other.arrays
        if "m2" in arrays or "first" in arrays or "last" in arrays:
            for some, others in _rounds(into, rows):
                self._merge_ordered(some, more, others)
        if "m2" not in arrays:
            np.add.at(arrays["n"], into, more["n"][rows])
        for name in ("sum", "sin", "cos", "spilt"):
            if name in arrays:
                np.add.at(arrays[name], into, more[name][rows])
        if "min" in arrays:
            np.minimum.at(arrays["min"], into, more["min"][rows])
        if "max" in arrays:
            np.maximum.at(arrays["max"], into, more["max"][rows])
        for name, pile in self._piles.items():
            pile.merge(into, other._piles[name], rows)

    def _merge_ordered(self, into: Ints, more: dict[str, Any], rows: Ints) -> None:
        """What takes one after the other into each row: here rows differ pairwise."""
        arrays = self.arrays
        if "m2" in arrays:
            moments.merge(arrays, into, more, rows)  # before `n` grows: it counts from there
            arrays["n"][into] += more["n"][rows]
        if "first" in arrays:
            earlier = more["first_time"][rows] < arrays["first_time"][into]
            _replace(arrays, ("first_time", "first"), into[earlier], more, rows[earlier])
        if "last" in arrays:
            later = more["last_time"][rows] >= arrays["last_time"][into]
            _replace(arrays, ("last_time", "last"), into[later], more, rows[later])

    def results(self, rows: Ints, starts: Ints, ends: Ints) -> tuple[list[bool], dict[str, list[Any]]]:
        """Which rows have a value of this field, and the aggregates in the rule's order, each with an entry a row.

        `starts`, `ends`: the rows' windows. What stands in a row without a value means nothing.
        """
        columns: Columns = {name: array[rows] for name, array in self.arrays.items()}
        if self.samples is not None:
            spilt = columns["spilt"].tolist()
            spans = zip(rows.tolist(), starts.tolist(), ends.tolist(), spilt, strict=True)
            columns["samples"] = [None if lacking else (self.samples.get(row), *span) for row, *span, lacking in spans]
        if self._buckets is not None:
            columns |= self._quantiles(rows)
        if self._hashes is not None:
            items, sizes = self._hashes.squeezed(rows)
            columns["hashes"] = np.split(items, np.cumsum(sizes)[:-1]) if len(sizes) else []
        if self.texts is not None:
            columns |= self._with_texts(columns)
        return (columns["n"] > 0).tolist(), {name: _result(name, columns) for name in self.aggregates}

    def _with_texts(self, columns: Columns) -> Columns:
        """Results of a field with texts, where they are others than of numbers."""
        assert self.texts is not None  # noqa: S101 - checked by the caller
        found: Columns = {name: self.texts.listed(columns[name]) for name in ("first", "last") if name in columns}
        if "durations" in self.aggregates:
            durations = series.durations_of(self.texts)
            found["durations"] = _of_samples(durations)(columns)
        return found

    def codes(self) -> Ints:
        """The codes of texts that stand in some row."""
        assert self.texts is not None  # noqa: S101 - only fields with texts are asked
        kept = [self.arrays[name] for name in ("first", "last") if name in self.arrays]
        kept += [self.samples.everything()["value"]] if self.samples is not None else []
        return np.unique(np.concatenate([texts.codes_of(values[texts.are_texts(values)]) for values in kept]))

    def _quantiles(self, rows: Ints) -> Columns:
        assert self._buckets is not None  # noqa: S101 - checked by the caller
        with_values = np.flatnonzero(self.arrays["n"][rows])
        chosen = rows[with_values]
        buckets, sizes = self._buckets.squeezed(chosen)
        if not sizes.all():  # values from before the rule asked for quantiles: nothing is told of them
            with_values, chosen, sizes = with_values[sizes > 0], chosen[sizes > 0], sizes[sizes > 0]
        low, high = self.arrays["min"][chosen], self.arrays["max"][chosen]
        columns: Columns = {}
        for name in self.aggregates:
            if (share := sketches.QUANTILES.get(name)) is not None:
                found = np.full(len(rows), None, dtype=object)
                if len(chosen):
                    found[with_values] = sketches.quantiles(share, buckets, sizes, low, high).tolist()
                columns[name] = found.tolist()
        return columns

    def snapshot(self, rows: Ints) -> dict[str, Any]:
        arrays: dict[str, Any] = {name: pack(array[rows]) for name, array in self.arrays.items()}
        arrays |= {name: pile.snapshot(rows) for name, pile in self._piles.items()}
        return arrays if self.texts is None else arrays | {"texts": self.texts.snapshot()}

    def restore(self, data: dict[str, Any], count: int) -> None:
        """Put a snapshot's rows into the first `count` rows; what it lacks stays empty."""
        for name, array in self.arrays.items():
            if name in data:
                array[:count] = unpack(data[name], array.dtype.str[1:])
        for name, pile in self._piles.items():
            if name in data:
                pile.restore(data[name])
        if self.texts is not None and "texts" in data:
            self.texts.restore(data["texts"])


def kept_for(aggregate: str) -> set[str]:
    """What of a state an aggregate needs, by the names in its snapshot."""
    piles = {"samples": set(series.AGGREGATES), "buckets": set(sketches.QUANTILES), "hashes": {"distinct"}}
    return {column.name for column in _NEEDS[aggregate]} | {name for name, those in piles.items() if aggregate in those}


def _hashes(values: Floats, texts_of: Sequence[str]) -> npt.NDArray[np.uint64]:
    found = sketches.hashes_of(values)
    if texts_of and len(rows := np.flatnonzero(texts.are_texts(values))):
        found[rows] = texts.hashes_of(values[rows], texts_of)
    return found


def _add_first(arrays: dict[str, Any], rows: Ints, values: Floats, times: Ints) -> None:
    order = np.lexsort((times, rows))  # stable: of equal times the one that the log has first
    ordered = rows[order]
    picked = order[np.flatnonzero(np.diff(ordered, prepend=-1))]
    picked = picked[times[picked] < arrays["first_time"][rows[picked]]]
    arrays["first_time"][rows[picked]], arrays["first"][rows[picked]] = times[picked], values[picked]


def _add_last(arrays: dict[str, Any], rows: Ints, values: Floats, times: Ints) -> None:
    order = np.lexsort((times, rows))
    ordered = rows[order]
    picked = order[np.flatnonzero(np.diff(ordered, append=_NO_TIME))]
    picked = picked[times[picked] >= arrays["last_time"][rows[picked]]]
    arrays["last_time"][rows[picked]], arrays["last"][rows[picked]] = times[picked], values[picked]


def _rounds(into: Ints, rows: Ints) -> Iterator[tuple[Ints, Ints]]:
    """The pairs in rounds, in each of which the first of them differ; of one row in their order."""
    order = np.argsort(into, kind="stable")
    begins = np.flatnonzero(np.diff(into[order], prepend=-1))
    sizes = np.diff(np.append(begins, len(into)))
    for turn in range(int(sizes.max(initial=0))):
        picked = order[begins[sizes > turn] + turn]
        yield into[picked], rows[picked]


def _replace(arrays: dict[str, Any], names: tuple[str, ...], into: Ints, more: dict[str, Any], rows: Ints) -> None:
    for name in names:
        arrays[name][into] = more[name][rows]


def _sine(function: Any, angle: float) -> float:
    return function(angle) if math.isfinite(angle) else math.nan


def _by_row(function: Callable[..., Any], *names: str) -> Callable[[Columns], list[Any]]:
    """A result that is a function of some columns, row by row; rows without a value have none."""

    def results(columns: Columns) -> list[Any]:
        rows = zip(columns["n"].tolist(), *(_listed(columns[name]) for name in names), strict=True)
        return [function(*row) if row[0] else None for row in rows]

    return results


def _of_columns(function: Callable[..., Any], *names: str) -> Callable[[Columns], list[Any]]:
    """A result that is a function of arrays."""

    def results(columns: Columns) -> list[Any]:
        with np.errstate(all="ignore"):  # rows without a value, and numbers beyond all bounds
            found: list[Any] = function(*(columns[name] for name in names)).tolist()
        return found

    return results


def _listed(column: Any) -> list[Any]:
    return column if isinstance(column, list) else column.tolist()


def _of_samples(function: series.Aggregate) -> Callable[[Columns], list[Any]]:
    def results(columns: Columns) -> list[Any]:
        return [None if held is None else series.result(function, *held) for held in columns["samples"]]

    return results


def circular_mean(sine: float, cosine: float, count: int) -> float | None:
    """The mean direction in degrees, in [0, 360), of `count` directions from the sums of their sines and cosines.

    None when they cancel each other out, as north and south do: then no direction is their mean.
    """
    if not count or not math.hypot(sine, cosine) > _RESULTANT_MIN * count:
        return None
    degrees = math.degrees(math.atan2(sine, cosine)) % 360.0
    return degrees if degrees < 360.0 else 0.0  # a tiny negative angle rounds up to 360


def circular_spread(sine: float, cosine: float, count: int) -> float | None:
    """The circular standard deviation in degrees (Mardia: √(−2 ln R), R the mean resultant length).

    None when the directions cancel each other out: it has no bound there.
    """
    if not count or not math.hypot(sine, cosine) > _RESULTANT_MIN * count:
        return None
    return math.degrees(math.sqrt(-2.0 * math.log(min(1.0, math.hypot(sine, cosine) / count))) + 0.0)


_RESULTS: dict[str, Callable[[Columns], list[Any]]] = {
    "mean": _of_columns(np.divide, "sum", "n"),
    "range": _of_columns(np.subtract, "max", "min"),
    "variance": _by_row(moments.variance, "m2"),
    "stddev": _by_row(moments.stddev, "m2"),
    "slope": _by_row(moments.slope, "time_m2", "product"),
    "circular_mean": _by_row(lambda n, sine, cosine: circular_mean(sine, cosine, n), "sin", "cos"),
    "circular_spread": _by_row(lambda n, sine, cosine: circular_spread(sine, cosine, n), "sin", "cos"),
    "distinct": _by_row(lambda _, hashes: sketches.distinct(hashes), "hashes"),
    **{name: _of_samples(function) for name, function in series.AGGREGATES.items()},
}


def _result(aggregate: str, columns: Columns) -> list[Any]:
    if aggregate == "count":
        aggregate = "n"
    found = None if isinstance(columns.get(aggregate), list) else _RESULTS.get(aggregate)
    return found(columns) if found is not None else _listed(columns[aggregate])


def _empty(column: _Column, size: int) -> npt.NDArray[Any]:
    return np.full(size, column.empty, dtype=np.int64 if column.integer else np.float64)


def pack(array: npt.NDArray[Any]) -> bytes:
    """An array as little-endian bytes."""
    return array.astype(array.dtype.newbyteorder("<")).tobytes()


def unpack(data: bytes, kind: str) -> npt.NDArray[Any]:
    """The array behind `pack`; `kind` is a NumPy type without byte order, such as `i8`."""
    return np.frombuffer(data, dtype=f"<{kind}").astype(kind)
