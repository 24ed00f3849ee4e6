"""Which cell belongs to a key and a start: a hash table in arrays, asked and changed for many windows at once.

Open addressing with linear probing (Knuth, TAOCP 6.4); all windows that are asked for take their steps together.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]

_EMPTY, _GONE = -1, -2
_SLOTS_MIN = 256
_BY_KEY, _BY_START = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)  # odd, their bits well mixed
_FOLD = np.uint64(32)


class Index:
    """Numbers of cells in slots; the cells' keys and starts are in arrays `key` and `start`, which the caller has."""

    def __init__(self) -> None:
        self._slots = np.full(_SLOTS_MIN, _EMPTY, dtype=np.int32)
        self._taken = 0  # slots that are not empty

    def find(self, keys: Ints, starts: Ints, key: Ints, start: Ints) -> Ints:
        """The cell of each; -1 where there is none."""
        found = np.full(len(keys), -1, dtype=np.int64)
        at, last = self._first(keys, starts), len(self._slots) - 1
        rows = np.arange(len(keys))
        while len(rows):
            cells = self._slots[at]
            hit = (key[cells] == keys[rows]) & (start[cells] == starts[rows]) & (cells >= 0)
            found[rows[hit]] = cells[hit]
            on = ~hit & (cells != _EMPTY)
            rows, at = rows[on], (at[on] + 1) & last
        return found

    def add(self, cells: Ints, key: Ints, start: Ints) -> None:
        """Cells that are not in the table yet; their keys and starts, new to it too, differ pairwise."""
        if 4 * (self._taken + len(cells)) > len(self._slots):  # the fuller, the more steps the longest search takes
            self._make_room(len(cells), key, start)
        self._put(cells, key, start)

    def remove(self, cells: Ints, key: Ints, start: Ints) -> None:
        """Cells that are in the table; their keys and starts as they were when they came into it."""
        at, last = self._first(key[cells], start[cells]), len(self._slots) - 1
        while len(cells):
            hit = self._slots[at] == cells
            self._slots[at[hit]] = _GONE
            cells, at = cells[~hit], (at[~hit] + 1) & last

    def _first(self, keys: Ints, starts: Ints) -> Ints:
        """The slot where the search for each begins."""
        mixed = keys.view(np.uint64) * _BY_KEY + starts.view(np.uint64) * _BY_START
        mixed = (mixed ^ (mixed >> _FOLD)) * _BY_KEY
        slots: Ints = (mixed >> _FOLD).view(np.int64) & (len(self._slots) - 1)
        return slots

    def _put(self, cells: Ints, key: Ints, start: Ints) -> None:
        at, last = self._first(key[cells], start[cells]), len(self._slots) - 1
        while len(cells):
            before = self._slots[at]
            free = before < 0
            self._slots[at[free]] = cells[free]  # of those that want the same slot the last has it
            on = self._slots[at] != cells
            self._taken += int(np.count_nonzero(~on & (before == _EMPTY)))
            cells, at = cells[on], (at[on] + 1) & last

    def _make_room(self, more: int, key: Ints, start: Ints) -> None:
        """A table without slots that are gone, at most an eighth full."""
        cells = self._slots[self._slots >= 0].astype(np.int64)
        size = _SLOTS_MIN
        while size < 8 * (len(cells) + more):
            size *= 2
        self._slots, self._taken = np.full(size, _EMPTY, dtype=np.int32), 0
        self._put(cells, key, start)
