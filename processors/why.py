"""Why a window is open, and why a reading of it was late: a plain reading of the log's marks (design, section 9).

Sans-IO. A `Trace` is fed with the records of the input topic, from before the window to the end, and with what is in
topic `aggregates`; it applies the same marks as the processors do, and remembers what it was about one window.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec
import numpy as np

from gateway.log.records import decode_headers
from headwater.errors import UNREADABLE, PeerError
from processors.columns import Lanes, Records
from processors.intervals import Interval
from processors.marks import Mark, WatermarkTracker, parse_mark
from processors.rules.model import DEVICE_ZONE, WindowRule
from processors.windows.grids import grid_of, zoned_grid
from processors.windows.memory import any_match

LATE_SHOWN = 10
SILENT_AFTER_MS = 10_000  # and five marks that did not come
_MARK = b"\x0ehw-mark"


class Offsets(Records, Protocol):
    """Records with their place: what is read here of `gateway.consume.reader.Block`."""

    @property
    def partition(self) -> int: ...
    @property
    def offsets(self) -> Sequence[int]: ...


class Window(NamedTuple):
    """One window of a rule, [start, end) in ms. `reach`: an owed time this far before it holds it too (sessions)."""

    rule: str
    group: str
    start: int
    end: int
    reach: int = 0


class SpokenMark(NamedTuple):
    """The last mark of one of a node's partitions, where it stands, and what it says of sources and the clock."""

    mark: Mark
    partition: int
    offset: int
    clock: int | None
    every_ms: int


class Late(NamedTuple):
    """A reading of the window that came when its node had said that it was further."""

    partition: int
    offset: int
    time: int
    live: int
    backfill: bool
    after_close: bool


class _Sources(msgspec.Struct):
    src: dict[str, tuple[str, int]] = {}
    clock: int | None = None


_SOURCES = msgspec.json.Decoder(_Sources)


class Trace:
    """What the log says about one window. Feed every partition of the input topic in its order."""

    def __init__(self, window: Window) -> None:
        self.window = window
        self.node = window.group.partition("/")[0]
        self.readings = 0
        self.late_count = 0
        self.late: list[Late] = []
        self.closed: SpokenMark | None = None
        self.last: dict[int, SpokenMark] = {}  # source partition -> its last mark
        self.by_central: SpokenMark | None = None
        self.sources: dict[str, tuple[str, int, int]] = {}  # source -> state, its own time, its partition
        self.results: list[dict[str, Any]] = []
        self._tracker = WatermarkTracker()
        self._lanes = Lanes()
        self._prefix = f"{self.node}/".encode()
        self._key = window.group.encode()

    def take(self, block: Offsets) -> None:
        """Records of the input topic."""
        backfill = self._lanes.backfill(block.headers)
        start, end = self.window.start, self.window.end
        for row, key in enumerate(block.keys):
            if key is None or not key.startswith(self._prefix):
                continue
            if key == self._key and start <= block.timestamps[row] < end:
                self._reading(block, row, backfill=bool(backfill[row]))
            if _MARK in block.headers[row]:
                self._mark(block, row)

    def _reading(self, block: Offsets, row: int, *, backfill: bool) -> None:
        self.readings += 1
        live = self._tracker.watermark(self.node)
        time = block.timestamps[row]
        if live is None or time >= live:
            return
        self.late_count += 1
        if len(self.late) < LATE_SHOWN:
            place = (block.partition, block.offsets[row])
            self.late.append(Late(*place, time, live, backfill, self.closed is not None))

    def _mark(self, block: Offsets, row: int) -> None:
        try:
            headers = dict(decode_headers(block.headers[row]))
            value = headers.get("hw-mark") or b""
            mark, more = parse_mark(value), _SOURCES.decode(value)
        except (*UNREADABLE, PeerError):
            return
        if mark.node != self.node:
            return
        spoken = SpokenMark(mark, block.partition, block.offsets[row], more.clock, mark.every_ms)
        if mark.by is not None:
            self.by_central = spoken
            return
        copied = "hw" in headers
        self.last[mark.partition if copied else block.partition] = spoken
        self.sources |= {name: (state, time, mark.partition) for name, (state, time) in more.src.items()}
        node = self._tracker.apply(mark, copied=copied)
        live = node.watermark if node is not None else None
        if self.closed is None and live is not None and live >= self.window.end and not self.owed():
            self.closed = spoken

    def take_results(self, values: Iterable[bytes | None]) -> None:
        """Records of topic `aggregates`."""
        for value in values:
            try:
                found = msgspec.json.decode(value or b"", type=dict[str, Any])
            except UNREADABLE:
                continue
            window = self.window
            if (found.get("rule"), found.get("group"), found.get("start")) == (window.rule, window.group, window.start):
                self.results.append(found)

    # findings

    def live(self) -> int | None:
        """How far the node is by all of its marks."""
        return self._tracker.watermark(self.node)

    def _touching(self, intervals: Iterable[Interval]) -> list[Interval]:
        start, end = self.window.start - self.window.reach, self.window.end
        return [(first, last) for first, last in intervals if start <= last and end > first]

    def owed(self) -> list[Interval]:
        """What backfill still owes to the window."""
        node = self._tracker.nodes.get(self.node)
        return self._touching(node.open) if node is not None else []

    def lost(self) -> list[Interval]:
        """What was given up in the window."""
        node = self._tracker.nodes.get(self.node)
        return self._touching(node.lost) if node is not None else []

    def slowest(self) -> SpokenMark | None:
        """The last mark of the partition that is least far."""
        marks = [spoken for spoken in self.last.values() if spoken.mark.live is not None]
        return min(marks, key=lambda spoken: (spoken.mark.live or 0, spoken.offset), default=None)

    def silent_ms(self, spoken: SpokenMark, now_ms: int) -> int | None:
        """How long a partition's node has made no mark; None while that is no wonder."""
        if spoken.clock is None:
            return None
        age = now_ms - spoken.clock
        return age if age > max(SILENT_AFTER_MS, 5 * spoken.every_ms) else None

    def holder(self, now_ms: int) -> dict[str, Any]:
        """What holds the window open: `kind` and what belongs to it; kind `nothing` when it has closed."""
        node = self._tracker.nodes.get(self.node)
        live, spoken = self.live(), self.slowest()
        if node is None or spoken is None:
            return {"kind": "no_marks"}
        if live is None:
            return {"kind": "partition", "known": sorted(self.last), "expected": node.expected}
        about = {"live": live, "partition": spoken.partition, "offset": spoken.offset, "n": spoken.mark.n}
        if live < self.window.end:
            about["missing_ms"] = self.window.end - live
            silent = self.silent_ms(spoken, now_ms)
            if silent is not None:
                return {"kind": "silent", **about, "silent_ms": silent}
            behind = [
                (time, name) for name, (state, time, _) in self.sources.items() if state != "gone" and time <= live
            ]
            over = spoken.clock is not None and spoken.clock >= self.window.end
            if behind and (over or live < self._newest()):
                return {"kind": "source", **about, "source": min(behind)[1], "source_time": min(behind)[0]}
            return {"kind": "time", **about}
        if owed := self.owed():
            return {"kind": "backfill", **about, "owed": owed}
        return {"kind": "nothing", **about, "lost": self.lost()}

    def _newest(self) -> int:
        """How far the furthest of the node's sources is."""
        return max((time for state, time, _ in self.sources.values() if state != "gone"), default=0)


def window_at(rule: WindowRule, group: str, time: int, zone: str = "") -> Window:
    """The window of a rule around a time; of overlapping ones the last to close, of a session what a reading makes.

    `zone`: the device's own, where windows follow it.
    """
    if rule.kind == "hopping":
        start = time - time % rule.every_ms
        return Window(rule.name, group, start, start + rule.size_ms)
    if rule.kind == "session":
        return Window(rule.name, group, time, time + rule.gap_ms, rule.gap_ms - 1)
    grid = (zoned_grid(rule, zone) if rule.zone == DEVICE_ZONE and zone else None) or grid_of(rule)
    start = int(grid.starts(np.array([time], dtype=np.int64))[0])
    return Window(rule.name, group, start, grid.end(start))


def matches(rule: WindowRule, group: str) -> bool:
    """Whether a rule windows the readings of a device, `<node>/<device>`, by itself."""
    node, _, device = group.partition("/")
    return not rule.group_by and any_match(rule.nodes, node) and any_match(rule.devices, device)
