"""Windows that lie side by side (`grids`): a reading stands in one of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from processors.columns import Columns, Ints, KeyTable
from processors.rules.model import WindowRule
from processors.windows.cells import each_once
from processors.windows.closing import WindowState
from processors.windows.grids import Grid, grid_of, zoned_grid

ZONE = "device.zone"
_HOUR_MS = 3_600_000
_ZONES_MAX = 1_000  # there are some 600 names; what is said beyond them is nonsense


class GridWindows(WindowState):
    """A cell is a window and holds its fields too."""

    def __init__(self, rule: WindowRule, keys: KeyTable) -> None:
        super().__init__(rule, keys)
        self._grid: Grid = grid_of(rule)

    def _begin_behind(self, newest: int) -> int:
        return self._grid.end(int(self._grid.starts(np.array([newest]))[0]))

    def _step(self, watermark: int) -> int:
        return int(self._grid.starts(np.array([max(watermark, 0)]))[0])

    def _labels(self, cells: Ints) -> list[dict[str, Any]]:
        return [self._grid.label(start) for start in self.cells.start[cells].tolist()]

    def _place(self, key: Ints, time: Ints, nodes: Ints, rows: Ints, columns: Columns, begin: int, end: int) -> None:
        starts = self._starts(time, columns, rows + begin)
        cells = self.cells.find(key, starts)
        if (cells < 0).any():
            self._make(cells, key, starts, nodes)
            kept = np.flatnonzero(cells >= 0)
            if len(kept) < len(cells):
                rows, cells = rows[kept], cells[kept]
        if len(rows):
            self._keep_told(cells)
            everything = len(rows) == end - begin
            self.cells.touch(cells, columns.backfill[begin:end] if everything else columns.backfill[begin:end][rows])
            self.fields.add(columns, begin, end, None if everything else rows, cells)

    def _starts(self, time: Ints, columns: Columns, rows: Ints) -> Ints:
        """Where the windows of these rows of the columns begin."""
        return self._grid.starts(time)

    def _end(self, row: int, start: int) -> int:
        """The end of the window that begins at `start`, the one of row `row` of those last given to `_starts`."""
        return self._grid.end(start)

    def _make(self, cells: Ints, key: Ints, starts: Ints, nodes: Ints) -> None:
        """Find a place for windows seen first, in the order of the log; their rows stay -1 where none is allowed."""
        missing = np.flatnonzero(cells < 0)
        firsts, group = each_once(key[missing], starts[missing])
        made = np.full(len(firsts), -1, dtype=np.int64)
        late: dict[int, tuple[int, int]] = {}
        rows = missing[firsts]
        horizons = {node: self._horizon(node) for node in set(nodes[rows].tolist())}
        for number, row in enumerate(rows.tolist()):
            start, node = int(starts[row]), int(nodes[row])
            end = self._end(row, start)
            if (end <= horizons[node] and not self._owed(node, start, end)) or start < self._begin_of(key[row]):
                late[number] = start, end
            elif (cell := self.cells.make(int(key[row]), start, end)) >= 0:
                made[number] = cell
                self._made(cell, row)
        cells[missing] = made[group]
        if (made < 0).any():
            self._leave_out(missing, group, made, late)
        self.fields.grow(self.cells.capacity)

    def _made(self, cell: int, row: int) -> None:
        """A cell is there for row `row` of those last given to `_starts`."""


class ZonedWindows(GridWindows):
    """A calendar's windows by each device's own clock: in the zone that its readings say, else in the default one.

    A zone holds from the reading that says it. Windows that an earlier one began stay as they are.
    """

    def __init__(self, rule: WindowRule, keys: KeyTable) -> None:
        super().__init__(rule, keys)
        self._grids: dict[str, Grid] = {"": self._grid}  # by what is said; what is no zone here is the default one
        self._zone_of: dict[int, str] = {}  # of each cell
        self._asked: Any = np.zeros(0, dtype=object)

    def _begin_behind(self, newest: int) -> int:
        return newest + 1

    def _step(self, watermark: int) -> int:
        return watermark // _HOUR_MS

    def _starts(self, time: Ints, columns: Columns, rows: Ints) -> Ints:
        self._asked = np.array([zone or "" for zone in columns.texts[ZONE][rows].tolist()], dtype=object)
        starts = np.zeros(len(rows), dtype=np.int64)
        for zone in set(self._asked.tolist()):
            mine = self._asked == zone
            starts[mine] = self._grid_in(zone).starts(time[mine])
        return starts

    def _grid_in(self, zone: str) -> Grid:
        grid = self._grids.get(zone)
        if grid is None:
            if len(self._grids) >= _ZONES_MAX:
                return self._grid
            grid = self._grids[zone] = zoned_grid(self.rule, zone) or self._grid
        return grid

    def _end(self, row: int, start: int) -> int:
        return self._grid_in(self._asked[row]).end(start)

    def _made(self, cell: int, row: int) -> None:
        self._zone_of[cell] = self._asked[row]

    def _labels(self, cells: Ints) -> list[dict[str, Any]]:
        starts = self.cells.start[cells].tolist()
        zones = [self._zone_of.get(cell, "") for cell in cells.tolist()]
        return [self._grid_in(zone).label(start) for zone, start in zip(zones, starts, strict=True)]

    def _free(self, cells: Ints) -> None:
        super()._free(cells)
        for cell in cells.tolist():
            self._zone_of.pop(cell, None)

    def snapshot(self) -> dict[str, Any]:
        zones = [self._zone_of.get(cell, "") for cell in self.cells.used().tolist()]
        return super().snapshot() | {"zones": zones}

    def restore(self, data: dict[str, Any]) -> None:
        super().restore(data)
        self._zone_of = dict(enumerate(data["zones"]))
