"""Windows that lie side by side (`grids`): a reading stands in one of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from processors.closing import WindowState
from processors.columns import Columns, Ints, KeyTable
from processors.grids import Grid, grid_of
from processors.rules import WindowRule


class GridWindows(WindowState):
    """A cell is a window and holds its fields too."""

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
                    self._refused.append((row, start, end))
                    continue
                cell = self.cells.make(int(key[row]), start, end)
                if cell < 0:
                    self.counters.overflow += 1
                    continue
            cells[row] = cell
        self.fields.grow(self.cells.capacity)
