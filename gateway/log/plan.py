"""Checking what is to be appended, and giving each batch its offset and epoch in place."""

from __future__ import annotations

import struct

from crc32c import crc32c

from gateway.log.chain import chain_next
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
_PATCH = struct.Struct(">qii")
SEQUENCED = ATTRIBUTE_CONTROL | ATTRIBUTE_TRANSACTIONAL


# (size in bytes, last offset, newest timestamp, the chain's value before)
PlannedBatch = tuple[int, int, int, int | None]


def plan_append(
    data: Buffer, offset: int, epoch: int, chain: int | None, *, verify: bool, sequenced: bool = False
) -> tuple[list[PlannedBatch], int, int | None]:
    """Check batches for `offset` on and patch them; returns them, the end offset and the chain's value after them.

    `sequenced` lets in those of idempotent producers and coordinators: the caller sees to it that such a one is alone.
    Raises `CorruptBatch`; `data` may then be patched in part, and is not to be written.
    """
    total = len(data)
    view = memoryview(data)
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
        planned.append((size, offset + delta, newest, chain))
        if chain is not None:
            chain = chain_next(chain, data[position : position + HEADER_BYTES])
        offset += count
        position = end
    return planned, offset, chain
