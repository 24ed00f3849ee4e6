"""Record batches to columns: one list per field, header sections left encoded for those who want them.

Two decoders with one result: pure Python, and aiokafka's compiled codec where it is installed (extra `fast`). The
compiled one unpacks headers, which would have to be packed again, so it takes only batches whose first record has none.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cache
from typing import Any

from gateway.log.compression import Compression, decompress
from gateway.log.errors import CorruptBatch
from gateway.log.headers import NO_HEADERS, encode_headers
from gateway.log.layout import (
    ATTRIBUTE_CONTROL,
    ATTRIBUTE_LOG_APPEND_TIME,
    CODEC_MASK,
    DECODED_RECORDS_MAX,
    HEADER_BYTES,
    HEADER_STRUCT,
    LENGTH_OFFSET,
    MAGIC,
)
from gateway.log.varint import UNZIGZAG, decode_varint

_RECORD_BYTES_MIN = 7


class Columns:
    """The records of one batch; all lists have the same length, `headers` are encoded sections."""

    __slots__ = ("base_offset", "headers", "keys", "offsets", "timestamps", "values")

    def __init__(self, base_offset: int) -> None:
        self.base_offset = base_offset
        self.offsets: list[int] = []
        self.timestamps: list[int] = []
        self.keys: list[bytes | None] = []
        self.values: list[bytes | None] = []
        self.headers: list[bytes] = []

    def __len__(self) -> int:
        return len(self.offsets)


def decode_batch(view: bytes | bytearray | memoryview, *, accelerate: bool = True) -> Columns:
    """One whole batch, whose CRC the caller has checked, as columns.

    Raises `CorruptBatch` on any damage, `MissingCodec` for a codec without a library.
    """
    if len(view) < HEADER_BYTES:
        raise CorruptBatch("Record batch cut short in its header")
    fields = HEADER_STRUCT.unpack_from(view, 0)
    if fields[3] != MAGIC or fields[1] + LENGTH_OFFSET != len(view):
        raise CorruptBatch(
            f"Record batch of format {fields[3]} says {fields[1] + LENGTH_OFFSET} bytes, has {len(view)}"
        )
    if fields[12] > DECODED_RECORDS_MAX:
        raise CorruptBatch(
            f"Record batch of {fields[12]} records, which is more than the {DECODED_RECORDS_MAX} decoded"
        )
    codec = fields[5] & CODEC_MASK
    with memoryview(view) as whole:
        body = bytes(whole[HEADER_BYTES:]) if codec == Compression.NONE else decompress(codec, whole[HEADER_BYTES:])
    if fields[12] < 0 or fields[12] * _RECORD_BYTES_MIN > len(body):
        raise CorruptBatch(f"Record batch of {fields[12]} records in {len(body)} bytes")
    columns = Columns(fields[0])
    compiled = _compiled_decoder() if accelerate else None
    if compiled is not None and fields[12] > 1 and not _first_has_headers(body):
        _decode_compiled(compiled, fields, body, columns)
    else:
        try:
            _decode_pure(fields, body, columns)
        except IndexError:
            raise CorruptBatch("Record beyond the end of its batch") from None
    if fields[5] & ATTRIBUTE_LOG_APPEND_TIME:
        columns.timestamps = [fields[8]] * len(columns.offsets)
    return columns


def control_type(view: bytes | bytearray | memoryview) -> bool:
    """Whether a transaction marker commits (True) or aborts. Raises `CorruptBatch` when it is neither.

    Kafka's cleaner may leave a control batch without its record, once nothing of the transaction is left to abort.
    """
    columns = decode_batch(view, accelerate=False)
    if not columns.keys and HEADER_STRUCT.unpack_from(view, 0)[5] & ATTRIBUTE_CONTROL:
        return True
    key = columns.keys[0] if columns.keys else None
    if not HEADER_STRUCT.unpack_from(view, 0)[5] & ATTRIBUTE_CONTROL or key is None or len(key) < 4:
        raise CorruptBatch("Control batch without a control record")
    kind = int.from_bytes(key[2:4], "big")
    if kind > 1:
        raise CorruptBatch(f"Control batch of unknown type {kind}")
    return kind == 1


def _decode_pure(
    fields: tuple[int, ...], data: bytes, columns: Columns
) -> None:  # one loop: a call per field would double its cost
    base_offset, base_time = fields[0], fields[7]
    total = len(data)
    unzigzag = UNZIGZAG
    varint = decode_varint
    offsets, timestamps = columns.offsets.append, columns.timestamps.append
    keys, values, headers = columns.keys.append, columns.values.append, columns.headers.append
    position = 0
    for _ in range(fields[12]):
        if (byte := data[position]) < 0x80:
            size = unzigzag[byte]
            position += 1
        else:
            size, position = varint(data, position)
        end = position + size
        if size < _RECORD_BYTES_MIN - 1 or end > total:
            raise CorruptBatch(f"Record of {size} bytes at byte {position} of {total}")
        position += 1
        if (byte := data[position]) < 0x80:
            timestamps(base_time + unzigzag[byte])
            position += 1
        else:
            size, position = varint(data, position)
            timestamps(base_time + size)
        if (byte := data[position]) < 0x80:
            offsets(base_offset + unzigzag[byte])
            position += 1
        else:
            size, position = varint(data, position)
            offsets(base_offset + size)
        if (byte := data[position]) < 0x80:
            size = unzigzag[byte]
            position += 1
        else:
            size, position = varint(data, position)
        if size < 0:
            keys(None)
        else:
            keys(data[position : position + size])
            position += size
        if (byte := data[position]) < 0x80:
            size = unzigzag[byte]
            position += 1
        else:
            size, position = varint(data, position)
        if size < 0:
            values(None)
        else:
            values(data[position : position + size])
            position += size
        if position >= end:
            raise CorruptBatch("Record whose key or value passes its end")
        headers(data[position:end])
        position = end
    if position != total:
        raise CorruptBatch(f"Record batch with {total - position} bytes after its records")


def _first_has_headers(body: bytes) -> bool:
    try:
        size, position = decode_varint(body, 0)
        end = position + size
        return body[end - 1 : end] != NO_HEADERS
    except IndexError:
        return False


def _decode_compiled(compiled: Callable[[bytes], Any], fields: tuple[int, ...], body: bytes, columns: Columns) -> None:
    plain = list(fields)
    plain[1] = HEADER_BYTES - LENGTH_OFFSET + len(body)
    plain[5] &= ~(CODEC_MASK | ATTRIBUTE_LOG_APPEND_TIME)
    offsets, timestamps = columns.offsets.append, columns.timestamps.append
    keys, values, headers = columns.keys.append, columns.values.append, columns.headers.append
    seen = 0
    try:
        for record in compiled(HEADER_STRUCT.pack(*plain) + body):
            offsets(record.offset)
            timestamps(record.timestamp)
            keys(record.key)
            values(record.value)
            pairs = record.headers
            headers(encode_headers(pairs) if pairs else NO_HEADERS)
            seen += 1
    except Exception as error:  # the foreign codec's own class, UnicodeDecodeError, ValueError: all mean damage here
        raise CorruptBatch(f"Record batch with damaged records: {error}") from None
    if seen != fields[12]:
        raise CorruptBatch(f"Record batch of {fields[12]} records holds {seen}")


@cache
def _compiled_decoder() -> Callable[[bytes], Any] | None:
    # Imported at first use: the package is large, and a node that only stores and serves never decodes.
    try:
        module = importlib.import_module("aiokafka.record._crecords.default_records")
    except ImportError:
        return None
    decoder: Callable[[bytes], Any] = module.DefaultRecordBatch
    return decoder
