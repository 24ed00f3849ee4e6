"""Reads in the background what a start took on trust after a clean stop, with its CRCs; see `gateway.log.clean_stop`.

Damage that it finds is told, and what it is in is not trusted again: the next start reads it whole and puts the damage
aside. Until then readers meet it as they meet damage in any closed segment: the batch's own CRC is wrong.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial

from gateway.log.partition import PartitionLog
from gateway.log.scan import Stop, scan_run
from gateway.log.segment import Segment
from gateway.log.steps import Steps
from headwater.disk import Disk

_SLICE_BYTES = 1 << 20
_SLICE_BATCHES = 1_000
_SLICES_A_TURN = 8


class _EnoughError(Exception):
    """A slice is read."""


class Unread:
    """An active segment that a start has not read: its first `size` bytes."""

    __slots__ = ("end_offset", "log", "next_offset", "position", "segment", "size")

    def __init__(self, log: PartitionLog) -> None:
        self.log = log
        self.segment: Segment = log.active_segment
        self.size, self.end_offset = self.segment.size, self.segment.next_offset
        self.position, self.next_offset = 0, self.segment.base_offset

    def is_there(self) -> bool:
        """Whether the log still consists of it: neither expired nor rewritten."""
        return not self.log.closed and self.log.consists_of(self.segment)

    def read(self, disk: Disk) -> bool:
        """Blocks: read a slice; returns whether its CRCs are right. Raises `OSError`."""
        start, batches = self.position, 0

        def visit(position: int, fields: tuple[int, ...], batch: memoryview) -> None:
            nonlocal batches
            self.position, self.next_offset = position + len(batch), fields[0] + fields[6] + 1
            batches += 1
            if self.position - start >= _SLICE_BYTES or batches >= _SLICE_BATCHES:
                raise _EnoughError

        handle = disk.open(self.segment.log_path)
        try:
            end = scan_run(disk, handle, start, self.size, self.next_offset, None, visit, gapless=True)
        except _EnoughError:
            return True
        finally:
            disk.close(handle)
        return end.stop is Stop.END and end.next_offset == self.end_offset


class Proofreader:
    """`tell(log, what)` hears of damage, once for each segment."""

    def __init__(self, disk: Disk, unread: deque[Unread], tell: Callable[[PartitionLog, str], None]) -> None:
        self._disk = disk
        self._unread = unread
        self._tell = tell

    def turn(self) -> Steps:
        """A few slices. Raises `OSError` from a disk that fails; the next turn tries again then."""
        for _ in range(_SLICES_A_TURN):
            if not self._unread:
                return
            first = self._unread[0]
            if not first.is_there() or first.position >= first.size:
                self._unread.popleft()
                continue
            good: list[bool] = []
            yield partial(_read, first, self._disk, good)
            if good == [False]:
                self._unread.popleft()
                first.log.trusted_at_stop = False
                self._tell(
                    first.log,
                    f"{first.segment.log_path} is damaged from byte {first.position} on (offset {first.next_offset});"
                    " the next start puts the damage aside and serves the rest",
                )


def _read(unread: Unread, disk: Disk, good: list[bool]) -> None:
    good.append(unread.read(disk))
