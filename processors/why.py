"""Why a window is open, and why a reading was late: a plain reading of the log's marks (docs/windows.md).

Sans-IO. A `Trace` is fed with the records of the input topic, from before the window to the end, and with what is in
topic `aggregates`; it applies the same marks as the processors do, and remembers what it was about one window. A
window over a group of devices waits for many nodes: then it has the marks of each, and `GroupClose` finds in the relay
topic where they let it close.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

from gateway.log.records import decode_headers
from headwater.errors import UNREADABLE, PeerError
from processors.columns import MARK_KEY, Lanes, marks_of
from processors.intervals import Interval
from processors.marks import Mark, NodeMarks, WatermarkTracker, parse_mark
from processors.repartition import MergedMarks, group_node
from processors.rules.model import DEVICE_ZONE, WindowRule
from processors.why_taken import Offsets, Taken
from processors.windows.admission import any_match
from processors.windows.grids import grid_of, zoned_grid

LATE_SHOWN = 10
SILENT_AFTER_MS = 10_000  # and five marks that did not come


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

    key: str
    partition: int
    offset: int
    time: int
    live: int
    backfill: bool
    after_close: bool


class Closing(NamedTuple):
    """What closed a group's window: a mark, as (node, its partition, number), and the last ones `heard` by then."""

    by: tuple[str, int, int]
    heard: dict[tuple[str, int], int]


class _Sources(msgspec.Struct):
    src: dict[str, tuple[str, int]] = {}
    clock: int | None = None


_SOURCES = msgspec.json.Decoder(_Sources)


class NodeTrace:
    """What one node has said; `live` before any mark that was read: what its processors remember of it."""

    def __init__(self, name: str, remembered: int | None = None) -> None:
        self.name = name
        self.marks = NodeMarks()
        self.last: dict[int, SpokenMark] = {}  # source partition -> its last mark
        self.by_central: SpokenMark | None = None
        self.sources: dict[str, tuple[str, int, int]] = {}  # source -> state, its own time, its partition
        self._remembered = remembered

    @property
    def live(self) -> int | None:
        """How far it is by all of its marks."""
        return self.marks.watermark if self.last else self._remembered

    def slowest(self) -> SpokenMark | None:
        """The last mark of the partition that is least far."""
        marks = [spoken for spoken in self.last.values() if spoken.mark.live is not None]
        return min(marks, key=lambda spoken: (spoken.mark.live or 0, spoken.offset), default=None)

    def silent_ms(self, spoken: SpokenMark, now_ms: int) -> int | None:
        """How long a partition has made no mark; None while that is no wonder."""
        if spoken.clock is None:
            return None
        age = now_ms - spoken.clock
        return age if age > max(SILENT_AFTER_MS, 5 * spoken.every_ms) else None

    def holds(self, window: Window, now_ms: int) -> dict[str, Any]:
        """What of this node holds the window open: `kind` and what belongs to it; kind `nothing` when it does not."""
        live, spoken = self.live, self.slowest()
        if spoken is None and live is None:
            return {"kind": "no_marks" if self.last else "never_heard", "node": self.name}
        if spoken is None:  # its last mark lies before what was read: so long it has been silent
            kind = "silent" if live is not None and live < window.end else "nothing"
            return {"kind": kind, "node": self.name, "live": live, "missing_ms": max(0, window.end - (live or 0))}
        if live is None:
            expected = self.marks.expected
            return {"kind": "partition", "node": self.name, "known": sorted(self.last), "expected": expected}
        about = {"node": self.name, "live": live, "partition": spoken.partition}
        about |= {"offset": spoken.offset, "n": spoken.mark.n}
        if live < window.end:
            return self._behind(window, {**about, "missing_ms": window.end - live}, spoken, live, now_ms)
        if owed := touching(window, self.marks.open):
            return {"kind": "backfill", **about, "owed": owed}
        return {"kind": "nothing", **about, "lost": touching(window, self.marks.lost)}

    def _behind(
        self, window: Window, about: dict[str, Any], spoken: SpokenMark, live: int, now_ms: int
    ) -> dict[str, Any]:
        silent = self.silent_ms(spoken, now_ms)
        if silent is not None:
            return {"kind": "silent", **about, "silent_ms": silent}
        there = {name: time for name, (state, time, _) in self.sources.items() if state != "gone"}
        behind = [(time, name) for name, time in there.items() if time <= live]
        over = spoken.clock is not None and spoken.clock >= window.end
        if behind and (over or live < max(there.values(), default=0)):
            return {"kind": "source", **about, "source": min(behind)[1], "source_time": min(behind)[0]}
        return {"kind": "time", **about}


def touching(window: Window, intervals: Iterable[Interval]) -> list[Interval]:
    """Those that share a time with a window."""
    start, end = window.start - window.reach, window.end
    return [(first, last) for first, last in intervals if start <= last and end > first]


class Trace:
    """What the log says about one window. Feed every partition of the input topic in its order.

    `waits_for`: of a window over a group, the nodes that its processors wait for, and how far these were, None for one
    that they have not heard of; `unread`: partitions of the input that they wait for besides.
    """

    def __init__(
        self,
        window: Window,
        rule: WindowRule,
        waits_for: Mapping[str, int | None] | None = None,
        unread: Sequence[int] = (),
    ) -> None:
        self.window = window
        self.rule = rule
        self.readings = self.left_out = 0
        self.late_count = 0
        self.late: list[Late] = []
        self.closed: SpokenMark | None = None
        self.results: list[dict[str, Any]] = []
        self.group_close: Closing | None = None  # as `GroupClose` finds it, before any reading is taken
        self.nodes = {name: NodeTrace(name, live) for name, live in (waits_for or {}).items()}
        if not rule.group_by:
            name = window.group.partition("/")[0]
            self.nodes[name] = NodeTrace(name)
        self._unread = unread
        self._taken = Taken(rule, window.group)
        self._tracker = WatermarkTracker()
        self._lanes = Lanes()

    @property
    def is_of_group(self) -> bool:
        return bool(self.rule.group_by)

    def take(self, block: Offsets) -> None:
        """Records of the input topic."""
        backfill = self._lanes.backfill(block.headers)
        start, end = self.window.start, self.window.end
        taken, left_out = self._taken.rows(block, start, end)
        self.left_out += len(left_out)
        rows = sorted({*taken, *(row for row, headers in enumerate(block.headers) if MARK_KEY in headers)})
        mine = set(taken)
        for row in rows:
            if row in mine:
                self._reading(block, row, backfill=bool(backfill[row]))
            if MARK_KEY in block.headers[row]:
                self._mark(block, row)

    def _reading(self, block: Offsets, row: int, *, backfill: bool) -> None:
        self.readings += 1
        key = (block.keys[row] or b"").decode(errors="replace")
        node = self.nodes.get(key.partition("/")[0])
        time = block.timestamps[row]
        if node is None or not node.last or (live := node.live) is None or time >= live:
            return
        self.late_count += 1
        if len(self.late) < LATE_SHOWN:
            place = (key, block.partition, block.offsets[row])
            self.late.append(Late(*place, time, live, backfill, self._is_over(node)))

    def _is_over(self, node: NodeTrace) -> bool:
        """Whether the window had closed by the last mark of this node."""
        if not self.is_of_group:
            return self.closed is not None
        marks = [spoken.mark for spoken in node.last.values()]
        if (close := self.group_close) is None:
            return False
        said = [(mark.n, close.heard.get((node.name, mark.partition))) for mark in marks]
        mine = close.by[0] == node.name
        return any(at is not None and (n > at or (n == at and mine)) for n, at in said)

    def _mark(self, block: Offsets, row: int) -> None:
        try:
            headers = dict(decode_headers(block.headers[row]))
            value = headers.get("hw-mark") or b""
            mark, more = parse_mark(value), _SOURCES.decode(value)
        except (*UNREADABLE, PeerError):
            return
        if (block.keys[row] or b"").partition(b"/")[0] != mark.node.encode() or not self._waits_for(mark.node):
            return
        node = self.nodes.setdefault(mark.node, NodeTrace(mark.node))
        spoken = SpokenMark(mark, block.partition, block.offsets[row], more.clock, mark.every_ms)
        if mark.by is not None:
            node.by_central = spoken
            return
        copied = "hw" in headers
        part = mark.partition if copied else block.partition
        node.last[part] = spoken
        node.sources |= {name: (state, time, mark.partition) for name, (state, time) in more.src.items()}
        node.marks = self._tracker.apply(mark, copied=copied) or node.marks
        if self.closed is None and self._closes(node, mark):
            self.closed = spoken

    def _closes(self, node: NodeTrace, mark: Mark) -> bool:
        if self.is_of_group:
            return self.group_close is not None and self.group_close.by == (node.name, mark.partition, mark.n)
        live = node.live
        return live is not None and live >= self.window.end and not touching(self.window, node.marks.open)

    def _waits_for(self, node: str) -> bool:
        return any_match(self.rule.nodes, node) if self.is_of_group else node in self.nodes

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

    def holder(self, now_ms: int) -> dict[str, Any]:
        """What holds the window open: `kind` and what belongs to it; kind `nothing` when it has closed."""
        found = list(self._holders(now_ms))
        if not found:
            return {"kind": "no_marks"}
        held = [one for one in found if one["kind"] != "nothing"]
        if not held and self._unread and not (self.results and self.results[-1]["complete"]):
            return {"kind": "unread", "partitions": list(self._unread)}
        if not held:
            return max(found, key=lambda one: (bool(one.get("lost")), one["live"] or 0))
        # Who is the least far decides; then what is owed, of whom does not matter.
        return min(held, key=lambda one: (one["kind"] == "backfill", one.get("live") or 0, one.get("node", "")))

    def _holders(self, now_ms: int) -> Iterator[dict[str, Any]]:
        for name in sorted(self.nodes):
            found = self.nodes[name].holds(self.window, now_ms)
            alone = found["kind"] == "never_heard" and not self.is_of_group
            yield {"kind": "no_marks"} if alone else found


class GroupClose:
    """Of a window over a group: what closed it (`found`), if anything has.

    Feed the group's partition of the rule's relay topic (`repartition`), where the nodes' marks have one order.
    `waits_for`: as `Trace`.
    """

    def __init__(self, window: Window, rule: WindowRule, waits_for: Mapping[str, int | None]) -> None:
        self.found: Closing | None = None
        self._window = window
        self._marks = MergedMarks(group_node(rule))
        self._heard: dict[tuple[str, int], int] = {}
        # Nodes whose last mark lies before what is read hold the window all the same.
        self._unheard = {name for name, live in waits_for.items() if (live or 0) < window.end}

    def take(self, block: Offsets) -> None:
        """Records of the relay topic."""
        for at in marks_of(block, b"".join(block.headers)):
            if self.found is not None:
                return
            mark = at.mark
            self._heard[mark.node, mark.partition] = mark.n
            for _, node in self._marks.steps(mark, copied=True):
                self._unheard.discard(mark.node)
                live = node.watermark
                if live is None or live < self._window.end or touching(self._window, node.open):
                    continue
                if mark.by is None and not self._unheard:
                    self.found = Closing((mark.node, mark.partition, mark.n), dict(self._heard))


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
    """Whether a rule has windows of `<node>/<device>`, or, over groups, of `<labels>/<values>`."""
    node, _, device = group.partition("/")
    if rule.group_by:
        return node == group_node(rule) and device.count("/") == len(rule.group_by) - 1
    return any_match(rule.nodes, node) and any_match(rule.devices, device)
