"""All consumer groups of this node: found, made, recorded, dropped, and what a restart reads.

What a client is told is on disk: a commit is answered, and an assignment handed out, after the fsync of its record in
`__consumer_offsets`. Groups and offsets have no expiry: a Raspberry Pi's clock is not to be trusted with it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from gateway.log.errors import InvalidProducerEpoch
from gateway.log.store import LogStore
from gateway.wire.errors import ErrorCode
from gateway.wire.groups.group import Committed, Group, Partition, State
from gateway.wire.groups.offsets_log import Entry, OffsetsLog, Pairs
from gateway.wire.groups.rebalance import Rebalances
from gateway.wire.groups.records import (
    apply_group,
    decode_key,
    decode_offset,
    encode_group,
    encode_group_key,
    encode_offset_key,
)
from gateway.wire.settings import KafkaSettings
from gateway.wire.timers import Timers
from headwater.clock import Clock
from headwater.errors import PeerError, StorageError

logger = logging.getLogger(__name__)

Done = Callable[[ErrorCode], None]
_REPORTED_MAX = 10_000


class Groups:
    """The groups by id; `rebalances` moves them from generation to generation."""

    def __init__(self, store: LogStore, clock: Clock, timers: Timers, settings: KafkaSettings) -> None:
        self._store = store
        self._clock = clock
        self._settings = settings
        self.log = OffsetsLog(store, clock)
        self.all: dict[str, Group] = {}
        self.rebalances = Rebalances(self, timers, clock)
        self._reported: set[tuple[str, Partition, int]] = set()
        self._refused = 0
        self._bytes = self._waiting_bytes = 0
        self._commits = 0
        self._load()

    def status(self) -> dict[str, Any]:
        """How many groups, members and offsets there are, and what happened since the start."""
        return {
            "groups": len(self.all),
            "members": sum(len(group.members) for group in self.all.values()),
            "offsets": sum(len(group.offsets) for group in self.all.values()),
            "bytes": self._bytes,
            "waiting_bytes": self._waiting_bytes,
            "refused": self._refused,
            "commits": self._commits,
            "past_the_end": self._past_the_end(),
            **self.rebalances.status(),
        }

    def get_or_create(self, group_id: str) -> Group | None:
        """The group; None when a new one finds no room (`kafka.groups_max`)."""
        group = self.all.get(group_id)
        if group is not None:
            return group
        if len(self.all) >= self._settings.groups_max and not self._make_room():
            self._refuse(group_id, f"there are {len(self.all)} groups with members or offsets (kafka.groups_max)")
            return None
        group = self.all[group_id] = Group(group_id, changed_ms=self._clock.wall_ms())
        self.note(group)
        return group

    def has_room(self, more_bytes: int) -> bool:
        """Whether groups may keep so much more in memory, all together (`kafka.groups_bytes_max`)."""
        if more_bytes <= 0 or self._bytes + more_bytes <= self._settings.groups_bytes_max:
            return True
        for group in self.all.values():  # members have gone since they were counted
            self.note(group)
        if self._bytes + more_bytes <= self._settings.groups_bytes_max:
            return True
        self._refuse("something", f"all of them take {self._bytes} bytes (kafka.groups_bytes_max)")
        return False

    def may_wait(self, more_bytes: int) -> bool:
        """Whether a commit may wait for the disk with so much in memory, beside those that do already."""
        if not self._waiting_bytes or self._waiting_bytes + more_bytes <= self._settings.groups_bytes_max:
            return True
        self._refuse("a commit", f"others that wait for the disk take {self._waiting_bytes} bytes")
        return False

    def note(self, group: Group) -> None:
        """Count what a group takes anew."""
        size_bytes = group.size_bytes if self.all.get(group.group_id) is group else 0
        self._bytes += size_bytes - group.noted_bytes
        group.noted_bytes = size_bytes

    def _refuse(self, group_id: str, why: str) -> None:
        self._refused += 1
        if self._refused == 1 or self._refused % 1000 == 0:
            logger.warning("consumer groups: %s is refused: %s", group_id, why)

    def _make_room(self) -> bool:
        oldest = min(
            (group for group in self.all.values() if group.is_idle()), key=lambda g: g.changed_ms, default=None
        )
        if oldest is None:
            return False
        self._drop(oldest)
        if oldest.recorded:
            self._append([(encode_group_key(oldest.group_id), None)], lambda code: None)
        return True

    def _drop(self, group: Group) -> None:
        group.to(State.DEAD)
        if group.timer is not None:
            group.timer.cancel()
        if self.all.get(group.group_id) is group:
            del self.all[group.group_id]
        self.note(group)

    # records

    def _append(
        self,
        pairs: Pairs,
        done: Done,
        *,
        producer: tuple[int, int] | None = None,
        placed: Callable[[int], None] | None = None,
    ) -> None:
        """Write records; `placed` hears their position at once, `done` that they are durable, or why not."""
        try:
            appended = self.log.append(pairs, producer=producer)
            if placed is not None:
                placed(appended.base_offset)
            self.log.when_synced(
                appended.next_offset,
                lambda: done(ErrorCode.NONE),
                lambda: done(ErrorCode.COORDINATOR_NOT_AVAILABLE),
            )
        except InvalidProducerEpoch as error:  # fenced meanwhile
            logger.warning("offsets of producer %s: %s", producer, error.what)
            done(ErrorCode.INVALID_PRODUCER_EPOCH)
        except StorageError as error:
            logger.error("consumer groups: %s", error.what)
            done(ErrorCode.COORDINATOR_NOT_AVAILABLE)

    def record(self, group: Group, done: Done, assignments: Mapping[str, bytes] | None = None) -> None:
        """Make a group's generation and members durable."""
        group.changed_ms = self._clock.wall_ms()
        group.recorded = True
        self.note(group)
        self._append([(encode_group_key(group.group_id), encode_group(group, assignments))], done)

    def commit(
        self,
        group: Group,
        pairs: Pairs,
        offsets: Mapping[Partition, Committed],
        done: Done,
        *,
        producer: tuple[int, int] | None = None,
        size_bytes: int = 0,
    ) -> None:
        """Make offsets durable; they are seen once they are, those of a transaction once it is committed.

        The request takes `size_bytes` meanwhile.
        """
        mine: dict[Partition, Committed] = {}

        def placed(position: int) -> None:
            mine.update(
                {where: each._replace(position=position + n) for n, (where, each) in enumerate(offsets.items())}
            )
            if producer is not None:
                group.hold(producer[0], mine)
                self.note(group)

        def finished(code: ErrorCode) -> None:
            group.committing -= 1
            self._waiting_bytes -= size_bytes
            if code is ErrorCode.NONE:
                self._commits += 1
                if producer is None:
                    group.commit(mine)
            elif producer is not None:
                group.withdraw(producer[0], mine)
            self.note(group)
            done(code)

        group.committing += 1
        self._waiting_bytes += size_bytes
        self._append(pairs, finished, producer=producer, placed=placed)

    def ended(self, producer_id: int, *, commit: bool) -> None:
        """A producer's transaction has ended, and its markers are durable."""
        for group in self.all.values():
            group.release(producer_id, commit=commit)

    def settle(self, open_producers: Iterable[int]) -> None:
        """After a start: transactions that nobody knows of are aborted, and their offsets with them."""
        known = set(open_producers)
        for group in self.all.values():
            for producer_id in group.pending_offsets.keys() - known:
                group.release(producer_id, commit=False)

    def delete(self, group: Group, done: Done) -> None:
        """Forget a group that has no members, with its offsets; `done` hears when that is durable."""
        pairs: list[tuple[bytes, bytes | None]] = [
            (encode_offset_key(group.group_id, where), None) for where in group.offsets
        ]
        pairs.append((encode_group_key(group.group_id), None))
        self._forget(group, list(group.offsets), pairs, done)

    def delete_offsets(self, group: Group, partitions: Iterable[Partition], done: Done) -> None:
        """Forget some of a group's offsets."""
        gone = list(partitions)
        self._forget(group, gone, [(encode_offset_key(group.group_id, where), None) for where in gone], done)

    def forget_topic(self, name: str) -> None:
        """A topic is gone: so are its offsets, or a new topic of that name would be read from the middle."""
        for group in self.all.values():
            gone = [where for where in group.offsets if where[0] == name]
            if gone:
                self.delete_offsets(group, gone, lambda code: None)

    def _forget(self, group: Group, gone: list[Partition], pairs: Pairs, done: Done) -> None:
        whole = len(pairs) > len(gone)

        def finished(code: ErrorCode) -> None:
            # In the order of the log: what was committed after the deletion is taken in after it.
            if code is ErrorCode.NONE:
                for where in gone:
                    group.forget(where)
                self.note(group)
                if whole and group.is_idle():
                    self._drop(group)
            done(code)

        self._append(pairs, finished)

    # a start

    def _load(self) -> None:
        partition, here = 0, set[str]()  # a marker speaks of the groups in its own partition only
        for entry in self.log.load():
            if entry.partition != partition:
                partition, here = entry.partition, set[str]()
            if entry.marker is not None:
                for name in here & self.all.keys():
                    self.all[name].release(entry.producer_id, commit=entry.marker)
                continue
            try:
                here.add(self._apply(entry))
            except PeerError as error:
                logger.error("record %d of __consumer_offsets is passed over: %s", entry.position, error.what)
        for group in list(self.all.values()):
            gone = [where for where in group.offsets if where[0] not in self._store.topics]
            if gone:
                self.delete_offsets(group, gone, lambda code: None)
            for where, committed in group.offsets.items():
                self.report(group, where, committed)
            if not group.recorded and group.is_idle():
                del self.all[group.group_id]
            self.note(group)
            for member in group.members.values():
                self.rebalances.alive(group, member)

    def _apply(self, entry: Entry) -> str:
        """Take a record in; returns the name of its group."""
        key = decode_key(entry.key)
        group = self.all.get(key.group_id)
        if group is None:
            group = self.all[key.group_id] = Group(key.group_id)
        if key.partition is None:
            if entry.value is not None:
                apply_group(group, entry.value)
            else:
                group.members, group.instances, group.state, group.recorded = {}, {}, State.EMPTY, False
                group.protocol = group.protocol_type = group.leader_id = None
        elif entry.value is None:
            group.forget(key.partition)
        else:
            offsets = {key.partition: decode_offset(entry.value, entry.position)}
            if entry.producer_id >= 0:
                group.hold(entry.producer_id, offsets)
            else:
                group.commit(offsets)
        return key.group_id

    def _past_the_end(self) -> list[dict[str, Any]]:
        """Committed offsets that were asked for and lie past their log's end, as long as they do; 20 at most."""
        rows = []
        for group_id, where, offset in sorted(self._reported):
            group, log = self.all.get(group_id), self._store.partition(*where)
            committed = group.offsets.get(where) if group is not None else None
            if log is None or committed is None or committed.offset != offset or offset <= log.log_end_offset:
                continue
            rows.append({"group": group_id, "topic": where[0], "partition": where[1], "offset": offset})
            rows[-1]["end"] = log.log_end_offset
        return rows[:20]

    def report(self, group: Group, where: Partition, committed: Committed) -> None:
        """Say once that a committed offset lies past the log's end; what to do about it is the client's own rule."""
        log = self._store.partition(*where)
        if log is None or committed.offset <= log.log_end_offset:
            return
        seen = (group.group_id, where, committed.offset)
        if seen in self._reported:
            return
        if len(self._reported) >= _REPORTED_MAX:
            self._reported.clear()
        self._reported.add(seen)
        logger.warning(
            "group %s has committed offset %d of %s-%d, whose log ends at %d: its consumers will be told"
            " OFFSET_OUT_OF_RANGE and go on by their own rule (auto.offset.reset)",
            group.group_id,
            committed.offset,
            *where,
            log.log_end_offset,
        )
