"""Applies watermark marks: how far the event time of each node has come, and what is still owed (docs/records.md).

A mark is the value of header `hw-mark`; it speaks of everything before and including its record. One partition of a
topic has one tracker. Marks of a native record speak of this partition alone. A copy (its record has a header `hw`)
comes from one of the node's `k` partitions, all of which are merged here: then the least over the k counts, and
there is no watermark before each of them has spoken.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from gateway.log.own_headers import Whole
from headwater.errors import UNREADABLE
from processors.intervals import Interval, merged

NODES_MAX = 100_000
LOST_MAX = 64
_OPEN_MAX = 1024  # more in one mark is no mark of ours
_PARTITIONS_MAX = 4096
CENTRAL = "central"
UNREAD = "$unread"
"""In whose name a relay topic is told which input partitions are still to be heard of (`unread`)."""


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a mark that a processor acts on; times are event time in ms since the Unix epoch.

    `live`: every source has come this far. `open`: intervals that backfill still owes. `lost`: [from, to, count] of
    intervals that were given up. `by` = "central": written by the partition's owner in the name of a silent node.
    `clock`: its node's, when it was made. Only in relay topics (`repartition`): `begin`, where the first window may
    begin; `input`, the partition in which it was read; `unread`, those to wait for until a mark of theirs comes.
    """

    node: str
    partition: Whole = 0
    k: Whole = 1
    n: Whole = 0
    epoch: Whole = 0
    live: Whole | None = None
    clock: Whole | None = None
    every_ms: Whole = 1000
    open: tuple[tuple[Whole, Whole], ...] = ()
    lost: tuple[tuple[Whole, Whole, Whole], ...] = ()
    by: str | None = None
    begin: Whole | None = None
    input: Whole | None = None
    unread: tuple[Whole, ...] | None = None


_DECODER = msgspec.json.Decoder(Mark)


def parse_mark(value: bytes) -> Mark:
    """Raises `ValueError` for what is no mark."""
    try:
        mark = _DECODER.decode(value)
    except UNREADABLE as error:
        raise ValueError(f"no mark: {error}") from None
    if not (mark.node and 1 <= mark.k <= _PARTITIONS_MAX and 0 <= mark.partition < mark.k):
        raise ValueError(f"no mark: partition {mark.partition} of {mark.k} of node “{mark.node}”")
    if len(mark.open) > _OPEN_MAX or len(mark.lost) > _OPEN_MAX:
        raise ValueError("no mark: more intervals than any mark has")
    return mark


class NodeMarks(msgspec.Struct):
    """What the marks of one node have said so far."""

    parts: dict[int, int | None] = {}  # source partition -> its live, which never falls
    open_of: dict[int, list[tuple[int, int]]] = {}
    lost: list[tuple[int, int]] = []
    expected: int = 1
    n: int = 0
    heard: int = 0  # how many marks came as copies
    silent_until: int | None = None  # what the partition's owner said last in its name, if it said nothing since

    @property
    def watermark(self) -> int | None:
        """The least `live` over the node's partitions; None while one of them has said nothing."""
        times = [live for live in self.parts.values() if live is not None]
        return min(times) if len(times) >= self.expected else None

    @property
    def open(self) -> list[Interval]:
        return merged(interval for intervals in self.open_of.values() for interval in intervals)


class WatermarkTracker:
    """The marks of all nodes of one partition. `apply` is the one function that acts on them."""

    def __init__(self) -> None:
        self.nodes: dict[str, NodeMarks] = {}
        self.begin: int | None = None  # only marks of a relay topic say where windows may begin
        self.ignored = 0

    def apply(self, mark: Mark, *, copied: bool) -> NodeMarks | None:
        """Take a mark in; returns its node's marks, or None for a mark of one node too many.

        A mark by the central changes nothing here: it never raises a node's `live`.
        """
        node = self.nodes.get(mark.node)
        if node is None:
            if len(self.nodes) >= NODES_MAX:
                self.ignored += 1
                return None
            node = self.nodes[mark.node] = NodeMarks()
        if mark.by is not None:
            node.silent_until = mark.live
            return node
        node.silent_until = None
        node.heard += copied
        part = mark.partition if copied else 0
        expected = mark.k if copied else 1
        if expected != node.expected:
            node.expected = expected
            node.parts = {index: live for index, live in node.parts.items() if index < expected}
            node.open_of = {index: intervals for index, intervals in node.open_of.items() if index < expected}
        old = node.parts.get(part)
        node.parts[part] = mark.live if old is None else old if mark.live is None else max(old, mark.live)
        node.open_of[part] = [(start, end) for start, end in mark.open]
        if mark.lost:
            _add_lost(node, [(start, end) for start, end, _ in mark.lost])
        node.n = mark.n
        return node

    def steps(self, mark: Mark, *, copied: bool) -> list[tuple[Mark, NodeMarks]]:
        """What a mark lets be done: itself, with all that its node's marks have said."""
        node = self.apply(mark, copied=copied)
        return [] if node is None else [(mark, node)]

    def watermark(self, node: str) -> int | None:
        found = self.nodes.get(node)
        return None if found is None else found.watermark

    def snapshot(self) -> dict[str, Any]:
        """Plain data for a checkpoint."""
        return {"nodes": msgspec.to_builtins(self.nodes, str_keys=False), "ignored": self.ignored}

    def restore(self, data: dict[str, Any]) -> None:
        self.nodes = msgspec.convert(data["nodes"], dict[str, NodeMarks])
        self.ignored = data["ignored"]


def _add_lost(node: NodeMarks, lost: Iterable[tuple[int, int]]) -> None:
    """Add intervals; the oldest are forgotten beyond a bound, when their windows' state is long gone."""
    joined: Sequence[Interval] = merged([*node.lost, *lost])
    node.lost = [(start, end) for start, end in joined[-LOST_MAX:]]
