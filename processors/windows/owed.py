"""Which windows may begin though their time is over: those to which data has been owed all the while. Sans-IO.

A window that was told and forgotten must not begin again: its first readings are gone, and its revisions would be
numbered from 0 once more. That a window was told is not remembered for ever; but what was owed when its time was over,
and has been owed ever since, was not forgotten meanwhile. So each piece of an owed interval bears the time up to which
windows had been let go of when it was first owed: windows that end later may begin, others may not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from processors.intervals import Interval
from processors.results import NEVER

PIECES_MAX = 1024
Piece = tuple[int, int, int]
"""First and last time, both inside, and up to when windows had been let go of when it was first owed."""


class Owed:
    """What nodes owe, by their numbers."""

    def __init__(self) -> None:
        self._pieces: dict[int, list[Piece]] = {}

    def take(self, node: int, intervals: Sequence[Interval], let_go: int) -> None:
        """A mark says what a node owes (sorted, apart); windows that ended by `let_go` may have been forgotten."""
        if not intervals:
            self._pieces.pop(node, None)
            return
        found: list[Piece] = []
        before = self._pieces.get(node, [])
        for first, last in intervals:
            at = first
            for start, end, then in before:
                if end < at or start > last:
                    continue
                if start > at:
                    found.append((at, start - 1, let_go))
                found.append((max(at, start), min(end, last), then))
                at = min(end, last) + 1
            if at <= last:
                found.append((at, last, let_go))
        found = _joined(found)
        # Of too many pieces all count as new: rather is a window refused than told twice.
        self._pieces[node] = found if len(found) <= PIECES_MAX else [(*one, let_go) for one in intervals]

    def lets_begin(self, node: int, start: int, end: int, over: int) -> bool:
        """Whether a window of the times [start, end), of which nothing comes any more from `over` on, may begin."""
        return any(
            start <= last and end > first and over > let_go for first, last, let_go in self._pieces.get(node, ())
        )

    def pieces(self, node: int) -> list[Piece]:
        """Of one node."""
        return self._pieces.get(node, [])

    def renumber(self, new_node_of: Sequence[int]) -> None:
        """Nodes have other numbers now, -1 for those that are gone."""
        self._pieces = {new_node_of[node]: found for node, found in self._pieces.items() if new_node_of[node] >= 0}

    def snapshot(self) -> dict[int, Any]:
        return dict(self._pieces)

    def restore(self, data: dict[int, Any]) -> None:
        """A snapshot of before there were pieces has intervals alone: as if they had been owed always."""
        self._pieces = {
            node: [(one[0], one[1], one[2] if len(one) > 2 else NEVER) for one in found] for node, found in data.items()
        }


def _joined(pieces: Sequence[Piece]) -> list[Piece]:
    found: list[Piece] = []
    for first, last, let_go in pieces:
        if found and found[-1][1] + 1 == first and found[-1][2] == let_go:
            found[-1] = (found[-1][0], last, let_go)
        else:
            found.append((first, last, let_go))
    return found
