"""Nodes that fell silent: the owner of their partition writes a mark in their name (docs/windows.md). Sans-IO.

That a node is silent is judged by a clock, so it is written into the log first, and acted upon when it is read back: a
replay closes the same windows at the same points. The mark raises no watermark. Windows whose time is over are told
once, incomplete; when more of them are over while the node stays silent, another mark is written for these.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import msgspec

from gateway.log.records import Record, encode_headers
from processors.marks import CENTRAL, NodeMarks

HEALTH_DEVICE = "$gateway"


class Pending(Protocol):
    """What knows of windows that wait for a mark: `PartitionProcessor`."""

    def pends(self, node: str, after: int, until: int) -> bool: ...


class SilenceWatch:
    """Nodes of one partition. Ask only when all of the partition was read, or what is late here looks like silence."""

    def __init__(self, after_ms: float) -> None:
        self._after_ms = after_ms
        self._heard: dict[str, tuple[int, float]] = {}  # node -> its marks so far, and since when it has made no more

    def look(
        self, nodes: Mapping[str, NodeMarks], pending: Pending, *, now_ms: float, wall_ms: int
    ) -> list[tuple[str, float]]:
        """Nodes in whose name a mark is due, and for how long each was silent. `now_ms`: a clock that never steps."""
        found = []
        heard = self._heard
        for name, node in nodes.items():
            if not node.heard:
                continue  # it is this node itself, or somebody without marks
            count, since = heard.get(name, (-1, 0.0))
            if count != node.heard:
                heard[name] = (node.heard, now_ms)
            elif now_ms - since >= self._after_ms and (
                node.silent_until is None or pending.pends(name, node.silent_until, wall_ms)
            ):
                found.append((name, now_ms - since))
        for name in heard.keys() - nodes.keys():
            del heard[name]
        return found


def silence_record(node: str, silent_ms: float, wall_ms: int) -> Record:
    """The health reading that carries the mark: (timestamp, key, value, headers)."""
    mark = {"v": 1, "node": node, "epoch": 0, "partition": 0, "k": 1, "n": 0, "live": wall_ms, "by": CENTRAL}
    value = {"silent_s": round(silent_ms / 1000)}
    headers = encode_headers([("hw-mark", msgspec.json.encode(mark | {"clock": wall_ms}))])
    return wall_ms, f"{node}/{HEALTH_DEVICE}".encode(), msgspec.json.encode(value), headers
