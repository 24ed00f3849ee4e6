"""How often each device of a partition speaks, learnt from its readings' own times. Sans-IO.

As a gateway learns it of its sources (`gateway.ingest.intervals`), for many devices at once: a period is the time from
the beginning of one burst of readings to that of the next, the interval the median of the last ones. So an outage or a
night is one odd period among them and moves nothing. A device that speaks without a pause for `STREAMS_MS` has the
interval of a burst. What came behind a later reading (backfill, disorder) teaches nothing.

It depends on the order of the log alone, and on nothing between two readings: any blocks teach the same.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gateway.ingest.intervals import BURST_MS, PERIODS_KEPT, PERIODS_MIN, SILENT_AFTER
from processors.columns import Ints
from processors.results import NEVER

UNKNOWN = 0
"""In place of an interval."""
STREAMS_MS = 60_000
DEVICE_BYTES = 25 + 4 * PERIODS_KEPT
_FAR_MS = 1 << 60  # differences of times stay numbers
_PERIOD_MS_MAX = (1 << 31) - 1


class Rhythms:
    """By the numbers of devices; rows for `grow` devices, the last of `_began` belongs to nobody."""

    def __init__(self) -> None:
        self._began: Ints = np.zeros(0, dtype=np.int64)  # of the burst that goes on; NEVER: not heard yet
        self._learnt: Ints = np.zeros(0, dtype=np.int64)
        self._count: Ints = np.zeros(0, dtype=np.int64)  # of periods so far; the last of them are kept
        self._stale = np.zeros(0, dtype=np.bool_)  # periods have come or gone since it was learnt
        self._periods = np.zeros((0, PERIODS_KEPT), dtype=np.int32)

    def grow(self, devices: int) -> None:
        """Room for so many."""
        missing = devices - len(self._began)
        if missing > 0:
            nothing = np.zeros(missing, dtype=np.int64)
            self._began = np.concatenate([self._began, np.full(missing, NEVER, dtype=np.int64)])
            self._learnt = np.concatenate([self._learnt, nothing])
            self._count = np.concatenate([self._count, nothing])
            self._stale = np.concatenate([self._stale, nothing > 0])
            self._periods = np.concatenate([self._periods, np.zeros((missing, PERIODS_KEPT), dtype=np.int32)])

    def take(self, key: Ints, time: Ints, heard: Ints) -> None:
        """Readings in the order of the log, of known devices; `heard`: by device, its newest reading before them.

        Of a device that is new that is the first one of these.
        """
        order = np.argsort(key, kind="stable")
        key, time = key[order], _near(time[order])
        first = _firsts(key)
        devices = key if len(first) == len(key) else key[first]
        unknown = devices[self._began[devices] == NEVER]
        self._began[unknown] = heard[unknown]
        before = _near(heard[devices])
        if len(devices) < len(key):
            before = _newest_before(first, time, before)
        begins = np.flatnonzero(time - before > BURST_MS)
        if len(begins):
            self._bursts(key[begins], time[begins], before[begins])

    def _bursts(self, key: Ints, time: Ints, before: Ints) -> None:
        """These readings begin bursts; `before` each its device spoke last."""
        self._stale[key] = True
        first = _firsts(key)
        if len(first) == len(key):
            self._burst(key, time, before)
        else:
            self._several(first, key, time, before)

    def _several(self, first: Ints, key: Ints, time: Ints, before: Ints) -> None:
        """As `_burst` for one after the other, of a device as many as come before the next one of `first`."""
        began = np.empty_like(time)
        began[1:] = time[:-1]
        began[first] = self._began[key[first]]
        lasts = np.append(first[1:], len(key)) - 1
        self._began[key[lasts]] = time[lasts]
        streamed = before - began > time - before
        at = np.arange(len(key))
        since = np.where(streamed, at + 1, 0)
        since[first] = np.maximum(since[first], first)
        since = np.maximum.accumulate(since)  # a device's begins lie behind all of the one before
        since = np.repeat(since[lasts], lasts - first + 1)
        self._count[key[streamed]] = 0
        said = np.flatnonzero((at >= since) & ~streamed)
        place = self._count[key[said]] + said - since[said]
        # of places that come again the last one counts
        self._periods[key[said], place % PERIODS_KEPT] = np.minimum(time[said] - began[said], _PERIOD_MS_MAX)
        np.add.at(self._count, key[said], 1)

    def _burst(self, key: Ints, time: Ints, before: Ints) -> None:
        """One of each device."""
        began = self._began[key]
        self._began[key] = time
        streamed = before - began > time - before  # what a burst says that is longer than the silence behind it
        if streamed.any():
            self._count[key[streamed]] = 0
            key, time, began = (column[~streamed] for column in (key, time, began))
        count = self._count[key]
        self._periods[key, count % PERIODS_KEPT] = np.minimum(time - began, _PERIOD_MS_MAX)
        self._count[key] = count + 1

    def _learn(self, devices: Ints) -> None:
        kept = np.minimum(self._count[devices], PERIODS_KEPT)
        periods = self._periods[devices]
        periods[np.arange(PERIODS_KEPT) >= kept[:, None]] = _PERIOD_MS_MAX
        periods.sort(axis=1)
        median = periods[np.arange(len(devices)), np.maximum(kept - 1, 0) // 2]
        self._learnt[devices] = np.where(kept >= PERIODS_MIN, median, UNKNOWN)
        self._stale[devices] = False

    def intervals(self, keys: Ints, heard: Ints) -> Ints:
        """Of each of these, last `heard` then, how often it speaks; `UNKNOWN` where nothing is learnt."""
        burst_ms = _near(heard) - _near(self._began[keys])
        if len(stale := keys[self._stale[keys]]):
            self._learn(stale)
        learnt = self._learnt[keys]
        learnt = np.where(burst_ms > SILENT_AFTER * learnt, UNKNOWN, learnt)
        streams = (learnt == UNKNOWN) & (burst_ms >= STREAMS_MS) & (self._began[keys] != NEVER)
        return np.where(streams, BURST_MS, learnt)

    def forget(self, keys: Ints) -> None:
        self._began[keys], self._count[keys], self._stale[keys] = NEVER, 0, True

    def keep(self, known: np.ndarray[Any, np.dtype[np.bool_]]) -> None:
        """The others' numbers are given to those behind them."""
        self._began, self._learnt = self._began[known], self._learnt[known]
        self._count, self._periods, self._stale = self._count[known], self._periods[known], self._stale[known]

    def snapshot(self) -> list[bytes]:
        columns = (self._began, self._count, self._periods)
        return [column.astype(column.dtype.newbyteorder("<")).tobytes() for column in columns]

    def restore(self, data: list[bytes]) -> None:
        self._began, self._count = (np.frombuffer(one, "<i8").astype(np.int64) for one in data[:2])
        self._periods = np.frombuffer(data[2], "<i4").astype(np.int32).reshape(-1, PERIODS_KEPT)
        self._learnt, self._stale = np.zeros_like(self._count), np.ones(len(self._count), dtype=np.bool_)


def _near(time: Ints) -> Ints:
    """`np.clip` in a third of the time."""
    near: Ints = np.minimum(np.maximum(time, -_FAR_MS), _FAR_MS)
    return near


def _firsts(key: Ints) -> Ints:
    """Where another device begins, in rows that are sorted by device."""
    begins = np.ones(len(key), dtype=np.bool_)
    np.not_equal(key[1:], key[:-1], out=begins[1:])
    return np.flatnonzero(begins)


def _newest_before(first: Ints, time: Ints, heard: Ints) -> Ints:
    """Of each row the newest time of its device before it: rows by device from `first` on, `heard` before all."""
    before = np.empty_like(time)
    before[1:] = time[:-1]
    before[first] = heard
    if (before <= time).all():
        return before  # in order: the one before is the newest
    # Ranks in place of times, each device's above those of the one before it, so that one pass is enough.
    values, ranks = np.unique(before, return_inverse=True)
    device = np.repeat(np.arange(len(first)), np.diff(first, append=len(time)))
    lifted = np.maximum.accumulate(ranks + device * len(values))
    found: Ints = values[lifted - device * len(values)]
    return found
