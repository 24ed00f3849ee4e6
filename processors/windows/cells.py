"""Where the windows of a rule lie in its columns of state, and how far each has been told."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from processors.aggregates.field_state import pack, unpack

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_NO_START = np.iinfo(np.int64).min
_INTEGERS = ("key", "start", "end", "revision", "count")
CELL_BYTES = 280
"""What a cell takes as measured, its place in the table included; the arrays' room for more is not counted."""
_FLAGS = ("live", "dirty", "settled", "complete", "told", "retro", "needs", "early")


def each_once(key: Ints, starts: Ints) -> tuple[Ints, Ints]:
    """Of equal (key, start) the first: those places, in order, and for every place which of them is its like."""
    order = np.lexsort((starts, key))  # stable: of equal ones the first comes first
    keys, times = key[order], starts[order]
    fresh = np.ones(len(order), dtype=np.bool_)
    fresh[1:] = (keys[1:] != keys[:-1]) | (times[1:] != times[:-1])
    firsts = order[fresh]
    turn = np.argsort(firsts)
    number = np.empty_like(turn)
    number[turn] = np.arange(len(turn))
    group = np.empty_like(order)
    group[order] = number[np.cumsum(fresh) - 1]
    return firsts[turn], group


class Cells:
    """A cell is one window of one key; its number indexes every array.

    `revision` is -1 before anything was emitted. `live`: it holds a reading that did not come as backfill. `dirty`: it
    took a reading since its last emission. `settled`: its last emission is not awaiting a better one. `complete`: what
    that said. `told`: some emission said complete. `retro`: an owed interval touched it when its time came.
    `needs`: a mark may have something to say about it. `early`: its last emission came before its time was over.
    """

    def __init__(self, cells_max: int) -> None:
        self._max = cells_max
        self.full = False
        self.capacity = min(64, cells_max)
        self.key: Ints
        self.start: Ints
        self.end: Ints
        self.revision: Ints
        self.count: Ints
        self.live: Bools
        self.dirty: Bools
        self.settled: Bools
        self.complete: Bools
        self.told: Bools
        self.retro: Bools
        self.needs: Bools
        self.early: Bools
        for name in _INTEGERS:
            setattr(self, name, np.zeros(self.capacity, dtype=np.int64))
        for name in _FLAGS:
            setattr(self, name, np.zeros(self.capacity, dtype=np.bool_))
        self.key[:] = self.revision[:] = -1
        self._where: dict[tuple[int, int], int] = {}
        self._free = list(range(self.capacity - 1, -1, -1))
        self._attention: list[Ints] = []  # cells that need a mark, in pieces
        # The cell that each key used last: almost every reading goes there.
        self._last_start: Ints = np.zeros(0, dtype=np.int64)
        self._last_cell: Ints = np.zeros(0, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._where)

    def find(self, key: Ints, starts: Ints) -> Ints:
        """The cell of each (key, start); -1 where there is none yet."""
        self._learn(key)
        hit = self._last_start[key] == starts
        cells = np.where(hit, self._last_cell[key], -1)
        if not hit.all():
            missed = np.flatnonzero(~hit)
            firsts, group = each_once(key[missed], starts[missed])
            rows, where = missed[firsts], self._where
            pairs = zip(key[rows].tolist(), starts[rows].tolist(), strict=True)
            cells[missed] = np.array([where.get(pair, -1) for pair in pairs], dtype=np.int64)[group]
            found = missed[cells[missed] >= 0]
            self._last_start[key[found]] = starts[found]
            self._last_cell[key[found]] = cells[found]
        return cells

    def _learn(self, key: Ints) -> None:
        known, highest = len(self._last_start), int(key.max(initial=-1)) + 1
        if highest > known:
            more = max(highest, 2 * known) - known
            self._last_start = np.concatenate([self._last_start, np.full(more, _NO_START, dtype=np.int64)])
            self._last_cell = np.concatenate([self._last_cell, np.full(more, -1, dtype=np.int64)])

    def get(self, key: int, start: int) -> int:
        return self._where.get((key, start), -1)

    def make(self, key: int, start: int, end: int) -> int:
        """A new, empty cell for [start, end); -1 when the limit is reached, or while none may be made (`full`)."""
        if self.full or (not self._free and not self._grow()):
            return -1
        cell = self._free.pop()
        self._where[key, start] = cell
        self.key[cell] = key
        self.start[cell] = start
        self.end[cell] = end
        if key < len(self._last_start):
            self._last_start[key] = start
            self._last_cell[key] = cell
        return cell

    def move(self, cell: int, start: int) -> None:
        """Give a cell another start; no other cell of its key may have it."""
        key = int(self.key[cell])
        del self._where[key, int(self.start[cell])]
        self._where[key, start] = cell
        self.start[cell] = start
        if key < len(self._last_start):
            self._last_start[key] = _NO_START

    def _grow(self) -> bool:
        capacity = min(self.capacity * 2, self._max)
        more = capacity - self.capacity
        if not more:
            return False
        for name in (*_INTEGERS, *_FLAGS):
            array = getattr(self, name)
            setattr(self, name, np.concatenate([array, np.zeros(more, dtype=array.dtype)]))
        self.key[self.capacity :] = self.revision[self.capacity :] = -1
        self._free = list(range(capacity - 1, self.capacity - 1, -1))
        self.capacity = capacity
        return True

    def touch(self, cells: Ints, backfill: Bools) -> None:
        """Readings came into these cells, one per element."""
        np.add.at(self.count, cells, 1)
        self.dirty[cells] = True
        self.live[cells[~backfill]] = True
        self.need(cells)

    def need(self, cells: Ints) -> None:
        """A mark may have something to say about these."""
        fresh = cells[~self.needs[cells]]
        if len(fresh):
            self.needs[fresh] = True
            self._attention.append(np.unique(fresh))

    def needing(self) -> Ints:
        """The cells about which a mark may have something to say."""
        if len(self._attention) != 1:
            joined = np.concatenate(self._attention) if self._attention else np.zeros(0, dtype=np.int64)
            self._attention = [joined]
        return self._attention[0]

    def rest(self, cells: Ints) -> None:
        """Nothing more to say about these until a reading comes."""
        self.needs[cells] = False
        attention = self.needing()
        self._attention = [attention[self.needs[attention]]]

    def rest_of(self, cells: Ints) -> None:
        """`rest`, for some that may need nothing."""
        if self.needs[cells].any():
            self.rest(cells)

    def used(self) -> Ints:
        return np.flatnonzero(self.key >= 0)

    def resting(self) -> Ints:
        """Cells that may be forgotten: told, and nothing new to say."""
        return np.flatnonzero((self.key >= 0) & ~self.needs)

    def free(self, cells: Ints) -> None:
        """Forget windows."""
        keys = self.key[cells]
        for cell, key, start in zip(cells.tolist(), keys.tolist(), self.start[cells].tolist(), strict=True):
            del self._where[key, start]
            self._free.append(cell)
        known = keys < len(self._last_cell)
        stale = keys[known][self._last_cell[keys[known]] == cells[known]]
        self._last_start[stale] = _NO_START
        self.key[cells] = self.revision[cells] = -1
        self.count[cells] = 0
        for name in _FLAGS:
            getattr(self, name)[cells] = False

    def renumber(self, new_of: Ints) -> None:
        """Keys have other numbers now: `new_of[old]`; every key that has a cell is among them."""
        used = self.used()
        self.key[used] = new_of[self.key[used]]
        pairs = zip(self.key[used].tolist(), self.start[used].tolist(), strict=True)
        self._where = dict(zip(pairs, used.tolist(), strict=True))
        self._last_start = np.zeros(0, dtype=np.int64)
        self._last_cell = np.zeros(0, dtype=np.int64)
        self._learn(self.key[used])

    def snapshot(self, used: Ints) -> dict[str, Any]:
        integers = {name: pack(getattr(self, name)[used]) for name in _INTEGERS}
        return integers | {name: np.packbits(getattr(self, name)[used]).tobytes() for name in _FLAGS}

    def restore(self, data: dict[str, Any]) -> int:
        """Take a snapshot's cells into an empty table as the first ones; returns how many they are."""
        columns = {name: unpack(data[name], "i8") for name in _INTEGERS}
        count = len(columns["key"])
        while self.capacity < count and self._grow():
            pass
        for name, column in columns.items():
            getattr(self, name)[:count] = column
        for name in _FLAGS:
            if name not in data:
                continue  # of a snapshot from before there was such a thing
            bits = np.unpackbits(np.frombuffer(data[name], dtype=np.uint8), count=count)
            getattr(self, name)[:count] = bits.astype(np.bool_)
        pairs = zip(self.key[:count].tolist(), self.start[:count].tolist(), strict=True)
        self._where = {pair: cell for cell, pair in enumerate(pairs)}
        self._free = list(range(self.capacity - 1, count - 1, -1))
        self._attention = [np.flatnonzero(self.needs[:count])]
        self._learn(self.key[:count])
        return count
