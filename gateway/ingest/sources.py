"""Who sends: one `Source` per MQTT client id and per serial port, with what `status` says of it.

Clients that bring no id of their own are one source together, `mqtt:anonymous`: each message of a script that
connects without one would leave a source behind. A device that stamps its own times deserves a client id, because
windows wait for each source, and for the anonymous ones only as for one.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from devices.profiles import Profile
from gateway.ingest.intervals import SILENT_AFTER
from gateway.ingest.marks import MarkMaker, MarkSource
from gateway.ingest.messages import Messages
from gateway.ingest.outcome import Outcome
from gateway.ingest.repeats import DupMemory

Done = Callable[[bool], None]

SOURCES_MAX = 10_000
ANONYMOUS = "mqtt:anonymous"
# as the listener names them: a number, or for MQTT 5 sixteen digits that the client may come back with
_ANONYMOUS_ID = re.compile(r"mqtt:anonymous-(\d+|[0-9a-f]{16})")

ERROR_KEPT_MS = 3_600_000
"""How long an error that ended a connection is told after it."""
SILENT_MS = 10_000
SILENT_TOLD_MS = 86_400_000
"""A source that misses its interval is named from so long on, and for a day."""
RECURS = 3
RECURS_MS = 300_000
"""An error is a problem of the node's only while it comes again: so often within so long."""


class Source:
    """A source as the pipeline sees it. `profile` is fixed for a serial port; None: by topic.

    `row` is the source under which `status` counts it: itself, or the one of all anonymous clients.
    """

    __slots__ = (
        "client",
        "clients",
        "connected",
        "dead_letters",
        "error",
        "error_wall_ms",
        "errors",
        "id",
        "key",
        "kind",
        "last_ms",
        "mark",
        "memory",
        "problem",
        "profile",
        "raw_mark",
        "readings",
        "returns",
        "row",
        "times",
        "untrusted",
    )

    def __init__(self, source_id: str, kind: str, mark: MarkSource, node: str, row: Source | None = None) -> None:
        self.id = source_id
        self.kind = kind
        self.mark = mark
        self.row = row or self
        self.key = f"{node}/{self.row.id}".encode()  # of its dead letters
        self.raw_mark: MarkSource | None = None  # of a row: what topic `raw` has of it, see `gateway.ingest.raw`
        self.client = b""
        self.clients: dict[int, Source] = {}  # of the anonymous row: who is connected just now, by `id()`
        self.profile: Profile | None = None
        self.memory: DupMemory | None = None
        self.connected = False
        self.last_ms: int | None = None  # wall
        self.readings = self.dead_letters = self.errors = 0
        self.untrusted = False
        self.returns = 0  # how often it came back after a good-bye, as one does that sleeps between its messages
        self.problem: str | None = None  # stands until it is mended
        self.error: str | None = None  # ended a connection
        self.error_wall_ms = 0
        self.times: deque[float] = deque(maxlen=RECURS)  # monotonic, of the last errors

    def failed(self, error: str, now_ms: float, wall_ms: int) -> None:
        """An error ended a connection of this source."""
        self.error, self.error_wall_ms = error, wall_ms
        self.errors += 1
        self.times.append(now_ms)

    def forgettable(self, now_ms: float) -> bool:
        """Whether nothing is lost when it is no longer listed: it never said anything, and what it broke is old."""
        return not self.connected and self.last_ms is None and self.problem is None and not self._has_error(now_ms)

    def _has_error(self, now_ms: float) -> bool:
        return self.error is not None and now_ms - self.times[-1] <= ERROR_KEPT_MS

    @property
    def interval_ms(self) -> int | None:
        """How often it speaks: as its profile expects, else as it was learnt."""
        return self.mark.idle_ms // SILENT_AFTER if self.mark.idle_ms is not None else self.mark.learnt_ms

    def _silent_ms(self, now_ms: float) -> float | None:
        """For how long it has missed what was expected of it in this run; None while it keeps to that.

        Nothing is expected of one that has said good-bye, unless it does so again and again and comes back.
        """
        if self.mark.gone and self.returns < RECURS:
            return None
        silent_ms = now_ms - self.mark.seen_ms
        expected_ms = self.interval_ms
        if expected_ms is None or silent_ms <= max(SILENT_AFTER * expected_ms, SILENT_MS) or silent_ms > SILENT_TOLD_MS:
            return None
        return silent_ms

    def status(self, marks: MarkMaker, now_ms: float) -> dict[str, Any]:
        """Its row. `problem` degrades the node, `note` and `last_error` do not."""
        shown = self.clients.values() or (self,)
        problem = next((one.problem for one in shown if one.problem is not None), self.problem)
        if problem is None and len(self.times) == RECURS and now_ms - self.times[0] <= RECURS_MS:
            ago_s = (now_ms - self.times[-1]) / 1000
            problem = f"again and again ({self.errors} times, last {ago_s:.0f} s ago): {self.error}"
        note = None
        if any(one.untrusted for one in shown):
            note = "its clock is off: claimed times are kept beside the readings (hw-t), arrival times stand"
        elif marks.is_behind(self.mark):
            note = "its times are far behind their arrival: windows do not wait for it"
        elif (silent_ms := self._silent_ms(now_ms)) is not None:
            note = f"silent for {silent_ms / 1000:.0f} s, where it speaks every {(self.interval_ms or 0) / 1000:g} s"
        elif self.raw_mark is not None and marks.is_undecoded(self.raw_mark, now_ms) is None:
            note = "its messages wait to be decoded, all on disk: windows do not wait for it any more"
        erred = self._has_error(now_ms)
        return {
            "id": self.id,
            "kind": self.kind,
            "connected": self.connected,
            "last_ms": self.last_ms,
            "readings": self.readings,
            "dead_letters": self.dead_letters,
            "problem": problem,
            "note": note,
            "interval_ms": self.interval_ms,
            "last_error": self.error if erred else None,
            "last_error_ms": self.error_wall_ms if erred else None,
            "errors": self.errors,
        }


class Sources:
    """All sources of a node, by id, the one used last at the end; bounded by `SOURCES_MAX`."""

    def __init__(self, marks: MarkMaker, node: str) -> None:
        self.rows: dict[str, Source] = {}
        self._marks = marks
        self._node = node

    def seed(self, heard: Iterable[tuple[str, int | None]], wall_ms: int) -> None:
        """Who spoke in an earlier run, as (id, time of its newest message): listed as gone until it is back."""
        for source_id, newest_ms in list(heard):
            listed = ANONYMOUS if _ANONYMOUS_ID.fullmatch(source_id) else source_id
            row = self.row(listed, source_id.partition(":")[0])
            if newest_ms is not None:
                row.last_ms = max(row.last_ms or 0, min(newest_ms, wall_ms))

    def attach(self, source_id: str, kind: str, profile: Profile | None) -> Source:
        """A source is connected."""
        if _ANONYMOUS_ID.fullmatch(source_id) is None:
            source = row = self.row(source_id, kind)
        else:
            row = self.row(ANONYMOUS, kind)
            source = Source(source_id, kind, row.mark, self._node, row)
            row.clients[id(source)] = source
        self.rows[row.id] = self.rows.pop(row.id)  # used last
        source.profile, source.problem = profile, None
        row.returns += row.mark.gone
        source.connected = row.connected = True
        self._marks.connected(row.mark)
        if row.raw_mark is not None:
            self._marks.connected(row.raw_mark)
        return source

    def detach(self, source: Source, *, clean: bool, problem: str | None, now_ms: float, wall_ms: int) -> None:
        """A source is gone. What a serial port says stands until it is open again; an MQTT client's error is past."""
        row = source.row
        row.clients.pop(id(source), None)
        source.connected = False
        row.connected = bool(row.clients)
        if source.kind == "serial":
            source.problem = problem
        else:
            source.problem = None
            if problem is not None:
                row.failed(problem, now_ms, wall_ms)
        if not row.connected:
            self._marks.disconnected(row.mark, clean=clean)
            if row.raw_mark is not None:
                self._marks.disconnected(row.raw_mark, clean=clean)

    def row(self, source_id: str, kind: str) -> Source:
        """The row of that id, new if need be."""
        row = self.rows.get(source_id)
        if row is None:
            self._make_room()
            row = self.rows[source_id] = Source(source_id, kind, self._marks.source(source_id), self._node)
        return row

    def _make_room(self) -> None:
        if len(self.rows) < SOURCES_MAX:
            return
        for source_id, source in self.rows.items():
            if not source.connected:
                del self.rows[source_id]
                return

    def forget(self, now_ms: float) -> None:
        """Let go of clients that only ever erred: anyone may come with a new id each time."""
        for source_id in [key for key, row in self.rows.items() if row.forgettable(now_ms)]:
            del self.rows[source_id]


class Entry:
    """One `take`: messages of one source that arrived together."""

    __slots__ = (
        "arrival_ms",
        "before_ms",
        "done",
        "messages",
        "newest_ms",
        "outcomes",
        "readings",
        "replayed",
        "size_bytes",
        "source",
        "suppressed",
    )

    def __init__(self, source: Source, messages: Messages, done: Done, arrival_ms: int, size_bytes: int) -> None:
        self.source = source
        self.messages = messages
        self.done = done
        self.arrival_ms = arrival_ms
        self.size_bytes = size_bytes
        self.newest_ms: int | None = None  # newest trusted event time
        self.before_ms: int | None = None  # the source's newest before this entry, for when the disk loses it
        self.readings = 0
        self.replayed = False  # dead letters that were decoded after all: no window waits for them
        self.outcomes: list[tuple[Outcome, bytes]] | None = None  # of raw messages, each with its `hw-raw` section
        self.suppressed = 0  # readings that said nothing new: heard, and not stored
