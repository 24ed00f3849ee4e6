"""Memory for long frames that come in pieces, used again and again.

A block of a megabyte that is asked of the system for every frame costs more than all that is done with the frame: each
of its pages is a fault, and a block that grows is mapped anew. So a few go from frame to frame; whoever finds none left
grows a block of its own.
"""

from __future__ import annotations

ROOM_BYTES = (1 << 20) + (256 << 10)  # the longest batch that clients send unless told otherwise, and what follows it
ROOMS_MAX = 4
_KEPT_MAX = 1


class Rooms:
    """The rooms of one listener: at most ROOMS_MAX in use, and one kept while none is."""

    def __init__(self) -> None:
        self._free: list[memoryview] = []
        self._used = 0

    def take(self) -> memoryview | None:
        """A room of ROOM_BYTES, or None when all are in use."""
        if self._used >= ROOMS_MAX:
            return None
        self._used += 1
        return self._free.pop() if self._free else memoryview(bytearray(ROOM_BYTES))

    def give(self, room: memoryview) -> None:
        """What is in it is no longer looked at."""
        self._used -= 1
        if len(self._free) < _KEPT_MAX:
            self._free.append(room)
