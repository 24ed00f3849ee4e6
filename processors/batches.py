"""Record batches to columns with NumPy: what `gateway.log.columns.decode_batch` says, with no object for a record.

A record's place depends on the lengths of all before it, so these are walked through in Python; everything else is read
for all records at once. A few records, batches that have something unusual (null keys or values, records above 8 KiB),
and damaged ones, which need to be named, go the general way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gateway.consume.batches import RecordColumns, one_by_one
from gateway.log.compression import Compression, decompress
from gateway.log.layout import (
    ATTRIBUTE_LOG_APPEND_TIME,
    CODEC_MASK,
    DECODED_RECORDS_MAX,
    HEADER_BYTES,
    HEADER_STRUCT,
)
from processors.pieces import WORD, Ints, Numbers, Pieces

RECORDS_MIN = 100
"""Fewer are decoded faster one by one."""
_VARINT_BYTES_MAX = 5
_COUNT, _ATTRIBUTES, _BASE_OFFSET, _BASE_TIME, _NEWEST_TIME = 12, 5, 0, 7, 8


class _UnusualError(Exception):
    """Something that only the general way knows to read or to refuse."""


def decode_batches(views: Sequence[bytes | bytearray | memoryview]) -> RecordColumns:
    """Whole batches, whose CRCs the caller has checked, one behind the other.

    Raises what `gateway.log.columns.decode_batch` does.
    """
    fields = [HEADER_STRUCT.unpack_from(view, 0) for view in views]
    counts = [one[_COUNT] for one in fields]
    most = [min(len(view), DECODED_RECORDS_MAX) for view in views]
    if sum(counts) >= RECORDS_MIN and all(0 < count <= at_most for count, at_most in zip(counts, most, strict=True)):
        try:
            return _decode(fields, [memoryview(view)[HEADER_BYTES:] for view in views])
        except (_UnusualError, IndexError):
            pass
    return one_by_one(views)


def _decode(fields: Sequence[tuple[int, ...]], bodies: Sequence[memoryview]) -> RecordColumns:
    codecs = [one[_ATTRIBUTES] & CODEC_MASK for one in fields]
    plain = [
        body if codec == Compression.NONE else decompress(codec, body)
        for codec, body in zip(codecs, bodies, strict=True)
    ]
    # A number cut short at the end is no number; and so that places can be looked at eight bytes at a time.
    data = b"".join([*plain, bytes(WORD)])
    octets = np.frombuffer(data, np.uint8)
    counts = np.array([one[_COUNT] for one in fields])
    starts, ends = _records(data, octets, int(counts.sum()))
    if (ends[np.cumsum(counts) - 1] != np.cumsum([len(body) for body in plain])).any():
        raise _UnusualError
    times, at = _numbers(octets, starts + 1)  # behind the attributes
    offsets, at = _numbers(octets, at)
    lengths, keys = _numbers(octets, at)
    key_ends = _after(keys, lengths, ends)
    lengths, values = _numbers(octets, key_ends)
    value_ends = _after(values, lengths, ends)
    offsets += np.repeat([one[_BASE_OFFSET] for one in fields], counts)
    times += np.repeat([one[_BASE_TIME] for one in fields], counts)
    if any(by_broker := [bool(one[_ATTRIBUTES] & ATTRIBUTE_LOG_APPEND_TIME) for one in fields]):
        newest = np.repeat([one[_NEWEST_TIME] for one in fields], counts)
        times = np.where(np.repeat(by_broker, counts), newest, times)
    found = (Pieces(data, keys, key_ends), Pieces(data, values, value_ends), Pieces(data, value_ends, ends))
    return RecordColumns(Numbers(offsets), Numbers(times), *found)


def _records(data: bytes, octets: npt.NDArray[np.uint8], count: int) -> tuple[Ints, Ints]:
    """Where each record begins, behind its length, and where it ends."""
    at = 0
    # A length of one or two bytes, zigzag: the lowest bit is its sign, the highest of the first byte says “one more”.
    found = [
        at := at + ((first >> 1) + 1 if (first := data[at]) < 0x80 else (first >> 1) + (data[at + 1] << 6) - 62)
        for _ in range(count)
    ]
    ends = np.array(found, dtype=np.int64)
    begins = np.empty_like(ends)
    begins[0], begins[1:] = 0, ends[:-1]
    firsts = octets[begins]
    long = firsts >= 0x80
    if (firsts & 1).any() or (octets[begins + 1][long] >= 0x80).any():
        raise _UnusualError
    return begins + 1 + long, ends


def _numbers(octets: npt.NDArray[np.uint8], at: Ints) -> tuple[Ints, Ints]:
    """The zigzag varints at these places, and the places behind them."""
    part: npt.NDArray[Any] = octets[at]
    at = at + 1
    more = part >= 0x80
    raw = part.astype(np.int64)
    shift = 7
    while more.any():
        if shift >= 7 * _VARINT_BYTES_MAX:
            raise _UnusualError
        part = octets[at]
        raw = np.where(
            more, raw + ((part.astype(np.int64) - 1) << shift), raw
        )  # - 1: the bit that said that it follows
        at += more
        more &= part >= 0x80
        shift += 7
    return (raw >> 1) ^ -(raw & 1), at


def _after(begins: Ints, lengths: Ints, ends: Ints) -> Ints:
    """Where these bytes end, which have to lie before the ends of their records."""
    found: Ints = begins + lengths
    if (lengths < 0).any() or (found >= ends).any():
        raise _UnusualError
    return found
