"""Windows that lie side by side (`grids`): a reading stands in one of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from processors.columns import Columns, Ints, KeyTable
from processors.rules.model import WindowRule
from processors.windows.admission import Spans
from processors.windows.cells import Cells, Unknown, tally
from processors.windows.closing import WindowState
from processors.windows.grids import Grid, grid_of, zoned_grid

ZONE = "device.zone"
_HOUR_MS = 3_600_000
_ZONES_MAX = 1_000  # there are some 600 names; what is said beyond them is nonsense

_STRANGERS_MAX = 100


class Found(NamedTuple):
    """The cell of each reading, -1 where there is none yet; those windows, and where each of them begins."""

    cells: Ints
    unknown: Unknown | None
    starts: Ints

    @staticmethod
    def of(cells: Ints, unknown: Unknown | None, starts: Ints) -> Found:
        """From the starts of the readings' windows."""
        return Found(cells, unknown, starts if unknown is None else starts[unknown.firsts])


def find_on(grid: Grid, cells: Cells, key: Ints, time: Ints) -> Found:
    """The windows of readings; nearly always they are all of one time."""
    start = grid.start(int(time.min()))
    if start != grid.start(int(time.max())):
        starts = grid.starts(time)
        return Found.of(*cells.find(key, starts), starts)
    found, unknown = cells.find_at(key, start)
    return Found(found, unknown, np.full(0 if unknown is None else len(unknown.firsts), start))


class GridWindows(WindowState):
    """A cell is a window and holds its fields too."""

    def __init__(self, rule: WindowRule, keys: KeyTable) -> None:
        super().__init__(rule, keys)
        self._grid: Grid = grid_of(rule)

    def _begin_behind(self, newest: int) -> int:
        return self._grid.end(self._grid.start(newest))

    def _step(self, watermark: int) -> int:
        return self._grid.start(max(watermark, 0))

    def _labels(self, cells: Ints) -> Iterable[tuple[int, dict[str, Any]]]:
        if not self.rule.shifts:
            return ()
        return enumerate(map(self._grid.label, self.cells.start[cells].tolist()))

    def _place(self, key: Ints, time: Ints, rows: Ints, columns: Columns, begin: int, end: int) -> None:
        cells, unknown, starts = self._find(key, time, columns, rows + begin)
        if unknown is not None:
            cells[unknown.rows] = self._begin_windows(unknown, key, starts)[unknown.group]
            kept = np.flatnonzero(cells >= 0)
            if len(kept) < len(cells):
                rows, cells = rows[kept], cells[kept]
        if len(rows):
            everything = len(rows) == end - begin
            each, counts = tally(cells)
            self._keep_told(each)
            self.cells.touch(each, counts)
            backfill = columns.backfill[begin:end]
            self.cells.enliven(each, cells, backfill if everything else backfill[rows])
            self.fields.add(columns, begin, end, None if everything else rows, cells)

    def _find(self, key: Ints, time: Ints, columns: Columns, rows: Ints) -> Found:
        """The windows of these rows of the columns."""
        return find_on(self._grid, self.cells, key, time)

    def _ends(self, rows: Ints, starts: Ints) -> Ints:
        """The ends of windows that begin at `starts`, those of `rows` of the rows last given to `_find`."""
        return self._grid.ends(starts)

    def _begin_windows(self, unknown: Unknown, key: Ints, starts: Ints) -> Ints:
        rows = unknown.firsts
        windows = Spans(starts, self._ends(rows, starts), starts)
        made = self._make(self.cells, unknown, key[rows], starts, windows)
        self.fields.grow(self.cells.capacity)
        return made

    def give_up(self, node: str) -> None:
        gone = self._too_early(self.cells, node)
        self.cells.rest_of(gone)
        self._free(gone)


class ZonedWindows(GridWindows):
    """A calendar's windows by each device's own clock: in the zone that its readings say, else in the default one.

    A zone holds from the reading that says it. Windows that an earlier one began stay as they are.
    """

    def __init__(self, rule: WindowRule, keys: KeyTable) -> None:
        super().__init__(rule, keys)
        self._grids: dict[str, Grid] = {"": self._grid}  # by what is said; what is no zone here is the default one
        self._zone_of: dict[int, str] = {}  # of each cell
        self._asked: Any = np.zeros(0, dtype=object)
        self._strange: set[str] = set()  # what was said and is no zone here
        self.zones_unknown: dict[str, str] = {}
        """Devices, a hundred at most, that lately said such a zone: their windows follow the default one."""

    def _begin_behind(self, newest: int) -> int:
        return newest + 1

    def _step(self, watermark: int) -> int:
        return watermark // _HOUR_MS

    def _find(self, key: Ints, time: Ints, columns: Columns, rows: Ints) -> Found:
        self._asked = np.array([zone or "" for zone in columns.texts[ZONE][rows].tolist()], dtype=object)
        starts = np.zeros(len(rows), dtype=np.int64)
        for zone in set(self._asked.tolist()):
            mine = self._asked == zone
            starts[mine] = self._grid_in(zone).starts(time[mine])
            if zone in self._strange or self.zones_unknown:
                self._tell_zone(zone, key[mine])
        return Found.of(*self.cells.find(key, starts), starts)

    def _grid_in(self, zone: str) -> Grid:
        grid = self._grids.get(zone)
        if grid is None:
            if len(self._grids) >= _ZONES_MAX:
                return self._grid
            found = zoned_grid(self.rule, zone)
            if found is None:
                self._strange.add(zone)
            grid = self._grids[zone] = found or self._grid
        return grid

    def _tell_zone(self, zone: str, key: Ints) -> None:
        for name in map(self._keys.names.__getitem__, np.unique(key).tolist()):
            self.zones_unknown.pop(name, None)
            if zone in self._strange and len(self.zones_unknown) < _STRANGERS_MAX:
                self.zones_unknown[name] = zone

    def _ends(self, rows: Ints, starts: Ints) -> Ints:
        asked, ends = self._asked[rows], np.empty_like(starts)
        for zone in set(asked.tolist()):
            mine = asked == zone
            ends[mine] = self._grid_in(zone).ends(starts[mine])
        return ends

    def _begin_windows(self, unknown: Unknown, key: Ints, starts: Ints) -> Ints:
        made = super()._begin_windows(unknown, key, starts)
        zones = self._asked[unknown.firsts].tolist()
        self._zone_of.update((cell, zone) for cell, zone in zip(made.tolist(), zones, strict=True) if cell >= 0)
        return made

    def _labels(self, cells: Ints) -> Iterable[tuple[int, dict[str, Any]]]:
        if not self.rule.shifts:
            return ()
        starts = self.cells.start[cells].tolist()
        zones = [self._zone_of.get(cell, "") for cell in cells.tolist()]
        return enumerate([self._grid_in(zone).label(start) for zone, start in zip(zones, starts, strict=True)])

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
