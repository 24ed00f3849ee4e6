"""The journal of MQTT sessions: an ordered list of changes that lies on the disk twice and checks itself.

Each line of `<data>/node/sessions` and of its twin `sessions.copy` is the CRC-32C of what follows (8 hex digits), a
space, and a JSON array that begins with the change's number:

    … [number, "begin", lines]             the first line of a file: whatever has a lower number counts no more, once
                                           these so many lines are there
    … [number, "+" or "-", …]              a change, as `gateway.ingest.mqtt.sessions` has it

What either file holds counts, so one bad sector, flipped bit or torn line costs nothing; a number that neither holds is
a change that is lost, and is told. A line that is an array and nothing else was written before there were numbers.

After a write or a sync that failed nobody knows what a file holds, and a later sync of the same file may call it
good: from then on changes are only in memory, and the next sync writes both files anew, under new inodes. What changes
while that is under way is written behind it, else clients that come and go all the time would have it done every time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import msgspec
from crc32c import crc32c

from headwater.disk import Disk, read_or_none
from headwater.errors import UNREADABLE

Change = list[Any]
_BEGIN = "begin"
_SINCE_MAX = 10_000  # changes while the files are written anew; with more, the next sync does that again


class SessionJournal:
    """Both files. `write` and `prepare_sync` in the loop; what `prepare_sync` gives in any thread, one at a time."""

    def __init__(self, disk: Disk, path: str) -> None:
        self._disk = disk
        self._paths = (f"{path}.copy", path)  # the copy first: the file itself is never ahead of it
        self._lock = threading.Lock()
        self._whole = False  # the files hold every change; else only new ones will do
        self._since: list[bytes] | None = None  # lines that are to follow in those that are being written
        self._lines = 0
        self.number = 0  # of the last change
        self.synced = 0  # up to here all is on disk
        self.damaged = ""
        """One sentence on what `read` missed, "" when nothing is lost."""

    @property
    def behind(self) -> bool:
        """Whether changes are in memory only, until a sync."""
        return not self._whole

    def read(self) -> list[Change]:
        """The changes of both files, in their order, without their numbers."""
        found: dict[int, Change] = {}
        there = False
        for path in self._paths:
            data = read_or_none(self._disk, path)
            there = there or (data is None and self._disk.exists(path)) or bool(data)
            found |= _changes(data or b"")
        starts = sorted(number for number, change in found.items() if change[:1] == [_BEGIN])
        begin = starts.pop() if starts else None
        self.number = max(found, default=0)
        if begin is not None:
            end = begin + (found[begin][1] if len(found[begin]) > 1 else 1)
            self.number = max(self.number, end - 1)
            if any(number not in found for number in range(begin, end)):  # what was to be replaced may know more
                begin = starts.pop() if starts else min(found)
        numbers = sorted(number for number in found if begin is None or number >= begin)
        missing = self.number - numbers[0] + 1 - len(numbers) if numbers else 0
        begins = begin is not None or (numbers and numbers[0] < 0)
        if missing or (there and not begins):
            lost = "1 change is lost" if missing == 1 else f"{missing} changes are lost"
            what = lost if missing and begins else "its beginning is lost"
            self.damaged = f"{self._paths[1]} is damaged, and so is its copy: {what}, MQTT sessions may be forgotten"
        return [found[number] for number in numbers if found[number][:1] != [_BEGIN]]

    def write(self, change: Change) -> int:
        """Note a change; its number. Where the disk fails, the next sync has it."""
        with self._lock:
            self.number += 1
            if self._whole:
                self._append([_line(self.number, change)])
            elif self._since is not None:
                self._since.append(_line(self.number, change))
                if len(self._since) > _SINCE_MAX:
                    self._since = None
            return self.number

    def _append(self, lines: Sequence[bytes]) -> None:
        try:
            for path in self._paths:
                handle = self._disk.open(path)
                try:
                    self._disk.append(handle, b"".join(lines))
                finally:
                    self._disk.close(handle)
        except OSError:
            self._whole = False
        self._lines += len(lines)

    def prepare_sync(self, state: Callable[[], Sequence[Change]], lines_max: int) -> Callable[[], None]:
        """What makes every change so far durable when it is called. It raises `OSError`.

        `state` gives the changes that a file is to begin with when the journal is written anew: because it failed, or
        has more than `lines_max` lines.
        """
        with self._lock:
            if self._whole and self._lines < lines_max:
                return partial(self._sync, self.number)
            self._whole = False  # what comes from now on would go to the files that are replaced
            self._since = []
            changes = [[_BEGIN], *state()]
            changes[0].append(len(changes))
            first, self.number = self.number + 1, self.number + len(changes)
            data = b"".join(_line(first + at, change) for at, change in enumerate(changes))
            return partial(self._replace, self.number, data, len(changes))

    def _sync(self, number: int) -> None:
        try:
            for path in self._paths:
                handle = self._disk.open(path)
                try:
                    self._disk.sync(handle)
                finally:
                    self._disk.close(handle)
        except OSError:
            with self._lock:
                self._whole = False
            raise
        with self._lock:
            self.synced = max(self.synced, number)

    def _replace(self, number: int, data: bytes, lines: int) -> None:
        try:
            for path in self._paths:
                self._disk.replace_file(path, data)
        except OSError:
            with self._lock:
                self._since = None
            raise
        with self._lock:
            self.synced = number
            self._lines = lines
            since, self._since = self._since, None
            self._whole = since is not None
            if since:
                self._append(since)


def _line(number: int, change: Change) -> bytes:
    text = msgspec.json.encode([number, *change])
    return b"%08x %b\n" % (crc32c(text), text)


def check_lines(data: bytes) -> None:
    """Raises `ValueError` naming the first line of a file that is not whole; the last one may be torn at any time."""
    lines = data.split(b"\n")
    for number, line in enumerate(lines[:-1], 1):
        if not _changes(line + b"\n"):
            raise ValueError(f"line {number} is damaged")
    if len(lines) < 2:
        raise ValueError("no line is whole")


def _changes(data: bytes) -> dict[int, Change]:
    """The whole lines of a file by number; those that have none have numbers below 0, in their order."""
    found: dict[int, Change] = {}
    lines = data.split(b"\n")  # the last one is empty, or was torn
    for at, line in enumerate(lines):
        crc, _, text = line.partition(b" ")
        try:
            if line.startswith(b"["):
                found[at - len(lines)] = msgspec.json.decode(line, type=list[Any])
            elif crc == b"%08x" % crc32c(text):
                number, *change = msgspec.json.decode(text, type=list[Any])
                found[number] = change
        except UNREADABLE:
            continue
    return found
