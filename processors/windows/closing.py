"""Windows of one rule over one partition: readings in, results out at marks only (design, sections 9 and 10).

A window [a, b) of a device closes at the first mark of its node whose watermark is at or above b with no open
interval touching it. Results are numbered: revision 0 first, n + 1 whenever a later mark finds that more is known.
Between marks nothing is emitted, so the results do not depend on how records were batched.

Here: the close rule for all kinds. The kinds: `windows` (side by side), `hopping`, `sessions`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from processors.columns import Columns, Ints, KeyTable
from processors.intervals import Bools, touching
from processors.marks import Mark, NodeMarks
from processors.results import NEVER, WindowResult
from processors.rules.model import WindowRule
from processors.windows.memory import WindowMemory

EVER = 1 << 62
"""Behind every event time."""


class WindowState(WindowMemory):
    """The windows of one rule. `add` and `close` are called in the order of the log."""

    def __init__(self, rule: WindowRule, keys: KeyTable) -> None:
        super().__init__(rule, keys)
        self._early_ms = rule.early_every_ms

    # what the kinds of windows do each in their own way

    def _place(self, key: Ints, time: Ints, nodes: Ints, rows: Ints, columns: Columns, begin: int, end: int) -> None:
        """Put the matching rows of [begin, end) into their cells; `rows` are they, counted from `begin`.

        What comes too late is put into `_refused`, by its place in `rows`, with the window that would have had it.
        """
        raise NotImplementedError

    def _prepare(self, index: int, before: int, watermark: int) -> list[WindowResult]:
        """A node's watermark went from `before` to `watermark`: have its windows in cells; what this alone says."""
        return []

    def _prepare_pending(self, index: int, end_max: int) -> None:
        """Have all windows of a node that end by then in cells."""

    def _labels(self, cells: Ints) -> Iterable[dict[str, Any]]:
        """What else results say of these windows."""
        return ({} for _ in range(len(cells)))

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
        nodes = self._nodes_of[key]
        self.counters.late += int((time < self._watermark[nodes]).sum())
        self._place(key, time, nodes, rows, columns, begin, end)
        if self._refused:
            for row, *window in self._refused:
                at = begin + int(rows[row])
                self._refuse(at, int(key[row]), int(time[row]), window, backfill=bool(columns.backfill[at]))
            self._refused.clear()
        self.counters.overflow += self.fields.overflow
        self.fields.overflow = 0

    # marks

    def close(self, mark: Mark, node: NodeMarks) -> list[WindowResult]:
        """What this mark lets be said, by window start and key. `node` are its node's marks, this one included."""
        index = self._keys.node_id(mark.node)
        self._learn_keys()
        if mark.by is not None:
            return self._silence(index, mark)
        watermark = node.watermark
        self._open[index] = node.open
        if watermark is None:
            return []
        before = int(self._watermark[index])
        self._watermark[index] = watermark = max(watermark, before)
        # Intervals given up concern windows that had nothing more to say: then all are looked at, not just the few.
        everything = node.lost != self._lost.get(index, [])
        self._lost[index] = list(node.lost)
        results = self._prepare(index, before, watermark)
        results += self._close(index, watermark, node, everything=everything)
        if self._early_ms and before // self._early_ms != watermark // self._early_ms:
            results += self._foretell(index, watermark)
        self._forget(index, watermark)
        results.sort(key=lambda result: (result.start, result.group))
        return results

    def pends(self, index: int, after: int, until: int) -> bool:
        """Whether a window of a node that nothing was told of ended in (`after`, `until`]."""
        state = self.cells
        cells = self._of_node(state.needing(), index, until)
        return bool(((state.revision[cells] < 0) & (state.end[cells] > after)).any())

    def everything(self) -> list[WindowResult]:
        """All windows as they are by now, of a state that never saw a mark."""
        self._learn_keys()
        for index in range(len(self._keys.nodes)):
            self._prepare_pending(index, EVER)
        cells = self.cells.used()
        return self._emit(cells, np.ones(len(cells), dtype=np.bool_), ["recompute"] * len(cells), settled=True)

    def _silence(self, index: int, mark: Mark) -> list[WindowResult]:
        """The owner of the partition found the node silent: say what there is of pending windows, once, incomplete."""
        end_max = EVER if mark.live is None else mark.live
        self._prepare_pending(index, end_max)
        cells = self._of_node(self.cells.needing(), index, end_max)
        state = self.cells
        cells = cells[(state.revision[cells] < 0) | (state.early[cells] & state.dirty[cells])]
        self._silent_until = max(self._silent_until, int(state.end[cells].max(initial=NEVER)))
        return self._emit(cells, np.zeros(len(cells), dtype=np.bool_), ["silent"] * len(cells), settled=False)

    def _foretell(self, index: int, watermark: int) -> list[WindowResult]:
        """What there is by now of windows that are under way."""
        state = self.cells
        cells = self._of_node(state.needing(), index, EVER)
        cells = cells[(state.start[cells] <= watermark) & (state.end[cells] > watermark) & state.dirty[cells]]
        found = self._emit(cells, np.zeros(len(cells), dtype=np.bool_), ["early"] * len(cells), settled=False)
        state.early[cells] = True
        return found

    def _close(self, index: int, watermark: int, node: NodeMarks, *, everything: bool) -> list[WindowResult]:
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
        causes = [self._cause(int(cell), lost=bool(gone)) for cell, gone in zip(cells[final], lost[final], strict=True)]
        unfinished = np.zeros(len(partial), dtype=np.bool_)
        results = self._emit(partial, unfinished, ["backfill"] * len(partial), settled=False)
        results += self._emit(cells[final], ~lost[final], causes, settled=True)
        state.rest(cells[~owed])
        state.need(cells[owed & changed])
        return results

    def _cause(self, cell: int, *, lost: bool) -> str:
        state = self.cells
        if lost:
            return "lost"
        if state.retro[cell] and not state.settled[cell]:
            return "backfill"
        return "late" if state.settled[cell] else "close"

    def _emit(self, cells: Ints, complete: Bools, causes: Sequence[str], *, settled: bool) -> list[WindowResult]:
        if not len(cells):
            return []
        state, names = self.cells, self._keys.names
        foretold = state.early[cells] | (state.revision[cells] < 0)
        state.revision[cells] += 1
        first = complete & ~state.told[cells]
        retro = state.retro[cells]
        state.told[cells] |= complete
        state.complete[cells] = complete
        state.settled[cells] = settled
        state.dirty[cells] = state.early[cells] = False
        self.counters.windows_emitted += len(cells)
        self.counters.revisions += int((state.revision[cells] > 0).sum())
        counts, fields = self._contents(cells)
        columns = (names[key] for key in state.key[cells].tolist())
        starts = state.start[cells].tolist()
        rows = zip(
            *(columns, starts, state.end[cells].tolist(), state.revision[cells].tolist(), complete.tolist(), causes),
            *(retro.tolist(), first.tolist(), counts.tolist(), fields, self._more(cells, counts, fields, foretold)),
            strict=True,
        )
        results = [WindowResult(*row) for row in rows]
        results.sort(key=lambda result: (result.start, result.group))
        return results

    def _more(self, cells: Ints, counts: Ints, fields: Sequence[Any], first: Bools) -> Iterator[dict[str, Any]]:
        """What else results say: of a revision (but of `first` results) what was told before."""
        rows = zip(cells.tolist(), counts.tolist(), fields, first.tolist(), self._labels(cells), strict=True)
        for cell, count, found, none, label in rows:
            if none:
                yield label
                continue
            was_count, was = self._told.pop(cell, (count, found))
            yield {**label, "before": {"count": was_count, "fields": was}}
