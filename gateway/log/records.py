"""Record batch format 2: Kafka's unit on the wire, on disk and in memory (KIP-98; layout in docs/records.md).

Encoding is optimised pure Python: a varint table and one join, about two million records a second. Whole batches are
checked and split without looking at records. Decoding to columns is in `gateway.log.columns` and exported here.
Base offset and leader epoch lie outside the CRC: the log patches them in place.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

from crc32c import crc32c

from gateway.log.columns import Columns, control_type, decode_batch
from gateway.log.compression import Compression, compress
from gateway.log.errors import CorruptBatch
from gateway.log.headers import NO_HEADERS, decode_headers, encode_headers
from gateway.log.layout import (
    ATTRIBUTE_CONTROL,
    ATTRIBUTE_TRANSACTIONAL,
    CODEC_MASK,
    HEADER_BYTES,
    HEADER_STRUCT,
    LENGTH_OFFSET,
    MAGIC,
)
from gateway.log.varint import NULL, SMALL, encode_varint

__all__ = [
    "HEADER_BYTES",
    "NO_HEADERS",
    "BatchHeader",
    "Buffer",
    "Columns",
    "Compression",
    "Record",
    "check_batch",
    "control_type",
    "decode_batch",
    "decode_headers",
    "encode_batch",
    "encode_control",
    "encode_headers",
    "patch",
    "read_header",
    "split_batches",
]

Buffer = bytes | bytearray | memoryview
# timestamp in ms, key, value, encoded header section
Record = tuple[int, bytes | None, bytes | None, bytes]

_CRC_START = 21  # the CRC covers everything from the attributes on
_PATCH_OFFSET = struct.Struct(">q")
_PATCH_EPOCH = struct.Struct(">i")
_CONTROL_KEY = struct.Struct(">hh")
_CONTROL_VALUE = struct.Struct(">hi")


class BatchHeader(NamedTuple):
    """The 61 bytes before the records; `length` counts the bytes after itself."""

    base_offset: int
    length: int
    leader_epoch: int
    magic: int
    crc: int
    attributes: int
    last_offset_delta: int
    base_timestamp: int
    max_timestamp: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    count: int  # type: ignore[assignment]  # of records; hides the tuple's own method

    @property
    def size_bytes(self) -> int:
        return self.length + LENGTH_OFFSET

    @property
    def last_offset(self) -> int:
        return self.base_offset + self.last_offset_delta

    @property
    def next_offset(self) -> int:
        return self.base_offset + self.last_offset_delta + 1

    @property
    def is_transactional(self) -> bool:
        return bool(self.attributes & ATTRIBUTE_TRANSACTIONAL)

    @property
    def is_control(self) -> bool:
        return bool(self.attributes & ATTRIBUTE_CONTROL)

    @property
    def compression(self) -> int:
        return self.attributes & CODEC_MASK


def read_header(buffer: Buffer, position: int = 0) -> BatchHeader:
    """The header at `position`, unchecked. Raises `CorruptBatch` when fewer than 61 bytes are there."""
    try:
        return BatchHeader._make(HEADER_STRUCT.unpack_from(buffer, position))
    except struct.error:
        raise CorruptBatch(f"Record batch cut short in its header, at byte {position}") from None


def encode_batch(
    records: Sequence[Record],
    *,
    compression: Compression = Compression.NONE,
    producer_id: int = -1,
    producer_epoch: int = -1,
    base_sequence: int = -1,
    transactional: bool = False,
    base_offset: int = 0,
    leader_epoch: int = 0,
) -> bytearray:
    """One batch with consecutive offsets. Raises `ValueError` for no records, `MissingCodec`."""
    if not records:
        raise ValueError("a record batch holds at least one record")
    base = records[0][0]
    try:
        body, newest = _encode_small(records, base)
    except (IndexError, TypeError):
        # A number beyond the table, a negative time delta, or a null key or value: the general way, about half as fast.
        body, newest = _encode_any(records, base)
    if compression is not Compression.NONE:
        body = compress(compression, body)
    attributes = compression | (ATTRIBUTE_TRANSACTIONAL if transactional else 0)
    last = len(records) - 1
    return seal(
        (
            *(base_offset, 0, leader_epoch, MAGIC, 0, attributes, last, base, newest),
            *(producer_id, producer_epoch, base_sequence, last + 1),
        ),
        body,
    )


def seal(fields: tuple[int, ...], body: bytes) -> bytearray:
    header = bytearray(HEADER_STRUCT.pack(*fields))
    batch = header + body
    _PATCH_EPOCH.pack_into(batch, 8, len(batch) - LENGTH_OFFSET)
    with memoryview(batch) as view:
        crc = crc32c(view[_CRC_START:])
    struct.pack_into(">I", batch, 17, crc)
    return batch


def _encode_small(records: Sequence[Record], base: int) -> tuple[bytes, int]:
    small = SMALL
    parts: list[bytes] = []
    extend = parts.extend
    newest = base
    for delta, (timestamp, key, value, headers) in enumerate(records):
        if timestamp < base:
            raise IndexError  # a negative index would silently find another number
        if timestamp > newest:
            newest = timestamp
        time = small[timestamp - base]
        number = small[delta]
        key_bytes = len(key)  # type: ignore[arg-type]  # None: a TypeError, as said above
        value_bytes = len(value)  # type: ignore[arg-type]  # as above
        key_size = small[key_bytes]
        value_size = small[value_bytes]
        size = len(time) + len(number) + len(key_size) + key_bytes + len(value_size) + value_bytes + len(headers)
        extend((small[size + 1], b"\x00", time, number, key_size, key, value_size, value, headers))  # type: ignore[arg-type]  # as above
    return b"".join(parts), newest


def _encode_any(records: Sequence[Record], base: int) -> tuple[bytes, int]:
    parts: list[bytes] = []
    newest = base
    for delta, (timestamp, key, value, headers) in enumerate(records):
        newest = max(newest, timestamp)
        body = b"".join(
            (
                b"\x00",
                encode_varint(timestamp - base),
                encode_varint(delta),
                NULL if key is None else encode_varint(len(key)) + key,
                NULL if value is None else encode_varint(len(value)) + value,
                headers,
            )
        )
        parts += encode_varint(len(body)), body
    return b"".join(parts), newest


def encode_control(
    *, commit: bool, producer_id: int, producer_epoch: int, coordinator_epoch: int, timestamp_ms: int
) -> bytearray:
    """A transaction marker (EndTransactionMarker, KIP-98): a control batch of one record."""
    key = _CONTROL_KEY.pack(0, int(commit))
    value = _CONTROL_VALUE.pack(0, coordinator_epoch)
    body, _ = _encode_small([(timestamp_ms, key, value, NO_HEADERS)], timestamp_ms)
    attributes = ATTRIBUTE_TRANSACTIONAL | ATTRIBUTE_CONTROL
    return seal(
        (0, 0, 0, MAGIC, 0, attributes, 0, timestamp_ms, timestamp_ms, producer_id, producer_epoch, -1, 1),
        body,
    )


def patch(batch: bytearray, position: int, base_offset: int, leader_epoch: int) -> None:
    """Give the batch at `position` its offset and epoch in place; the CRC covers neither."""
    _PATCH_OFFSET.pack_into(batch, position, base_offset)
    _PATCH_EPOCH.pack_into(batch, position + LENGTH_OFFSET, leader_epoch)


def split_batches(data: Buffer) -> list[memoryview]:
    """The whole batches of `data`, unchecked beyond their lengths. Raises `CorruptBatch` when the last is cut short."""
    view = memoryview(data)
    total = len(view)
    batches = []
    position = 0
    while position < total:
        if total - position < HEADER_BYTES:
            raise CorruptBatch(f"Record batch cut short in its header, at byte {position} of {total}")
        size = int.from_bytes(view[position + 8 : position + 12], "big", signed=True) + LENGTH_OFFSET
        if not HEADER_BYTES <= size <= total - position:
            raise CorruptBatch(f"Record batch of {size} bytes at byte {position} of {total}")
        batches.append(view[position : position + size])
        position += size
    return batches


def check_batch(view: Buffer) -> BatchHeader:
    """The header of one whole batch whose magic, length, count and CRC are right. Raises `CorruptBatch`.

    A compacted batch has fewer records than offsets, or none at all.
    """
    header = read_header(view)
    if header.magic != MAGIC:
        raise CorruptBatch(f"Record batch of format {header.magic}; only format 2 is taken")
    if header.length + LENGTH_OFFSET != len(view):
        raise CorruptBatch(f"Record batch says {header.length + LENGTH_OFFSET} bytes and has {len(view)}")
    if not 0 <= header.count <= header.last_offset_delta + 1:
        raise CorruptBatch(f"Record batch of {header.count} records whose last offset is {header.last_offset_delta}")
    with memoryview(view) as whole:
        crc = crc32c(whole[_CRC_START:])
    if crc != header.crc:
        raise CorruptBatch(f"Record batch whose CRC is {crc:08x}, not {header.crc:08x} as it says")
    return header
