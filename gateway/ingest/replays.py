"""Dead letters that were decoded after all: which ones, so that none becomes a reading twice. Sans-IO.

Whoever replays sends the readings of a dead letter with its offset. The last record that came of it carries

    hw-replay    <offset in deadletter>

and the journal `<data>/node/replayed.json`, with its copy, lists the offsets that are done. A batch is noted in it as
pending before it is appended and as done when it is on disk; after a crash in between, the records from `start` on tell
which of the two it is, for a dead letter's readings are in one record batch.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

REPLAY_HEADER = "hw-replay"
_DIGITS = re.compile(rb"[0-9]{1,16}")


class Journal(msgspec.Struct):
    """The file. `done`: ranges of offsets, the end exclusive, rising; `start`: where in readings `pending` may lie."""

    done: list[tuple[int, int]] = []
    pending: list[int] = []
    start: int = 0


class Replays:
    """Which dead letters are readings by now."""

    def __init__(self, journal: Journal | None = None) -> None:
        self._journal = journal or Journal()

    @classmethod
    def of(cls, members: dict[str, Any]) -> Replays:
        """From the journal's members. Raises `msgspec.ValidationError` when they are none."""
        return cls(msgspec.convert(members, Journal))

    def members(self) -> dict[str, Any]:
        """What the journal is to hold."""
        members: dict[str, Any] = msgspec.to_builtins(self._journal)
        return members

    def __contains__(self, offset: int) -> bool:
        at = bisect_right(self._journal.done, (offset, 1 << 62)) - 1
        return at >= 0 and offset < self._journal.done[at][1]

    @property
    def done(self) -> Sequence[tuple[int, int]]:
        """Ranges of offsets, the end exclusive."""
        return self._journal.done

    @property
    def unsettled(self) -> int | None:
        """From where on in `readings` the records must be read before anything is replayed; None: nowhere."""
        return self._journal.start if self._journal.pending else None

    def found(self, values: Iterable[bytes]) -> None:
        """After a crash: the `hw-replay` headers that stand in `readings` from `unsettled` on; settles it."""
        there = {int(value) for value in values if _DIGITS.fullmatch(value)}
        self.finished([offset for offset in self._journal.pending if offset in there])

    def begun(self, offsets: Sequence[int], start: int) -> None:
        """These are about to be appended, at `start` in `readings` or above."""
        self._journal.pending, self._journal.start = list(offsets), start

    def finished(self, offsets: Iterable[int]) -> None:
        """These are on disk, and of what else was pending nothing is."""
        self._journal.done = list(_merged(sorted([*self._journal.done, *((one, one + 1) for one in offsets)])))
        self._journal.pending = []

    def forget_below(self, offset: int) -> None:
        """The log of dead letters begins at `offset` by now."""
        self._journal.done = [(max(begin, offset), end) for begin, end in self._journal.done if end > offset]


def _merged(ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    last: tuple[int, int] | None = None
    for begin, end in ranges:
        if last is not None and begin <= last[1]:
            last = (last[0], max(last[1], end))
        else:
            if last is not None:
                yield last
            last = (begin, end)
    if last is not None:
        yield last
