"""Offset index and time index of a segment, in memory and as Kafka's bytes (OffsetIndex, TimeIndex).

An offset index entry is the last offset of a batch, relative to the segment's base, and the position of its first byte;
one at most per `index_interval_bytes`. A time index entry is the newest timestamp so far and the relative last offset
of its batch.
"""

from __future__ import annotations

import struct
import sys
from array import array
from bisect import bisect_left, bisect_right
from operator import lt

ENTRY_BYTES = 8
TIME_ENTRY_BYTES = 12
NO_TIMESTAMP = -1
_TIME_ENTRY = struct.Struct(">qI")


class OffsetIndex:
    """Relative last offset of a batch -> its position. Append only, both ascending."""

    __slots__ = ("offsets", "positions")

    def __init__(self) -> None:
        self.offsets = array("I")
        self.positions = array("I")

    def append(self, relative_offset: int, position: int) -> None:
        self.offsets.append(relative_offset)
        self.positions.append(position)

    def position_before(self, relative_offset: int) -> int:
        """The position of a batch at or before the one that holds the offset."""
        slot = bisect_right(self.offsets, relative_offset)
        return self.positions[slot - 1] if slot else 0

    def boundary_before(self, position: int) -> int:
        """The greatest indexed batch position that is at most `position`."""
        slot = bisect_right(self.positions, position)
        return self.positions[slot - 1] if slot else 0

    def cut(self, size_bytes: int) -> None:
        """Forget batches at or beyond `size_bytes`."""
        slot = bisect_left(self.positions, size_bytes)
        del self.offsets[slot:], self.positions[slot:]

    def encode(self) -> bytes:
        mixed = array("I", bytes(ENTRY_BYTES * len(self.offsets)))
        mixed[0::2] = self.offsets
        mixed[1::2] = self.positions
        if sys.byteorder == "little":
            mixed.byteswap()
        return mixed.tobytes()

    @classmethod
    def decode(cls, data: bytes, segment_bytes: int) -> OffsetIndex:
        """Raises `ValueError` when this cannot be the index of a segment of that size."""
        if len(data) % ENTRY_BYTES:
            raise ValueError(f"offset index of {len(data)} bytes")
        mixed = array("I", data)
        if sys.byteorder == "little":
            mixed.byteswap()
        index = cls()
        index.offsets, index.positions = mixed[0::2], mixed[1::2]
        if not _ascends(index.offsets) or not _ascends(index.positions):
            raise ValueError("offset index that does not ascend")
        if index.positions and index.positions[-1] >= segment_bytes:
            raise ValueError("offset index beyond the end of its segment")
        return index


class TimeIndex:
    """Newest timestamp so far -> relative offset. Timestamps ascend."""

    __slots__ = ("offsets", "timestamps")

    def __init__(self) -> None:
        self.timestamps = array("q")
        self.offsets = array("I")

    def append(self, timestamp: int, relative_offset: int) -> None:
        """Add an entry when the timestamp is newer than the last one's, as Kafka does."""
        if timestamp > self.newest:
            self.timestamps.append(timestamp)
            self.offsets.append(relative_offset)

    @property
    def newest(self) -> int:
        return self.timestamps[-1] if self.timestamps else NO_TIMESTAMP

    def offset_before(self, timestamp: int) -> int:
        """The relative offset up to which everything is older than `timestamp`."""
        slot = bisect_left(self.timestamps, timestamp)
        return self.offsets[slot - 1] if slot else 0

    def encode(self) -> bytes:
        return b"".join(
            timestamp.to_bytes(8, "big", signed=True) + offset.to_bytes(4, "big")
            for timestamp, offset in zip(self.timestamps, self.offsets, strict=True)
        )

    @classmethod
    def decode(cls, data: bytes) -> TimeIndex:
        """Raises `ValueError` when it cannot be a time index."""
        if len(data) % TIME_ENTRY_BYTES:
            raise ValueError(f"time index of {len(data)} bytes")
        index = cls()
        if data:
            timestamps, offsets = zip(*_TIME_ENTRY.iter_unpack(data), strict=True)
            index.timestamps, index.offsets = array("q", timestamps), array("I", offsets)
            if timestamps[0] <= NO_TIMESTAMP or not _ascends(index.timestamps):
                raise ValueError("time index that does not ascend")
        return index


def _ascends(numbers: array[int]) -> bool:
    return all(map(lt, numbers, numbers[1:]))  # the operator is three times as fast as int.__lt__
