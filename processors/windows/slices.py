"""Panes by their times and keys, as windows that are over ask for them: those of one node all at once.

From one mark to the next the windows of a node move on by a few panes. So where its panes are is looked up once, and
kept up to date while panes come behind them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from processors.windows.cells import Cells, in_turn

Ints = npt.NDArray[np.int64]

_SPARSE = 4
"""Places for each pane, above which they are not kept."""
_SPARSE_LATER = 8
"""The same while panes come behind them: a device that is ahead of the others has a whole row for each of its times."""

_JOINED_MAX = 1 << 16
"""Places that are also kept as they were asked for: what is large takes no longer to be put together."""


class _Kept(NamedTuple):
    """All panes of `keys` (sorted) that begin at `first` or later, a row for each time that has any; -1: none."""

    first: int
    keys: Ints
    rows: dict[int, Ints]
    joined: tuple[int, int, Ints] | None = None
    """The rows of times that were asked for last: from, until, and all of them as they are."""


class _AtHand(NamedTuple):
    """A row of `panes` for each time from `first` on, a column for each of `keys`, sorted; -1: there is none."""

    first: int
    keys: Ints
    panes: Ints


_NOTHING = _AtHand(0, np.zeros(0, dtype=np.int64), np.zeros((0, 0), dtype=np.int64))


class Slices:
    """What is known of where the panes of `table` are, which are `pane_ms` long."""

    def __init__(self, table: Cells, pane_ms: int) -> None:
        self._table = table
        self._pane_ms = pane_ms
        self._kept: dict[int, _Kept] = {}  # by node
        self._at_hand = _NOTHING

    def of_node(self, node: int, keys: Ints, first: int, until: int) -> Ints:
        """The panes of a node's keys (sorted) that begin in [first, until), as rows; at hand until `let_go`."""
        kept, times = self._kept.get(node), range(first, until, self._pane_ms)
        if kept is not None and kept.first <= first and _same(kept.keys, keys):
            panes = self._join(kept, first, until)
        else:
            kept, panes = None, self._table.find_each(keys, np.array(times))
        self._at_hand = _AtHand(first, keys, panes)
        if np.count_nonzero(panes >= 0) * _SPARSE < panes.size or not panes.size:
            self._kept.pop(node, None)
        elif kept is None:
            later = range(until, self._table.latest + 1, self._pane_ms)
            if len(later) <= len(times):  # not if a clock is far ahead of the others
                rows = [*panes, *self._table.find_each(keys, np.array(later, dtype=np.int64))]
                self._kept[node] = _Kept(first, keys, dict(zip([*times, *later], rows, strict=True)))
        else:
            if kept.first < first:
                for time in [time for time in kept.rows if time < first]:
                    del kept.rows[time]
            joined = (first, until, panes) if panes.size <= _JOINED_MAX else None
            self._kept[node] = kept._replace(first=first, joined=joined)
        return panes

    def _join(self, kept: _Kept, first: int, until: int) -> Ints:
        """The rows of [first, until) as one."""
        pieces, at = [], first
        if kept.joined is not None:
            begin, end, panes = kept.joined
            if begin <= first < end <= until and not (first - begin) % self._pane_ms:
                pieces.append(panes[(first - begin) // self._pane_ms :])
                at = end
        none = np.full(len(kept.keys), -1, dtype=np.int64)
        pieces += [kept.rows.get(time, none)[np.newaxis] for time in range(at, until, self._pane_ms)]
        return np.concatenate(pieces)

    def at_hand(self, keys: Ints, starts: Ints, count: int) -> Ints:
        """So many panes for each of these windows, in a column; -1: there is none."""
        first, keys_there, panes = self._at_hand
        row, last = (int(time - first) // self._pane_ms for time in (starts.min(), starts.max()))
        if row >= 0 and last + count <= len(panes):
            if row == last and _same(keys, keys_there):
                return panes[row : row + count]
            column = np.minimum(np.searchsorted(keys_there, keys), len(keys_there) - 1)
            if (keys_there[column] == keys).all():
                rows = (starts - first) // self._pane_ms + np.arange(count)[:, np.newaxis]
                found: Ints = panes[rows, column]
                return found
        times = starts + np.arange(0, count * self._pane_ms, self._pane_ms)[:, np.newaxis]
        return self._table.get(in_turn(keys, count), times.ravel()).reshape(count, len(keys))

    def let_go(self) -> None:
        """The mark is done with: panes may come and go."""
        self._at_hand = _NOTHING

    def came(self, panes: Ints, nodes: Ints, keys: Ints, starts: Ints) -> None:
        """New panes, of these nodes, keys and starts."""
        for node in set(nodes.tolist()) if self._kept else ():
            kept = self._kept.get(node)
            if kept is None:
                continue
            mine = (nodes == node) & (panes >= 0)
            column = np.minimum(np.searchsorted(kept.keys, keys[mine]), len(kept.keys) - 1)
            if not (kept.keys[column] == keys[mine]).all():
                del self._kept[node]
                continue
            times = starts[mine]
            if kept.joined is not None and times.min(initial=kept.joined[1]) < kept.joined[1]:
                kept = self._kept[node] = kept._replace(joined=None)
            for time in set(times.tolist()):
                if time >= kept.first:
                    row = kept.rows.get(time)
                    if row is None:
                        if len(kept.rows) * len(kept.keys) > _SPARSE_LATER * len(self._table):
                            del self._kept[node]
                            break
                        row = kept.rows[time] = np.full(len(kept.keys), -1, dtype=np.int64)
                    row[column[times == time]] = panes[mine][times == time]

    def went(self, nodes: Ints, starts: Ints) -> None:
        """Panes of these nodes and starts are no more."""
        for node in set(nodes.tolist()) if self._kept else ():
            kept = self._kept.get(node)
            if kept is not None and starts[nodes == node].max() >= kept.first:
                del self._kept[node]

    def forget(self) -> None:
        """Everything has other numbers now."""
        self._kept.clear()


def _same(some: Ints, others: Ints) -> bool:
    """`np.array_equal` without its checks."""
    return some is others or (len(some) == len(others) and bool((some == others).all()))
