"""Checking what is to be appended, and giving each batch its offset and epoch in place."""

from __future__ import annotations

from typing import NamedTuple

from crc32c import crc32c

from gateway.log.chain import chain_next
from gateway.log.errors import CorruptBatch
from gateway.log.layout import (
    ATTRIBUTE_CONTROL,
    ATTRIBUTE_TRANSACTIONAL,
    HEADER_BYTES,
    HEADER_STRUCT,
    LENGTH_OFFSET,
    MAGIC,
)
from gateway.log.records import patch
from gateway.log.state import NO_PRODUCER

_CRC_START = 21
SEQUENCED = ATTRIBUTE_CONTROL | ATTRIBUTE_TRANSACTIONAL


class AppendPlan(NamedTuple):
    """Per batch its fields as they came, its size and the chain's value before it; then the end after all of them."""

    batches: list[tuple[tuple[int, ...], int, int | None]]
    next_offset: int
    chain: int | None


def plan_append(
    data: bytearray, offset: int, epoch: int, chain: int | None, *, verify: bool, sequenced: bool = False
) -> AppendPlan:
    """Batches for `offset` on. Raises `CorruptBatch`; `data` may then be patched in part, and is not to be written.

    `sequenced` allows a batch with a producer id, which the caller checks against what it knows of that producer.
    """
    total = len(data)
    planned: list[tuple[tuple[int, ...], int, int | None]] = []
    position = 0
    while position < total:
        if total - position < HEADER_BYTES:
            raise CorruptBatch(f"Record batch cut short in its header, at byte {position} of {total}")
        fields = HEADER_STRUCT.unpack_from(data, position)
        size = fields[1] + LENGTH_OFFSET
        count = fields[12]
        if fields[3] != MAGIC or not HEADER_BYTES <= size <= total - position:
            raise CorruptBatch(f"Record batch of format {fields[3]}, {size} bytes at byte {position} of {total}")
        if count < 1 or fields[6] != count - 1:
            raise CorruptBatch(f"Record batch of {count} records whose last offset is {fields[6]}")
        if not sequenced and (fields[9] != NO_PRODUCER or fields[5] & SEQUENCED):
            raise CorruptBatch("A batch of an idempotent producer must come alone")
        if verify:
            with memoryview(data) as view:
                crc = crc32c(view[position + _CRC_START : position + size])
            if crc != fields[4]:
                raise CorruptBatch(f"Record batch whose CRC is {crc:08x}, not {fields[4]:08x} as it says")
        patch(data, position, offset, epoch)
        planned.append((fields, size, chain))
        if chain is not None:
            chain = chain_next(chain, data[position : position + HEADER_BYTES])
        offset += count
        position += size
    if not planned:
        raise CorruptBatch("No record batch to append")
    return AppendPlan(planned, offset, chain)
