"""Who sends: one `Source` per MQTT client id and per serial port, with what `status` says of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from devices.profiles import Profile
from gateway.ingest.marks import MarkMaker, MarkSource
from gateway.ingest.repeats import DupMemory

# (topic, payload, packet id or 0, flags): what a source gives; see `gateway.ingest.mqtt.session` for the flags.
# A serial source writes (port name, frame, 0, 0).
Message = tuple[str, bytes, int, int]
Done = Callable[[bool], None]


class Source:
    """A source as the pipeline sees it. `profile` is fixed for a serial port; None: by topic."""

    __slots__ = (
        "client",
        "connected",
        "id",
        "key",
        "kind",
        "last_ms",
        "mark",
        "memory",
        "problem",
        "profile",
        "readings",
        "untrusted",
    )

    def __init__(self, source_id: str, kind: str, mark: MarkSource, node: str) -> None:
        self.id = source_id
        self.kind = kind
        self.mark = mark
        self.key = f"{node}/{source_id}".encode()  # of its dead letters
        self.client = b""
        self.profile: Profile | None = None
        self.memory: DupMemory | None = None
        self.connected = False
        self.last_ms: int | None = None  # wall
        self.readings = 0
        self.untrusted = False
        self.problem: str | None = None

    def status(self, marks: MarkMaker) -> dict[str, Any]:
        problem = self.problem
        if problem is None and self.untrusted:
            problem = "its clock is off: claimed times are kept beside the readings (hw-t), arrival times stand"
        elif problem is None and marks.is_behind(self.mark):
            problem = "its times are far behind their arrival: windows do not wait for it"
        return {
            "id": self.id,
            "kind": self.kind,
            "connected": self.connected,
            "last_ms": self.last_ms,
            "readings": self.readings,
            "problem": problem,
        }


class Entry:
    """One `take`: messages of one source that arrived together."""

    __slots__ = ("arrival_ms", "before_ms", "done", "messages", "newest_ms", "readings", "size_bytes", "source")

    def __init__(self, source: Source, messages: list[Message], done: Done, arrival_ms: int, size_bytes: int) -> None:
        self.source = source
        self.messages = messages
        self.done = done
        self.arrival_ms = arrival_ms
        self.size_bytes = size_bytes
        self.newest_ms: int | None = None  # newest trusted event time
        self.before_ms: int | None = None  # the source's newest before this entry, for when the disk loses it
        self.readings = 0
