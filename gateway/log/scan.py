"""Walking a segment with its CRCs, as recovery does, and finding the way again after damage."""

from __future__ import annotations

import errno
import re
import struct
from collections.abc import Callable, Collection
from enum import Enum
from typing import NamedTuple

from crc32c import crc32c

from gateway.log.layout import HEADER_BYTES, HEADER_STRUCT, LENGTH_OFFSET, MAGIC
from headwater.disk import Disk

_CHUNK_BYTES = 1 << 20
_SECTOR_BYTES = 4_096
_CRC_START = 21
_EPOCH_AT = 12
_RELATIVE_OFFSET_MAX = (1 << 31) - 1

Visit = Callable[[int, tuple[int, ...], memoryview], None]


class Stop(Enum):
    """Why a scan ended."""

    END = "end"
    BAD = "bad"
    SUCCESSOR = "successor"


class ScanEnd(NamedTuple):
    """Where: the first byte not scanned, and the offset after the last batch before it."""

    stop: Stop
    position: int
    next_offset: int


def read_patiently(disk: Disk, handle: int, size: int, position: int, bad: list[int] | None = None) -> bytes:
    """Like `read_at`, but a sector that the disk cannot read comes back as zeros: one bad spot is not a lost file.

    `bad` takes the number of bytes of each such sector.
    """
    try:
        return disk.read_at(handle, size, position)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
    parts = []
    end = min(position + size, disk.size(handle))
    while position < end:
        # Up to the next sector boundary, so that no good sector shares a read with a bad one.
        step = min(_SECTOR_BYTES - position % _SECTOR_BYTES, end - position)
        try:
            parts.append(disk.read_at(handle, step, position))
        except OSError:
            parts.append(bytes(step))
            if bad is not None:
                bad.append(step)
        position += step
    return b"".join(parts)


def unreadable_bytes(disk: Disk, handle: int, start: int, end: int) -> int:
    """How many of the bytes [start, end) the disk cannot read: a failing disk leaves such, and no crash of the node."""
    bad: list[int] = []
    for position in range(start, end, _CHUNK_BYTES):
        read_patiently(disk, handle, min(_CHUNK_BYTES, end - position), position, bad)
    return sum(bad)


def valid_batch(chunk: bytes, near: int, expected: int) -> tuple[int, ...] | None:
    """The fields of a batch at `near` that is wholly in `chunk`, right in its CRC and not below `expected`, or None."""
    if near + HEADER_BYTES > len(chunk):
        return None
    fields = HEADER_STRUCT.unpack_from(chunk, near)
    size = fields[1] + LENGTH_OFFSET
    if fields[3] != MAGIC or size < HEADER_BYTES or near + size > len(chunk):
        return None
    if fields[0] < expected or fields[6] < 0 or fields[12] < 0:
        return None
    with memoryview(chunk) as view:
        return fields if crc32c(view[near + _CRC_START : near + size]) == fields[4] else None


def scan_run(
    disk: Disk,
    handle: int,
    start: int,
    size: int,
    expected: int,
    limit_offset: int | None,
    visit: Visit,
    *,
    gapless: bool = False,
) -> ScanEnd:
    """Visit every good batch from `start` on; stops at damage, at `size`, or where the successor segment begins.

    `expected` is the least offset that may come; `limit_offset` the successor's base, or None. `gapless`: no compaction
    was here, so a batch that claims a later offset is damaged where no CRC looks, unless those after it bear it out.
    """
    base = expected
    position = start
    chunk = b""
    origin = start
    while position < size:
        near = position - origin
        need = HEADER_BYTES
        if near + HEADER_BYTES <= len(chunk):
            need = int.from_bytes(chunk[near + 8 : near + 12], "big", signed=True) + LENGTH_OFFSET
            if need < HEADER_BYTES or need > size - position:
                return ScanEnd(Stop.BAD, position, expected)
        if near + need > len(chunk):
            if size - position < need:
                return ScanEnd(Stop.BAD, position, expected)
            chunk = read_patiently(disk, handle, min(max(_CHUNK_BYTES, need), size - position), position)
            origin = position
            if len(chunk) < need:
                return ScanEnd(Stop.BAD, position, expected)
            continue
        fields = valid_batch(chunk, near, expected)
        if fields is None or fields[0] + fields[6] - base > _RELATIVE_OFFSET_MAX:
            return ScanEnd(Stop.BAD, position, expected)
        if gapless and fields[0] != expected:
            following = read_patiently(disk, handle, HEADER_BYTES, position + need)
            if _slipped(following, expected + fields[6] + 1, last=limit_offset is None):
                return ScanEnd(Stop.BAD, position, expected)
        if limit_offset is not None and fields[0] + fields[6] >= limit_offset:
            return ScanEnd(Stop.SUCCESSOR, position, expected)
        with memoryview(chunk) as view:
            visit(position, fields, view[near : near + need])
        position += need
        expected = fields[0] + fields[6] + 1
    return ScanEnd(Stop.END, position, expected)


def _slipped(following: bytes, expected: int, *, last: bool) -> bool:
    """Whether a batch with a gap before it has a wrong offset, seen from the header after it."""
    if len(following) < HEADER_BYTES:
        return last  # nothing comes after it: in a segment that was never compacted there are no gaps
    return bool(HEADER_STRUCT.unpack(following)[0] == expected)


def find_next_batch(
    disk: Disk, handle: int, start: int, size: int, expected: int, epochs: Collection[int]
) -> tuple[int, int] | None:
    """Position and base offset of the first valid batch at or after `start`, or None.

    Batches are recognised by one of the partition's leader epochs before the magic byte, then by offset and CRC.
    """
    needles = b"|".join(re.escape(struct.pack(">ib", epoch, MAGIC)) for epoch in sorted(epochs))
    pattern = re.compile(b"(?=" + needles + b")", re.DOTALL)
    position = start
    while position < size:
        chunk = read_patiently(disk, handle, min(_CHUNK_BYTES, size - position), position)
        for match in pattern.finditer(chunk):
            near = match.start() - _EPOCH_AT
            if near < 0:
                continue
            found = _candidate(disk, handle, position + near, size, expected)
            if found is not None:
                return position + near, found
        if len(chunk) <= HEADER_BYTES:
            return None
        position += len(chunk) - HEADER_BYTES + 1
    return None


def _candidate(disk: Disk, handle: int, position: int, size: int, expected: int) -> int | None:
    head = read_patiently(disk, handle, HEADER_BYTES, position)
    if len(head) < HEADER_BYTES:
        return None
    fields = HEADER_STRUCT.unpack(head)
    length = fields[1] + LENGTH_OFFSET
    if fields[0] < expected or not HEADER_BYTES <= length <= size - position:
        return None
    batch = read_patiently(disk, handle, length, position)
    return fields[0] if valid_batch(batch, 0, expected) is not None else None
