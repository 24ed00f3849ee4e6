"""How far nodes have come that make no marks: what Kafka clients write that know nothing of Headwater. Sans-IO.

Such a node is taken to be complete up to the greatest event time of its readings, less a bound: what comes later than
that is late. It is said at fixed points of the log, behind the first reading in each second of event time, as if a
mark stood there; so the results depend on the log alone. A node whose readings say that a gateway wrote them waits
for its marks, and one that makes a mark is not foreign from there on.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any

import numpy as np

from gateway.log.own_headers import read_place
from gateway.log.records import decode_headers
from headwater.errors import UNREADABLE, PeerError
from processors.columns import Columns, Ints, KeyTable, MarkAt
from processors.marks import NODES_MAX, Mark

STEP_MS = 1_000
SHOWN = 10
_OF_GATEWAYS = frozenset({"hw-m", "hw-q", "hw-t", "hw-device"})


class ForeignNodes:
    """Of one partition."""

    def __init__(self) -> None:
        self._newest: dict[str, int] = {}  # of foreign nodes, in the order in which they were first heard
        self._native: set[str] = set()  # nodes whose marks are waited for

    def marks(self, columns: Columns, headers: Sequence[bytes], keys: KeyTable, lateness_ms: int) -> list[MarkAt]:
        """The block's marks with those of foreign nodes, by row."""
        found = list(columns.marks)
        spoke: dict[str, int] = {}  # nodes that make marks, and the first row with one
        for at in columns.marks:
            if at.mark.by is None:
                spoke.setdefault(at.mark.node, at.row)
        rows = np.flatnonzero(columns.key >= 0)
        nodes = keys.nodes_of[columns.key[rows]]
        for index in np.flatnonzero(np.bincount(nodes)).tolist():
            if (node := keys.nodes[index]) not in self._native:
                mine = rows[(nodes == index) & (rows < spoke.get(node, len(columns)))]
                found += self._steps(node, self._readings(mine, columns, keys), columns, headers, lateness_ms)
        for node in spoke:
            self._newest.pop(node, None)
            self._native.add(node)
        found.sort(key=lambda at: at.row)
        return found

    def _readings(self, rows: Ints, columns: Columns, keys: KeyTable) -> Ints:
        """Those of the rows that are no health readings, which the central writes in a silent node's name."""
        each = np.unique(columns.key[rows]).tolist()
        odd = [key for key in each if keys.device(key)[1].startswith("$")]
        return rows[~np.isin(columns.key[rows], odd)] if odd else rows

    def _steps(
        self, node: str, rows: Ints, columns: Columns, headers: Sequence[bytes], lateness_ms: int
    ) -> list[MarkAt]:
        if not len(rows):
            return []
        newest = self._newest.get(node, -STEP_MS)
        if newest < 0 and (
            len(self._native) + len(self._newest) >= NODES_MAX or _is_gateways(headers[int(rows[0])], node)
        ):
            self._native.add(node)
            return []
        times = np.maximum.accumulate(np.maximum(columns.time[rows], newest))
        self._newest[node] = int(times[-1])
        steps = np.flatnonzero(np.diff(times // STEP_MS, prepend=newest // STEP_MS))
        return [
            MarkAt(int(rows[step]), Mark(node=node, live=max(int(times[step]) - lateness_ms, 0)), copied=True)
            for step in steps.tolist()
        ]

    def names(self) -> list[str]:
        """Of foreign nodes, the first that were heard."""
        return list(islice(self._newest, SHOWN))

    def snapshot(self) -> dict[str, Any]:
        """Plain data for a checkpoint."""
        return {"newest": self._newest, "native": sorted(self._native)}

    def restore(self, data: dict[str, Any] | None, marked: Sequence[str]) -> None:
        """A snapshot of before foreign nodes were looked at has none; `marked`: nodes that make marks."""
        self._newest = dict(data["newest"]) if data else {}
        self._native = set(data["native"]) if data else set(marked)


def _is_gateways(section: bytes, node: str) -> bool:
    """Whether a reading bears what only a gateway writes: its place in this node's own log, or how it came."""
    try:
        headers = dict(decode_headers(section))
    except (PeerError, *UNREADABLE):
        return False
    if (identity := headers.get("hw")) is not None:
        place = read_place(identity)
        return place is not None and place[0].split(b"/", 1)[0] == node.encode()
    return not _OF_GATEWAYS.isdisjoint(headers)
