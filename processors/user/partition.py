"""One user's processor over one partition: (state, block) to outputs, the same for any cut into blocks.

It stands where `processors.processor.PartitionProcessor` stands, in the same drivers. An output is known by the
record that it was made from: its number is `offset << 20 | index`, so that a file that is mended between a crash and
the next start neither repeats nor loses what its older self has said.

What the user's code raises is one reading's: nothing of that call counts, and the reading goes to topic `deadletter`.
After `failures_max` in a row the processor stops before the next one (`stopped_at`), and says why.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import msgspec

from devices.user_code import blame
from gateway.consume.reader import Block
from gateway.log.records import decode_headers, encode_headers
from processors.columns import MARK_KEY, Lanes, MarkAt, marks_of
from processors.documents import documents_of
from processors.facts import DeviceFacts
from processors.marks import WatermarkTracker
from processors.outputs import INDEX_BITS
from processors.processor import OUT_HEADER, Output
from processors.user.column_form import ColumnProcessor
from processors.user.columns_engine import ColumnEngine
from processors.user.host import DEADLETTER, Failure, Host, Rows, Stopped
from processors.user.loading import Loaded
from processors.user.reading_form import Processor
from processors.user.readings_engine import ReadingEngine
from processors.user.say import encode_any, event_time
from processors.user.settings import UserLimits
from processors.windows.admission import any_match

KILL_WEIGHT = 5
_REASON_MAX = 500
_COPY = b"\x04hw"


class Watch(Protocol):
    """Who looks that the user's code comes to an end; `at` is told which offsets are at work."""

    def at(self, first: int, last: int) -> None: ...
    def end(self) -> None: ...


class NoWatch:
    """Nobody looks."""

    def at(self, first: int, last: int) -> None:
        """Nothing."""

    def end(self) -> None:
        """Nothing."""


class _Calling:
    """Turns what the user's code raises into a `Failure`; one object for all calls."""

    def __init__(self, file: str, *, raises: bool) -> None:
        self._file = file
        self._raises = raises

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if error is None or self._raises or isinstance(error, KeyboardInterrupt):
            return
        # SystemExit too: it is a stranger's code
        raise Failure(blame(error, self._file)[:_REASON_MAX]) from error


class UserPartition(Host):
    """A processor's work on one partition. `raises`: its exceptions are the caller's, as in a user's tests."""

    def __init__(
        self,
        loaded: Loaded,
        partition: int,
        *,
        limits: UserLimits,
        watch: Watch | None = None,
        killers: Mapping[int, str] | None = None,
        careful: tuple[int, int] = (1, 0),
        raises: bool = False,
    ) -> None:
        self.topic = loaded.rule.topic
        self.partition = partition
        self.limits = limits
        self.stopped_at: int | None = None
        """Where it wants to be called again, once it is mended; None while it is well."""
        self.problem = ""
        self.versions = [loaded.version_of(topic) for topic in loaded.topics]
        self.numbers: dict[str, int] = {}
        self.written: dict[str, int] = {}
        self._loaded = loaded
        self._watch = watch or NoWatch()
        self._killers = dict(killers or {})
        self._careful = careful
        self._calling = _Calling(loaded.rule.file, raises=raises)
        self._lanes = Lanes()
        self._tracker = WatermarkTracker()
        self._facts = DeviceFacts()
        self._offsets: Sequence[int] = ()
        self.watermarks: dict[str, int] = {}
        self._wanted: dict[bytes | None, str] = {}
        self._outputs: list[Output] = []
        self._index = (-1, 0)  # the record that is at work, and how many outputs it has
        self._failures = 0
        self._counts = {"readings": 0, "outputs": 0, "failed": 0, "refused": 0}
        processor = loaded.make()
        self._engine: ReadingEngine | ColumnEngine
        if isinstance(processor, ColumnProcessor):
            self._engine = ColumnEngine(processor, loaded.state, self)
        else:
            assert isinstance(processor, Processor)  # noqa: S101 - there are two forms
            self._engine = ReadingEngine(processor, loaded.state, self)

    # --- what a driver calls

    def process(self, block: Block) -> list[Output]:
        """Take in the next block; what it lets be said for the first time. See `stopped_at` afterwards."""
        outputs: list[Output] = []
        self._outputs = outputs
        if not len(block.keys) or self.stopped_at is not None:
            return []
        joined = b"".join(block.headers)
        lanes = dict(self._lanes.highest)
        late = self._lanes.backfill(block.headers) if _COPY in joined else None
        found, bad = self.documents(block.values)
        keys = self._keys(block.keys, bad)
        rows = Rows(block, found, keys, late)
        self._facts.take(block, joined)
        self._offsets = block.offsets
        try:
            begin = 0
            for at in marks_of(block, joined) if MARK_KEY in joined else ():
                self._engine.take(rows, begin, at.row + 1)
                begin = at.row + 1
                self._mark(at, block.offsets[at.row])
            self._engine.take(rows, begin, len(block.keys))
        except Stopped as stop:
            self.stopped_at, self.problem = stop.offset, stop.reason
            self._lanes.highest = lanes  # as if the records behind had not been seen
            self._facts.forget_from(seen := bisect_left(block.offsets, stop.offset))
            if late is not None and seen:
                self._lanes.backfill(block.headers[:seen])
        finally:
            self._watch.end()
        return outputs

    def documents(self, values: Sequence[bytes | None]) -> tuple[list[dict[str, Any]], list[int]]:
        """What the values say, and the rows of those that say nothing."""
        return documents_of(values)

    def _keys(self, keys: Sequence[bytes | None], bad: list[int]) -> list[str]:
        """For each record its key as text; "" for one that is not for this processor."""
        wanted = self._wanted
        if len(wanted) >= 4 * self.limits.devices_max:
            wanted.clear()
        for key in set(keys) - wanted.keys():
            wanted[key] = self._text(key)
        found = [wanted[key] for key in keys]
        for row in bad:
            self._counts["refused"] += bool(found[row])
            found[row] = ""
        return found

    def _text(self, key: bytes | None) -> str:
        try:
            text = (key or b"").decode()
        except UnicodeDecodeError:
            return ""
        node, _, device = text.partition("/")
        rule = self._loaded.rule
        fits = node and device and any_match(rule.nodes, node) and any_match(rule.devices, device)
        return text if fits else ""

    def _mark(self, at: MarkAt, offset: int) -> None:
        node = self._tracker.apply(at.mark, copied=at.copied)
        if node is None or (watermark := node.watermark) is None:
            return
        if watermark > self.watermarks.get(at.mark.node, -1):
            self.watermarks[at.mark.node] = watermark
            self._engine.mark(at.mark.node, watermark, offset)

    def snapshot(self) -> dict[str, Any]:
        """Plain data and bytes: all that `restore` needs to go on exactly here."""
        return {
            "processor": self._loaded.rule.name,
            "lanes": self._lanes.highest,
            "marks": self._tracker.snapshot(),
            "watermarks": self.watermarks,
            "facts": self._facts.snapshot(),
            "numbers": self.numbers,
            "written": self.written | {v: max(n, self.written.get(v, 0)) for v, n in self.numbers.items()},
            "failures": self._failures,
            "counts": self._counts,
            "form": type(self._engine).__name__,
            "version": self._loaded.cls.version,
            "engine": self._engine.snapshot(),
        }

    def restore(self, data: dict[str, Any]) -> list[str]:
        """Go on from a snapshot. Raises `UserError` for a state that the class cannot read any more."""
        self._lanes.highest = dict(data["lanes"])
        self._tracker.restore(data["marks"])
        self.numbers, self.written = dict(data["numbers"]), dict(data["written"])
        self._failures = data["failures"]
        self._counts |= data["counts"]
        self.watermarks = dict(data["watermarks"])
        self._facts.restore(data.get("facts", []))  # of before they were kept: none
        if (data["version"], data["form"]) != (self._loaded.cls.version, type(self._engine).__name__):
            return []  # another version: with what comes next, and without state
        self._engine.restore(data["engine"])
        return []

    def lost_before(self, offset: int) -> None:
        """Records below `offset` have left the log unread: it is handed those that are left."""

    def go_on_after(self, floors: Any, alerts: Any) -> None:
        """Begin without a state behind outputs of an earlier one: what `written` says is not said again."""

    def counters(self) -> dict[str, int]:
        return self._counts | {"devices": len(self._engine), "state_bytes": self._engine.size_bytes}

    def alerts(self) -> list[dict[str, Any]]:
        """It has none."""
        return []

    def state_of(self, key: str) -> Any:
        """For a user's tests."""
        return self._engine.state_of(key)

    # --- what the engines call

    def call(self, first: int, last: int) -> AbstractContextManager[None]:
        """Around a call of the user's code for these records. Raises `Failure` for whatever it raises."""
        self._watch.at(first, last)
        if self._killers and (found := [offset for offset in self._killers if first <= offset <= last]):
            raise Failure(self._killers[found[0]], KILL_WEIGHT)
        return self._calling

    def careful(self, offset: int) -> bool:
        """Whether a record is to be handled alone, since one of its neighbours may kill the process."""
        return self._careful[0] <= offset <= self._careful[1]

    def about(self, key: str, offset: int) -> Mapping[str, str]:
        """What is known of a device where the record at `offset` is handled, by the names that rules have for it."""
        return self._facts.at(key.encode(), bisect_left(self._offsets, offset))

    def emitted(self, value: Any, topic: str, key: str, time_ms: Any) -> tuple[str, int, bytes, bytes]:
        if topic and topic not in self._loaded.outs:
            raise ValueError(f"{topic} is none of its topics ({', '.join(self._loaded.outs)}): name it in `out`")
        if not isinstance(key, str) or not key:
            raise TypeError(f"a key is a text, not {key!r:.40}")
        return topic or self._loaded.outs[0], event_time(time_ms), key.encode(), encode_any(value)

    def say(self, offset: int, said: list[tuple[str, int, bytes, bytes]]) -> None:
        """Outputs of the record at `offset`: a call that went well."""
        for topic, time_ms, key, value in said:
            self._say(offset, topic, time_ms, key, value, [])
        self._counts["outputs"] += len(said)

    def well(self, count: int = 1) -> None:
        """Readings were taken."""
        self._failures = 0
        self._counts["readings"] += count

    def failed(self, failure: Failure, offset: int, time_ms: int, key: str, value: bytes, *, before: bool) -> None:
        """A dead letter; or, after too many in a row, a stop: before this record (`before`), or behind it.

        Raises `Stopped`.
        """
        self._failures = min(self._failures + failure.weight, self.limits.failures_max)
        stops = self._failures >= self.limits.failures_max
        if not (stops and before):
            name = f"processor:{self._loaded.rule.name}"
            headers = [
                ("reason", f"{self._loaded.rule.name}: {failure.reason}".encode()),
                ("decoder", name.encode()),
                ("source", name.encode()),
                ("time", str(time_ms).encode()),
                ("record", f"{self.topic}/{self.partition}/{offset}".encode()),
                ("key", key.encode()),
            ]
            letter = f"{key.partition('/')[0]}/{name}".encode()
            self._say(offset, DEADLETTER, time_ms, letter, value, headers)
            self._counts["failed"] += 1
        if stops:
            where = f"{self.topic}/{self.partition} at offset {offset}"
            raise Stopped(offset if before else offset + 1, f"{failure.reason} ({where})")

    def _say(
        self, offset: int, topic: str, time_ms: int, key: bytes, value: bytes, more: list[tuple[str, bytes]]
    ) -> None:
        index = self._index[1] if self._index[0] == offset else 0
        self._index = (offset, index + 1)
        version = self._loaded.version_of(topic)
        number = offset << INDEX_BITS | index
        if number < self.written.get(version, 0):
            return
        self.numbers[version] = number + 1
        head = (OUT_HEADER, f"{version}/{self.partition}/{offset}.{index}".encode())
        self._outputs.append(Output(topic, (time_ms, key, value, encode_headers([*more, head])), version, number))


def decoded(output: Output) -> tuple[dict[str, Any], str, int, str]:
    """(value, key, time, topic) of an output, for people and tests; a dead letter's value is `reason` and `reading`."""
    time_ms, key, value, headers = output.record
    said: dict[str, Any] = msgspec.json.decode(value or b"{}")
    if output.topic == DEADLETTER:
        said = {"reason": (dict(decode_headers(headers)).get("reason") or b"").decode(), "reading": said}
    return said, (key or b"").decode(), time_ms, output.topic
