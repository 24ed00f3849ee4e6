"""Hopping windows: they overlap, and share their readings' arithmetic.

A reading goes into one pane, as long as the largest common divisor of size and hop; a window is put together from its
panes, in the order of their times, when a mark lets it be told. So a reading costs the same however many windows it
stands in. A window has a cell of its own only once its time has come.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from processors.columns import Columns, Ints, KeyTable
from processors.intervals import Bools, Interval, untouched
from processors.marks import Mark, NodeMarks
from processors.results import EVER, NEVER, FieldResults, Results, Told
from processors.rules.model import WindowRule
from processors.windows.admission import Spans
from processors.windows.cells import Cells, Unknown, each_once, tally
from processors.windows.closing import WindowState
from processors.windows.fields import FieldTable
from processors.windows.gridded import find_on
from processors.windows.grids import EvenGrid
from processors.windows.joining import summed
from processors.windows.memory import ROOMY
from processors.windows.owed import Owed
from processors.windows.slices import Slices

PLACES_MAX = 1 << 20
"""Places of panes that are looked at at once."""


class HoppingWindows(WindowState):
    """Cells are windows; `_panes` hold readings, and the fields are theirs.

    Of a pane `live` and `count` mean what they mean of a window; `needs`: it took readings since its node's last mark.
    """

    def __init__(self, rule: WindowRule, keys: KeyTable) -> None:
        super().__init__(rule, keys)
        self._size = rule.size_ms
        self._hop = rule.every_ms
        self._pane = math.gcd(self._size, self._hop)
        self._grid = EvenGrid(self._pane)
        self._panes = Cells(rule.windows_max)
        self._slices = Slices(self._panes, self._pane)
        self.fields = FieldTable(rule, self._panes.capacity)
        self._behind: set[int] = set()  # nodes with new readings in panes of windows that were over
        self._open_was: list[Interval] = []  # what was owed when the readings came, before the mark at hand
        self._owed_was = Owed()  # … with since when, of that mark's node alone: number 0

    def _begin_behind(self, newest: int) -> int:
        return newest - newest % self._hop + self._hop

    def _step(self, watermark: int) -> int:
        return watermark // self._hop

    def _first(self, panes: Ints) -> Ints:
        """The start of the first window that these panes (by start) belong to."""
        return (panes - self._size) // self._hop * self._hop + self._hop

    # readings

    def _place(self, key: Ints, time: Ints, rows: Ints, columns: Columns, begin: int, end: int) -> None:
        panes, unknown, starts = find_on(self._grid, self._panes, key, time)
        if unknown is not None:
            panes[unknown.rows] = self._begin_panes(unknown, key, starts)[unknown.group]
            kept = np.flatnonzero(panes >= 0)
            if len(kept) < len(panes):
                rows, panes = rows[kept], panes[kept]
        if len(rows):
            each, counts = tally(panes)
            self._keep_told_of(each)
            self._panes.touch(each, counts)
            self._panes.enliven(each, panes, columns.backfill[begin:end][rows])
            self.fields.add(columns, begin, end, None if len(rows) == end - begin else rows, panes)

    def _begin_panes(self, unknown: Unknown, key: Ints, starts: Ints) -> Ints:
        rows = unknown.firsts
        last = starts - starts % self._hop
        # A pane ends with the last window that it belongs to: until then it is needed.
        windows = Spans(last, last + self._size, starts - self._size)
        made = self._make(self._panes, unknown, key[rows], starts, windows)
        self._slices.came(made, self._nodes_of[key[rows]], key[rows], starts)
        self.fields.grow(self._panes.capacity)
        return made

    def _keep_told_of(self, panes: Ints) -> None:
        """Of the windows that these panes belong to: panes take readings, windows are told."""
        latest = max(int(self._watermark.max()), self._silent_until)
        earliest = int(self._panes.start[panes].min()) - self._size
        if earliest // self._hop * self._hop + self._hop + self._size > latest:
            return
        until = np.maximum(self._watermark[self._nodes_of[self._panes.key[panes]]], self._silent_until)
        old = panes[self._first(self._panes.start[panes]) + self._size <= until]
        if not len(old):
            return
        self._behind.update(self._nodes_of[self._panes.key[old]].tolist())
        starts = self._panes.start[old]
        first = self._first(starts)
        which, windows = self._each(first, (starts - first) // self._hop + 1)
        cells = self.cells.get(self._panes.key[old][which], windows)
        if (cells >= 0).any():
            self._keep_told(cells[cells >= 0])

    def _each(self, first: Ints, counts: Ints) -> tuple[Ints, Ints]:
        """So many windows each, from these starts on: which of them each belongs to, and their starts."""
        which, turns = _turns(counts)
        return which, first[which] + turns * self._hop

    # marks

    def close(self, mark: Mark, node: NodeMarks) -> Results:
        index = self._keys.node_id(mark.node)
        self._open_was = self._open.get(index, [])
        self._owed_was.restore({0: self._owed.pieces(index)})
        results = super().close(mark, node)
        self._slices.let_go()
        return results

    def _prepare(self, index: int, before: int, watermark: int) -> list[Told]:
        fresh = self._have_fresh(index, before, watermark)
        first, last = ((time - self._size) // self._hop * self._hop for time in (before, watermark))
        if first != last:
            self._have_ended(index, first + self._hop, last, before, watermark)
        if len(fresh):
            self._have_under_way(fresh, index, watermark)
            self._panes.rest(fresh)
        self._behind.discard(index)
        return []

    def _prepare_pending(self, index: int, end_max: int) -> None:
        before = int(self._watermark[index])
        fresh = self._have_fresh(index, before, max(before, end_max) if self._early_ms else end_max)
        if self._early_ms and len(fresh):
            self._have_under_way(fresh, index, before)
            self._panes.rest(fresh)  # else a window that is told now would be told again at the next mark
        used = self._mine(self._panes.used(), index)
        self._have_windows(used, before, end_max, int(self._floor[index]), touched=False)

    def _have_under_way(self, fresh: Ints, index: int, watermark: int) -> None:
        """For early results: have the windows of panes with new readings that are not over, as long as there is room
        for those that will be.
        """
        if self._early_ms and len(fresh) and not self._panes.full:
            room = max(0, int(self.rule.windows_max * ROOMY) - len(self.cells))
            self._have_windows(fresh, watermark, EVER, int(self._floor[index]), room=room)

    def pends(self, index: int, after: int, until: int) -> bool:
        panes = self._mine(self._panes.used(), index)
        if not len(panes):
            return False
        starts = self._panes.start[panes]
        # the last of a pane's windows that is over by then
        ends = (np.minimum(until, self._panes.end[panes]) - self._size) // self._hop * self._hop + self._size
        told = max(after, int(self._watermark[index]))
        return bool(((ends > told) & (ends >= self._first(starts) + self._size)).any())

    def _have_ended(self, index: int, first: int, last: int, before: int, watermark: int) -> None:
        """Have the windows of a node whose time is over with the mark at hand: those that begin from `first` to `last`.

        Their panes are looked up all at once, unless few of the places that they may have can be taken.
        """
        horizon = int(self._floor[index])
        keys = np.flatnonzero(self._nodes_of == index)
        if not len(keys):
            return  # of a partition that has nothing of the group, or a node of which only marks have come
        count = (last - first + self._size) // self._pane
        if count * len(keys) > 4 * len(self._panes):
            self._have_windows(self._mine(self._panes.used(), index), before, watermark, horizon)
            return
        panes = self._slices.of_node(index, keys, first, last + self._size)
        there: Any = panes >= 0
        live: Any = self._panes.live[panes] & there
        begins = self._begin_of(keys)
        for start in range(first, last + 1, self._hop):
            at = slice((start - first) // self._pane, (start - first + self._size) // self._pane)
            having = np.flatnonzero(there[at].any(axis=0) & (start >= begins))
            if len(having):
                windows = np.full(len(having), start)
                self._have_cells(windows, keys[having], live[at].any(axis=0)[having], horizon)

    def _have_fresh(self, index: int, before: int, until: int) -> Ints:
        """Have the windows of panes with new readings, if some of them were over before that; returns those."""
        fresh = self._mine(self._panes.needing(), index)
        if index not in self._behind:
            return fresh
        lateness = max(self._lateness(before, self._open_was), int(self._passed[index]))
        self._have_windows(fresh, NEVER, until, max(lateness, int(self._floor[index])))
        return fresh

    def _mine(self, panes: Ints, index: int) -> Ints:
        return panes[self._nodes_of[self._panes.key[panes]] == index] if len(panes) else panes

    def _have_windows(
        self, panes: Ints, after: int, until: int, horizon: int, *, touched: bool = True, room: int | None = None
    ) -> None:
        """Have the windows of panes that end in (after, until] in cells, as such that have something to say.

        `touched`: panes that took readings; `room`: no more new windows than that.
        """
        hop, size, table = self._hop, self._size, self._panes
        last = (until - size) // hop * hop
        first = NEVER if after == NEVER else (after - size) // hop * hop + hop
        panes = panes[(table.start[panes] < last + size) & (table.end[panes] >= first + size)]
        if not len(panes):
            return
        keys, live = table.key[panes], table.live[panes]
        low = np.maximum(self._first(table.start[panes]), self._begin_of(keys))
        low = -(-np.maximum(low, first) // hop) * hop
        counts = np.maximum((np.minimum(table.end[panes] - size, last) - low) // hop + 1, 0)
        step = max(1, PLACES_MAX * hop // size)
        if len(panes) <= step:
            windows, keys, live = self._windows_of(low, counts, keys, live)
        else:
            turn = np.lexsort((low, keys))  # panes of one window lie together: pieces share few of them
            cut = [turn[begin : begin + step] for begin in range(0, len(turn), step)]
            pieces = [self._windows_of(low[at], counts[at], keys[at], live[at]) for at in cut]
            windows, keys, live = _distinct(*(np.concatenate(column) for column in zip(*pieces, strict=True)))
        order = np.lexsort((keys, windows))
        self._have_cells(windows[order], keys[order], live[order], horizon, touched=touched, room=room)

    def _windows_of(self, low: Ints, counts: Ints, keys: Ints, live: Bools) -> tuple[Ints, Ints, Bools]:
        """Each window once of panes that belong to so many each, from `low` on: starts, keys, and which are live."""
        which, windows = self._each(low, counts)
        return _distinct(windows, keys[which], live[which])

    def _have_cells(
        self,
        windows: Ints,
        keys: Ints,
        live: Bools,
        horizon: int,
        *,
        touched: bool = True,
        room: int | None = None,
    ) -> None:
        cells = self.cells.get(keys, windows)
        ends = windows + self._size
        begun = cells < 0
        for row in np.flatnonzero(begun & (ends <= horizon)).tolist():
            start, end = int(windows[row]), int(ends[row])
            begun[row] = self._owed_was.lets_begin(0, start, end, end)
        if room is not None:
            begun[np.flatnonzero(begun)[room:]] = False
        if begun.all():
            cells = made = self.cells.make(keys, windows, ends)
        else:
            cells[begun] = made = self.cells.make(keys[begun], windows[begun], ends[begun])
        there = cells >= 0
        if not there.all():
            self.counters.overflow += int(np.count_nonzero(made < 0))
            cells, live, made = cells[there], live[there], made[made >= 0]
        self.cells.dirty[cells if touched else made] = True
        self.cells.live[cells] |= live
        if len(made) < len(cells):
            self.cells.need(cells)

    # contents

    def _contents(self, cells: Ints) -> tuple[Ints, list[FieldResults]]:
        keys, starts = self.cells.key[cells], self.cells.start[cells]
        table, count = FieldTable(self.rule, len(cells)), self._size // self._pane
        table.begins = self.fields.begins
        readings: list[Ints] = []
        step = max(1, PLACES_MAX // count)
        for begin in range(0, len(cells), step):
            at = slice(begin, begin + step)
            panes = self._slices.at_hand(keys[at], starts[at], count)
            counts, is_whole = self._panes.count.take(panes, mode="wrap"), bool(panes.min() >= 0)
            readings.append(summed(counts if is_whole else np.where(panes >= 0, counts, 0)))
            table.merge(begin, self.fields, panes, is_whole=is_whole)
        return np.concatenate(readings), table.results(np.arange(len(cells)), starts, starts + self._size)

    # memory

    def _free(self, cells: Ints) -> None:
        self._drop_told(cells)
        self.cells.free(cells)

    def _free_panes(self, panes: Ints) -> None:
        self._slices.went(self._nodes_of[self._panes.key[panes]], self._panes.start[panes])
        self.fields.clear(panes)
        self._panes.free(panes)

    def _free_held(self, cells: Ints) -> None:
        self._free_panes(cells)

    def _free_all_of(self, keys: Bools) -> None:
        super()._free_all_of(keys)
        used = self._panes.used()
        gone = used[keys[self._panes.key[used]]]
        self._panes.rest_of(gone)
        self._free_panes(gone)

    def give_up(self, node: str) -> None:
        gone = self._too_early(self.cells, node)
        self.cells.rest_of(gone)
        self._free(gone)
        panes = self._too_early(self._panes, node)
        self._panes.rest_of(panes)
        self._free_panes(panes)

    def _holding(self) -> tuple[Cells, Callable[[], Ints]]:
        return self._panes, self._resting_panes

    def _tables(self) -> list[Cells]:
        return [self._panes, self.cells]

    def _resting_panes(self, until: int = EVER) -> Ints:
        """Panes that end by then, all of whose windows have been told, and to which nothing is owed."""
        panes = self._panes.resting(until)
        if not len(panes):
            return panes
        nodes = self._nodes_of[self._panes.key[panes]]
        panes = panes[self._panes.end[panes] <= self._watermark[nodes]]
        nodes = self._nodes_of[self._panes.key[panes]]
        return panes[untouched(nodes, self._first(self._panes.start[panes]), self._panes.end[panes], self._open)]

    def _sweep(self, index: int, horizon: int) -> None:
        super()._sweep(index, horizon)
        if len(panes := self._resting_panes(horizon)):
            self._free_panes(self._mine(panes, index))

    def _pressed(self) -> int | None:
        found = [super()._pressed(), self._pressed_by(self.cells, self._resting)]
        return max((last for last in found if last is not None), default=None)

    def _forget_until(self, last: int) -> None:
        super()._forget_until(last)
        gone = self._resting_panes(last)
        self._raise_floors(self._panes.key[gone], last)
        self._free_panes(gone)

    def renumber(self, new_of: Ints, new_node_of: Ints) -> None:
        super().renumber(new_of, new_node_of)
        self._slices.forget()
        self._behind = set(range(len(self._keys.nodes)))

    # checkpoints

    def snapshot(self) -> dict[str, Any]:
        return super().snapshot() | {"panes": self._panes.snapshot(self._panes.used())}

    def restore(self, data: dict[str, Any]) -> None:
        self.cells.restore(data["cells"])
        count = self._panes.restore(data["panes"])
        self._restore_fields(data["fields"], self._panes.capacity, count)
        self._restore_rest(data)
        self._behind = set(range(len(self._keys.nodes)))


def _distinct(windows: Ints, keys: Ints, live: Bools) -> tuple[Ints, Ints, Bools]:
    """Each window of a key once; it is live if any of its like is."""
    firsts, group = each_once(keys, windows)
    alive = np.zeros(len(firsts), dtype=np.bool_)
    alive[group[live]] = True
    return windows[firsts], keys[firsts], alive


def _turns(counts: Ints) -> tuple[Ints, Ints]:
    """Runs of so many numbers one behind the other: of each number its run, and its place in that."""
    runs = np.repeat(np.arange(len(counts)), counts)
    return runs, np.arange(len(runs)) - np.repeat(np.cumsum(counts) - counts, counts)
