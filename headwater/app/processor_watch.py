"""Looks from inside a user's processor's process that each call of its code comes to an end.

A memory file is shared with the parent: which records are at work, and, when their time is over, the traceback of where
they hang; then the process is gone at once. Python's `faulthandler` does that in a thread of C, so a loop that never
gives way is no way out.
"""

from __future__ import annotations

import faulthandler
import mmap
import os
import re
import struct
from typing import NamedTuple

from processors.user.job import Watches
from processors.user.partition import Watch

CALLS = 64
"""So many calls share one alarm: to set it costs as much as twenty calls."""
_PLACE = struct.Struct("<qqq")
_TRACE_AT = 4096
_TRACE_BYTES_MAX = 64 << 10
_FRAME = re.compile(r'File "([^"]+)", line (\d+)')


class At(NamedTuple):
    """The records that were at work: offsets `first` to `last` of a partition; -1: none were."""

    partition: int
    first: int
    last: int


def new_trace() -> int:
    """A memory file for one process."""
    descriptor = os.memfd_create("headwater-trace")
    os.ftruncate(descriptor, _TRACE_AT)
    os.pwrite(descriptor, _PLACE.pack(-1, -1, -1), 0)
    return descriptor


def read_place(descriptor: int) -> At:
    """What was at work when the process ended."""
    return At(*_PLACE.unpack(os.pread(descriptor, _PLACE.size, 0)))


def read_trace(descriptor: int, file: str) -> str:
    """`mine.py, line 12: ` of where it hung: the innermost line of `file`, else of any; "" when it did not hang."""
    found = _FRAME.findall(os.pread(descriptor, _TRACE_BYTES_MAX, _TRACE_AT).decode("utf-8", "replace"))
    for name, line in [one for one in found if one[0] == file] or found:
        return f"{name.rpartition('/')[2]}, line {line}: "
    return ""


class ProcessWatches(Watches):
    """`seconds`: how long `CALLS` readings, or one call with columns, may take."""

    def __init__(self, descriptor: int, seconds: float) -> None:
        self._descriptor = descriptor
        self._seconds = seconds
        self._shared = mmap.mmap(descriptor, _TRACE_AT)

    def of(self, partition: int) -> Watch:
        return _ProcessWatch(self, partition)

    def place(self, partition: int, first: int, last: int) -> None:
        _PLACE.pack_into(self._shared, 0, partition, first, last)

    def alarm(self, seconds: float = 0.0) -> None:
        """End this process unless it is called again, or `calm`, before the time is over."""
        os.lseek(self._descriptor, _TRACE_AT, os.SEEK_SET)
        faulthandler.dump_traceback_later(seconds or self._seconds, exit=True, file=self._descriptor)

    def calm(self) -> None:
        faulthandler.cancel_dump_traceback_later()
        self.place(-1, -1, -1)


class _ProcessWatch:
    def __init__(self, watches: ProcessWatches, partition: int) -> None:
        self._watches = watches
        self._partition = partition
        self._calls = 0

    def at(self, first: int, last: int) -> None:
        self._watches.place(self._partition, first, last)
        if self._calls % CALLS == 0 or last > first:
            self._watches.alarm()
        self._calls += 1

    def end(self) -> None:
        self._calls = 0
        self._watches.calm()
