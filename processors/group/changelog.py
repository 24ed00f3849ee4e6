"""State in a compacted topic: snapshots of one input partition, cut into records. Sans-IO.

    key  <topic>/<partition>       head: JSON {v, offset, partitions, chunks, bytes, crc}
    key  <topic>/<partition>/<n>   chunk n from 0: zstd of the snapshot (msgpack), cut every `CHUNK_BYTES`

`offset` is where reading goes on, `partitions` how many the input topic had: with another number keys have moved
to other partitions, and the state is of no use. A snapshot is written in one transaction together with the
consumer's offset, so whoever reads it at `read_committed` finds all of its chunks, and after compaction too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec
import zstandard
from crc32c import crc32c

from headwater.errors import UNREADABLE, HeadwaterError

FORMAT = 1
CHUNK_BYTES = 512 << 10
SNAPSHOT_BYTES_MAX = 2 << 30


class ChangelogError(HeadwaterError):
    """A snapshot is damaged, or of another format."""


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """What a snapshot says of itself."""

    v: int = FORMAT
    offset: int
    partitions: int
    chunks: int
    bytes: int
    crc: int


class Snapshot(NamedTuple):
    """A partition's state, and the offset at which it was taken."""

    offset: int
    partitions: int
    state: dict[str, Any]
    chunks: int = 0


def encode_snapshot(
    source: str, offset: int, partitions: int, state: dict[str, Any], *, chunks_before: int = 0
) -> list[tuple[bytes, bytes | None]]:
    """Keys and values to write; what is left of a longer snapshot before (`chunks_before`) gets tombstones."""
    data = zstandard.ZstdCompressor(level=1).compress(msgspec.msgpack.encode(state))
    pieces = [data[at : at + CHUNK_BYTES] for at in range(0, len(data), CHUNK_BYTES)]
    head = Head(offset=offset, partitions=partitions, chunks=len(pieces), bytes=len(data), crc=crc32c(data))
    records: list[tuple[bytes, bytes | None]] = [
        (f"{source}/{number}".encode(), piece) for number, piece in enumerate(pieces)
    ]
    records += [(f"{source}/{number}".encode(), None) for number in range(len(pieces), chunks_before)]
    return [*records, (source.encode(), msgspec.json.encode(head))]


class ChangelogView:
    """The latest value of each key of one changelog partition; fed in the order of the log."""

    def __init__(self) -> None:
        self._latest: dict[bytes, bytes] = {}

    def take(self, key: bytes | None, value: bytes | None) -> None:
        if key is None:
            return
        if value is None:
            self._latest.pop(key, None)
        else:
            self._latest[key] = value

    def sources(self) -> Iterator[str]:
        """`<topic>/<partition>` of each snapshot that is here."""
        for key in self._latest:
            if key.count(b"/") == 1:
                yield key.decode(errors="replace")

    def head(self, source: str) -> Head | None:
        """A snapshot's head; None when there is no snapshot. Raises `ChangelogError`."""
        value = self._latest.get(source.encode())
        if value is None:
            return None
        try:
            head = msgspec.json.decode(value, type=Head)
        except UNREADABLE as error:
            raise ChangelogError(f"the head of {source} cannot be read: {error}") from None
        if head.v != FORMAT:
            raise ChangelogError(f"the state of {source} has format {head.v}, not {FORMAT}")
        return head

    def snapshot(self, source: str) -> Snapshot | None:
        """A partition's latest snapshot. Raises `ChangelogError`."""
        head = self.head(source)
        if head is None:
            return None
        pieces = [self._latest.get(f"{source}/{number}".encode(), b"") for number in range(head.chunks)]
        data = b"".join(pieces)
        if len(data) != head.bytes or crc32c(data) != head.crc:
            raise ChangelogError(f"the state of {source} is damaged: {len(data)} bytes of {head.bytes}")
        try:
            plain = zstandard.ZstdDecompressor().decompress(data, max_output_size=SNAPSHOT_BYTES_MAX)
            state = msgspec.msgpack.decode(plain, type=dict[str, Any])
            return Snapshot(head.offset, head.partitions, state, head.chunks)
        except (*UNREADABLE, zstandard.ZstdError) as error:
            raise ChangelogError(f"the state of {source} cannot be read: {error}") from None
