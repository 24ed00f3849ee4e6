"""Which cell belongs to a key and a start: a hash table in arrays, asked and changed for many windows at once.

Open addressing with linear probing (Knuth, TAOCP 6.4); all windows that are asked for take their steps together.
Nearly all windows come, are told and go without ever being asked for here. So they come into the table only when
somebody asks, and never leave it: what a slot says is true only if the cell has that key and start by now.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]

_EMPTY = _NO_KEY = -1
_SLOTS_MIN = 256
_TURNS_MIN = 8  # of all cells so manyth may wait until it is asked which of them still have keys
_BY_KEY, _BY_START = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)  # odd, their bits well mixed
_FOLD = np.uint64(32)


class Index:
    """Numbers of cells in slots; the cells' keys and starts are in arrays `key` and `start`, which the caller has."""

    def __init__(self) -> None:
        self._slots = np.full(_SLOTS_MIN, _EMPTY, dtype=np.int32)
        self._taken = 0  # slots that are not empty
        # Cells that come into the table when somebody asks: the first `_waiting_count` of these.
        self._waiting = np.zeros(_SLOTS_MIN, dtype=np.int32)
        self._waiting_count = 0

    def find(self, keys: Ints, starts: Ints, key: Ints, start: Ints) -> Ints:
        """The cell of each; -1 where there is none."""
        if self._waiting_count:
            self._settle(key, start)
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
        """Cells whose keys and starts differ pairwise, and from those of all others that have a key.

        A cell that is free has key -1, and is added again when it has another.
        """
        count = self._waiting_count
        if count + len(cells) > len(self._waiting):
            kept = _having_keys(self._waiting[:count], key)
            count = len(kept)
            self._waiting = np.zeros(max(2 * (count + len(cells)), len(key) // _TURNS_MIN), dtype=np.int32)
            self._waiting[:count] = kept
        self._waiting_count = count + len(cells)
        self._waiting[count : self._waiting_count] = cells

    def _settle(self, key: Ints, start: Ints) -> None:
        cells = self._waiting[: self._waiting_count].astype(np.int64)
        self._waiting_count = 0
        if 4 * (self._taken + len(cells)) > len(self._slots):  # the fuller, the more steps the longest search takes
            self._make_room(cells, key, start)
        else:
            self._put(cells, key, start)

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
            self._slots[at] = np.where(before == _EMPTY, cells, before)  # of those that want a slot the last has it
            on = self._slots[at] != cells
            self._taken += int(np.count_nonzero(~on & (before == _EMPTY)))
            cells, at = cells[on], (at[on] + 1) & last

    def _make_room(self, fresh: Ints, key: Ints, start: Ints) -> None:
        """A table of those that have a key by now, at most an eighth full."""
        cells = _having_keys(np.concatenate([self._slots[self._slots != _EMPTY], fresh]), key)
        size = _SLOTS_MIN
        while size < 8 * len(cells):
            size *= 2
        self._slots, self._taken = np.full(size, _EMPTY, dtype=np.int32), 0
        self._put(cells, key, start)


def _having_keys(cells: npt.NDArray[Any], key: Ints) -> Ints:
    """Those of these cells that have a key by now, each once."""
    having = np.zeros(len(key), dtype=np.bool_)
    having[cells] = True
    having &= key != _NO_KEY
    return np.flatnonzero(having)
