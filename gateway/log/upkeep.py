"""The upkeep of a node's logs, a turn at a time: expiry, the free-disk floor, the reserve, compaction.

A turn is work in steps (`gateway.log.steps`): the loop's part is short and what blocks is done off the loop, so appends
never wait. What expires is first named (an event, the books, the log's start), and its files are removed in the next
turn, when that is on disk. What a crash leaves in between is found at the next start and named again.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from gateway.log.arrivals import Arrivals
from gateway.log.checkpoints import encode_id
from gateway.log.cleaner import Cleaner
from gateway.log.errors import LogFailed
from gateway.log.expiries import Emit, Expired, Expiries, WhenSynced, times_of
from gateway.log.partition import PartitionLog
from gateway.log.proofread import Proofreader
from gateway.log.reserve import RELEASE_BELOW_BYTES, make_reserve, make_start_reserve, release_when_full, reserve_path
from gateway.log.retention import BY_CLIENT, DISK, LEFT, Held, Key, Rule, choose_for_disk, expired
from gateway.log.segment import Segment
from gateway.log.steps import Steps
from gateway.log.store import LogStore
from gateway.log.swap import DELETED, INDEXES
from gateway.log.topic_config import TopicConfig, lenient_config
from headwater.clock import Clock
from headwater.disk import Disk
from headwater.errors import HeadwaterError

_log = logging.getLogger(__name__)
_T = TypeVar("_T")
_HOUR_MS = 3_600_000
_COMPACT_EVERY_MS = 15_000.0
_AFTER_FAILURE_MS = 600_000.0
_FLOOR_SHARE = 20  # the floor is at most a twentieth of the disk

Settled = Callable[[str, int], int | None]
"""(topic, partition) -> the offset below which the central has everything; None: the topic is not replicated."""


class Upkeep:
    """One per store; ask for `turn` about once a second, one turn at a time."""

    def __init__(
        self,
        store: LogStore,
        *,
        clock: Clock,
        trusted: Callable[[], bool],
        emit: Emit = lambda kind, **detail: None,
        when_synced: WhenSynced = lambda done, failed: done(),
        settled: Settled = lambda topic, partition: None,
    ) -> None:
        """`trusted` says whether the wall clock is right; `emit(kind, **detail)` writes an event and may raise.

        `when_synced` tells what became of the events written so far.
        """
        self._store = store
        self._disk = store.disk
        self._settings = store.settings
        self._node_dir = f"{store.data_dir}/node"
        self._clock = clock
        self._trusted = trusted
        self._settled = settled
        self._emit = emit
        self._arrivals = Arrivals(self._disk, f"{self._node_dir}/arrivals")
        self._books = Expiries(self._disk, f"{self._node_dir}/expired.json", emit, when_synced)
        self._doomed: list[tuple[PartitionLog, Segment]] = []  # given up, with files still there
        self._now_ms: int | None = None
        self._full = False
        self._low = False
        self._next_compaction: dict[Key, float] = {}
        self._compactions = self._records_compacted = 0
        self._failures: dict[str, str] = {}
        self._proofreader = Proofreader(self._disk, store.unread, self._say_damaged)

    def status(self) -> dict[str, Any]:
        """For people: what expired, what compaction did, and what does not work."""
        return self._books.status() | {
            "clock_trusted": self._now_ms is not None,
            "disk": "full" if self._full else "low" if self._low else "ok",
            "reserve": self._disk.exists(reserve_path(self._node_dir)),
            "compactions": self._compactions,
            "records_compacted": self._records_compacted,
            "failures": dict(self._failures),
        }

    def turn(self) -> Steps:
        """Everything that is due. A failure concerns one log or one file, is logged, and is tried again later."""
        self._now_ms = self._clock.wall_ms() if self._trusted() else None
        self._books.tell()
        yield from self._remove_doomed()
        logs = self._logs()
        for key, (log, config) in logs.items():
            self._arrivals.observe(key, log.segment_sizes(), self._now_ms)
            self._roll_when_old(log, config)
            yield from self._tell_deleted(log, self._rule(key, log, config))
            yield None
        yield from self._mind_the_disk(logs)
        for key, (log, config) in logs.items():
            if config.delete:
                held, rule = self._held(key, log), self._rule(key, log, config)
                count, cause = expired(held, rule, log.active_segment.size, self._now_ms)
                if log.closed:
                    continue
                left = sum(segment.end_offset <= log.log_start_offset for segment in held)
                count, cause = (left, LEFT) if left >= count and left else (count, cause)
                if count:
                    yield from self._give_up(log, held[count - 1].end_offset, rule, cause)
            yield None
        try:
            yield from self._proofreader.turn()
        except OSError as error:
            self._fail("reading again", error)
        self._arrivals.forget_others(set(logs))
        self._books.forget_others({_id_of(log) for log, _ in logs.values()})
        if self._arrivals.changed:
            yield from self._try("arrivals", partial(self._arrivals.save, self._arrivals.encode()))
        yield from self._compact(logs)

    def close(self) -> None:
        """Keep what is known of ages; the last thing before the store is closed."""
        with contextlib.suppress(OSError):
            self._arrivals.save(self._arrivals.encode())

    def _logs(self) -> dict[Key, tuple[PartitionLog, TopicConfig]]:
        return {
            (name, log.index): (log, config)
            for name, topic in self._store.topics.items()
            for config in [lenient_config(topic.config)]
            for log in topic.partitions
        }

    # -- what may go

    def _held(self, key: Key, log: PartitionLog) -> list[Held]:
        return [
            Held(each.base_offset, log.next_base(each), each.size, self._arrivals.of(key, each.base_offset))
            for each in log.closed_segments()
        ]

    def _rule(self, key: Key, log: PartitionLog, config: TopicConfig) -> Rule:
        settled = self._settled(*key)
        age_ms = config.retention_ms
        if age_ms is None:
            age_ms = self._settings.retention_ms if settled is None else self._settings.keep_replicated_h * _HOUR_MS
        bytes_max = self._settings.retention_bytes if config.retention_bytes is None else config.retention_bytes
        return Rule(
            None if age_ms < 0 else age_ms, None if bytes_max < 0 else bytes_max, settled, log.last_stable_offset
        )

    def _roll_when_old(self, log: PartitionLog, config: TopicConfig) -> None:
        """A topic that nobody writes to any more closes its segment too, so that it can expire or be compacted."""
        active = log.active_segment
        if active.size and active.base_offset < active.next_offset <= log.log_start_offset and not log.closed:
            self._roll(log)  # clients have deleted all that is in it
            return
        if self._now_ms is None or not active.size or log.closed:
            return
        arrived = self._arrivals.of((log.topic, log.index), active.base_offset)
        if arrived is None:
            return
        idle_ms = self._now_ms - arrived
        age_ms = self._rule((log.topic, log.index), log, config).age_ms if config.delete else None
        if idle_ms > log.segment_ms or (age_ms is not None and idle_ms > age_ms):
            self._roll(log)

    def _roll(self, log: PartitionLog) -> None:
        try:
            log.roll_now()
        except LogFailed as error:
            self._fail(f"{log.topic}-{log.index}", error)

    def _give_up(self, log: PartitionLog, end: int, rule: Rule, cause: str) -> Steps:
        segments = [each for each in log.closed_segments() if log.next_base(each) <= end]
        told = self._books.deleted_below(_id_of(log))
        first = max(segments[0].base_offset, told)
        if cause != LEFT and log.deleted_below <= told:  # else clients have deleted since: its records go untold
            first = max(first, log.log_start_offset)
        size_bytes = sum(segment.size for segment in segments)
        times: list[tuple[int, int]] = []
        yield lambda: times.append(times_of(self._disk, segments, first, end))
        if log.closed:
            return
        self._doomed += [(log, segment) for segment in log.start_at(end)]
        if first < end:
            self._books.note(self._expired(log, first, end, rule, cause, times[0], size_bytes))
            _log.info("%s-%d: records %d to %d expired (%s)", log.topic, log.index, first, end, cause)
        else:
            self._books.note_freed(log.topic, log.index, size_bytes)
        starts = {(log.topic, log.index): log.log_start_offset}
        # On a full disk there may be no room for either: the files go all the same, and are missed by nobody.
        yield from self._try("log starts", partial(self._store.offsets.set_starts, starts))
        yield from self._try("books", partial(self._books.save, self._books.encode()))

    def _expired(
        self, log: PartitionLog, first: int, end: int, rule: Rule, cause: str, times: tuple[int, int], size_bytes: int
    ) -> Expired:
        owed = first if rule.settled is None else max(first, rule.settled)
        lost = (cause == DISK or rule.settled is not None) and owed < end
        return Expired(
            topic=log.topic,
            partition=log.index,
            first=first,
            end=end,
            bytes=size_bytes,
            from_ms=times[0],
            to_ms=times[1],
            cause=cause,
            at_ms=self._clock.wall_ms(),
            owed_from=owed if lost else None,
        )

    def _tell_deleted(self, log: PartitionLog, rule: Rule) -> Steps:
        """What clients have deleted since the last turn, or before a start that came between."""
        first, end = max(self._books.deleted_below(_id_of(log)), log.segment_sizes()[0][0]), log.deleted_below
        if log.closed or first >= end:
            return
        segments = log.segments_between(first, end)
        times: list[tuple[int, int]] = []
        yield lambda: times.append(times_of(self._disk, segments, first, end))
        self._books.note_deleted(_id_of(log), self._expired(log, first, end, rule, BY_CLIENT, times[0], 0))
        _log.info("%s-%d: records %d to %d are gone (%s)", log.topic, log.index, first, end, BY_CLIENT)
        yield from self._try("books", partial(self._books.save, self._books.encode()))

    def _remove_doomed(self) -> Steps:
        if self._books.under_way and not self._full:
            return  # first the word that they are gone, on the disk
        # A deleted topic's files are gone, and what has their names by now may be a new one's.
        left = [segment for log, segment in self._doomed if not log.closed]
        if self._doomed:
            yield from self._try("removal", partial(remove_segments, self._disk, left))
            self._doomed = [(log, segment) for log, segment in self._doomed if segment in left]

    # -- the disk

    def _mind_the_disk(self, logs: dict[Key, tuple[PartitionLog, TopicConfig]]) -> Steps:
        disk, settings = self._disk, self._settings
        try:
            free = disk.free_bytes(self._node_dir)
            floor = min(settings.free_floor_bytes, disk.total_bytes(self._node_dir) // _FLOOR_SHARE)
        except OSError as error:
            self._fail("disk", error)
            return
        full = free < RELEASE_BELOW_BYTES
        if full:
            yield from self._try("reserve", partial(_release, disk, self._node_dir))
        room = free > settings.reserve_bytes + max(floor, RELEASE_BELOW_BYTES)
        if room and settings.reserve_bytes and not disk.exists(reserve_path(self._node_dir)):
            yield from self._try("reserve", partial(make_reserve, disk, self._node_dir, settings.reserve_bytes))
        if room and settings.reserve_bytes:
            yield partial(make_start_reserve, disk, self._node_dir)
        self._say_pressure(full=full, low=free < floor, free=free)
        if free >= floor:
            return
        deletable = {key: log for key, (log, config) in logs.items() if config.delete and not log.closed}
        rules = {key: self._rule(key, log, logs[key][1]) for key, log in deletable.items()}
        held = {key: self._held(key, log) for key, log in deletable.items()}
        chosen = choose_for_disk(held, rules, floor - free)
        for key, count in chosen.items():
            yield from self._give_up(deletable[key], held[key][count - 1].end_offset, rules[key], DISK)
        if full and not chosen:
            for key in sorted(deletable, key=lambda each: -deletable[each].active_segment.size)[:1]:
                self._roll(deletable[key])

    def _say_pressure(self, *, full: bool, low: bool, free: int) -> None:
        before = self._full, self._low
        self._full, self._low = full, low
        if before != (full, low):
            state = "full" if full else "low" if low else "ok"
            (_log.warning if full or low else _log.info)("disk: %s, %d bytes free", state, free)
            with contextlib.suppress(HeadwaterError, OSError):
                self._emit("disk", state=state, free_bytes=free)

    # -- compaction

    def _compact(self, logs: dict[Key, tuple[PartitionLog, TopicConfig]]) -> Steps:
        if self._full:
            return  # a pass needs room for the new segments beside the old ones
        now = self._clock.monotonic_ms()
        for key, (log, config) in logs.items():
            if not config.compact or log.closed or now < self._next_compaction.get(key, now):
                continue
            self._next_compaction[key] = now + _COMPACT_EVERY_MS
            cleaner = Cleaner(
                log,
                config,
                cleaned_offset=self._store.offsets.cleaned.get(key, 0),
                now_ms=self._now_ms,
                keys_max=self._settings.compact_keys_max,
            )
            if cleaner.worth():
                yield from self._pass(key, log, cleaner)

    def _pass(self, key: Key, log: PartitionLog, cleaner: Cleaner) -> Steps:
        name = f"compaction of {log.topic}-{log.index}"
        cleaned = self._store.offsets
        try:
            if key not in cleaned.cleaned:
                yield partial(cleaned.set_cleaned, key, 0)  # from here on, gaps are as they should be
            yield from cleaner.steps()
            if cleaner.result is not None:
                yield partial(cleaned.set_cleaned, key, cleaner.result.end_offset)
                self._compactions += 1
                self._records_compacted += cleaner.result.records_removed
            self._failures.pop(name, None)
        except (HeadwaterError, OSError) as error:
            self._next_compaction[key] = self._clock.monotonic_ms() + _AFTER_FAILURE_MS
            self._fail(name, error)

    # -- what a start took on trust

    def _say_damaged(self, log: PartitionLog, what: str) -> None:
        self._fail(f"{log.topic}-{log.index}", what)
        with contextlib.suppress(HeadwaterError, OSError):
            self._emit("damage", topic=log.topic, partition=log.index, what=what)

    # -- failures

    def _try(self, name: str, blocking: Callable[[], object]) -> Steps:
        try:
            yield lambda: _discard(blocking())
            self._failures.pop(name, None)
        except OSError as error:
            self._fail(name, error)

    def _fail(self, name: str, error: HeadwaterError | OSError | str) -> None:
        what = error.what if isinstance(error, HeadwaterError) else getattr(error, "strerror", None) or str(error)
        if self._failures.get(name) != what:
            _log.error("%s: %s", name, what)
        self._failures[name] = what


def _id_of(log: PartitionLog) -> str:
    """Not by name: another topic may bear it later."""
    return f"{encode_id(log.topic_id)}/{log.index}"


def _discard(_result: object) -> None:
    return


def _release(disk: Disk, node_dir: str) -> None:
    release_when_full(disk, node_dir)


def remove_segments(disk: Disk, segments: list[Segment]) -> None:
    """Blocks: rename the segments' logs to `.deleted`, then remove all that was theirs.

    What is gone is taken from `segments`. What fails for one of them keeps no other, and the first failure is raised
    at the end (`OSError`).
    """
    failures: list[OSError] = []
    renamed = [segment for segment in segments if _done(failures, _rename, disk, segment)]
    directories = {segment.path.rpartition("/")[0] for segment in renamed}
    synced = {each for each in sorted(directories) if _done(failures, _sync, disk, each)}
    for segment in renamed:
        if segment.path.rpartition("/")[0] in synced and _done(failures, _remove, disk, segment):
            segments.remove(segment)
    if failures:
        raise failures[0]


def _done(failures: list[OSError], what: Callable[[Disk, _T], None], disk: Disk, one: _T) -> bool:
    try:
        what(disk, one)
    except OSError as error:
        failures.append(error)
        return False
    return True


def _rename(disk: Disk, segment: Segment) -> None:
    if disk.exists(segment.log_path):
        disk.rename(segment.log_path, segment.log_path + DELETED)


def _sync(disk: Disk, directory: str) -> None:
    if disk.exists(directory):
        disk.sync_directory(directory)


def _remove(disk: Disk, segment: Segment) -> None:
    for name in (segment.log_path + DELETED, *(segment.path + suffix for suffix in INDEXES)):
        if disk.exists(name):
            disk.remove(name)
