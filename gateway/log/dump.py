"""One file of the log as rows for people: batches, index entries, snapshots. Reads whatever can be read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from crc32c import crc32c

from gateway.log.columns import control_type, decode_batch
from gateway.log.compression import Compression
from gateway.log.errors import CorruptBatch, MissingCodec
from gateway.log.headers import decode_headers
from gateway.log.index import OffsetIndex, TimeIndex
from gateway.log.layout import (
    ATTRIBUTE_CONTROL,
    ATTRIBUTE_DELETE_HORIZON,
    ATTRIBUTE_TRANSACTIONAL,
    CODEC_MASK,
    HEADER_BYTES,
    HEADER_STRUCT,
    LENGTH_OFFSET,
    MAGIC,
)
from gateway.log.producers import Producers
from gateway.log.transactions import decode_aborted
from headwater.disk import Disk

Row = dict[str, Any]
_CRC_START = 21
_SIZE_MAX = 1 << 30


def dump_file(disk: Disk, path: str, *, records: bool = False) -> Iterator[Row]:
    """Rows of a `.log`, `.index`, `.timeindex`, `.txnindex` or `.snapshot` (also `.swap`, `.cleaned`, `.deleted`).

    A row with `bad` says what could not be read there. Raises `OSError`, and `ValueError` for a file of another kind.
    """
    name = path.rpartition("/")[2]
    for suffix in (".swap", ".cleaned", ".deleted"):
        name = name.removesuffix(suffix)
    stem, _, kind = name.rpartition(".")
    base = int(stem) if stem.isdigit() else 0
    if kind == "log":
        yield from _batches(disk, path, records=records)
    elif kind in _INDEXES:
        try:
            yield from _INDEXES[kind](disk.read_file(path), base)
        except ValueError as error:
            yield {"bad": str(error)}
    else:
        raise ValueError(f"{path} is no .log, .index, .timeindex, .txnindex or .snapshot")


def _batches(disk: Disk, path: str, *, records: bool) -> Iterator[Row]:
    handle = disk.open(path)
    try:
        size, position = disk.size(handle), 0
        while position < size:
            head = disk.read_at(handle, HEADER_BYTES, position)
            length = int.from_bytes(head[8:12], "big", signed=True) + LENGTH_OFFSET if len(head) == HEADER_BYTES else 0
            if not HEADER_BYTES <= length <= min(size - position, _SIZE_MAX):
                yield {"position": position, "bad": f"{size - position} bytes that are no batch"}
                return
            batch = disk.read_at(handle, length, position)
            row = _batch(position, batch)
            yield row
            if records and "bad" not in row:
                yield from _records(batch)
            position += length
    finally:
        disk.close(handle)


def _batch(position: int, batch: bytes) -> Row:
    fields = HEADER_STRUCT.unpack_from(batch)
    row: Row = {
        "position": position,
        "size": len(batch),
        "first": fields[0],
        "last": fields[0] + fields[6],
        "count": fields[12],
        "epoch": fields[2],
        "codec": _codec(fields[5] & CODEC_MASK),
        "time": fields[8],
    }
    if fields[9] >= 0:
        row |= {"producer": fields[9], "producer_epoch": fields[10], "sequence": fields[11]}
    if fields[5] & ATTRIBUTE_TRANSACTIONAL:
        row["transactional"] = True
    if fields[5] & ATTRIBUTE_DELETE_HORIZON:
        row["delete_horizon"] = fields[7]
    if fields[3] != MAGIC:
        return row | {"bad": f"format {fields[3]}"}
    crc = crc32c(memoryview(batch)[_CRC_START:])
    if crc != fields[4]:
        return row | {"bad": f"CRC is {crc:08x}, header says {fields[4]:08x}"}
    if fields[5] & ATTRIBUTE_CONTROL:
        try:
            row["control"] = "empty" if not fields[12] else "commit" if control_type(batch) else "abort"
        except CorruptBatch as error:
            row["control"] = error.what
    return row


def _codec(number: int) -> str:
    try:
        return Compression(number).name.lower()
    except ValueError:
        return f"codec {number}"


def _records(batch: bytes) -> Iterator[Row]:
    try:
        columns = decode_batch(batch)
    except (CorruptBatch, MissingCodec) as error:
        yield {"bad": error.what}
        return
    for slot, offset in enumerate(columns.offsets):
        yield {
            "offset": offset,
            "time": columns.timestamps[slot],
            "key": _text(columns.keys[slot]),
            "value": _text(columns.values[slot]),
            "headers": {name: _text(value) for name, value in decode_headers(columns.headers[slot])},
        }


def _text(data: bytes | None) -> str | None:
    return None if data is None else data.decode("utf-8", "backslashreplace")


def _offset_index(data: bytes, base: int) -> Iterator[Row]:
    index = OffsetIndex.decode(data, _SIZE_MAX)
    for offset, position in zip(index.offsets, index.positions, strict=True):
        yield {"offset": base + offset, "position": position}


def _time_index(data: bytes, base: int) -> Iterator[Row]:
    times = TimeIndex.decode(data)
    for time, offset in zip(times.timestamps, times.offsets, strict=True):
        yield {"time": time, "offset": base + offset}


def _transaction_index(data: bytes, _base: int) -> Iterator[Row]:
    for entry in decode_aborted(data):
        yield entry._asdict()


def _snapshot(data: bytes, _base: int) -> Iterator[Row]:
    producers, transactions = Producers.decode(data)
    for producer_id, last in producers.last_offsets().items():
        row: Row = {"producer": producer_id, "producer_epoch": producers.epoch(producer_id), "last_offset": last}
        if producer_id in transactions:
            row["open_since"] = transactions[producer_id][1]
        yield row


_INDEXES = {"index": _offset_index, "timeindex": _time_index, "txnindex": _transaction_index, "snapshot": _snapshot}
