"""Produce requests of one connection that differ in nothing but their records and correlation ids.

A producer sends thousands of them. What they have in common is decoded once. Then those that came together are a `Run`,
cut out by comparing bytes: at once where all have the same length, else one by one. A run is appended, waited for and
answered as one, and its answers are copies of one that was encoded before.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from itertools import accumulate, repeat
from typing import Any

from gateway.log.partition import PartitionLog
from gateway.wire.compiler import Body, encoder
from gateway.wire.errors import ErrorCode
from gateway.wire.framing import Buffer, join_frame
from gateway.wire.primitives import encode_uvarint
from gateway.wire.schema import BY_KEY, ApiKey
from gateway.wire.waits import Waits

_CORRELATION_AT, _COMMON_AT = 4, 8  # in a request's frame: API key and version, correlation id, then the client id
_LENGTH = struct.Struct(">i")
_CORRELATION = struct.Struct(">i")
_NAME = BY_KEY[ApiKey.PRODUCE].name
_FLEXIBLE = BY_KEY[ApiKey.PRODUCE].flexible
_NO_TAGS = b"\x00\x00\x00"  # of the partition, the topic and the request
ALIKE_BYTES_MAX = 64 << 10  # what is longer is cheap to decode for its size
_ROW_BYTES_MAX = 4 << 10  # what is longer is not worth a copy


class Run:
    """Some of them that came together. Appended as one, they are on disk at once, or wait for that as one."""

    __slots__ = (
        "_reply",
        "alike",
        "base_offset",
        "correlation_ids",
        "counts",
        "deadline_ms",
        "end_offset",
        "error_code",
        "generation",
        "log",
        "records",
        "waits",
    )

    def __init__(self, alike: Alike, correlation_ids: Sequence[int], records: Sequence[Buffer]) -> None:
        self.alike = alike
        self.correlation_ids = correlation_ids
        self.records = records  # views of what was received, or copies
        self.deadline_ms = 0.0

    def appended(self, log: PartitionLog, counts: Sequence[int], base_offset: int, end_offset: int) -> None:
        """Their batches, of so many records each, lie behind one another in the log."""
        self.log = log
        self.generation = log.generation
        self.counts = counts
        self.base_offset = base_offset
        self.end_offset = end_offset
        self.error_code = 0
        self.records = ()  # their memory is the receiver's again

    @property
    def is_synced(self) -> bool:
        """Whether they are on disk."""
        return self.log.synced_offset >= self.end_offset and self.log.generation == self.generation

    def wait(self, reply: Callable[[Run], None], waits: Waits) -> None:
        """Have `reply` called with this once they are on disk, or will not be, or have taken too long."""
        self._reply = reply
        self.waits = waits.open
        if self.log.generation != self.generation:
            self.failed()
            return
        if self.log.synced_offset < self.end_offset:
            waits.add(self, self.alike.body["timeout_ms"])
        self.log.when_synced(self.end_offset, self, self.failed)

    def __call__(self) -> None:
        """They are on disk."""
        if self.deadline_ms >= 0:
            self.waits.discard(self)
            self._reply(self)

    def failed(self) -> None:
        """A failed sync took them back."""
        self.error_code, self.base_offset = ErrorCode.KAFKA_STORAGE_ERROR, -1
        self()

    def expire(self) -> None:
        """The disk took too long."""
        self.deadline_ms = -1.0
        self.error_code = ErrorCode.REQUEST_TIMED_OUT
        self._reply(self)

    def answers(self) -> bytes:
        """The frames of all answers."""
        return self.alike.answers(
            self.correlation_ids, self.counts, self.base_offset, self.log.log_start_offset, self.error_code
        )


class Alike:
    """What the requests have in common, see `learn`; one topic and one partition each."""

    __slots__ = (
        "_answer",
        "_answer_row",
        "_answered_like",
        "_common",
        "_flexible",
        "_kind",
        "_row",
        "_row_bytes",
        "_starts",
        "body",
        "client_id",
        "index",
        "topic",
        "version",
    )

    def __init__(self, frame: memoryview, common_end: int, version: int, client_id: str | None, body: Body) -> None:
        self._kind = bytes(frame[:_CORRELATION_AT])
        self._common = bytes(frame[_COMMON_AT:common_end])
        self._flexible = version >= _FLEXIBLE
        self.version = version
        self.client_id = client_id
        self.body = body | {"topic_data": ()}
        topic = body["topic_data"][0]
        self.topic: str = topic["name"]
        self.index: int = topic["partition_data"][0]["index"]
        # The last answers: what they said beside correlation ids and base offsets, and what is not those.
        self._answered_like: tuple[int, int] | None = None
        self._answer = (b"", b"", b"")
        self._answer_row = struct.Struct("")
        # Requests of one length: all that precedes the records but the correlation id, that, the records, the rest.
        self._row_bytes = 0
        self._row = struct.Struct("")
        self._starts = (b"", b"", b"")

    def cut(self, view: memoryview, position: int, count_max: int, frame_bytes_max: int) -> tuple[Run, int]:
        """The whole frames from `position` on that are alike, `count_max` at most, and where they end; never raises."""
        head, common, tail = self._starts
        rows = 0
        if head and view[position : position + len(head)] == head and self._row_bytes - 4 <= frame_bytes_max:
            rows = min(count_max, (len(view) - position) // self._row_bytes)
        if rows:
            end = position + rows * self._row_bytes
            heads, ids, commons, records, tails = zip(*self._row.iter_unpack(view[position:end]), strict=True)
            if heads.count(head) == commons.count(common) == tails.count(tail) == rows:
                return Run(self, ids, records), end
        return self._cut_slowly(view, position, count_max, frame_bytes_max)

    def _cut_slowly(self, view: memoryview, position: int, count_max: int, frame_bytes_max: int) -> tuple[Run, int]:
        correlation_ids: list[int] = []
        taken: list[Buffer] = []
        end_max = len(view)
        while len(taken) < count_max and position + 4 <= end_max:
            length = _LENGTH.unpack_from(view, position)[0]
            end = position + 4 + length
            if not 0 < length <= frame_bytes_max or end > end_max:
                break
            frame = view[position + 4 : end]
            records = self.match(frame)
            if records is None:
                break
            correlation_ids.append(_CORRELATION.unpack_from(frame, _CORRELATION_AT)[0])
            taken.append(records)
            position = end
            if len(taken) == 1 and length <= _ROW_BYTES_MAX:
                self._expect(frame, len(records))
        return Run(self, correlation_ids, taken), position

    def _expect(self, frame: memoryview, records: int) -> None:
        """The next ones may well be as long as this one."""
        tail = len(_NO_TAGS) if self._flexible else 0
        common = len(frame) - _COMMON_AT - records - tail
        self._row = struct.Struct(f">8si{common}s{records}s{tail}s")
        self._row_bytes = self._row.size
        self._starts = (
            _LENGTH.pack(len(frame)) + self._kind,
            bytes(frame[_COMMON_AT : _COMMON_AT + common]),
            _NO_TAGS[:tail],
        )

    def match(self, frame: memoryview) -> memoryview | None:
        """The request's records, or None when it is another kind of request."""
        start = _COMMON_AT + len(self._common)
        if (
            len(frame) > ALIKE_BYTES_MAX
            or frame[_COMMON_AT:start] != self._common
            or frame[:_CORRELATION_AT] != self._kind
        ):
            return None
        if self._flexible:
            return _compact_records(frame, start)
        found = frame[start + 4 :]
        if len(frame) < start + 4 or _LENGTH.unpack_from(frame, start)[0] != len(found):
            return None
        return found

    def whole(self, records: Buffer) -> Body:
        """The body that decoding a request with these records would have given."""
        part = {"index": self.index, "records": records}
        return self.body | {"topic_data": [{"name": self.topic, "partition_data": [part]}]}

    def answers(
        self,
        correlation_ids: Sequence[int],
        counts: Sequence[int],
        base_offset: int,
        log_start_offset: int,
        error_code: int = 0,
    ) -> bytes:
        """The frames of all answers, when the request at a place has so many records and all have one error code.

        Their batches lie behind one another in the log from the base offset on; it is -1 when they have failed.
        """
        if self._answered_like != (error_code, log_start_offset):
            self._answered_like = error_code, log_start_offset
            self._cut_answer(self._encode(error_code, log_start_offset))
        head, middle, tail = self._answer
        bases = repeat(base_offset) if base_offset < 0 else accumulate(counts, initial=base_offset)
        return b"".join(map(self._answer_row.pack, repeat(head), correlation_ids, repeat(middle), bases, repeat(tail)))

    def _encode(self, error_code: int, log_start_offset: int) -> bytes:
        part = {"index": self.index, "error_code": error_code, "base_offset": 0, "log_start_offset": log_start_offset}
        parts = [b"", _CORRELATION.pack(0), b"\x00"] if self._flexible else [b"", _CORRELATION.pack(0)]
        body = {"responses": [{"name": self.topic, "partition_responses": [part]}]}
        encoder(_NAME, self.version, response=True)(body, parts.append)
        return join_frame(parts)

    def _cut_answer(self, answer: bytes) -> None:
        """Into what all answers share: before the correlation id, between that and the base offset, after it."""
        end = _base_at(len(self.topic.encode()), flexible=self._flexible)
        self._answer = answer[:4], answer[8:end], answer[end + 8 :]
        self._answer_row = struct.Struct(f">4si{end - 8}sq{len(answer) - end - 8}s")


def learn(frame: memoryview, version: int, client_id: str | None, body: dict[str, Any]) -> Alike | None:
    """What requests like this decoded one have in common; None when there is more than records and correlation id."""
    topics = body["topic_data"]
    if body["acks"] not in (-1, 1) or len(topics) != 1 or len(parts := topics[0]["partition_data"]) != 1:
        return None
    records = parts[0]["records"]
    if not records or len(frame) > ALIKE_BYTES_MAX:
        return None
    flexible = version >= _FLEXIBLE
    length = encode_uvarint(len(records) + 1) if flexible else _LENGTH.pack(len(records))
    tail = _NO_TAGS if flexible else b""
    end = len(frame) - len(tail) - len(records) - len(length)
    if frame[end : end + len(length)] != length or frame[len(frame) - len(tail) :] != tail:
        return None  # tags, or a length in more bytes than it needs
    return Alike(frame, end, version, client_id, body)


def _compact_records(frame: memoryview, position: int) -> memoryview | None:
    """The records of a flexible version, whose length is an unsigned varint of one more."""
    size = shift = 0
    end = len(frame) - len(_NO_TAGS)
    while True:
        if position >= end or shift > 21:
            return None
        byte = frame[position]
        position += 1
        size |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
    return frame[position:end] if position + size - 1 == end and frame[end:] == _NO_TAGS else None


def _base_at(name_bytes: int, *, flexible: bool) -> int:
    """Where an answer with one topic and one partition has its base offset: size, correlation id, …, error code."""
    if flexible:
        return 4 + 4 + 1 + 1 + len(encode_uvarint(name_bytes + 1)) + name_bytes + 1 + 4 + 2
    return 4 + 4 + 4 + 2 + name_bytes + 4 + 4 + 2
