"""The fields of a rule's windows: which there are, and the state of each over the same cells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from processors.aggregates import series, sketches
from processors.aggregates.field_state import TELL_TEXTS, FieldState, Floats, Ints, kept_for
from processors.aggregates.texts import TextTable
from processors.columns import Columns
from processors.documents import FieldColumn
from processors.results import FieldResults
from processors.rules.evolution import WindowChange
from processors.rules.model import WindowRule
from processors.windows.cells import in_turn
from processors.windows.joining import joined

ROW_BYTES = 160  # what a cell with samples or a sketch takes beside them, as measured
BUCKETS_BYTES = 8 << 10  # of values over many powers of two a sketch can take up to eight times that
HASHES_BYTES = 16 << 10
_NO_BOUND = 1 << 62


class FieldTable:
    """One `FieldState` per field seen, at most the rule's `fields_max`; each indexes its arrays by cell.

    `overflow` counts the values that found no place: of fields beyond `fields_max`, of samples beyond `samples_max`.
    """

    def __init__(self, rule: WindowRule, capacity: int) -> None:
        self.rule = rule
        self.states: dict[str, FieldState] = {}
        self.overflow = 0
        self.missed = False
        """Whether a field was left out since the last mark."""
        self.brought: dict[str, int] = {}
        """The devices (keys; -1: forgotten) that were the first to have fields, in this life, for people."""
        self._capacity = capacity
        self._full = False
        self._text_fields = rule.text_fields
        self.begins: dict[str, dict[str, int]] = {}
        """By field, aggregates that windows that start before a time lack: the rule had not asked for them then."""

    def _new(self, name: str) -> FieldState:
        rule = self.rule
        asked = rule.aggregates_of(name)
        # who only counts texts, or tells them apart by their hashes, keeps none
        coded = name in self._text_fields and not TELL_TEXTS.isdisjoint(asked)
        texts = TextTable(rule.texts_max) if coded else None
        state = FieldState(asked, self._capacity, samples_max=rule.samples_max, texts=texts)
        state.set_full(full=self._full)
        return state

    def set_full(self, *, full: bool) -> None:
        """While memory is full no sample is kept; what windows under way lack is counted."""
        self._full = full
        for state in self.states.values():
            state.set_full(full=full)

    def state_bytes(self, cells: Ints) -> Ints:
        """What each of these cells takes, from what it was given: the same however that came in blocks."""
        total = np.zeros(len(cells), dtype=np.int64)
        for state in self.states.values():
            total += 8 * len(state.arrays)
            given = state.arrays["n"][cells]
            for item_bytes, bytes_max in _kept_one_by_one(state.aggregates):
                total += np.where(given > 0, ROW_BYTES + np.minimum(given * item_bytes, bytes_max), 0)
        return total

    @property
    def texts_bytes(self) -> int:
        """What the tables of texts take."""
        return sum(state.texts.held_bytes for state in self.states.values() if state.texts is not None)

    def grow(self, capacity: int) -> None:
        """Make room for cells numbered below `capacity`."""
        if capacity > self._capacity:
            self._capacity = capacity
            for state in self.states.values():
                state.grow(capacity)

    def clear(self, cells: Ints) -> None:
        """Make cells empty, for other windows."""
        for state in self.states.values():
            state.clear(cells)

    def add(self, columns: Columns, begin: int, end: int, rows: Ints | None, cells: Ints) -> None:
        """Take in readings of rows [begin, end).

        `rows` are those of them that go into `cells`, counted from `begin`; None: all of them.
        """
        cell_of: Ints | None = None
        fresh: list[tuple[int, str, Ints, Floats, Ints, Sequence[str]]] = []
        for name, column in columns.of_rule(self._text_fields).items():
            if rows is None and column.rows is None:
                where, values, times = cells, column.values[begin:end], columns.time[begin:end]
                first = 0
            else:
                if cell_of is None:
                    cell_of = np.full(end - begin, -1, dtype=np.int64)
                    cell_of[slice(None) if rows is None else rows] = cells
                where, values, times, first = _chosen(column, columns.time, begin, end, cell_of)
            if not len(where):
                continue
            if (state := self.states.get(name)) is not None:
                self.overflow += state.add(where, values, times, column.texts)
            elif self.rule.aggregates_of(name):
                fresh.append((first, name, where, values, times, column.texts))
        # A new field takes its place in the order of the log, not of the block: which of too many are left out must not
        # depend on batching.
        for first, name, where, values, times, texts in sorted(fresh, key=lambda item: item[:2]):
            if len(self.states) >= self.rule.fields_max:
                self.overflow += len(where)
                self.missed = True
                continue
            state = self.states[name] = self._new(name)
            self.brought[name] = int(columns.key[begin + first])
            self.overflow += state.add(where, values, times, texts)

    def merge(self, begin: int, other: FieldTable, cells: Ints, *, is_whole: bool) -> None:
        """Merge the columns of `cells` of another table (a row of them below the other) into one cell each, from
        `begin` on; these are empty, and their fields those of the other table. `is_whole`: no cell is -1, for none.
        """
        pairs: tuple[Ints, Ints] | None = None
        for name, state in other.states.items():
            if is_whole and cells.shape[1] == self._capacity and (found := joined(state, cells)) is not None:
                self.states[name] = found
                continue
            if pairs is None:
                into, those = in_turn(np.arange(begin, begin + cells.shape[1]), len(cells)), cells.ravel()
                pairs = (into, those) if is_whole else (into[those >= 0], those[those >= 0])
            if (mine := self.states.get(name)) is None:
                mine = self.states[name] = FieldState(
                    state.aggregates, self._capacity, samples_max=self.rule.samples_max, texts=state.texts
                )
            mine.merge(pairs[0], state, pairs[1])

    def make_room(self) -> None:
        """At a mark, when fields or texts were left out: those of which no window has a value any more make room."""
        for state in self.states.values():
            if state.texts is not None and state.texts.missed:
                state.texts.keep(state.codes())
        if self.missed:
            self.missed = False
            for name in [name for name, state in self.states.items() if not state.arrays["n"].any()]:
                if name not in self.begins:  # of windows under way it would seem whole
                    del self.states[name]
                    self.brought.pop(name, None)

    def results(self, cells: Ints, starts: Ints, ends: Ints) -> list[FieldResults]:
        """The fields of these windows by name, sorted, those of which any window has a value."""
        found = [self._results(name, cells, starts, ends) for name in sorted(self.states)]
        return [field for field in found if any(field.has)]

    def _results(self, name: str, cells: Ints, starts: Ints, ends: Ints) -> FieldResults:
        has, aggregates = self.states[name].results(cells, starts, ends)
        begins = self.begins.get(name)
        if begins and has:
            young = {aggregate: starts < begin for aggregate, begin in begins.items()}
            for aggregate, rows in young.items():
                column = aggregates[aggregate]
                aggregates[aggregate] = [None if none else one for none, one in zip(rows.tolist(), column, strict=True)]
            if len(young) == len(aggregates):
                has = (np.array(has) & ~np.all(list(young.values()), axis=0)).tolist()
        return FieldResults(name, has, aggregates)

    def snapshot(self, used: Ints) -> dict[str, Any]:
        return {
            name: state.snapshot(used) | ({"begins": self.begins[name]} if name in self.begins else {})
            for name, state in self.states.items()
        }

    def restore(self, data: dict[str, Any], count: int, change: WindowChange | None = None, begin: int = 0) -> None:
        """Put a snapshot's cells into the first `count` ones.

        After a `change` of the rule windows before `begin` lack what is new: aggregates of which the snapshot has no
        state, and all of the fields that are fresh.
        """
        fresh = frozenset[str]() if change is None else change.fresh
        self.states, self.begins = {}, {}
        for name, arrays in data.items():
            if name in fresh or not self.rule.aggregates_of(name):
                continue
            state = self.states[name] = self._new(name)
            state.restore(arrays, count)
            before = arrays.get("begins", {})
            begins = {aggregate: time for aggregate, time in before.items() if aggregate in state.aggregates}
            had = state.aggregates if change is None else change.old.aggregates_of(name)
            for aggregate in set(state.aggregates) - set(had) - set(before):
                # beside what is young itself nothing can be told to be old
                if before or not kept_for(aggregate) <= arrays.keys():
                    begins[aggregate] = begin
            if begins:
                self.begins[name] = begins
        for name in sorted(fresh):
            if self.rule.aggregates_of(name) and len(self.states) < self.rule.fields_max:
                self.states[name] = self._new(name)
                self.begins[name] = dict.fromkeys(self.states[name].aggregates, begin)


def _kept_one_by_one(aggregates: tuple[str, ...]) -> list[tuple[int, int]]:
    """Bytes per value and the most of them per cell, of what is kept beside the columns."""
    asked = set(aggregates)
    kept = (
        (asked & series.AGGREGATES.keys(), series.SAMPLE.itemsize, _NO_BOUND),
        (asked & sketches.QUANTILES.keys(), sketches.BUCKET.itemsize, BUCKETS_BYTES),
        (asked & {"distinct"}, sketches.HASH.itemsize, HASHES_BYTES),
    )
    return [(item_bytes, bytes_max) for some, item_bytes, bytes_max in kept if some]


def _chosen(column: FieldColumn, time: Ints, begin: int, end: int, cell_of: Ints) -> tuple[Ints, Floats, Ints, int]:
    """A field's cells, values and times among rows [begin, end), and the first of those rows."""
    if column.rows is None:
        where, values, rows = cell_of, column.values[begin:end], None
        times = time[begin:end]
    else:
        low, high = np.searchsorted(column.rows, (begin, end))
        rows = column.rows[low:high] - begin
        where, values, times = cell_of[rows], column.values[low:high], time[begin:end][rows]
    kept: npt.NDArray[np.intp] = np.flatnonzero(where >= 0)
    if not len(kept):
        return where[:0], values[:0], times[:0], 0
    first = int(kept[0] if rows is None else rows[kept[0]])
    if len(kept) == len(where):
        return where, values, times, first
    return where[kept], values[kept], times[kept], first
