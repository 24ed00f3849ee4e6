"""Frames of the Kafka protocol: a length (int32, big-endian) and that many bytes.

A frame is never given room before its bytes are there, and one that is too long is refused when its length is read:
"GET " of an HTTP client is a length of 1.2 GB.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TypeVar

from headwater.errors import LimitError

Found = TypeVar("Found")
Buffer = bytes | bytearray | memoryview

_LENGTH = struct.Struct(">i")


class FrameReader:
    """Cuts a stream of bytes into frames.

    `feed` a chunk, take frames with `next` until it gives None, then `keep`: that copies what is not taken yet, so that
    the caller may use the chunk's memory again. Frames are views of the chunk (or of the copy): they hold until `keep`,
    or as long as the memory that was fed does.
    """

    def __init__(self, *, frame_bytes_max: int) -> None:
        self.frame_bytes_max = frame_bytes_max
        self._kept: bytearray | None = None
        self._view = memoryview(b"")
        self._position = 0

    @property
    def unread_bytes(self) -> int:
        """Bytes that were fed and not taken."""
        return len(self._view) - self._position

    def feed(self, data: Buffer) -> None:
        """Add bytes of the stream; call after `keep` or on a fresh reader."""
        if self._kept is None:
            self._view = data if isinstance(data, memoryview) else memoryview(data)
        else:
            self._view.release()
            self._kept += data
            self._view = memoryview(self._kept)
        self._position = 0

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
        if self._position == 0 and self._kept is not None:
            return  # a long frame that grows: it lies in our own memory already
        rest = self._view[self._position :]
        self._kept = bytearray(rest) if rest else None
        self._view = memoryview(self._kept) if self._kept is not None else memoryview(b"")
        self._position = 0


def join_frame(parts: list[bytes]) -> bytes:
    """One frame of its parts; `parts[0]` must be empty, the length goes there."""
    parts[0] = _LENGTH.pack(sum(map(len, parts)))
    return b"".join(parts)
