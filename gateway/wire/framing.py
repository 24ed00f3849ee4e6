"""Frames of the Kafka protocol: a length (int32, big-endian) and that many bytes.

A frame is never given room before its bytes are there, and one that is too long is refused when its length is read:
"GET " of an HTTP client is a length of 1.2 GB.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TypeVar

from gateway.wire.rooms import ROOM_BYTES, Rooms
from headwater.errors import LimitError

Found = TypeVar("Found")
Buffer = bytes | bytearray | memoryview

_LENGTH = struct.Struct(">i")
_NOTHING = memoryview(b"")
_LONG_BYTES = 64 << 10  # what is shorter is copied in no time


class FrameReader:
    """Cuts a stream of bytes into frames.

    `feed` a chunk, take frames with `next` until it gives None, then `keep`: that copies what is not taken yet, so that
    the caller may use the chunk's memory again. Frames are views of the chunk (or of the copy): they hold until `keep`,
    or as long as the memory that was fed does. Of a long frame that has begun the rest may be received where `room`
    says, `received` then takes the place of `feed`: nothing is copied. `forget` in the end.
    """

    def __init__(self, *, frame_bytes_max: int, rooms: Rooms | None = None) -> None:
        self.frame_bytes_max = frame_bytes_max
        self._kept: bytearray | None = None
        self._view = _NOTHING
        self._position = 0
        self._rooms = rooms
        self._room: memoryview | None = None  # then `_view` is the beginning of it, and `_kept` is None
        self._needed = 0  # bytes of the frame that the room was taken for

    @property
    def unread_bytes(self) -> int:
        """Bytes that were fed and not taken."""
        return len(self._view) - self._position

    def feed(self, data: Buffer) -> None:
        """Add bytes of the stream; call after `keep` or on a fresh reader."""
        if self._room is not None:
            self._leave_room(self._view)
        if self._kept is None:
            self._view = data if isinstance(data, memoryview) else memoryview(data)
        else:
            self._view.release()
            self._kept += data
            self._view = memoryview(self._kept)
        self._position = 0

    def room(self) -> memoryview | None:
        """Where to receive what comes next, None where anything will do."""
        room = self._room
        return None if room is None or len(self._view) >= self._needed else room[len(self._view) :]

    def received(self, size: int) -> bool:
        """So many bytes were put where `room` said; returns whether the frame is whole with them."""
        room = self._room
        assert room is not None  # noqa: S101 - `room` has just said so
        self._view = room[: len(self._view) + size]
        return len(self._view) >= self._needed

    def forget(self) -> None:
        """Nothing more comes, and nothing is taken any more."""
        if self._room is not None:
            self._leave_room(_NOTHING)

    def peek_length(self) -> int | None:
        """The length of the frame that comes next, None while it is not known. Raises `LimitError`."""
        if len(self._view) - self._position < 4:
            return None
        length: int = _LENGTH.unpack_from(self._view, self._position)[0]
        if not 0 < length <= self.frame_bytes_max:
            raise LimitError(f"a frame of {length & 0xFFFFFFFF} bytes; the limit is {self.frame_bytes_max}")
        return length

    def peek_key(self) -> int | None:
        """The first two bytes of the frame that comes next (a request's API key), None while they are not there."""
        start = self._position + 4
        return int.from_bytes(self._view[start : start + 2], "big") if len(self._view) >= start + 2 else None

    def next(self) -> memoryview | None:
        """The next whole frame without its length, or None."""
        length = self.peek_length()
        return None if length is None else self.take(length)

    def take(self, length: int) -> memoryview | None:
        """The same for the caller of `peek_length`, which said `length`."""
        start = self._position + 4
        end = start + length
        if end > len(self._view):
            return None
        self._position = end
        return self._view[start:end]

    def take_run(self, cut: Callable[[memoryview, int, int, int], tuple[Found, int]], count_max: int) -> Found:
        """What `cut` finds in what is not taken, and takes: it gets the bytes, a position, and both limits."""
        found, self._position = cut(self._view, self._position, count_max, self.frame_bytes_max)
        return found

    def keep(self) -> None:
        """Copy what is not taken; the memory that was fed is free again."""
        if self._position == 0 and (self._kept is not None or self._room is not None):
            return  # a long frame that grows: it lies in our own memory already
        if self._position == len(self._view) and self._room is None:
            self._kept, self._view, self._position = None, _NOTHING, 0
            return
        rest = self._view[self._position :]
        self._position = 0
        if self._room is not None or len(rest) > _LONG_BYTES:
            if self._keep_in_room(rest):
                return
            if self._room is not None:
                self._leave_room(rest)
                return
        self._kept = bytearray(rest) if rest else None
        self._view = memoryview(self._kept) if self._kept is not None else _NOTHING

    def _keep_in_room(self, rest: memoryview) -> bool:
        """Whether what is not taken is most of a frame that fits into a room, and lies in one now."""
        if len(rest) <= _LONG_BYTES:
            return False
        needed = 4 + _LENGTH.unpack_from(rest)[0]
        if not len(rest) < needed <= ROOM_BYTES:
            return False
        if self._room is None:
            self._room = None if self._rooms is None else self._rooms.take()
        if self._room is None:
            return False
        self._room[: len(rest)] = rest
        self._view = self._room[: len(rest)]
        self._needed = needed
        self._kept = None
        return True

    def _leave_room(self, rest: memoryview) -> None:
        """Give it back; what is not taken of it moves out."""
        if self._room is not None and self._rooms is not None:
            self._kept = bytearray(rest) if rest else None
            self._view = memoryview(self._kept) if self._kept is not None else _NOTHING
            self._rooms.give(self._room)
            self._room = None


def join_frame(parts: list[bytes]) -> bytes:
    """One frame of its parts; `parts[0]` must be empty, the length goes there."""
    parts[0] = _LENGTH.pack(sum(map(len, parts)))
    return b"".join(parts)
