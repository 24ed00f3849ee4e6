"""Windows of one rule over one partition: readings in, results out at marks only (docs/windows.md).

A window [a, b) of a device closes at the first mark of its node whose watermark is at or above b with no open
interval touching it. Results are numbered: revision 0 first, n + 1 whenever a later mark finds that more is known.
Between marks nothing is emitted, so the results do not depend on how records were batched.

Here: the close rule for all kinds. The kinds: `windows` (side by side), `hopping`, `sessions`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from processors.columns import Columns, Ints, KeyTable
from processors.intervals import Bools, touching
from processors.marks import Mark, NodeMarks
from processors.results import EVER, NEVER, FieldResults, Results, Told, by_window
from processors.rules.model import WindowRule
from processors.windows.memory import WindowMemory


class WindowState(WindowMemory):
    """The windows of one rule. `add` and `close` are called in the order of the log."""

    def __init__(self, rule: WindowRule, keys: KeyTable) -> None:
        super().__init__(rule, keys)
        self._early_ms = rule.early_every_ms

    # what the kinds of windows do each in their own way

    @abstractmethod
    def _place(self, key: Ints, time: Ints, rows: Ints, columns: Columns, begin: int, end: int) -> None:
        """Put the matching rows of [begin, end) into their cells; `rows` are they, counted from `begin`.

        What comes too late is put into `_refused`, by its place in `rows`, with the window that would have had it.
        """

    def _prepare(self, index: int, before: int, watermark: int) -> list[Told]:
        """A node's watermark went from `before` to `watermark`: have its windows in cells; what this alone says."""
        return []

    def _prepare_pending(self, index: int, end_max: int) -> None:
        """Have all windows of a node that end by then in cells."""

    def _labels(self, cells: Ints) -> Iterable[tuple[int, dict[str, Any]]]:
        """What else results say of some of these windows, by their places."""
        return ()

    # readings

    def add(self, columns: Columns, begin: int, end: int) -> None:
        """Take in rows [begin, end)."""
        self._learn_keys()
        key = columns.key[begin:end]
        rows = np.flatnonzero(self._matches[key])  # key -1 finds the last element, which is False
        if not len(rows):
            return
        everything = len(rows) == end - begin
        key = key if everything else key[rows]
        time = columns.time[begin:end] if everything else columns.time[begin:end][rows]
        if time.min() < self._watermark.max():  # else none is late, whatever its node
            self.counters.late += int((time < self._watermark[self._nodes_of[key]]).sum())
        self._place(key, time, rows, columns, begin, end)
        if self._refused:
            for row, *window in self._refused:
                at = begin + int(rows[row])
                self._refuse(at, int(key[row]), int(time[row]), window, backfill=bool(columns.backfill[at]))
            self._refused.clear()
        self.counters.overflow += self.fields.overflow
        self.fields.overflow = 0

    # marks

    def close(self, mark: Mark, node: NodeMarks) -> Results:
        """What this mark lets be said, by window start and key. `node` are its node's marks, this one included."""
        index = self._keys.node_id(mark.node)
        self._learn_keys()
        if mark.by is not None:
            return Results(self._silence(index, mark))
        watermark = node.watermark
        self._owed.take(index, node.open, self._horizon(index))
        self._open[index] = node.open
        if watermark is None:
            return Results(())
        before = int(self._watermark[index])
        self._watermark[index] = watermark = max(watermark, before)
        # Intervals given up concern windows that had nothing more to say: then all are looked at, not just the few.
        everything = node.lost != self._lost.get(index, [])
        self._lost[index] = list(node.lost)
        told = self._prepare(index, before, watermark)
        told += self._close(index, watermark, node, everything=everything)
        if self._early_ms and before // self._early_ms != watermark // self._early_ms:
            told += self._foretell(index, watermark)
        self._forget(index, watermark)
        return Results(told)

    def pends(self, index: int, after: int, until: int) -> bool:
        """Whether a window of a node that nothing was told of ended in (`after`, `until`]."""
        state = self.cells
        cells = self._of_node(state.needing(), index, until)
        return bool(((state.revision[cells] < 0) & (state.end[cells] > after)).any())

    def everything(self) -> Results:
        """All windows as they are by now, of a state that never saw a mark."""
        self._learn_keys()
        for index in range(len(self._keys.nodes)):
            self._prepare_pending(index, EVER)
        cells = self.cells.used()
        return Results(self._emit(cells, np.ones(len(cells), dtype=np.bool_), "recompute", settled=True))

    def _silence(self, index: int, mark: Mark) -> list[Told]:
        """The owner of the partition found the node silent: say what there is of pending windows, once, incomplete."""
        end_max = EVER if mark.live is None else mark.live
        self._prepare_pending(index, end_max)
        cells = self._of_node(self.cells.needing(), index, end_max)
        state = self.cells
        cells = cells[(state.revision[cells] < 0) | (state.early[cells] & state.dirty[cells])]
        self._silent_until = max(self._silent_until, int(state.end[cells].max(initial=NEVER)))
        return self._emit(cells, np.zeros(len(cells), dtype=np.bool_), "silent", settled=False)

    def _foretell(self, index: int, watermark: int) -> list[Told]:
        """What there is by now of windows that are under way."""
        state = self.cells
        cells = self._of_node(state.needing(), index, EVER)
        cells = cells[(state.start[cells] <= watermark) & (state.end[cells] > watermark) & state.dirty[cells]]
        found = self._emit(cells, np.zeros(len(cells), dtype=np.bool_), "early", settled=False)
        state.early[cells] = True
        return found

    def _close(self, index: int, watermark: int, node: NodeMarks, *, everything: bool) -> list[Told]:
        state = self.cells
        cells = self._of_node(state.used() if everything else state.needing(), index, watermark)
        if not len(cells):
            return []
        starts, ends = self._reach(cells)
        owed = touching(starts, ends, node.open)
        settled, complete = state.settled[cells], state.complete[cells]
        # What was lost once stays lost, though its interval may be forgotten by now.
        lost = touching(starts, ends, node.lost) | (settled & ~complete)
        # What only backfill brought is backfill's also when it is all there before a mark can say that it was owed.
        state.retro[cells[(owed | ~state.live[cells]) & ~settled]] = True
        partial = cells[owed & ((state.revision[cells] < 0) | state.early[cells]) & state.live[cells]]
        changed = ~settled | state.dirty[cells] | (complete & lost)
        final = ~owed & changed
        results = self._emit(partial, np.zeros(len(partial), dtype=np.bool_), "backfill", settled=False)
        told, lost = (cells, lost) if final.all() else (cells[final], lost[final])
        causes = _causes(lost, settled[final], state.retro[told])
        results += self._emit(told, ~lost, causes, settled=True)
        if owed.any():
            state.rest(cells[~owed])
            state.need(cells[owed & changed])
        else:
            state.rest(cells)
        return results

    def _emit(self, cells: Ints, complete: Bools, causes: Sequence[str] | str, *, settled: bool) -> list[Told]:
        """What there is of these windows; `causes`: that of each, or of all of them."""
        if not len(cells):
            return []
        state, names, count = self.cells, self._keys.names, len(cells)
        foretold = state.early[cells] | (state.revision[cells] < 0)
        state.revision[cells] += 1
        first = complete & ~state.told[cells]
        retro = state.retro[cells]
        state.told[cells] |= complete
        state.complete[cells] = complete
        state.settled[cells] = settled
        state.dirty[cells] = state.early[cells] = False
        revisions = state.revision[cells]
        self.counters.windows_emitted += count
        self.counters.revisions += int(np.count_nonzero(revisions > 0))
        readings, fields = self._contents(cells)
        return [
            Told(
                groups=list(map(names.__getitem__, state.key[cells].tolist())),
                starts=state.start[cells].tolist(),
                ends=state.end[cells].tolist(),
                revisions=revisions.tolist(),
                complete=complete.tolist(),
                causes=[causes] * count if isinstance(causes, str) else list(causes),
                retro=retro.tolist(),
                first_complete=first.tolist(),
                readings=readings.tolist(),
                fields=fields,
                more=self._more(cells, readings, fields, np.flatnonzero(~foretold)),
            )
        ]

    def _more(
        self, cells: Ints, readings: Ints, fields: Sequence[FieldResults], again: Ints
    ) -> dict[int, dict[str, Any]]:
        """What else is said, by row: of those told `again` what was told before."""
        more = dict(self._labels(cells))
        if len(again):
            now = by_window(fields, len(cells))
            for row in again.tolist():
                count, was = self._told.pop(int(cells[row]), (int(readings[row]), now[row]))
                more[row] = {**more.get(row, {}), "before": {"count": count, "fields": was}}
        return more


def _causes(lost: Bools, settled: Bools, retro: Bools) -> list[str] | str:
    """Why windows are told that nothing is owed to: that of each, or of all of them."""
    if not (lost.any() or settled.any() or retro.any()):
        return "close"
    causes: list[str] = np.where(lost, "lost", np.where(settled, "late", np.where(retro, "backfill", "close"))).tolist()
    return causes
