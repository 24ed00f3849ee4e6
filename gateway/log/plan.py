"""Checking what is to be appended, and giving each batch its offset and epoch in place."""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterable
from functools import lru_cache, reduce
from itertools import accumulate, islice, repeat
from operator import add, or_, sub

from crc32c import crc32c

from gateway.log.errors import CorruptBatch
from gateway.log.layout import (
    ATTRIBUTE_CONTROL,
    ATTRIBUTE_TRANSACTIONAL,
    DECODED_RECORDS_MAX,
    HEADER_BYTES,
    HEADER_STRUCT,
    LENGTH_OFFSET,
    MAGIC,
)
from gateway.log.records import Buffer
from gateway.log.state import NO_PRODUCER

_CRC_START = 21
_EQUAL_BYTES_MAX = 4 << 10  # of larger ones so few come together that it does not pay
_SLICES = 64  # requests that are handled together are not more than that
_LENGTH = struct.Struct(">i")
_PATCH = struct.Struct(">qii")
SEQUENCED = ATTRIBUTE_CONTROL | ATTRIBUTE_TRANSACTIONAL


# size in bytes, last offset, newest timestamp
PlannedBatch = tuple[int, int, int]


# with the end offset
Plan = tuple[list[PlannedBatch], int]


def plan_append(data: Buffer, offset: int, epoch: int, *, verify: bool, sequenced: bool = False) -> Plan:
    """Check batches for `offset` on and patch them; returns them and the end offset.

    `sequenced` lets in those of idempotent producers and coordinators: the caller sees to it that such a one is alone.
    Raises `CorruptBatch`; `data` may then be patched in part, and is not to be written.
    """
    total = len(data)
    view = memoryview(data)
    if plan := _plan_equal(data, view, offset, epoch, verify=verify):
        return plan
    planned: list[PlannedBatch] = []
    position = 0
    while position < total:
        if total - position < HEADER_BYTES:
            raise CorruptBatch(f"Record batch cut short in its header, at byte {position} of {total}")
        _, length, _, magic, crc, attributes, delta, _, newest, producer_id, _, _, count = HEADER_STRUCT.unpack_from(
            data, position
        )
        size = length + LENGTH_OFFSET
        end = position + size
        if size < HEADER_BYTES or end > total:
            raise CorruptBatch(f"Record batch of {size} bytes at byte {position} of {total}")
        if (producer_id != NO_PRODUCER or attributes & SEQUENCED) and not sequenced:
            raise CorruptBatch("A batch of an idempotent producer must come alone")
        if magic != MAGIC or not 1 <= count <= DECODED_RECORDS_MAX or delta != count - 1:
            raise CorruptBatch(f"Record batch of format {magic} and {count} records whose last offset is {delta}")
        if verify and (found := crc32c(view[position + _CRC_START : end])) != crc:
            raise CorruptBatch(f"Record batch whose CRC is {found:08x}, not {crc:08x} as it says")
        _PATCH.pack_into(data, position, offset, length, epoch)  # the CRC covers neither offset nor epoch
        planned.append((size, offset + delta, newest))
        offset += count
        position = end
    return planned, offset


def _plan_equal(data: Buffer, view: memoryview, offset: int, epoch: int, *, verify: bool) -> Plan | None:
    """The same for several of one size, at once; None when they are not, or one is bad, and nothing has happened then.

    Devices send the same again and again. Column by column that costs half of what it does batch by batch.
    """
    total = len(data)
    length = _LENGTH.unpack_from(data, LENGTH_OFFSET - 4)[0] if total > HEADER_BYTES else 0
    size = length + LENGTH_OFFSET
    if not HEADER_BYTES <= size <= _EQUAL_BYTES_MAX or size == total or total % size:
        return None
    starts = range(0, total, size)
    batches = len(starts)
    lengths, magics, crcs, attributes, deltas, newests, producers, counts = zip(
        *_headers(size).iter_unpack(data), strict=True
    )
    if (
        not lengths.count(length) == magics.count(MAGIC) == producers.count(NO_PRODUCER) == batches
        or reduce(or_, attributes) & SEQUENCED
        or not 1 <= min(counts) <= max(counts) <= DECODED_RECORDS_MAX
        or list(map(sub, counts, deltas)).count(1) != batches
        or (verify and tuple(map(crc32c, map(view.__getitem__, _checked_by_crc(size, batches)))) != crcs)
    ):
        return None
    bases = list(accumulate(counts, initial=offset))
    deque(map(_PATCH.pack_into, repeat(data), starts, bases, repeat(length), repeat(epoch)), maxlen=0)
    return list(zip(repeat(size, batches), map(add, bases, deltas), newests, strict=True)), bases[-1]


def _checked_by_crc(size: int, batches: int) -> Iterable[slice]:
    """What the CRC of each of so many batches of this size covers."""
    if batches <= _SLICES:
        return islice(_first_slices(size), batches)
    return (slice(at + _CRC_START, at + size) for at in range(0, size * batches, size))


@lru_cache(16)
def _first_slices(size: int) -> tuple[slice, ...]:
    return tuple(slice(at + _CRC_START, at + size) for at in range(0, size * _SLICES, size))


@lru_cache(16)
def _headers(size: int) -> struct.Struct:
    """What is looked at in the header of each batch of this size."""
    return struct.Struct(f">8xi4xbIhi8xqq6xi{size - HEADER_BYTES}x")
