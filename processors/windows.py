"""Tumbling windows of one rule over one partition: readings in, results out at marks only (design, sections 9 and 10).

A window [a, b) of a device closes at the first mark of its node whose watermark is at or above b with no open
interval touching it. Results are numbered: revision 0 first, n + 1 whenever a later mark finds that more is known.
Between marks nothing is emitted, so the results do not depend on how records were batched.

The state of a closed window is kept for `allowed_lateness_s`, so that late readings make a revision of the whole
window. Memory is bounded by `windows_max`: when it fills up, the oldest closed windows are forgotten early and their
late readings refused; when all of it is open windows, readings that would begin another are refused. Both are counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from processors.aggregates import FieldState, Floats, Ints
from processors.cells import Cells
from processors.columns import Columns, FieldColumn, KeyTable
from processors.intervals import Bools, Interval, touching
from processors.marks import Mark, NodeMarks
from processors.rules import WindowRule

NEVER = -(1 << 62)
_FULL = 7 / 8  # of windows_max: above it closed windows are forgotten early ...
_ROOMY = 3 / 4  # ... until this much is left in use


class WindowResult(NamedTuple):
    """One emission.

    `first_complete`: no earlier revision of this window was complete. `retro`: it was closed by backfill.
    """

    group: str
    start: int
    end: int
    revision: int
    complete: bool
    cause: str
    retro: bool
    first_complete: bool
    readings: int
    fields: dict[str, dict[str, float | int | None]]


class Counters(msgspec.Struct):
    """What a window rule has counted on one partition since its start, in results (the first two) and readings."""

    windows_emitted: int = 0
    revisions: int = 0
    late: int = 0
    too_late: int = 0
    overflow: int = 0


class WindowState:
    """The windows of one rule. `add` and `close` are called in the order of the log."""

    def __init__(self, rule: WindowRule, keys: KeyTable) -> None:
        self.rule = rule
        self.cells = Cells(rule.windows_max)
        self.fields: dict[str, FieldState] = {}
        self.counters = Counters()
        self._keys = keys
        self._matches: Bools = np.zeros(0, dtype=np.bool_)
        self._nodes_of: Ints = np.zeros(0, dtype=np.int64)
        # per node: its watermark, the time below which windows are forgotten, the last sweep
        self._watermark: Ints = np.zeros(0, dtype=np.int64)
        self._floor: Ints = np.zeros(0, dtype=np.int64)
        self._swept: dict[int, int] = {}
        self._begin = NEVER
        self._open: dict[int, list[Interval]] = {}
        self._lost: dict[int, list[Interval]] = {}

    def begin_after(self, newest: int) -> None:
        """Begin in the middle of a log whose records so far bear times up to `newest`: only windows that cannot have
        begun yet are counted, so that no result is called complete that lacks readings.
        """
        if newest != NEVER:
            self._begin = newest + self.rule.size_ms - newest % self.rule.size_ms

    def refuse_below(self, floors: dict[str, int]) -> None:
        """Windows of these nodes that end at or before these times are told already: refuse readings in them."""
        for node, floor in floors.items():
            index = self._keys.node_id(node)
            self._learn_nodes()
            self._floor[index] = max(floor, int(self._floor[index]))

    # readings

    def add(self, columns: Columns, begin: int, end: int) -> None:
        """Take in rows [begin, end)."""
        self._learn_keys()
        key = columns.key[begin:end]
        rows = np.flatnonzero(self._matches[key])  # key -1 finds the last element, which is False
        if not len(rows):
            return
        everything = len(rows) == end - begin
        key = key if everything else key[rows]
        time = columns.time[begin:end] if everything else columns.time[begin:end][rows]
        starts = time - time % self.rule.size_ms
        nodes = self._nodes_of[key]
        self.counters.late += int((time < self._watermark[nodes]).sum())
        cells = self.cells.find(key, starts)
        if (cells < 0).any():
            self._make(cells, key, starts, nodes)
            kept = np.flatnonzero(cells >= 0)
            if len(kept) < len(cells):
                rows, cells, everything = rows[kept], cells[kept], False
        if len(rows):
            self.cells.touch(cells, columns.backfill[begin:end][rows])
            self._add_fields(columns.fields, begin, end, None if everything else rows, cells)

    def _learn_keys(self) -> None:
        known = len(self._matches) - 1
        if known < len(self._keys):
            fresh = [self._match(key) for key in range(max(known, 0), len(self._keys))]
            self._matches = np.array([*self._matches[:-1], *fresh, False], dtype=np.bool_)
            self._nodes_of = np.array(self._keys.node_of, dtype=np.int64)
        elif known < 0:
            self._matches = np.zeros(1, dtype=np.bool_)
        self._learn_nodes()

    def _learn_nodes(self) -> None:
        missing = len(self._keys.nodes) - len(self._watermark)
        if missing > 0:
            never = np.full(missing, NEVER, dtype=np.int64)
            self._watermark = np.concatenate([self._watermark, never])
            self._floor = np.concatenate([self._floor, never])

    def _match(self, key: int) -> bool:
        node, device = self._keys.device(key)
        return _any_match(self.rule.nodes, node) and _any_match(self.rule.devices, device)

    def _make(self, cells: Ints, key: Ints, starts: Ints, nodes: Ints) -> None:
        """Find a place for windows seen first, in the order of the log; their rows stay -1 where none is allowed."""
        size = self.rule.size_ms
        for row in np.flatnonzero(cells < 0).tolist():
            start, node = int(starts[row]), int(nodes[row])
            cell = self.cells.get(int(key[row]), start)
            if cell < 0:
                late = start + size <= self._horizon(node) and not self._owed(node, start)
                if late or start < self._begin:
                    self.counters.too_late += 1
                    continue
                cell = self.cells.make(int(key[row]), start)
                if cell < 0:
                    self.counters.overflow += 1
                    continue
            cells[row] = cell
        for field in self.fields.values():
            if len(field.arrays["n"]) < self.cells.capacity:
                field.grow(self.cells.capacity)

    def _horizon(self, node: int) -> int:
        watermark = int(self._watermark[node])
        lateness = NEVER if watermark == NEVER else watermark - self.rule.allowed_lateness_ms
        return max(lateness, int(self._floor[node]))

    def _owed(self, node: int, start: int) -> bool:
        end = start + self.rule.size_ms
        return any(start <= to and end > begin for begin, to in self._open.get(node, ()))

    def _add_fields(self, fields: dict[str, FieldColumn], begin: int, end: int, rows: Ints | None, cells: Ints) -> None:
        """`rows` are those of [begin, end) that go into `cells`, counted from `begin`; None: all of them."""
        cell_of: Ints | None = None
        fresh: list[tuple[int, str, Ints, Floats]] = []
        for name, column in fields.items():
            if rows is None and column.rows is None:
                where, values = cells, column.values[begin:end]
                first = 0
            else:
                if cell_of is None:
                    cell_of = np.full(end - begin, -1, dtype=np.int64)
                    cell_of[slice(None) if rows is None else rows] = cells
                where, values, first = _chosen(column, begin, end, cell_of)
            if not len(where):
                continue
            if (state := self.fields.get(name)) is not None:
                state.add(where, values)
            elif self.rule.aggregates_of(name):
                fresh.append((first, name, where, values))
        # A new field takes its place in the order of the log, not of the block: which of too many are left out must not
        # depend on batching.
        for _, name, where, values in sorted(fresh, key=lambda item: item[:2]):
            if len(self.fields) >= self.rule.fields_max:
                self.counters.overflow += len(where)
                continue
            state = self.fields[name] = FieldState(self.rule.aggregates_of(name), self.cells.capacity)
            state.add(where, values)

    # marks

    def close(self, mark: Mark, node: NodeMarks) -> list[WindowResult]:
        """What this mark lets be said, by window start and key. `node` are its node's marks, this one included."""
        index = self._keys.node_id(mark.node)
        self._learn_keys()
        if mark.by is not None:
            return self._silence(index, mark)
        watermark = node.watermark
        self._open[index] = node.open
        if watermark is None:
            return []
        self._watermark[index] = max(watermark, int(self._watermark[index]))
        # Intervals given up concern windows that had nothing more to say: then all are looked at, not just the few.
        everything = node.lost != self._lost.get(index, [])
        self._lost[index] = list(node.lost)
        results = self._close(index, watermark, node, everything=everything)
        self._forget(index, watermark)
        return results

    def _of_node(self, cells: Ints, index: int, end_max: int) -> Ints:
        mine = self._nodes_of[self.cells.key[cells]] == index if len(cells) else np.zeros(0, dtype=np.bool_)
        return cells[mine & (self.cells.start[cells] + self.rule.size_ms <= end_max)]

    def _silence(self, index: int, mark: Mark) -> list[WindowResult]:
        """The owner of the partition found the node silent: say what there is of pending windows, once, incomplete."""
        end_max = (1 << 62) if mark.live is None else mark.live
        cells = self._of_node(self.cells.needing(), index, end_max)
        cells = cells[self.cells.revision[cells] < 0]
        return self._emit(cells, np.zeros(len(cells), dtype=np.bool_), ["silent"] * len(cells), settled=False)

    def _close(self, index: int, watermark: int, node: NodeMarks, *, everything: bool) -> list[WindowResult]:
        state = self.cells
        cells = self._of_node(state.used() if everything else state.needing(), index, watermark)
        if not len(cells):
            return []
        starts = state.start[cells]
        owed = touching(starts, self.rule.size_ms, node.open)
        settled, complete = state.settled[cells], state.complete[cells]
        # What was lost once stays lost, though its interval may be forgotten by now.
        lost = touching(starts, self.rule.size_ms, node.lost) | (settled & ~complete)
        state.retro[cells[owed & ~settled]] = True
        early = cells[owed & (state.revision[cells] < 0) & state.live[cells]]
        changed = ~settled | state.dirty[cells] | (complete & lost)
        final = ~owed & changed
        causes = [self._cause(int(cell), lost=bool(gone)) for cell, gone in zip(cells[final], lost[final], strict=True)]
        results = self._emit(early, np.zeros(len(early), dtype=np.bool_), ["backfill"] * len(early), settled=False)
        results += self._emit(cells[final], ~lost[final], causes, settled=True)
        state.rest(cells[~owed])
        state.need(cells[owed & changed])
        if len(early):
            results.sort(key=lambda result: (result.start, result.group))
        return results

    def _cause(self, cell: int, *, lost: bool) -> str:
        state = self.cells
        if lost:
            return "lost"
        if state.retro[cell] and not state.settled[cell]:
            return "backfill"
        return "late" if state.settled[cell] else "close"

    def _emit(self, cells: Ints, complete: Bools, causes: Sequence[str], *, settled: bool) -> list[WindowResult]:
        if not len(cells):
            return []
        state, names = self.cells, self._keys.names
        state.revision[cells] += 1
        first = complete & ~state.told[cells]
        retro = state.retro[cells]
        state.told[cells] |= complete
        state.complete[cells] = complete
        state.settled[cells] = settled
        state.dirty[cells] = False
        self.counters.windows_emitted += len(cells)
        self.counters.revisions += int((state.revision[cells] > 0).sum())
        fields = [(name, self.fields[name].results(cells)) for name in sorted(self.fields)]
        columns = [state.start, state.revision, state.count]
        starts, revisions, counts = ([int(value) for value in column[cells]] for column in columns)
        results = [
            WindowResult(
                names[key],
                starts[row],
                starts[row] + self.rule.size_ms,
                revisions[row],
                bool(complete[row]),
                causes[row],
                bool(retro[row]),
                bool(first[row]),
                counts[row],
                {name: found for name, column in fields if (found := column[row]) is not None},
            )
            for row, key in enumerate(state.key[cells].tolist())
        ]
        results.sort(key=lambda result: (result.start, result.group))
        return results

    def _forget(self, index: int, watermark: int) -> None:
        """Let go of windows beyond the allowed lateness, and of the oldest closed ones when memory is short."""
        size = self.rule.size_ms
        if self._swept.get(index, NEVER) != watermark // size:
            self._swept[index] = watermark // size
            old = self._of_node(self.cells.resting(), index, watermark - self.rule.allowed_lateness_ms)
            if len(old):
                self._free(old[~touching(self.cells.start[old], size, self._open.get(index, ()))])
        excess = len(self.cells) - int(self.rule.windows_max * _ROOMY)
        if len(self.cells) <= self.rule.windows_max * _FULL:
            return
        resting = self.cells.resting()
        if not len(resting):
            return
        ends = self.cells.start[resting] + size
        # Whole moments are forgotten, for all devices: then one time per node says what is refused from now on.
        last = int(np.partition(ends, min(excess, len(ends)) - 1)[min(excess, len(ends)) - 1])
        gone = resting[ends <= last]
        for node in np.unique(self._nodes_of[self.cells.key[gone]]).tolist():
            self._floor[node] = max(int(self._floor[node]), last)
        self._free(gone)

    def _free(self, cells: Ints) -> None:
        for field in self.fields.values():
            field.clear(cells)
        self.cells.free(cells)

    # checkpoints

    def snapshot(self) -> dict[str, Any]:
        """Plain data and bytes, from which `restore` makes the same state."""
        used = self.cells.used()
        self._learn_nodes()
        return {
            "cells": self.cells.snapshot(used),
            "fields": {name: field.snapshot(used) for name, field in self.fields.items()},
            "counters": msgspec.structs.asdict(self.counters),
            "watermark": self._watermark.tolist(),
            "floor": self._floor.tolist(),
            "swept": self._swept,
            "begin": self._begin,
            "open": self._open,
        }

    def restore(self, data: dict[str, Any]) -> None:
        """The key table must have been restored before."""
        count = self.cells.restore(data["cells"])
        self.fields = {}
        for name, arrays in data["fields"].items():
            self.fields[name] = FieldState(self.rule.aggregates_of(name), self.cells.capacity)
            self.fields[name].restore(arrays, count)
        self.counters = Counters(**data["counters"])
        self._watermark = np.array(data["watermark"], dtype=np.int64)
        self._floor = np.array(data["floor"], dtype=np.int64)
        self._swept, self._begin = dict(data["swept"]), data["begin"]
        self._open = {node: [(start, end) for start, end in intervals] for node, intervals in data["open"].items()}
        self._learn_keys()


def _chosen(column: FieldColumn, begin: int, end: int, cell_of: Ints) -> tuple[Ints, Floats, int]:
    """A field's cells and values among rows [begin, end), and the first of those rows."""
    if column.rows is None:
        where, values, rows = cell_of, column.values[begin:end], None
    else:
        low, high = np.searchsorted(column.rows, (begin, end))
        rows = column.rows[low:high] - begin
        where, values = cell_of[rows], column.values[low:high]
    kept: npt.NDArray[np.intp] = np.flatnonzero(where >= 0)
    if not len(kept):
        return where[:0], values[:0], 0
    first = int(kept[0] if rows is None else rows[kept[0]])
    return (where, values, first) if len(kept) == len(where) else (where[kept], values[kept], first)


def _any_match(patterns: Sequence[str], name: str) -> bool:
    return any(
        fnmatchcase(name, pattern) and (not name.startswith("$") or pattern.startswith("$")) for pattern in patterns
    )
