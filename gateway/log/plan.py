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


# (fields as they came, size in bytes, the chain's value before)
PlannedBatch = tuple[tuple[int, ...], int, int | None]


def plan_one(
    data: Buffer,
    fields: tuple[int, ...],
    offset: int,
    epoch: int,
    chain: int | None,
    *,
    verify: bool,
    position: int = 0,
) -> int | None:
    """Check the batch at `position`, whose header is `fields`, and patch it; returns the chain's value after it.

    The caller has compared its length with what is there. Raises `CorruptBatch`.
    """
    count = fields[12]
    if fields[3] != MAGIC or not 1 <= count <= DECODED_RECORDS_MAX or fields[6] != count - 1:
        raise CorruptBatch(f"Record batch of format {fields[3]} and {count} records whose last offset is {fields[6]}")
    if verify:
        crc = crc32c(memoryview(data)[position + _CRC_START : position + fields[1] + LENGTH_OFFSET])
        if crc != fields[4]:
            raise CorruptBatch(f"Record batch whose CRC is {crc:08x}, not {fields[4]:08x} as it says")
    _PATCH.pack_into(data, position, offset, fields[1], epoch)  # the CRC covers neither offset nor epoch
    return None if chain is None else chain_next(chain, data[position : position + HEADER_BYTES])


def plan_append(
    data: Buffer, offset: int, epoch: int, chain: int | None, *, verify: bool
) -> tuple[list[PlannedBatch], int, int | None]:
    """Several batches for `offset` on; returns them, the end offset and the chain's value after them.

    Raises `CorruptBatch`; `data` may then be patched in part, and is not to be written.
    """
    total = len(data)
    planned: list[PlannedBatch] = []
    position = 0
    while position < total:
        if total - position < HEADER_BYTES:
            raise CorruptBatch(f"Record batch cut short in its header, at byte {position} of {total}")
        fields = HEADER_STRUCT.unpack_from(data, position)
        size = fields[1] + LENGTH_OFFSET
        if not HEADER_BYTES <= size <= total - position:
            raise CorruptBatch(f"Record batch of {size} bytes at byte {position} of {total}")
        if fields[9] != NO_PRODUCER or fields[5] & SEQUENCED:
            raise CorruptBatch("A batch of an idempotent producer must come alone")
        planned.append((fields, size, chain))
        chain = plan_one(data, fields, offset, epoch, chain, verify=verify, position=position)
        offset += fields[12]
        position += size
    return planned, offset, chain
