"""The judge's books: what the edge's and the central's logs hold, as an outsider reads them. Sans-IO.

Fed record by record in any order, bounded by what is remembered per reading (one bit for its sequence number, one
for its identity) and per window.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import msgspec

from headwater.errors import UNREADABLE
from simulators.truth import WINDOW_MS, DeviceTruth

Headers = Iterable[tuple[str, bytes | None]] | None
GATEWAY_DEVICE = "$gateway"
_decode = msgspec.json.Decoder(dict[str, Any]).decode


class Bits:
    """A set of small whole numbers, one bit each."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def add(self, number: int) -> bool:
        """True when it was not there yet."""
        index, bit = number >> 3, 1 << (number & 7)
        if index >= len(self._bytes):
            self._bytes.extend(bytes(index + 1024 - len(self._bytes)))
        new = not self._bytes[index] & bit
        self._bytes[index] |= bit
        return new

    def __contains__(self, number: int) -> bool:
        index = number >> 3
        return index < len(self._bytes) and bool(self._bytes[index] & 1 << (number & 7))


class ReadingsBook:
    """Topic `readings` of one node.

    `timed_by_log`: devices whose windows are recomputed from the log's own timestamps; with them every device that
    the ledger does not know (`known`).
    """

    def __init__(self, known: Collection[str], timed_by_log: Collection[str] = ()) -> None:
        self.readings = self.duplicates = 0
        self.undecodable = 0
        self.live: dict[str, int] = {}  # node -> the furthest mark's `live`
        self.truths: dict[str, DeviceTruth] = {}
        self.groups: dict[str, str] = {}  # device -> record key
        self._known, self._timed_by_log = frozenset(known), frozenset(timed_by_log)
        self._seqs: dict[str, Bits] = {}
        self._identities: dict[bytes, Bits] = {}

    def add(self, key: bytes | None, value: bytes | None, timestamp_ms: int, headers: Headers) -> None:
        """One record."""
        new = True
        for name, content in headers or ():
            if name == "hw" and content is not None:
                new &= self._new_identity(content)
            elif name == "hw-mark" and content is not None:
                self._mark(content)
        group = (key or b"").decode(errors="replace")
        device = group.partition("/")[2]
        if device == GATEWAY_DEVICE:
            self.duplicates += not new
            return
        self.readings += 1
        try:
            values = _decode(value or b"")
        except UNREADABLE:
            self.undecodable += 1
            self.duplicates += not new
            return
        if device in self._known:
            new &= self._seqs.setdefault(device, Bits()).add(int(values.get("seq", 0)))
        if device in self._timed_by_log or device not in self._known:
            self.truths.setdefault(device, DeviceTruth()).add(timestamp_ms, values)
        self.groups[device] = group
        self.duplicates += not new

    def has(self, device: str, seq: int) -> bool:
        bits = self._seqs.get(device)
        return bits is not None and seq in bits

    def _new_identity(self, content: bytes) -> bool:
        """`node/epoch/partition/offset`, seen for the first time?"""
        source, _, offset = content.rpartition(b"/")
        return self._identities.setdefault(source, Bits()).add(int(offset))

    def _mark(self, content: bytes) -> None:
        mark = _decode(content)
        node, live = mark.get("node"), mark.get("live")
        if isinstance(node, str) and isinstance(live, int) and mark.get("by") is None:
            self.live[node] = max(live, self.live.get(node, live))


class WindowsBook:
    """Topic `aggregates`: each window's last revision, and its revision 0."""

    def __init__(self) -> None:
        self.results = 0
        self._last: dict[tuple[str, str, int], tuple[int, bytes]] = {}
        self._first: dict[tuple[str, str, int], bytes] = {}

    def add(self, value: bytes | None) -> None:
        """One record; windows of another length are another rule's business."""
        if value is None:
            return
        result = _decode(value)
        if result.get("end", 0) - result.get("start", 0) != WINDOW_MS:
            return
        self.results += 1
        window = (result["group"], result["rule"], result["start"])
        revision = int(result["revision"])
        if revision == 0:
            self._first[window] = value
        if revision >= self._last.get(window, (-1, b""))[0]:
            self._last[window] = (revision, value)

    def of(self, group: str) -> dict[int, list[tuple[Mapping[str, Any], Mapping[str, Any] | None]]]:
        """Window start -> for each rule (last revision, revision 0 or None) of one group."""
        found: dict[int, list[tuple[Mapping[str, Any], Mapping[str, Any] | None]]] = {}
        for window, (_, value) in self._last.items():
            if window[0] == group:
                first = self._first.get(window)
                found.setdefault(window[2], []).append((_decode(value), None if first is None else _decode(first)))
        return found


class AlertsBook:
    """Topic `alerts`: transitions by state; a transition number seen twice counts once."""

    def __init__(self) -> None:
        self.states: Counter[str] = Counter()
        self._seen: set[tuple[str, str, int]] = set()

    def add(self, value: bytes | None) -> None:
        """One record."""
        if value is None:
            return
        alert = _decode(value)
        transition = (alert["rule"], alert["instance"], alert["transition"])
        if transition not in self._seen:
            self._seen.add(transition)
            self.states[alert["state"]] += 1
