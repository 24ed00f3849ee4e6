"""Marks: what a node says about its own progress in event time, inside its own log (design §9). Sans-IO.

A mark is the value of header `hw-mark` on a reading. It speaks of everything before and including its record:
no reading below `live` is expected any more, except from a source that was silent for long. Its JSON, in this order:

    v         1
    node      this node's name
    epoch     the leader epoch of the partition when the mark was made
    partition the partition of the topic on this node
    k         how many partitions of this topic carry this node's marks
    n         counts the marks of this partition, +1 each, also across restarts
    live      T: milliseconds since the epoch; never falls
    src       {source id: ["connected" | "gone", its own T]}: at most 64 of those that changed since they
              were last named; every 60th mark (n mod 60 = 1) begins to name all
    clock     this node's wall clock, milliseconds since the epoch
    every_ms  the interval between marks
"""

from __future__ import annotations

from collections import deque
from typing import Any

import msgspec

from gateway.ingest.eventtime import FUTURE_MAX_MS
from gateway.ingest.intervals import BURST_MS, SILENT_AFTER, Interval
from gateway.log.own_headers import OwnMark

CHANGES_MAX = 64
LISTING_EVERY = 60
SOURCES_MAX = 10_000
STEADY_MS = 60_000  # a wall clock that steps forward is believed when it has stayed there for this long
GRACE_MS = 200  # a health reading carries the mark only when no commit group has come this long after it was due

CONNECTED, GONE = "connected", "gone"


class MarkSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Marks, `[marks]`.

    every_ms       how often the node says how far it is
    lateness_ms    how far apart in event time readings of one source may arrive
    idle_ms        a source silent for this long holds nothing up (a profile's expected interval × 3 takes its place)
    learnt_max_ms  where a profile says no interval, three times the learnt one takes its place, up to this
    skew_max_ms    a source whose times are this far behind their arrival is left out
    """

    every_ms: int = 1_000
    lateness_ms: int = 2_000
    idle_ms: int = 10_000
    learnt_max_ms: int = 60_000
    skew_max_ms: int = 60_000


class MarkSource:
    """What marks know of one source: one MQTT client id or one serial port."""

    __slots__ = (
        "arrival_ms",
        "connected",
        "gone",
        "id",
        "idle_ms",
        "interval",
        "newest_ms",
        "recorded",
        "seen_ms",
        "told",
        "told_at",
        "waits_since_ms",
    )

    def __init__(self, source_id: str) -> None:
        self.id = source_id
        self.newest_ms: int | None = None  # event time
        self.seen_ms = float("-inf")  # monotonic, of the last reading
        self.arrival_ms: int | None = None  # wall, of the last reading; None: known from an earlier run only
        self.connected = False
        self.gone = False  # left with a clean DISCONNECT
        self.idle_ms: int | None = None
        self.interval: Interval | None = None  # learnt; made when it has spoken twice
        self.recorded = False
        self.told: tuple[str, int] | None = None
        self.told_at = 0
        self.waits_since_ms: float | None = None  # monotonic: logged as topic `raw`, not decoded yet

    def remember(self, learnt_ms: int) -> None:
        """An earlier run had learnt how often it speaks."""
        self.interval = Interval(learnt_ms)

    @property
    def learnt_ms(self) -> int | None:
        """How often it speaks, as far as that is learnt."""
        return self.interval.learnt_ms if self.interval is not None else None


class MarkMaker:
    """Makes the marks of one partition. Times: `now_ms` monotonic, `wall_ms` since the epoch."""

    def __init__(
        self,
        settings: MarkSettings,
        *,
        node: str,
        partition: int = 0,
        partitions: int = 1,
        started_ms: float,
        recorded: bool = False,
    ) -> None:
        """`recorded`: this node takes in recordings, whose time has nothing to do with the clock's."""
        self.settings = settings
        self.node = node
        self.partition = partition
        self.partitions = partitions
        self.started_ms = started_ms
        self.recorded = recorded
        self.sources: dict[str, MarkSource] = {}
        self.n = 0
        self.live = 0
        self.last_ms = started_ms
        self._newest_arrival_ms: int | None = None
        self._steps: deque[tuple[float, float]] = deque()  # (when, wall less monotonic), rising: a sliding minimum
        self._listing: deque[str] = deque()

    def resume(self, mark: OwnMark) -> None:
        """Learn from a mark of an earlier run; call with each that is found, oldest first."""
        self.n = mark.n
        self.live = max(self.live, mark.live)
        for source_id, (state, own) in mark.src.items():
            source = self.source(source_id)
            source.newest_ms = own + self.settings.lateness_ms
            source.gone = state == GONE
            source.told, source.told_at = (state, own), self.n

    def source(self, source_id: str) -> MarkSource:
        """The source of that id, new if need be; the one silent for longest makes room beyond `SOURCES_MAX`."""
        source = self.sources.get(source_id)
        if source is None:
            if len(self.sources) >= SOURCES_MAX:
                oldest = min(self.sources.values(), key=lambda s: (s.connected, s.seen_ms))
                del self.sources[oldest.id]
            source = self.sources[source_id] = MarkSource(source_id)
        return source

    def connected(self, source: MarkSource) -> None:
        source.connected, source.gone = True, False
        self.sources[source.id] = source

    def disconnected(self, source: MarkSource, *, clean: bool) -> None:
        """A clean DISCONNECT releases T at once; anything else only `idle_ms` after the last reading."""
        source.connected = False
        source.gone = clean

    def saw(self, source: MarkSource, newest_ms: int | None, *, arrival_ms: int, now_ms: float) -> None:
        """Readings of a source were logged; `newest_ms` is the newest trusted event time among them, if any.

        The source's `idle_ms` and `recorded` follow its profile and are set by whoever knows that.
        """
        if now_ms - source.seen_ms > BURST_MS:
            if source.interval is None:
                source.interval = Interval()
            source.interval.spoke(now_ms, source.seen_ms)
        source.seen_ms = now_ms
        source.arrival_ms = self._newest_arrival_ms = arrival_ms
        if newest_ms is None:
            return
        old_ms = source.newest_ms
        # what lies in the future was stamped by a clock that has been set back since
        if old_ms is None or newest_ms > old_ms or old_ms > arrival_ms + FUTURE_MAX_MS:
            source.newest_ms = newest_ms

    def waits(self, source: MarkSource, since_ms: float | None) -> None:
        """Messages of a raw source are logged and not decoded yet, the oldest since then; None: all are decoded."""
        if since_ms is None or source.waits_since_ms is None:
            source.waits_since_ms = since_ms

    def is_undecoded(self, source: MarkSource, now_ms: float) -> bool | None:
        """Whether readings of a raw source are still to come; None: for so long that no window waits for them."""
        if source.waits_since_ms is None:
            return False
        return True if now_ms - source.waits_since_ms <= self.settings.skew_max_ms else None

    def is_behind(self, source: MarkSource) -> bool:
        """True for a source that is left out because its times are too far behind their arrival."""
        if source.recorded or source.newest_ms is None or source.arrival_ms is None:
            return False
        return source.arrival_ms - source.newest_ms > self.settings.skew_max_ms

    def _idle(self, source: MarkSource, now_ms: float) -> bool:
        idle_ms = source.idle_ms if source.idle_ms is not None else self._idle_ms(source)
        return now_ms - max(source.seen_ms, self.started_ms) > idle_ms

    def _idle_ms(self, source: MarkSource) -> int:
        """Where the profile says nothing: three intervals as they were learnt, within the settings' bounds."""
        settings, learnt_ms = self.settings, source.learnt_ms
        if learnt_ms is None:
            return settings.idle_ms
        return max(settings.idle_ms, min(SILENT_AFTER * learnt_ms, settings.learnt_max_ms))

    def intervals(self) -> dict[str, int]:
        """What was learnt, by source id."""
        return {source.id: learnt_ms for source in self.sources.values() if (learnt_ms := source.learnt_ms)}

    def due(self, now_ms: float) -> bool:
        """The next commit group should carry a mark."""
        return now_ms - self.last_ms >= self.settings.every_ms

    def overdue(self, now_ms: float) -> bool:
        """No group has come: the node's own health reading should carry it."""
        return now_ms - self.last_ms >= self.settings.every_ms + min(GRACE_MS, self.settings.every_ms)

    def make(self, *, now_ms: float, wall_ms: int, epoch: int) -> bytes:
        """The next mark; everything told to `saw` before stands before its record or on it."""
        self._advance(now_ms, wall_ms)
        self.n += 1
        self.last_ms = now_ms
        value: dict[str, Any] = {
            "v": 1,
            "node": self.node,
            "epoch": epoch,
            "partition": self.partition,
            "k": self.partitions,
            "n": self.n,
            "live": self.live,
            "src": self._changes(now_ms),
            "clock": wall_ms,
            "every_ms": self.settings.every_ms,
        }
        return msgspec.json.encode(value)

    def _advance(self, now_ms: float, wall_ms: int) -> None:
        lateness_ms = self.settings.lateness_ms
        steady_ms = self._steady_wall(now_ms, wall_ms)
        holding = []
        for source in self.sources.values():
            waits = source.waits_since_ms is not None and self.is_undecoded(source, now_ms)
            if source.newest_ms is None:
                if waits:
                    return  # what it says nobody has read yet: it may be about any time from T on
            elif (waits or (not source.gone and not self._idle(source, now_ms))) and not self.is_behind(source):
                holding.append(source.newest_ms)
        if holding:
            live = min(holding) - lateness_ms
            if self._newest_arrival_ms is not None:
                live = min(live, self._newest_arrival_ms - lateness_ms)
        elif self.recorded and not (self.sources and all(source.gone for source in self.sources.values())):
            return  # a recording that pauses, or has not begun, says nothing about today
        else:
            live = wall_ms - lateness_ms
        self.live = max(self.live, min(live, steady_ms - lateness_ms))

    def _steady_wall(self, now_ms: float, wall_ms: int) -> int:
        """The wall clock without a forward step of the last minute: were it wrong, `live` could never come back."""
        offset = wall_ms - now_ms
        while self._steps and self._steps[-1][1] >= offset:
            self._steps.pop()
        self._steps.append((now_ms, offset))
        while self._steps[0][0] < now_ms - STEADY_MS:
            self._steps.popleft()
        return round(self._steps[0][1] + now_ms)

    def _changes(self, now_ms: float) -> dict[str, list[str | int]]:
        now = {source.id: told for source in self.sources.values() if (told := self._state(source, now_ms)) is not None}
        if self.n % LISTING_EVERY == 1 or LISTING_EVERY == 1:
            self._listing = deque(now)
        chosen: list[str] = []
        while self._listing and len(chosen) < CHANGES_MAX:
            if (source_id := self._listing.popleft()) in now:
                chosen.append(source_id)
        if len(chosen) < CHANGES_MAX:
            taken = set(chosen)
            changed = [
                source
                for source in self.sources.values()
                if source.id in now and source.told != now[source.id] and source.id not in taken
            ]
            changed.sort(key=lambda source: source.told_at)  # stable: who waited longest comes first
            chosen += [source.id for source in changed[: CHANGES_MAX - len(chosen)]]
        for source_id in chosen:
            source = self.sources[source_id]
            source.told, source.told_at = now[source_id], self.n
        return {source_id: list(now[source_id]) for source_id in chosen}

    def _state(self, source: MarkSource, now_ms: float) -> tuple[str, int] | None:
        if source.newest_ms is None:
            return None
        left = source.gone or (not source.connected and self._idle(source, now_ms))
        return GONE if left else CONNECTED, source.newest_ms - self.settings.lateness_ms

    def forget_gone(self, now_ms: float, *, after_ms: float = 3_600_000) -> None:
        """Let go of sources that left long ago, so that a listing does not grow by every client that ever came."""
        for source in list(self.sources.values()):
            if source.interval is not None:
                source.interval.forget_if_streaming(source.seen_ms)
            if not source.connected and now_ms - max(source.seen_ms, self.started_ms) > after_ms:
                del self.sources[source.id]
