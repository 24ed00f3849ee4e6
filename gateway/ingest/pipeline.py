"""From sources to the log: what was taken becomes one batch per commit group, and is acknowledged when it is on disk.

How a source uses it (the MQTT listener and the serial ports alike):

    source = ingest.attach("serial:mast", kind="serial", profile=profile)   # connected
    ingest.take(source, [(port_name, frame, 0, 0), ...], done)              # any time, from the loop
    ingest.detach(source, clean=False)                                      # unplugged; True: said good-bye

`take` never blocks and keeps a reference to the list. `done(True)` is called in the loop once everything in it is
fsynced: stored, recognised as a repeat, or in the dead letters. `done(False)` says that the disk failed: acknowledge
nothing, and let the device send again. While `ingest.full` a source should stop reading, and go on when the
callback given to `when_room` is called.

A group is what was taken in one pass of the loop; while a group of before waits for its fsync, the next gathers,
for at most `gather_ms` or until `GROUP_BYTES`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from devices.profiles import Profile
from devices.reading import HEALTH_DEVICE
from gateway.ingest.commit_group import CommitGroup
from gateway.ingest.devices import Devices
from gateway.ingest.events import ensure_partition
from gateway.ingest.group import GroupBuilder
from gateway.ingest.loop import Loop
from gateway.ingest.marks import MarkMaker, MarkSettings
from gateway.ingest.messages import Message, Messages
from gateway.ingest.outcome import Outcome
from gateway.ingest.raw import RAW_TOPIC, RawSources
from gateway.ingest.refused import no_messages
from gateway.ingest.repeats import NaturalMemory
from gateway.ingest.sections import add_header
from gateway.ingest.sources import Done, Entry, Source, Sources
from gateway.ingest.tail import TailReader
from gateway.ingest.told import LINES_MAX, DeadLetterLines
from gateway.log.records import NO_HEADERS, Record, encode_batch
from gateway.log.rows import Rows
from gateway.log.store import LogStore
from headwater.clock import Clock
from headwater.errors import HeadwaterError

_log = logging.getLogger("headwater.ingest")

READINGS_TOPIC = "readings"
DEADLETTER_TOPIC = "deadletter"
GROUP_BYTES = 256 << 10
WAITING_BYTES_MAX = 32 << 20
FORGET_EVERY_MS = 60_000


class Ingest:
    """Decodes, recognises repeats, marks and appends; see the module for how sources use it."""

    def __init__(
        self,
        store: LogStore,
        *,
        node: str,
        profiles: Sequence[Profile],
        marks: MarkSettings,
        clock: Clock,
        health: Callable[[], Mapping[str, Any]],
        decoders: Sequence[Profile] = (),
        devices: Devices | None = None,
        loop: Loop | None = None,
        gather_ms: float = 10.0,
        waiting_bytes_max: int = WAITING_BYTES_MAX,
    ) -> None:
        """Reads the logs' tails: after it, marks and repeats go on where the last run ended.

        `health` gives the fields of the node's own reading. `loop` None: the running asyncio loop, when first needed.
        `decoders` are profiles with a user's own decoder that sources bring along: a serial port's. Without `devices`
        none is described or turned away.
        """
        self.store = store
        self.node = node
        self.clock = clock
        self.readings = ensure_partition(store, READINGS_TOPIC)
        self.deadletter = ensure_partition(store, DEADLETTER_TOPIC)
        now_ms = clock.monotonic_ms()
        self.marks = MarkMaker(
            marks, node=node, started_ms=now_ms, recorded=any(profile.recorded for profile in profiles)
        )
        self._natural = NaturalMemory.of_node(devices.devices_max if devices is not None else 0)
        self.raw = RawSources([*profiles, *decoders], self.marks, node)
        self._raw_log = ensure_partition(store, RAW_TOPIC) if self.raw.profiles else None
        self.logs = [log for log in (self.deadletter, self._raw_log, self.readings) if log is not None]
        tail = TailReader(profiles, self.marks, self._natural, self.raw)
        tail.read(self.readings, self.deadletter, self._raw_log)
        self.tail_uses = tail.uses
        self._table = Sources(self.marks, node)
        self._table.seed(tail.heard(), clock.wall_ms())
        self.raw.bind(self._table)
        self.sources = self._table.rows
        self._teller = DeadLetterLines()
        self._devices = devices
        self._builder = GroupBuilder(node, profiles, self._natural, devices)
        self._builder.live_ms = self.marks.live
        self._health = health
        self._loop = loop
        self._gather_ms = gather_ms
        self._waiting: list[Entry] = []
        self._waiting_bytes = self._held_bytes = self._failures = 0
        self._scheduled = self._timer = self._closed = False
        self._groups: deque[CommitGroup] = deque()  # appended, not on disk yet
        self._bytes_max = waiting_bytes_max
        self._room: list[Callable[[], None]] = []
        self._after: list[Callable[[], None]] = []
        self._problem: str | None = None
        self._extra_status: Callable[[], Mapping[str, Any]] | None = None
        self._forget_at_ms = now_ms + FORGET_EVERY_MS

    # --- sources

    def attach(self, source_id: str, *, kind: str, profile: Profile | None = None) -> Source:
        """A source is connected. Its id is `mqtt:<client id>` or `serial:<port name>`."""
        return self._table.attach(source_id, kind, profile)

    def detach(self, source: Source, *, clean: bool, problem: str | None = None) -> None:
        """A source is gone; `clean`: it said so itself, and no window waits for it any more."""
        now_ms, wall_ms = self.clock.monotonic_ms(), self.clock.wall_ms()
        self._table.detach(source, clean=clean, problem=problem, now_ms=now_ms, wall_ms=wall_ms)

    # --- taking in

    @property
    def full(self) -> bool:
        """Too many bytes wait for the disk: stop reading until `when_room` calls back."""
        return self._held_bytes >= self._bytes_max

    def when_room(self, callback: Callable[[], None]) -> None:
        """Call back once, when no longer full."""
        self._room.append(callback)

    def after_group(self, callback: Callable[[], None]) -> None:
        """For a `done`: call back once, when the whole group is settled; acknowledgements go in few writes so."""
        self._after.append(callback)

    def take(self, source: Source, messages: Iterable[Message], done: Done, *, reasons: Sequence[str] = ()) -> None:
        """Messages of one source, in order; `done` is called in the loop when they are settled.

        `reasons`: none of them is a message, and why of each; their bytes go to the dead letters.
        """
        if self._closed:
            return
        columns = messages if isinstance(messages, Messages) else Messages(messages)
        size_bytes = columns.size_bytes()
        entry = Entry(source, columns, done, self.clock.wall_ms(), size_bytes)
        if reasons:
            entry.outcomes = no_messages(columns, reasons, source.id)
        self._waiting.append(entry)
        self._waiting_bytes += size_bytes
        self._held_bytes += size_bytes
        if self._waiting_bytes >= GROUP_BYTES:
            self.commit()
        elif not self._scheduled:
            if not self._groups:
                self._scheduled = True
                self._running_loop().call_soon(self._on_scheduled)
            elif not self._timer:
                self._timer = True
                self._running_loop().call_later(self._gather_ms / 1000, self._on_timer)

    def take_outcomes(
        self, name: str, outcomes: Sequence[Outcome], *, first: int, next_offset: int, done: Done
    ) -> None:
        """What the decoder of profile `name` made of the raw messages from `first` to `next_offset`, as one group.

        `done` as in `take`; afterwards all of them are settled. Raises KeyError for a profile without a decoder.
        """
        profile = self.raw.profiles[name]
        arrival_ms = outcomes[-1].arrival_ms if outcomes else None

        def settled(stored: bool) -> None:  # noqa: FBT001 - as every `done`
            if stored:
                self.raw.settled(name, next_offset, clock=self.clock, arrival_ms=arrival_ms)
            done(stored)

        self._commit_alone(self.raw.entries(profile, outcomes, first, settled))
        if not outcomes:
            settled(True)  # noqa: FBT003 - as every `done`

    def take_replayed(self, profile: Profile | None, outcomes: Sequence[Outcome], done: Done) -> None:
        """What a mended profile made of dead letters, as one group; `Outcome.offset` is the dead letter's."""
        self._commit_alone(self.raw.replayed(profile, outcomes, done))
        self._builder.replayed(profile, len(outcomes))

    def _commit_alone(self, entries: list[Entry]) -> None:
        """These entries as a group of their own."""
        self.commit()
        self._waiting = entries
        self._held_bytes += sum(entry.size_bytes for entry in entries)
        self.commit()

    def _running_loop(self) -> Loop:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        return self._loop

    def _on_scheduled(self) -> None:
        self._scheduled = False
        self.commit()

    def _on_timer(self) -> None:
        self._timer = False
        self.commit()

    def commit_if_free(self) -> None:
        """`commit`, unless a group waits for its fsync: for who has handed over all that this turn brings."""
        if not self._groups:
            self.commit()

    def commit(self) -> None:
        """Append what waits, as one group. Called by itself; tests and shutdown may call it."""
        if not self._waiting:
            return
        entries, self._waiting, self._waiting_bytes = self._waiting, [], 0
        group = CommitGroup(self, entries, logs=len(self.logs), live_before_ms=self.marks.live)
        now_ms, wall_ms = self.clock.monotonic_ms(), self.clock.wall_ms()
        try:
            readings, dead = self._records(entries, now_ms, wall_ms)
        except Exception:
            # A defect; who sent these must hear of it, or their acknowledgements and bytes would be held for ever.
            _log.exception("node %s: a group could not be made into records; nothing of it is acknowledged", self.node)
            self._give_up(group)
            return
        self._append(group, readings, dead, wall_ms, self._builder.raw)
        if RAW_TOPIC in group.ends and not group.lost:
            self.raw.logged(self._builder.raw_from, group.ends[RAW_TOPIC])

    def _records(self, entries: list[Entry], now_ms: float, wall_ms: int) -> tuple[Rows, list[Record]]:
        for entry in entries:
            entry.before_ms = entry.source.mark.newest_ms
        if self._devices is not None and self._devices.is_due(now_ms):
            self._builder.forget_devices()
        readings, dead = self._builder.build(entries)
        if self._devices is not None:
            if self._builder.met:
                self._devices.met(self._builder.met, wall_ms)
            self._devices.state(readings)
        if dead:
            self._teller.tell(dead, entries)
        for entry in entries:
            self._note(entry, now_ms)
        for _, source in self._builder.raw_from:
            self.raw.taken(source, now_ms)
        if readings and self.marks.due(now_ms):
            self._add_mark(readings, now_ms, wall_ms)
        return readings, dead

    def _note(self, entry: Entry, now_ms: float) -> None:
        source, row = entry.source, entry.source.row
        row.last_ms = max(row.last_ms or 0, entry.arrival_ms)
        if entry.readings or entry.suppressed:
            row.readings += entry.readings
            if not entry.replayed and not entry.messages.copies:
                self.marks.saw(source.mark, entry.newest_ms, arrival_ms=entry.arrival_ms, now_ms=now_ms)

    def _add_mark(self, readings: Rows, now_ms: float, wall_ms: int) -> None:
        mark = self.marks.make(now_ms=now_ms, wall_ms=wall_ms, epoch=self.readings.leader_epoch)
        self._builder.live_ms = self.marks.live
        add_header(readings, "hw-mark", mark)

    def _append(
        self, group: CommitGroup, readings: Rows, dead: list[Record], wall_ms: int, raw: Sequence[Record] = ()
    ) -> None:
        self._groups.append(group)
        try:
            written: dict[str, Rows | Sequence[Record]]
            written = {DEADLETTER_TOPIC: dead, RAW_TOPIC: raw, READINGS_TOPIC: readings}
            for log in self.logs:
                if records := written[log.topic]:
                    batch = records.encode() if isinstance(records, Rows) else encode_batch(records)
                    appended = log.append(batch, now_ms=wall_ms, verify=False)
                    group.ends[log.topic] = appended.next_offset
        except (HeadwaterError, OSError) as error:
            self.fail(group, str(error))
            return
        for log in self.logs:
            log.when_synced(self._end_of(group, log.topic), group.one_log_synced, group.failed)

    def _end_of(self, group: CommitGroup, topic: str) -> int:
        """Up to where a log must be on disk before the group is acknowledged.

        Without a record of its own there, up to what groups before it wrote: the original of a repeat may be among it.
        Never up to the log's end, which a failed disk may have left standing over nothing.
        """
        own = group.ends.get(topic)
        return own if own is not None else max(other.ends.get(topic, 0) for other in self._groups)

    def release(self, group: CommitGroup) -> None:
        """A group is on disk in both logs: acknowledge, and let the next one go."""
        self._groups.remove(group)
        if self._problem is not None:
            _log.warning("node %s: the disk takes readings again", self.node)
            self._problem = None
        self._settle(group.entries, stored=True)
        if self._waiting and not self._groups:
            self.commit()

    def _settle(self, entries: list[Entry], *, stored: bool) -> None:
        for entry in entries:
            self._held_bytes -= entry.size_bytes
            entry.done(stored)
        after, self._after = self._after, []
        for callback in after:
            callback()
        if self._room and not self.full:
            room, self._room = self._room, []
            for callback in room:
                callback()

    def disk_failed(self, problem: str) -> None:
        """For the log's alarm: the sentence that `status` shows until a group is on disk again."""
        if self._problem is None:
            _log.error("node %s: the disk failed, nothing is acknowledged: %s", self.node, problem)
        self._problem = problem

    def fail(self, group: CommitGroup, problem: str = "what was written could not be synced") -> None:
        """The disk lost a group: nothing of it is acknowledged, and nothing of it counts as seen."""
        if self._problem is None:
            self.disk_failed(problem)
        self._failures += 1
        self._groups.remove(group)
        self._give_up(group)

    def _give_up(self, group: CommitGroup) -> None:
        self._natural.forget_all()
        self._builder.forget_reports()
        group.lost = True
        if self._raw_log is not None:
            self.raw.lost(self._raw_log.synced_offset)
        for entry in group.entries:
            # what was lost comes again: T must not have gone past it
            newest_ms, before_ms = entry.source.mark.newest_ms, entry.before_ms
            if before_ms is None or (newest_ms is not None and before_ms < newest_ms):
                entry.source.mark.newest_ms = before_ms
        self._builder.live_ms = self.marks.live = min(self.marks.live, group.live_before_ms)
        self._settle(group.entries, stored=False)

    # --- time

    def tick(self, now_ms: float | None = None) -> None:
        """The app calls this about every 100 ms: a mark on the node's own health reading when nothing else came."""
        now_ms = self.clock.monotonic_ms() if now_ms is None else now_ms
        if now_ms >= self._forget_at_ms:
            self._forget_at_ms = now_ms + FORGET_EVERY_MS
            self.marks.forget_gone(now_ms)
            self._table.forget(now_ms)
            self._teller.lines_left = LINES_MAX
        if self._closed or not self.marks.overdue(now_ms) or self._groups:
            return
        self.commit()
        if self.marks.overdue(now_ms):
            self._health_reading(now_ms)

    def _health_reading(self, now_ms: float) -> None:
        wall_ms = self.clock.wall_ms()
        value = msgspec.json.encode(self._health())
        rows = Rows()
        rows.add(wall_ms, f"{self.node}/{HEALTH_DEVICE}".encode(), value, NO_HEADERS)
        group = CommitGroup(self, [], logs=len(self.logs), live_before_ms=self.marks.live)
        self._add_mark(rows, now_ms, wall_ms)
        self._append(group, rows, [], wall_ms)

    def close(self) -> None:
        """Append what waits and take nothing more; acknowledgements follow the log's last sync."""
        self.commit()
        self._closed = True

    # --- seen from outside

    def add_status(self, extra: Callable[[], Mapping[str, Any]]) -> None:
        """A listener's own figures, merged into `status`."""
        self._extra_status = extra

    def status(self) -> dict[str, Any]:
        now_ms = self.clock.monotonic_ms()
        return {
            "sources": [source.status(self.marks, now_ms) for source in self.sources.values()],
            **self._builder.counts.as_dict(),
            "natural_forgotten": self._natural.forgotten,
            "refused": 0,
            "devices": self._devices.status() if self._devices is not None else None,
            "waiting_bytes": self._held_bytes,
            "live_ms": self.marks.live,
            "marks": self.marks.n,
            "disk_failures": self._failures,
            "problem": self._problem,
            **(self._extra_status() if self._extra_status is not None else {}),
        }
