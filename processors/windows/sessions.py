"""Session windows: readings of a device that follow each other within a gap. A late reading may join two of them.

A session is [first reading, last reading + gap); a reading inside it, or less than the gap before it, belongs to it.
Sessions that a reading joins become the earliest of them. One that had been told already is taken back at the next
mark: a last revision without readings, cause `merged`, which names the session that has them now.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import Any

import numpy as np

from processors.columns import Columns, Ints, KeyTable
from processors.intervals import Bools
from processors.results import Told
from processors.rules.model import WindowRule
from processors.windows.cells import tally
from processors.windows.closing import WindowState

_REFUSED = -1
_TOO_LATE = -2


class SessionWindows(WindowState):
    """Cells are sessions; `_of_key` has those of each key as sorted starts and the cells beside them."""

    _is_looked_up = False

    def __init__(self, rule: WindowRule, keys: KeyTable) -> None:
        super().__init__(rule, keys)
        self._gap = rule.gap_ms
        self._slack = rule.gap_ms - 1
        self._of_key: dict[int, tuple[list[int], list[int]]] = {}
        self._taken_back: list[tuple[int, int, int, int]] = []  # key, start, end and next revision of those told
        self._newest: Ints = np.zeros(0, dtype=np.int64)  # per key the cell of its latest session, -1: none

    def _begin_behind(self, newest: int) -> int:
        return newest + self._gap

    def _step(self, watermark: int) -> int:
        return watermark // self._gap

    def _reach(self, cells: Ints) -> tuple[Ints, Ints]:
        return self.cells.start[cells] - self._gap + 1, self.cells.end[cells]

    # readings

    def _place(self, key: Ints, time: Ints, rows: Ints, columns: Columns, begin: int, end: int) -> None:
        """Rows that only prolong the latest session of their key are placed together, others one by one."""
        nodes = self._nodes_of[key]
        self._keep_told_near(key, time, nodes)
        cells = self._prolonging(key, time)
        backfill = columns.backfill[begin:end][rows]
        done = 0
        for row in np.flatnonzero(cells < 0).tolist():
            absorbed = self._join(int(key[row]), int(time[row]), int(nodes[row]))
            if len(absorbed) > 1:  # what came before this row goes into the sessions as they were
                self._take(columns, begin, end, rows[done:row], cells[done:row], backfill[done:row])
                done = row
                self._merge(absorbed)
            cells[row] = absorbed[0]
            if absorbed[0] == _TOO_LATE:
                self._refused.append((row, int(time[row]), int(time[row]) + self._gap))
        self._take(columns, begin, end, rows[done:], cells[done:], backfill[done:])

    def _keep_told_near(self, key: Ints, time: Ints, nodes: Ints) -> None:
        """Of the sessions that these rows may change."""
        told = []
        for row in np.flatnonzero(time < np.maximum(self._watermark[nodes], self._silent_until)).tolist():
            starts, cells = self._of_key.get(int(key[row]), ((), ()))
            for place in range(bisect_left(starts, int(time[row]) + self._gap) - 1, -1, -1):
                if self.cells.end[cells[place]] <= time[row]:
                    break
                told.append(cells[place])
        if told:
            self._keep_told(np.array(told, dtype=np.int64))

    def _take(self, columns: Columns, begin: int, end: int, rows: Ints, cells: Ints, backfill: Any) -> None:
        kept = np.flatnonzero(cells >= 0)
        if len(kept) < len(cells):
            rows, cells, backfill = rows[kept], cells[kept], backfill[kept]
        if len(rows):
            self.fields.grow(self.cells.capacity)
            each, counts = tally(cells)
            self.cells.touch(each, counts)
            self.cells.enliven(each, cells, backfill)
            self.fields.add(columns, begin, end, None if len(rows) == end - begin else rows, cells)

    def _prolonging(self, key: Ints, time: Ints) -> Ints:
        """Cells of rows whose key has, in all of these rows, nothing but later and later readings of its latest
        session; -1 for the rows of other keys. Prolongs those sessions.
        """
        missing = len(self._keys) - len(self._newest)
        if missing > 0:
            self._newest = np.concatenate([self._newest, np.full(missing, -1, dtype=np.int64)])
        order = np.argsort(key, kind="stable")
        keys, times = key[order], time[order]
        first = np.diff(keys, prepend=-1) != 0
        latest = self._newest[keys]
        before = np.where(first, self.cells.end[latest] - self._gap, np.roll(times, 1))
        steps = times - before
        good = (latest >= 0) & (steps < self._gap) & (steps >= 0)
        begins = np.flatnonzero(first)
        bad = np.unique(keys[begins[np.add.reduceat(~good, begins, dtype=np.int64) > 0]]) if len(begins) else keys
        good = ~np.isin(keys, bad) if len(bad) else np.ones(len(keys), dtype=np.bool_)
        cells = np.empty(len(key), dtype=np.int64)
        cells[order] = np.where(good, latest, -1)
        np.maximum.at(self.cells.end, latest[good], times[good] + self._gap)
        return cells

    def _join(self, key: int, time: int, node: int) -> list[int]:
        """The cells of the sessions that a reading belongs to, the earliest first; a new one when there is none.

        The first one's bounds take the reading in; joining the others is left to `_merge`. Negative when it is refused.
        """
        starts, cells = self._of_key.setdefault(key, ([], []))
        gap = self._gap
        low = bisect_right(starts, time) - 1
        if low < 0 or time >= self.cells.end[cells[low]]:
            low += 1
        high = bisect_left(starts, time + gap)
        if low == high:
            return [self._begin_session(key, time, node, low)]
        found = cells[low:high]
        if time < starts[low]:
            if self._is_let_go(time, node):
                return [_TOO_LATE]  # its name would be that of a session which may have been told and forgotten
            self._begin_earlier(found[0], time)
            starts[low] = time
            found[0] = cells[low]
        cell = found[0]
        self.cells.end[cell] = max(int(self.cells.end[cell]), time + gap)
        self._newest[key] = cells[-1]
        return found

    def _is_let_go(self, time: int, node: int) -> bool:
        reach = (time - self._gap + 1, time + self._gap)
        return time < self._horizon(node) and not self._owed.lets_begin(node, *reach, time + 1)

    def _begin_session(self, key: int, time: int, node: int, place: int) -> int:
        starts, cells = self._of_key[key]
        if self._is_let_go(time, node):
            return _TOO_LATE
        cell = self.cells.make_one(key, time, time + self._gap)
        if cell < 0:
            self.counters.overflow += 1
            return _REFUSED
        starts.insert(place, time)
        cells.insert(place, cell)
        self._newest[key] = cells[-1]
        return cell

    def _begin_earlier(self, cell: int, start: int) -> None:
        """A session turns out to have begun earlier: it has another name, and what was told is taken back."""
        state = self.cells
        self._take_back(cell)
        self._told.pop(cell, None)
        state.start[cell] = start
        state.revision[cell] = -1
        state.settled[cell] = state.complete[cell] = state.told[cell] = False

    def _take_back(self, cell: int) -> None:
        state = self.cells
        if state.revision[cell] >= 0:
            told = (state.key[cell], state.start[cell], state.end[cell], state.revision[cell] + 1)
            self._taken_back.append((int(told[0]), int(told[1]), int(told[2]), int(told[3])))

    def _merge(self, absorbed: list[int]) -> None:
        """Put sessions into the first of them."""
        state = self.cells
        into, others = absorbed[0], absorbed[1:]
        starts, cells = self._of_key[int(state.key[into])]
        target = np.array([into])
        self.fields.grow(state.capacity)
        for cell in others:
            self._take_back(cell)
            for field in self.fields.states.values():
                field.merge(target, field, np.array([cell]))
            state.count[into] += state.count[cell]
            state.end[into] = max(state.end[into], state.end[cell])
            for flag in (state.live, state.retro):
                flag[into] |= flag[cell]
            place = cells.index(cell)
            del starts[place], cells[place]
            self._newest[int(state.key[into])] = cells[-1]
        gone = np.array(others)
        self._drop_told(gone)
        state.rest_of(gone)
        self.fields.clear(gone)
        state.free(gone)

    def give_up(self, node: str) -> None:
        """What goes on stays, so that no session seems to begin in its middle; it is never told."""

    # marks

    def _prepare(self, index: int, before: int, watermark: int) -> list[Told]:
        """What was told of sessions that are no more."""
        mine = [told for told in self._taken_back if self._nodes_of[told[0]] == index]
        if not mine:
            return []
        self._taken_back = [told for told in self._taken_back if self._nodes_of[told[0]] != index]
        self.counters.windows_emitted += len(mine)
        self.counters.revisions += len(mine)
        keys, starts, ends, revisions = (list(column) for column in zip(*mine, strict=True))
        count, places = len(mine), zip(keys, starts, strict=True)
        return [
            Told(
                groups=[self._keys.names[key] for key in keys],
                starts=starts,
                ends=ends,
                revisions=revisions,
                complete=[True] * count,
                causes=["merged"] * count,
                retro=[False] * count,
                first_complete=[False] * count,
                readings=[0] * count,
                fields=[],
                more={row: {"merged_into": self._start_around(*place)} for row, place in enumerate(places)},
            )
        ]

    def _start_around(self, key: int, time: int) -> int | None:
        starts, _ = self._of_key.get(key, ([], []))
        place = bisect_right(starts, time) - 1
        return starts[place] if place >= 0 else None

    def _sweep(self, index: int, horizon: int) -> None:
        super()._sweep(index, horizon)
        # Sessions that may have begun before this rule did are never told.
        used = self.cells.used()
        mine = used[self._nodes_of[self.cells.key[used]] == index]
        begin = self._begin_of(self.cells.key[mine])
        partial = mine[(self.cells.start[mine] < begin) & (self.cells.end[mine] <= horizon)]
        if len(partial):
            self.cells.rest_of(partial)
            self._free(partial)

    def _free(self, cells: Ints) -> None:
        for cell, key in zip(cells.tolist(), self.cells.key[cells].tolist(), strict=True):
            starts, of_key = self._of_key[key]
            place = of_key.index(cell)
            del starts[place], of_key[place]
            self._newest[key] = of_key[-1] if of_key else -1
        super()._free(cells)

    def mark_keys(self, used: Bools) -> None:
        super().mark_keys(used)
        used[[key for key, *_ in self._taken_back]] = True

    def renumber(self, new_of: Ints, new_node_of: Ints) -> None:
        super().renumber(new_of, new_node_of)
        self._taken_back = [(int(new_of[key]), start, end, last) for key, start, end, last in self._taken_back]
        self._sort_in()

    # checkpoints

    def snapshot(self) -> dict[str, Any]:
        return super().snapshot() | {"taken_back": self._taken_back}

    def restore(self, data: dict[str, Any]) -> None:
        super().restore(data)
        self._taken_back = [(key, start, end, revision) for key, start, end, revision in data["taken_back"]]
        self._sort_in()

    def _sort_in(self) -> None:
        """Which sessions each key has, by its cells."""
        self._of_key = {}
        used = self.cells.used()
        self._newest = np.full(len(self._keys), -1, dtype=np.int64)
        for cell in used[np.lexsort((self.cells.start[used], self.cells.key[used]))].tolist():
            key = int(self.cells.key[cell])
            starts, cells = self._of_key.setdefault(key, ([], []))
            starts.append(int(self.cells.start[cell]))
            cells.append(cell)
            self._newest[key] = cell
