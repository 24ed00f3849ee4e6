"""What the windows of one rule hold in memory, and what is forgotten when.

The state of a closed window is kept for `allowed_lateness_s`, so that late readings make a revision of the whole
window. Memory is bounded by `windows_max` and `samples_max`: when one fills up, the oldest closed windows are forgotten
early and their late readings refused; when all of it is open windows, readings that would begin another are refused.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from operator import itemgetter
from typing import Any

import msgspec
import numpy as np

from processors.columns import Ints, KeyTable
from processors.intervals import Bools, Interval, untouched
from processors.results import EVER, NEVER, Counters, FieldResults, by_window
from processors.rules.evolution import WindowChange
from processors.rules.model import WindowRule
from processors.windows.admission import WindowAdmission, fits
from processors.windows.cells import CELL_BYTES, Cells
from processors.windows.fields import FieldTable

Before = tuple[int, dict[str, dict[str, Any]]]
"""What was told of a window last: readings and fields."""


_LATELY_MS = 3_600_000
FULL = 7 / 8  # of a bound: above it closed windows are forgotten early ...
ROOMY = 3 / 4  # ... until this much is left in use


class WindowMemory(WindowAdmission):
    """Cells and fields of one rule's windows, by key and start."""

    def __init__(self, rule: WindowRule, keys: KeyTable) -> None:
        super().__init__(rule, keys)
        self.fields = FieldTable(rule, self.cells.capacity)
        self._swept: dict[int, int] = {}  # per node the last sweep
        self._change: tuple[WindowChange | None, int] = (None, NEVER)  # while a changed rule's state is restored
        self._told: dict[int, Before] = {}  # of cells that have changed since: what was told of them last
        self._silent_until = NEVER  # the latest end of a window told of a silent node: it may be ahead of watermarks
        self._lost: dict[int, list[Interval]] = {}
        self.fields_missed_at = NEVER
        """A node's watermark when fields were last left out for want of room."""

    # what the kinds of windows do each in their own way

    @abstractmethod
    def _step(self, watermark: int) -> int:
        """Old windows are swept out whenever this changes."""

    def _reach(self, cells: Ints) -> tuple[Ints, Ints]:
        """The times in which a reading would change what windows say, as [start, end)."""
        return self.cells.start[cells], self.cells.end[cells]

    def _contents(self, cells: Ints) -> tuple[Ints, list[FieldResults]]:
        """Readings and fields of windows."""
        state = self.cells
        return state.count[cells], self.fields.results(cells, state.start[cells], state.end[cells])

    def _free(self, cells: Ints) -> None:
        self._drop_told(cells)
        self.fields.clear(cells)
        self.cells.free(cells)

    # what a revision was before

    def _keep_told(self, cells: Ints) -> None:
        """These (some perhaps twice) are about to change: keep what was told of them, if anything was.

        Nothing changed since it was told, or it would be kept already. Early results are not: they change all the time.
        """
        state = self.cells
        told = cells[(state.revision[cells] >= 0) & ~state.early[cells]]
        if not len(told):
            return
        fresh = np.array([cell for cell in np.unique(told).tolist() if cell not in self._told], dtype=np.int64)
        if len(fresh):
            counts, fields = self._contents(fresh)
            rows = zip(counts.tolist(), by_window(fields, len(fresh)), strict=True)
            self._told.update(zip(fresh.tolist(), rows, strict=True))

    def _drop_told(self, cells: Ints) -> None:
        if self._told:
            for cell in cells.tolist():
                self._told.pop(cell, None)

    def _of_node(self, cells: Ints, index: int, end_max: int) -> Ints:
        mine = self._nodes_of[self.cells.key[cells]] == index if len(cells) else np.zeros(0, dtype=np.bool_)
        begun: Bools = self.cells.start[cells] >= self._begin_of(self.cells.key[cells])
        return cells[mine & (self.cells.end[cells] <= end_max) & begun]

    # memory

    def _forget(self, index: int, watermark: int) -> None:
        """Let go of windows beyond the allowed lateness, and of the oldest ones when memory is short."""
        step = self._step(watermark)
        if self._swept.get(index, NEVER) != step:
            self._swept[index] = step
            self._sweep(index, self._lateness(watermark, self._open.get(index, ())))
        self._passed[index] = self._beyond_lateness(index)
        if (floor := self._pressed()) is not None:
            self._forget_until(floor)
        self._give_up_unmarked()
        if self.fields.missed:
            self.fields_missed_at = watermark
        self.fields.make_room()

    def _give_up_unmarked(self) -> None:
        """When closed windows do not make room: the oldest ones of nodes without marks, which may never close, go."""
        table = self._holding()[0]
        if len(table) <= self.rule.windows_max * FULL:
            return
        used = table.used()
        unmarked = used[self._watermark[self._nodes_of[table.key[used]]] == NEVER]
        if not len(unmarked):
            return
        ends = table.end[unmarked]
        order = min(len(table) - int(self.rule.windows_max * ROOMY), len(unmarked)) - 1
        last = int(np.partition(ends, order)[order])
        gone = unmarked[ends <= last]
        self.counters.overflow += int(table.count[gone].sum())
        self._raise_floors(table.key[gone], last)
        table.rest_of(gone)
        self._free_held(gone)

    @property
    def is_crowded(self) -> bool:
        """Whether as many windows (of hopping ones panes) are held as may be."""
        return len(self._holding()[0]) >= self.rule.windows_max

    def _free_held(self, cells: Ints) -> None:
        """Forget cells that hold fields."""
        self._free(cells)

    def fields_missed(self) -> tuple[str, int] | None:
        """While fields are left out: the device that was the first to have most of those that are held, and how many
        these are ("" when it is not known).
        """
        lately = int(self._watermark.max(initial=NEVER)) - _LATELY_MS
        if len(self.fields.states) < self.rule.fields_max or self.fields_missed_at <= max(lately, NEVER):
            return None
        devices = [self._keys.names[key] for key in self.fields.brought.values() if key >= 0]
        return max(((name, devices.count(name)) for name in sorted(set(devices))), key=itemgetter(1), default=("", 0))

    def _sweep(self, index: int, horizon: int) -> None:
        """Forget what ended by then, unless something is still owed to it."""
        if len(cells := self._resting(horizon)):
            self._free(self._of_node(cells, index, horizon))

    def _resting(self, until: int = EVER) -> Ints:
        """Windows that end by then and may be forgotten: told, and nothing is owed to them."""
        cells = self.cells.resting(until)
        if not len(cells):
            return cells
        return cells[untouched(self._nodes_of[self.cells.key[cells]], *self._reach(cells), self._open)]

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
        return self.cells, self._resting

    def _pressed_by(self, table: Cells, resting: Callable[[], Ints]) -> int | None:
        if len(table) <= self.rule.windows_max * FULL or not len(closed := resting()):
            return None
        excess = len(table) - int(self.rule.windows_max * ROOMY)
        order = min(excess, len(closed)) - 1
        return int(np.partition(table.end[closed], order)[order])

    def _forget_until(self, last: int) -> None:
        gone = self._resting(last)
        self._raise_floors(self.cells.key[gone], last)
        self._free(gone)

    def _raise_floors(self, keys: Ints, last: int) -> None:
        # Whole moments are forgotten, for all devices: then one time per node says what is refused from now on.
        for node in np.unique(self._nodes_of[keys]).tolist():
            self._floor[node] = max(int(self._floor[node]), last)

    # the budget of all rules (`budget`)

    def _tables(self) -> list[Cells]:
        """All that has cells of keys; the first one's cells hold the fields."""
        return [self.cells]

    def state_bytes(self) -> int:
        """What is held, counted by what was given and not by how it came in blocks."""
        table = self._holding()[0]
        return (
            CELL_BYTES * sum(map(len, self._tables()))
            + int(self.fields.state_bytes(table.used()).sum())
            + self.fields.texts_bytes
        )

    def closed(self) -> tuple[Ints, Ints]:
        """Ends and bytes of what may be forgotten."""
        table, resting = self._holding()
        cells = resting()
        return table.end[cells], CELL_BYTES + self.fields.state_bytes(cells)

    def forget_until(self, last: int) -> None:
        """Forget what is closed and ended by then; later readings for it are refused."""
        self._forget_until(last)

    def set_full(self, *, full: bool) -> None:
        """While memory is full no reading begins a window, and none is kept as a sample."""
        self._holding()[0].full = full
        self.fields.set_full(full=full)

    def mark_keys(self, used: Bools) -> None:
        """Set what belongs to keys of which something is held."""
        for table in self._tables():
            used[table.key[table.used()]] = True

    def renumber(self, new_of: Ints, new_node_of: Ints) -> None:
        """Keys and nodes have other numbers now; whatever else a kind keeps by them, it must change too."""
        for table in self._tables():
            table.renumber(new_of)
        stayed = new_node_of[: len(self._watermark)] >= 0
        self._watermark, self._floor = self._watermark[stayed], self._floor[stayed]
        self._passed = self._passed[stayed]
        new = new_node_of.tolist()
        self._owed.renumber(new)
        self._swept = {new[node]: step for node, step in self._swept.items() if new[node] >= 0}
        self._open = {new[node]: intervals for node, intervals in self._open.items() if new[node] >= 0}
        self._lost = {new[node]: intervals for node, intervals in self._lost.items() if new[node] >= 0}
        numbers, brought = new_of.tolist(), self.fields.brought
        self.fields.brought = {name: numbers[key] if key >= 0 else -1 for name, key in brought.items()}
        self._young = {numbers[key]: begin for key, begin in self._young.items() if numbers[key] >= 0}
        self._learn_young()
        self._matches = np.zeros(0, dtype=np.bool_)
        self._learn_keys()

    # checkpoints

    def snapshot(self) -> dict[str, Any]:
        """Plain data and bytes, from which `restore` makes the same state."""
        self._learn_nodes()
        used = self.cells.used()
        return {
            "cells": self.cells.snapshot(used),
            "fields": self.fields.snapshot(self._holding()[0].used()),
            "counters": msgspec.structs.asdict(self.counters),
            "watermark": self._watermark.tolist(),
            "floor": self._floor.tolist(),
            "passed": self._passed.tolist(),
            "owed": self._owed.snapshot(),
            "swept": self._swept,
            "begin": self._begin,
            "young": self._young,
            "open": self._open,
            "late": self.late.snapshot(),
            "told": [[int(np.searchsorted(used, cell)), *told] for cell, told in self._told.items()],
            "silent_until": self._silent_until,
            "fields_missed": [self.fields.missed, self.fields_missed_at],
        }

    def restore(self, data: dict[str, Any]) -> None:
        """The key table must have been restored before."""
        count = self.cells.restore(data["cells"])
        self._restore_fields(data["fields"], self.cells.capacity, count)
        self._restore_rest(data)

    def restore_changed(self, data: dict[str, Any], change: WindowChange, newest: int) -> None:
        """`restore` for a state that another definition of this rule has made, after records of times up to `newest`.

        What is new begins with windows that cannot have begun yet.
        """
        begin = NEVER if newest == NEVER else self._begin_behind(newest)
        self._change = (change, begin)
        self.restore(data)
        self._change = (None, NEVER)
        had = np.array([fits(change.old, *self._keys.device(key)) for key in range(len(self._keys))], dtype=np.bool_)
        has = self._matches[:-1]
        for key in np.flatnonzero(has & ~had).tolist() if begin != NEVER else ():
            self._young[key] = begin
        self._learn_young()
        if (had & ~has).any():
            self._free_all_of(had & ~has)

    def _restore_fields(self, data: dict[str, Any], capacity: int, count: int) -> None:
        self.fields = FieldTable(self.rule, capacity)
        self.fields.restore(data, count, *self._change)

    def _free_all_of(self, keys: Bools) -> None:
        """Give up all windows of these keys."""
        used = self.cells.used()
        gone = used[keys[self.cells.key[used]]]
        self.cells.rest_of(gone)
        self._free(gone)

    def _restore_rest(self, data: dict[str, Any]) -> None:
        self.counters = Counters(**data["counters"])
        self._told = {cell: (count, fields) for cell, count, fields in data.get("told", ())}
        self._silent_until = data.get("silent_until", NEVER)
        self.fields.missed, self.fields_missed_at = data.get("fields_missed", (False, NEVER))
        if "late" in data:
            self.late.restore(data["late"])
        self._watermark = np.array(data["watermark"], dtype=np.int64)
        self._floor = np.array(data["floor"], dtype=np.int64)
        self._passed = np.array(data.get("passed", [NEVER] * len(self._floor)), dtype=np.int64)
        self._owed.restore(data.get("owed", data["open"]))
        self._swept, self._begin = dict(data["swept"]), data["begin"]
        self._young = dict(data.get("young", {}))
        self._learn_young()
        self._open = {node: [(start, end) for start, end in intervals] for node, intervals in data["open"].items()}
        self._learn_keys()
