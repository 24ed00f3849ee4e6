"""Record batches to columns: one list per field, header sections left encoded for those who want them.

Two decoders with one result: pure Python, and aiokafka's compiled codec where it is installed (extra `fast`). The
compiled one unpacks headers, which would have to be packed again, so it takes only batches whose first record has none.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from functools import cache
from itertools import islice
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
_UNPACKED_AT_ONCE_BYTES = 4_096


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
    fields = _checked_fields(view)
    body = _unpacked(fields, view)
    columns = Columns(fields[0])
    records = _compiled_records(fields, body) if accelerate else None
    if records is not None:
        _take(records, columns)
        _check_count(fields, columns)
    else:
        _check_end(_decode_pure(fields, body, columns, 0, fields[12]), body)
    _settle_times(fields, columns)
    return columns


class SlicedBatch:
    """The same in slices, for a loop that others wait for: `unpack` once, in any thread, then `more` until it is False.

    Both raise as `decode_batch` does.
    """

    def __init__(self, view: bytes | bytearray | memoryview) -> None:
        self.fields = _checked_fields(view)
        self.columns = Columns(self.fields[0])
        self._view = view
        self._body = b""
        self._position = 0
        self._records: Iterator[Any] | None = None

    @property
    def takes_long(self) -> bool:
        """Whether `unpack` may take more than a moment: to unpack, or to import the decoder."""
        packed = bool(self.fields[5] & CODEC_MASK) and len(self._view) > _UNPACKED_AT_ONCE_BYTES
        return packed or not _compiled_decoder.cache_info().currsize

    def unpack(self) -> None:
        self._body = _unpacked(self.fields, self._view)
        self._records = _compiled_records(self.fields, self._body)

    def more(self, records_max: int) -> bool:
        """Add so many records to `columns`; whether there are more."""
        fields, columns = self.fields, self.columns
        left = fields[12] - len(columns)
        if self._records is not None:
            _take(islice(self._records, min(left, records_max)), columns)
            if left > records_max:
                return True
            _take(self._records, columns)  # nothing, or there is more than it should hold
            _check_count(fields, columns)
        else:
            self._position = _decode_pure(fields, self._body, columns, self._position, min(left, records_max))
            if left > records_max:
                return True
            _check_end(self._position, self._body)
        _settle_times(fields, columns)
        return False


def _checked_fields(view: bytes | bytearray | memoryview) -> tuple[int, ...]:
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
    return fields


def _unpacked(fields: tuple[int, ...], view: bytes | bytearray | memoryview) -> bytes:
    codec = fields[5] & CODEC_MASK
    with memoryview(view) as whole:
        body = bytes(whole[HEADER_BYTES:]) if codec == Compression.NONE else decompress(codec, whole[HEADER_BYTES:])
    if fields[12] < 0 or fields[12] * _RECORD_BYTES_MIN > len(body):
        raise CorruptBatch(f"Record batch of {fields[12]} records in {len(body)} bytes")
    return body


def _settle_times(fields: tuple[int, ...], columns: Columns) -> None:
    if fields[5] & ATTRIBUTE_LOG_APPEND_TIME:
        columns.timestamps = [fields[8]] * len(columns.offsets)


def _check_end(position: int, body: bytes) -> None:
    if position != len(body):
        raise CorruptBatch(f"Record batch with {len(body) - position} bytes after its records")


def _check_count(fields: tuple[int, ...], columns: Columns) -> None:
    if len(columns) != fields[12]:
        raise CorruptBatch(f"Record batch of {fields[12]} records holds {len(columns)}")


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


def _decode_pure(fields: tuple[int, ...], data: bytes, columns: Columns, position: int, count: int) -> int:
    """Add so many records from there on; returns where the next one begins."""
    try:
        return _decode_some(fields, data, columns, position, count)
    except IndexError:
        raise CorruptBatch("Record beyond the end of its batch") from None


def _decode_some(
    fields: tuple[int, ...], data: bytes, columns: Columns, position: int, count: int
) -> int:  # one loop: a call per field would double its cost
    base_offset, base_time = fields[0], fields[7]
    total = len(data)
    unzigzag = UNZIGZAG
    varint = decode_varint
    offsets, timestamps = columns.offsets.append, columns.timestamps.append
    keys, values, headers = columns.keys.append, columns.values.append, columns.headers.append
    for _ in range(count):
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
    return position


def _first_has_headers(body: bytes) -> bool:
    try:
        size, position = decode_varint(body, 0)
        end = position + size
        return body[end - 1 : end] != NO_HEADERS
    except IndexError:
        return False


def _compiled_records(fields: tuple[int, ...], body: bytes) -> Iterator[Any] | None:
    """The records as the compiled codec gives them, None where it is not there or does not pay."""
    compiled = _compiled_decoder()
    if compiled is None or fields[12] < 2 or _first_has_headers(body):
        return None
    plain = list(fields)
    plain[1] = HEADER_BYTES - LENGTH_OFFSET + len(body)
    plain[5] &= ~(CODEC_MASK | ATTRIBUTE_LOG_APPEND_TIME)
    try:
        # A generator over it: each time its own iterator is asked for, it begins again.
        return (record for record in compiled(HEADER_STRUCT.pack(*plain) + body))
    except Exception as error:
        raise CorruptBatch(f"Record batch with damaged records: {error}") from None


def _take(records: Iterator[Any], columns: Columns) -> None:
    offsets, timestamps = columns.offsets.append, columns.timestamps.append
    keys, values, headers = columns.keys.append, columns.values.append, columns.headers.append
    try:
        for record in records:
            offsets(record.offset)
            timestamps(record.timestamp)
            keys(record.key)
            values(record.value)
            pairs = record.headers
            headers(encode_headers(pairs) if pairs else NO_HEADERS)
    except Exception as error:  # the foreign codec's own class, UnicodeDecodeError, ValueError: all mean damage here
        raise CorruptBatch(f"Record batch with damaged records: {error}") from None


@cache
def _compiled_decoder() -> Callable[[bytes], Any] | None:
    # Imported at first use: the package is large, and a node that only stores and serves never decodes.
    try:
        module = importlib.import_module("aiokafka.record._crecords.default_records")
    except ImportError:
        return None
    decoder: Callable[[bytes], Any] = module.DefaultRecordBatch
    return decoder
