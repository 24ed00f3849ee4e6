"""Where the windows of a rule lie in its columns of state, and how far each has been told."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from processors.aggregates.field_state import pack, unpack
from processors.windows.index import Index

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_NO_START, _NO_TIME = np.iinfo(np.int64).min, np.iinfo(np.int64).max
_INTEGERS = ("key", "start", "end", "revision", "count")
CELL_BYTES = 280
"""What a cell takes as measured, its place in the table included; the arrays' room for more is not counted."""
_FLAGS = ("live", "dirty", "settled", "complete", "told", "retro", "needs", "early")


class Unknown(NamedTuple):
    """Windows of which there is none yet: the first row of each, and which `rows` are of which of them (`group`)."""

    rows: Ints
    firsts: Ints
    group: Ints


def each_once(key: Ints, starts: Ints | None) -> tuple[Ints, Ints]:
    """Of equal (key, start) the first: those places, in order, and for every place which of them is its like.

    `starts`: None if all are alike.
    """
    turns = np.arange(len(key))
    first_of = np.empty(int(key.max(initial=-1)) + 1, dtype=np.int64)
    first_of[key[::-1]] = turns[::-1]  # of what is assigned to one place the last stays
    like = first_of[key]
    if starts is not None and not (starts[like] == starts).all():
        like = _first_like(key, starts)
    firsts = np.flatnonzero(like == turns)
    first_of = np.empty_like(turns)
    first_of[firsts] = np.arange(len(firsts))
    return firsts, first_of[like]


def _first_like(key: Ints, starts: Ints) -> Ints:
    """For every place the first that has the same key and start, where keys have more than one start."""
    order = np.lexsort((starts, key))  # stable: of equal ones the first comes first
    keys, times = key[order], starts[order]
    fresh = np.ones(len(order), dtype=np.bool_)
    fresh[1:] = (keys[1:] != keys[:-1]) | (times[1:] != times[:-1])
    like = np.empty_like(order)
    like[order] = order[fresh][np.cumsum(fresh) - 1]
    return like


def tally(numbers: Ints) -> tuple[Ints, Ints]:
    """Of numbers that are not negative each once, in order, and how many there are of each."""
    high, low = int(numbers.max()), 0
    if high >= 4 * len(numbers):
        low = int(numbers.min())
        if high - low >= 4 * len(numbers):
            ordered = np.sort(numbers)
            begins = np.flatnonzero(np.diff(ordered, prepend=-1))
            return ordered[begins], np.diff(begins, append=len(ordered))
        numbers = numbers - low
    counts = np.bincount(numbers)
    each = np.flatnonzero(counts)
    return each + low, counts[each]


def in_turn(numbers: Ints, count: int) -> Ints:
    """All of them, then all of them again, so often; `np.tile` takes several times as long."""
    found = np.empty((count, len(numbers)), dtype=np.int64)
    found[:] = numbers
    return found.ravel()


class Cells:
    """A cell is one window of one key; its number indexes every array.

    `revision` is -1 before anything was emitted. `live`: it holds a reading that did not come as backfill. `dirty`: it
    took a reading since its last emission. `settled`: its last emission is not awaiting a better one. `complete`: what
    that said. `told`: some emission said complete. `retro`: an owed interval touched it when its time came.
    `needs`: a mark may have something to say about it. `early`: its last emission came before its time was over.
    """

    def __init__(self, cells_max: int, *, is_looked_up: bool = True) -> None:
        """`is_looked_up`: whether cells are asked for by key and start; else the caller knows them."""
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
        self._index = Index() if is_looked_up else None
        self._free: Ints = np.arange(self.capacity - 1, -1, -1)  # the first `_free_count` of them; the last is next
        self._free_count = self.capacity
        self._attention: list[Ints] = []  # cells that need a mark, in pieces
        # The cell that each key used last: almost every reading goes there.
        self._last_start: Ints = np.zeros(0, dtype=np.int64)
        self._last_cell: Ints = np.zeros(0, dtype=np.int64)
        self.latest = _NO_START  # no window begins later
        self._oldest = _NO_TIME  # none ends before; ends do not fall

    def __len__(self) -> int:
        return self.capacity - self._free_count

    def find(self, key: Ints, starts: Ints) -> tuple[Ints, Unknown | None]:
        """The cell of each (key, start), -1 where there is none yet; and those windows."""
        self._learn(key)
        hit = self._last_start[key] == starts
        if hit.all():
            return self._last_cell[key], None
        cells = np.where(hit, self._last_cell[key], -1)
        missed = np.flatnonzero(~hit)
        firsts, group = each_once(key[missed], starts[missed])
        rows = missed[firsts]
        known = self.get(key[rows], starts[rows])
        cells[missed] = known[group]
        found = missed[cells[missed] >= 0]
        self._last_start[key[found]] = starts[found]
        self._last_cell[key[found]] = cells[found]
        none = known < 0
        if not none.any():
            return cells, None
        mine = none[group]
        return cells, Unknown(missed[mine], rows[none], (np.cumsum(none) - 1)[group[mine]])

    def find_at(self, key: Ints, start: int) -> tuple[Ints, Unknown | None]:
        """`find` for windows that all begin together."""
        self._learn(key)
        cells = self._last_at(key, start)
        if cells.min() >= 0:
            return cells, None
        missed = np.flatnonzero(cells < 0)
        firsts, group = each_once(key[missed], None)
        rows = missed[firsts]
        keys = key[rows]
        known = self.get(keys, np.full(len(keys), start))
        found = known >= 0
        if not found.any():
            return cells, Unknown(missed, rows, group)
        self._last_start[keys[found]], self._last_cell[keys[found]] = start, known[found]
        cells = self._last_at(key, start)
        if found.all():
            return cells, None
        mine = ~found[group]
        return cells, Unknown(missed[mine], rows[~found], (np.cumsum(~found) - 1)[group[mine]])

    def _last_at(self, key: Ints, start: int) -> Ints:
        """The cell of each key if the window that it used last begins then, else -1."""
        if len(self._last_start) <= len(key):  # rather look at each key once
            return np.where(self._last_start == start, self._last_cell, -1)[key]
        return np.where(self._last_start[key] == start, self._last_cell[key], -1)

    def _learn(self, key: Ints) -> None:
        known, highest = len(self._last_start), int(key.max(initial=-1)) + 1
        if highest > known:
            more = max(highest, 2 * known) - known
            self._last_start = np.concatenate([self._last_start, np.full(more, _NO_START, dtype=np.int64)])
            self._last_cell = np.concatenate([self._last_cell, np.full(more, -1, dtype=np.int64)])

    def get(self, key: Ints, starts: Ints) -> Ints:
        """The cell of each (key, start), -1 where there is none; each of them asked once."""
        assert self._index is not None  # noqa: S101 - who makes it without one does not ask
        if len(starts) and starts.min() > self.latest:
            return np.full(len(key), -1, dtype=np.int64)
        return self._index.find(key, starts, self.key, self.start)

    def find_each(self, keys: Ints, starts: Ints) -> Ints:
        """The cells of all of these keys at all of these starts, a row for each start; -1 where there is none."""
        return self.get(in_turn(keys, len(starts)), np.repeat(starts, len(keys))).reshape(len(starts), len(keys))

    def make(self, key: Ints, starts: Ints, ends: Ints) -> Ints:
        """New, empty cells, which a mark may have something to say about, for windows that differ pairwise.

        -1 for those at the end for which there is no room, and for all of them while none may be made (`full`).
        """
        made = np.full(len(key), -1, dtype=np.int64)
        if self.full:
            return made
        while self._free_count < len(key) and self._grow():
            pass
        count = min(len(key), self._free_count)
        cells = self._free[self._free_count - count : self._free_count][::-1].copy()
        self._free_count -= count
        made[:count], key, starts = cells, key[:count], starts[:count]
        self.key[cells], self.start[cells], self.end[cells] = key, starts, ends[:count]
        self.latest = max(self.latest, int(starts.max(initial=_NO_START)))
        self._oldest = min(self._oldest, int(self.end[cells].min(initial=_NO_TIME)))
        if self._index is not None:
            self._index.add(cells, self.key, self.start)
        self.needs[cells] = True
        self._attention.append(cells)
        self._learn(key)
        self._last_start[key], self._last_cell[key] = starts, cells
        return made

    def make_one(self, key: int, start: int, end: int) -> int:
        """The same for one window, where cells are not looked up."""
        if self.full or not (self._free_count or self._grow()):
            return -1
        self._free_count -= 1
        cell = int(self._free[self._free_count])
        self.key[cell], self.start[cell], self.end[cell] = key, start, end
        self._oldest = min(self._oldest, end)
        return cell

    def _grow(self) -> bool:
        capacity = min(self.capacity * 2, self._max)
        more = capacity - self.capacity
        if not more:
            return False
        for name in (*_INTEGERS, *_FLAGS):
            array = getattr(self, name)
            setattr(self, name, np.concatenate([array, np.zeros(more, dtype=array.dtype)]))
        self.key[self.capacity :] = self.revision[self.capacity :] = -1
        free = self._free[: self._free_count]
        self._free = np.zeros(capacity, dtype=np.int64)
        self._free[:more] = np.arange(capacity - 1, self.capacity - 1, -1)
        self._free[more : more + len(free)] = free  # the lower numbers are given first
        self._free_count += more
        self.capacity = capacity
        return True

    def touch(self, cells: Ints, counts: Ints) -> None:
        """So many readings came into each of these cells, which differ pairwise."""
        self.count[cells] += counts
        self.dirty[cells] = True
        self.need(cells)

    def enliven(self, cells: Ints, of_readings: Ints, backfill: Bools) -> None:
        """The readings in these cells: the cell of each, and which of them are backfill."""
        self.live[of_readings[~backfill] if backfill.any() else cells] = True

    def need(self, cells: Ints) -> None:
        """A mark may have something to say about these, which differ pairwise."""
        fresh = cells[~self.needs[cells]]
        if len(fresh):
            self.needs[fresh] = True
            self._attention.append(fresh)

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

    def resting(self, until: int) -> Ints:
        """Cells that end by then and may be forgotten: told, and nothing new to say."""
        if until < self._oldest:
            return np.zeros(0, dtype=np.int64)
        over = (self.end <= until) & (self.key >= 0)
        if not over.any():
            self._oldest = int(self.end[self.key >= 0].min(initial=_NO_TIME))
        return np.flatnonzero(over & ~self.needs)

    def free(self, cells: Ints) -> None:
        """Forget windows."""
        if self._index is not None:
            keys = self.key[cells]
            stale = keys[self._last_cell[keys] == cells]
            self._last_start[stale] = _NO_START
        self._free[self._free_count : self._free_count + len(cells)] = cells
        self._free_count += len(cells)
        self.key[cells] = self.revision[cells] = -1
        self.count[cells] = 0
        for name in _FLAGS:
            getattr(self, name)[cells] = False

    def renumber(self, new_of: Ints) -> None:
        """Keys have other numbers now: `new_of[old]`; every key that has a cell is among them."""
        used = self.used()
        self.key[used] = new_of[self.key[used]]
        self._learn_anew(used)

    def _learn_anew(self, used: Ints) -> None:
        """Where the cells are that are used."""
        if self._index is not None:
            self._index = Index()
            self._index.add(used, self.key, self.start)
            self.latest = int(self.start[used].max(initial=_NO_START))
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
        self._free_count = self.capacity - count
        self._free = np.zeros(self.capacity, dtype=np.int64)
        self._free[: self._free_count] = np.arange(self.capacity - 1, count - 1, -1)
        self._attention = [np.flatnonzero(self.needs[:count])]
        self._oldest = _NO_START
        self._learn_anew(np.arange(count))
        return count
