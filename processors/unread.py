"""Input partitions that windows over groups wait for though no node of theirs was heard of yet (ADR 0021). Sans-IO.

A node that has been heard of holds the windows of its groups by its marks. Of one that has not, nothing is known but
that the partitions of the input are still to be read: so long nobody may say that a window is complete. Which these are
is known outside of the log only. So a driver writes it into the relay topics, before anything else, and whenever it
changes; it counts where it is read back, so that a replay tells the same.

What is waited for is bounded: a partition is heard of, or read as far as it reached (at most `RECORDS_MAX` records), or
it is out of the list once nothing of it was read for `STALLED_MS`. A list is told anew every `TELL_EVERY_MS`: one that
came late, or whose writer is gone, stands no longer than that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from gateway.log.records import Record, encode_headers
from processors.marks import UNREAD
from processors.repartition import MARK_DEVICE

RECORDS_MAX = 100_000
"""A partition of which so much was read without a mark has no node that the rule takes, or not for long."""
STALLED_MS = 60_000
TELL_EVERY_MS = 60_000
LOOK_EVERY_MS = 1_000
_TIME_MS = 1  # of no time: it neither begins windows nor ages anything

Source = tuple[str, int]


class UnreadInputs:
    """For one life of a driver. `relays`: relay topics, each with the topic that its first stage reads."""

    def __init__(self, relays: Mapping[str, str]) -> None:
        self._relays = dict(relays)
        self._until: dict[
            Source, int
        ] = {}  # of partitions with records ahead: read so far, they are waited for no more
        self._moved: dict[Source, tuple[int, float]] = {}  # where each stands, and since when
        self._told: dict[str, tuple[Sequence[int], float]] = {}

    @property
    def inputs(self) -> set[str]:
        """The topics of which it wants to know."""
        return set(self._relays.values())

    @property
    def waiting(self) -> set[Source]:
        """Of which the positions matter."""
        return set(self._until)

    def begin(self, source: Source, position: int, end: int) -> None:
        """A partition of the input, where its reader stands, and where it ends now."""
        if position < end:
            self._until[source] = min(end, position + RECORDS_MAX)

    def due(self, positions: Mapping[Source, int], now_ms: float) -> dict[str, list[int]]:
        """Per relay topic the input partitions to be waited for, where that must be told. `now_ms`: never steps."""
        for source in list(self._until):
            position = positions.get(source, 0)
            if self._moved.get(source, (-1, 0.0))[0] != position:
                self._moved[source] = (position, now_ms)
            if position >= self._until[source] or now_ms - self._moved[source][1] >= STALLED_MS:
                del self._until[source]
        found = {}
        for relay, topic in self._relays.items():
            unread = sorted(partition for name, partition in self._until if name == topic)
            told = self._told.get(relay)
            if told is None or told[0] != unread or now_ms - told[1] >= TELL_EVERY_MS:
                found[relay] = unread
                self._told[relay] = (unread, now_ms)
        return found


def unread_record(inputs: Sequence[int]) -> Record:
    """What says so in every partition of a relay topic: (timestamp, key, value, headers)."""
    mark = msgspec.json.encode({"v": 1, "node": UNREAD, "by": UNREAD, "unread": inputs})
    return _TIME_MS, f"{UNREAD}/{MARK_DEVICE}".encode(), b"{}", encode_headers([("hw-mark", mark)])
