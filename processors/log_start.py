"""A partition that is read from behind records which have left its log: which windows may lack readings. Sans-IO.

Of what is gone nothing is known but that it came before the first record that is left. So of each node windows are told
only from behind the newest time that it is known to have come to: that of its readings and marks up to the first that
makes a watermark, and by as much more as a device's clock may be ahead. Before that mark nothing of the node is told.
It depends on nothing but the log and its start, so a replay from there tells the same.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from processors.columns import Columns, KeyTable
from processors.marks import Mark, NodeMarks

AHEAD_MAX_MS = 300_000
"""A reading's time is at most so far ahead of its arrival (docs/records.md)."""
LATECOMER_MS = 86_400_000
"""A node that is first heard of so long behind the others' first marks has nothing of that time among what is gone."""


class LogStart:
    """Of one partition. `offset`: what is below it is gone; None while nothing is missing."""

    def __init__(self) -> None:
        self.offset: int | None = None
        self.begins: dict[str, int] = {}
        """By node, the time behind which its windows are told."""
        self.is_new = False  # whether it was lost in this life
        self._newest: dict[str, int] = {}  # of nodes of which no mark was read yet
        self._until: int | None = None  # no node's windows are told from later on

    def lost(self, offset: int) -> None:
        """What is below `offset` is gone: nodes are to be heard of anew."""
        self.offset, self.begins, self._newest, self._until = offset, {}, {}, None
        self.is_new = True

    def take(self, columns: Columns, begin: int, end: int, keys: KeyTable) -> None:
        """Rows [begin, end) of what is left."""
        if self.offset is None:
            return
        known = np.flatnonzero(columns.key[begin:end] >= 0) + begin
        nodes = keys.nodes_of[columns.key[known]]
        for index in np.flatnonzero(np.bincount(nodes)).tolist():
            if (node := keys.nodes[index]) not in self.begins:
                newest = int(columns.time[known[nodes == index]].max())
                self._newest[node] = max(newest, self._newest.get(node, newest))

    def settle(self, mark: Mark, marks: NodeMarks) -> int | None:
        """A mark of a node; the time behind which its windows are told, if this is the mark that says so."""
        if not self.holds(mark.node) or (watermark := marks.watermark) is None:
            return None
        newest = max(watermark, self._newest.pop(mark.node, watermark))
        if self._until is None:
            self._until = max(newest, mark.clock or 0) + LATECOMER_MS
        self.begins[mark.node] = begin = min(newest + AHEAD_MAX_MS, self._until)
        return begin

    def holds(self, node: str) -> bool:
        """Whether nothing may be told of a node yet."""
        return self.offset is not None and node not in self.begins

    def snapshot(self) -> list[Any]:
        """Plain data for a checkpoint."""
        return [self.offset, self.begins, self._newest, self._until]

    def restore(self, data: list[Any] | None) -> None:
        """A snapshot of before this was looked at has none."""
        self.offset, self.begins, self._newest, self._until = data or (None, {}, {}, None)
        self.is_new = False
