"""Windows of one rule over one partition: readings in, results out at marks only (design, sections 9 and 10).

A window [a, b) of a device closes at the first mark of its node whose watermark is at or above b with no open
interval touching it. Results are numbered: revision 0 first, n + 1 whenever a later mark finds that more is known.
Between marks nothing is emitted, so the results do not depend on how records were batched.

The state of a closed window is kept for `allowed_lateness_s`, so that late readings make a revision of the whole
window. Memory is bounded by `windows_max` and `samples_max`: when one fills up, the oldest closed windows are forgotten
early and their late readings refused; when all of it is open windows, readings that would begin another are refused.

Here: the close rule for all kinds, and the windows that lie side by side (`grids`). Others: `hopping`, `sessions`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Any

import msgspec
import numpy as np

from processors.cells import Cells
from processors.columns import Columns, Ints, KeyTable
from processors.fields import FieldTable
from processors.grids import Grid, grid_of
from processors.intervals import Bools, Interval, touching
from processors.marks import Mark, NodeMarks
from processors.results import NEVER, Counters, WindowResult
from processors.rules import WindowRule

FULL = 7 / 8  # of a bound: above it closed windows are forgotten early ...
ROOMY = 3 / 4  # ... until this much is left in use


class WindowState:
    """The windows of one rule. `add` and `close` are called in the order of the log."""

    def __init__(self, rule: WindowRule, keys: KeyTable) -> None:
        self.rule = rule
        self.cells = Cells(rule.windows_max)
        self.fields = FieldTable(rule, self.cells.capacity)
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
            self._begin = self._begin_behind(newest)

    def refuse_below(self, floors: dict[str, int]) -> None:
        """Windows of these nodes that end at or before these times are told already: refuse readings in them."""
        for node, floor in floors.items():
            index = self._keys.node_id(node)
            self._learn_nodes()
            self._floor[index] = max(floor, int(self._floor[index]))

    # what the kinds of windows do each in their own way

    def _begin_behind(self, newest: int) -> int:
        """The least beginning that a window may have when readings up to `newest` went before."""
        raise NotImplementedError

    def _place(self, key: Ints, time: Ints, nodes: Ints, rows: Ints, columns: Columns, begin: int, end: int) -> None:
        """Put the matching rows of [begin, end) into their cells; `rows` are they, counted from `begin`."""
        raise NotImplementedError

    def _step(self, watermark: int) -> int:
        """Old windows are swept out whenever this changes."""
        raise NotImplementedError

    def _prepare(self, index: int, before: int, watermark: int) -> list[WindowResult]:
        """A node's watermark went from `before` to `watermark`: have its windows in cells; what this alone says."""
        return []

    def _prepare_pending(self, index: int, end_max: int) -> None:
        """Have all windows of a node that end by then in cells."""

    def _reach(self, cells: Ints) -> tuple[Ints, Ints]:
        """The times in which a reading would change what windows say, as [start, end)."""
        return self.cells.start[cells], self.cells.end[cells]

    def _contents(self, cells: Ints) -> tuple[Ints, list[dict[str, dict[str, Any]]]]:
        """Readings and fields of windows."""
        state = self.cells
        return state.count[cells], self.fields.results(cells, state.start[cells], state.end[cells])

    def _label(self, start: int) -> dict[str, Any]:
        return {}

    def _free(self, cells: Ints) -> None:
        self.fields.clear(cells)
        self.cells.free(cells)

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
        nodes = self._nodes_of[key]
        self.counters.late += int((time < self._watermark[nodes]).sum())
        self._place(key, time, nodes, rows, columns, begin, end)
        self.counters.overflow += self.fields.overflow
        self.fields.overflow = 0

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
        return any_match(self.rule.nodes, node) and any_match(self.rule.devices, device)

    def _horizon(self, node: int) -> int:
        """Windows of a node that end at or before this are not begun any more."""
        watermark = int(self._watermark[node])
        lateness = NEVER if watermark == NEVER else watermark - self.rule.allowed_lateness_ms
        return max(lateness, int(self._floor[node]))

    def _owed(self, node: int, start: int, end: int) -> bool:
        return any(start <= last and end > first for first, last in self._open.get(node, ()))

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
        before = int(self._watermark[index])
        self._watermark[index] = watermark = max(watermark, before)
        # Intervals given up concern windows that had nothing more to say: then all are looked at, not just the few.
        everything = node.lost != self._lost.get(index, [])
        self._lost[index] = list(node.lost)
        results = self._prepare(index, before, watermark)
        results += self._close(index, watermark, node, everything=everything)
        self._forget(index, watermark)
        results.sort(key=lambda result: (result.start, result.group))
        return results

    def _of_node(self, cells: Ints, index: int, end_max: int) -> Ints:
        mine = self._nodes_of[self.cells.key[cells]] == index if len(cells) else np.zeros(0, dtype=np.bool_)
        return cells[mine & (self.cells.end[cells] <= end_max) & (self.cells.start[cells] >= self._begin)]

    def _silence(self, index: int, mark: Mark) -> list[WindowResult]:
        """The owner of the partition found the node silent: say what there is of pending windows, once, incomplete."""
        end_max = (1 << 62) if mark.live is None else mark.live
        self._prepare_pending(index, end_max)
        cells = self._of_node(self.cells.needing(), index, end_max)
        cells = cells[self.cells.revision[cells] < 0]
        return self._emit(cells, np.zeros(len(cells), dtype=np.bool_), ["silent"] * len(cells), settled=False)

    def _close(self, index: int, watermark: int, node: NodeMarks, *, everything: bool) -> list[WindowResult]:
        state = self.cells
        cells = self._of_node(state.used() if everything else state.needing(), index, watermark)
        if not len(cells):
            return []
        starts, ends = self._reach(cells)
        owed = touching(starts, ends, node.open)
        settled, complete = state.settled[cells], state.complete[cells]
        # What was lost once stays lost, though its interval may be forgotten by now.
        lost = touching(starts, ends, node.lost) | (settled & ~complete)
        state.retro[cells[owed & ~settled]] = True
        early = cells[owed & (state.revision[cells] < 0) & state.live[cells]]
        changed = ~settled | state.dirty[cells] | (complete & lost)
        final = ~owed & changed
        causes = [self._cause(int(cell), lost=bool(gone)) for cell, gone in zip(cells[final], lost[final], strict=True)]
        results = self._emit(early, np.zeros(len(early), dtype=np.bool_), ["backfill"] * len(early), settled=False)
        results += self._emit(cells[final], ~lost[final], causes, settled=True)
        state.rest(cells[~owed])
        state.need(cells[owed & changed])
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
        counts, fields = self._contents(cells)
        columns = (names[key] for key in state.key[cells].tolist())
        starts = state.start[cells].tolist()
        rows = zip(
            *(columns, starts, state.end[cells].tolist(), state.revision[cells].tolist(), complete.tolist(), causes),
            *(retro.tolist(), first.tolist(), counts.tolist(), fields, map(self._label, starts)),
            strict=True,
        )
        results = [WindowResult(*row) for row in rows]
        results.sort(key=lambda result: (result.start, result.group))
        return results

    # memory

    def _forget(self, index: int, watermark: int) -> None:
        """Let go of windows beyond the allowed lateness, and of the oldest closed ones when memory is short."""
        step = self._step(watermark)
        if self._swept.get(index, NEVER) != step:
            self._swept[index] = step
            self._sweep(index, watermark - self.rule.allowed_lateness_ms)
        floor = self._pressed()
        if floor is not None:
            self._forget_until(floor)

    def _sweep(self, index: int, horizon: int) -> None:
        """Forget what ended by then, unless something is still owed to it."""
        old = self._of_node(self.cells.resting(), index, horizon)
        if len(old):
            self._free(old[~touching(*self._reach(old), self._open.get(index, ()))])

    def _pressed(self) -> int | None:
        """When memory is short: the time until which closed windows must be forgotten."""
        table, resting = self._holding()
        found = [self._pressed_by(table, resting)]
        for state in self.fields.states.values():
            if state.samples is None or (held := state.samples.held) <= self.rule.samples_max * FULL:
                continue
            closed = resting()
            closed = closed[np.argsort(table.end[closed], kind="stable")]
            if len(closed):
                freed = np.cumsum([state.samples.size(cell) for cell in closed.tolist()])
                enough = int(np.searchsorted(freed, held - self.rule.samples_max * ROOMY))
                found.append(int(table.end[closed[min(enough, len(closed) - 1)]]))
        return max((last for last in found if last is not None), default=None)

    def _holding(self) -> tuple[Cells, Callable[[], Ints]]:
        """The table whose cells hold the fields, and what gives those of them that may be forgotten."""
        return self.cells, self.cells.resting

    def _pressed_by(self, table: Cells, resting: Callable[[], Ints]) -> int | None:
        if len(table) <= self.rule.windows_max * FULL or not len(closed := resting()):
            return None
        excess = len(table) - int(self.rule.windows_max * ROOMY)
        order = min(excess, len(closed)) - 1
        return int(np.partition(table.end[closed], order)[order])

    def _forget_until(self, last: int) -> None:
        resting = self.cells.resting()
        gone = resting[self.cells.end[resting] <= last]
        self._raise_floors(self.cells.key[gone], last)
        self._free(gone)

    def _raise_floors(self, keys: Ints, last: int) -> None:
        # Whole moments are forgotten, for all devices: then one time per node says what is refused from now on.
        for node in np.unique(self._nodes_of[keys]).tolist():
            self._floor[node] = max(int(self._floor[node]), last)

    # checkpoints

    def snapshot(self) -> dict[str, Any]:
        """Plain data and bytes, from which `restore` makes the same state."""
        self._learn_nodes()
        return {
            "cells": self.cells.snapshot(self.cells.used()),
            "fields": self.fields.snapshot(self._holding()[0].used()),
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
        self.fields = FieldTable(self.rule, self.cells.capacity)
        self.fields.restore(data["fields"], count)
        self._restore_rest(data)

    def _restore_rest(self, data: dict[str, Any]) -> None:
        self.counters = Counters(**data["counters"])
        self._watermark = np.array(data["watermark"], dtype=np.int64)
        self._floor = np.array(data["floor"], dtype=np.int64)
        self._swept, self._begin = dict(data["swept"]), data["begin"]
        self._open = {node: [(start, end) for start, end in intervals] for node, intervals in data["open"].items()}
        self._learn_keys()


class GridWindows(WindowState):
    """Windows side by side: a reading stands in one of them. A cell is a window and holds its fields too."""

    def __init__(self, rule: WindowRule, keys: KeyTable) -> None:
        super().__init__(rule, keys)
        self._grid: Grid = grid_of(rule)

    def _begin_behind(self, newest: int) -> int:
        return self._grid.end(int(self._grid.starts(np.array([newest]))[0]))

    def _step(self, watermark: int) -> int:
        return int(self._grid.starts(np.array([max(watermark, 0)]))[0])

    def _label(self, start: int) -> dict[str, Any]:
        return self._grid.label(start)

    def _place(self, key: Ints, time: Ints, nodes: Ints, rows: Ints, columns: Columns, begin: int, end: int) -> None:
        starts = self._grid.starts(time)
        cells = self.cells.find(key, starts)
        if (cells < 0).any():
            self._make(cells, key, starts, nodes)
            kept = np.flatnonzero(cells >= 0)
            if len(kept) < len(cells):
                rows, cells = rows[kept], cells[kept]
        if len(rows):
            everything = len(rows) == end - begin
            self.cells.touch(cells, columns.backfill[begin:end] if everything else columns.backfill[begin:end][rows])
            self.fields.add(columns, begin, end, None if everything else rows, cells)

    def _make(self, cells: Ints, key: Ints, starts: Ints, nodes: Ints) -> None:
        """Find a place for windows seen first, in the order of the log; their rows stay -1 where none is allowed."""
        for row in np.flatnonzero(cells < 0).tolist():
            start, node = int(starts[row]), int(nodes[row])
            cell = self.cells.get(int(key[row]), start)
            if cell < 0:
                end = self._grid.end(start)
                late = end <= self._horizon(node) and not self._owed(node, start, end)
                if late or start < self._begin:
                    self.counters.too_late += 1
                    continue
                cell = self.cells.make(int(key[row]), start, end)
                if cell < 0:
                    self.counters.overflow += 1
                    continue
            cells[row] = cell
        self.fields.grow(self.cells.capacity)


def any_match(patterns: Sequence[str], name: str) -> bool:
    """Whether a name fits a pattern; one that begins with `$` only a pattern that does so too."""
    return any(
        fnmatchcase(name, pattern) and (not name.startswith("$") or pattern.startswith("$")) for pattern in patterns
    )
