"""Produce requests of one connection that differ in nothing but their records and correlation ids.

A producer sends thousands of them. What they have in common is decoded once; then each is recognised by comparing
bytes, its records are cut out, and what a group of them is told is encoded once.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

from gateway.wire.compiler import Body
from gateway.wire.primitives import encode_uvarint
from gateway.wire.schema import BY_KEY, ApiKey

_CORRELATION_AT, _COMMON_AT = 4, 8  # in a request's frame: API key and version, correlation id, then the client id
_LENGTH = struct.Struct(">i")
_CORRELATION = struct.Struct(">i")
_OFFSET = struct.Struct(">q")
_FLEXIBLE = BY_KEY[ApiKey.PRODUCE].flexible
_NO_TAGS = b"\x00\x00\x00"  # of the partition, the topic and the request
ALIKE_BYTES_MAX = 64 << 10  # what is longer is cheap to decode for its size


class Single(NamedTuple):
    """What one of them has of its own."""

    correlation_id: int
    records: memoryview


class Alike:
    """What the requests have in common, see `learn`; one topic and one partition each."""

    __slots__ = ("_base_at", "_common", "_flexible", "_kind", "body", "client_id", "index", "topic", "version")

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
        self._base_at = _base_at(len(self.topic.encode()), flexible=self._flexible)

    def match(self, frame: memoryview) -> Single | None:
        """The request's own part, or None when it is another kind of request."""
        start = _COMMON_AT + len(self._common)
        if (
            len(frame) > ALIKE_BYTES_MAX
            or frame[_COMMON_AT:start] != self._common
            or frame[:_CORRELATION_AT] != self._kind
        ):
            return None
        if self._flexible:
            found = _compact_records(frame, start)
        else:
            found = frame[start + 4 :]
            if len(frame) < start + 4 or _LENGTH.unpack_from(frame, start)[0] != len(found):
                return None
        return None if found is None else Single(_CORRELATION.unpack_from(frame, _CORRELATION_AT)[0], found)

    def whole(self, records: memoryview) -> Body:
        """The body that decoding a request with these records would have given."""
        part = {"index": self.index, "records": records}
        return self.body | {"topic_data": [{"name": self.topic, "partition_data": [part]}]}

    def answers(self, first: bytes, correlation_ids: Sequence[int], counts: Sequence[int]) -> bytes:
        """The frames of all answers: `first` is that to the first of them, `counts` how many records each had.

        Their batches lie behind one another in the log, or all have failed.
        """
        size, base_at = len(first), self._base_at
        frames = bytearray(first * len(counts))
        (offset,) = _OFFSET.unpack_from(first, base_at)
        failed = offset < 0
        position = 0
        for correlation_id, count in zip(correlation_ids, counts, strict=True):
            _CORRELATION.pack_into(frames, position + 4, correlation_id)
            if not failed:
                _OFFSET.pack_into(frames, position + base_at, offset)
                offset += count
            position += size
        return bytes(frames)


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
