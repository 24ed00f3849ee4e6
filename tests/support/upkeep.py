"""Upkeep of logs in tests: a pass of compaction, turns of upkeep, disks that lose power or are small."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from typing import Any

from gateway.log import records
from gateway.log.cleaner import Cleaned, Cleaner
from gateway.log.partition import PartitionLog
from gateway.log.settings import LogSettings
from gateway.log.steps import run_steps
from gateway.log.store import LogStore
from gateway.log.topic_config import parse_config
from gateway.log.upkeep import Upkeep
from headwater.clock import ManualClock
from headwater.disk import Buffer
from tests.support.logs import DATA, NOW_MS, SMALL, FlakyDisk, open_store

COMPACT = {"cleanup.policy": "compact", "segment.bytes": "1024", "min.cleanable.dirty.ratio": "0"}


def open_compacted(disk: FlakyDisk, config: dict[str, str] | None = None, **more: Any) -> tuple[LogStore, PartitionLog]:
    store = open_store(disk, **more)
    topic = store.topics.get("t") or store.create_topic("t", config={**COMPACT, **(config or {})})
    return store, topic.partitions[0]


def put(log: PartitionLog, rows: Iterable[tuple[bytes | None, bytes | None]], **more: Any) -> int:
    """Append one batch of (key, value); the offset of its first record."""
    batch = records.encode_batch([(NOW_MS, key, value, records.NO_HEADERS) for key, value in rows], **more)
    return log.append(batch, now_ms=NOW_MS).base_offset


def cleaner(store: LogStore, log: PartitionLog, *, now_ms: int | None = NOW_MS, keys_max: int = 1_000) -> Cleaner:
    return Cleaner(
        log,
        parse_config(store.topics[log.topic].config),
        cleaned_offset=store.offsets.cleaned.get((log.topic, log.index), 0),
        now_ms=now_ms,
        keys_max=keys_max,
    )


def compact(store: LogStore, log: PartitionLog, **more: Any) -> Cleaned:
    """Close what there is and compact it."""
    store.flush_now()
    if log.roll_now():
        store.flush_now()
    one = cleaner(store, log, **more)
    if not one.worth():
        return Cleaned(0, 0, 0, 0, 0)
    store.offsets.set_cleaned((log.topic, log.index), store.offsets.cleaned.get((log.topic, log.index), 0))
    run_steps(one.steps())
    assert one.result is not None
    store.offsets.set_cleaned((log.topic, log.index), one.result.end_offset)
    return one.result


def rows_of(log: PartitionLog, *, committed: bool = False) -> list[tuple[int, bytes | None, bytes | None]]:
    """(offset, key, value) of every data record, read as a consumer would, each batch's CRC checked."""
    at, found = log.log_start_offset, []
    while data := (result := log.read(at, 700, committed=committed)).data:
        pending = sorted(result.aborted, key=lambda each: each[1])
        aborting: set[int] = set()
        for view in records.split_batches(data):
            header = records.check_batch(view)
            assert header.next_offset > at, "a read that does not get on"
            while pending and pending[0][1] <= header.last_offset:
                aborting.add(pending.pop(0)[0])
            at = header.next_offset
            if header.is_control:
                if not records.control_type(view):
                    aborting.discard(header.producer_id)
            elif not (committed and header.is_transactional and header.producer_id in aborting):
                columns = records.decode_batch(view)
                found += list(zip(columns.offsets, columns.keys, columns.values, strict=True))
    return found


def headers_of(log: PartitionLog) -> list[records.BatchHeader]:
    at, found = log.log_start_offset, []
    while data := log.read(at, 700).data:
        found += [records.check_batch(view) for view in records.split_batches(data)]
        at = found[-1].next_offset
    return found


class PowerCutError(BaseException):
    """The power went: nothing may catch it."""


class FatefulDisk(FlakyDisk):
    """A forgetful disk whose power goes before its n-th change from now; `changes` counts them."""

    def __init__(self) -> None:
        super().__init__()
        self.changes = 0
        self.cut_at: int | None = None

    def _change(self) -> None:
        self.changes += 1
        if self.cut_at is not None and self.changes >= self.cut_at:
            raise PowerCutError

    def append(self, handle: int, data: Buffer) -> None:
        self._change()
        super().append(handle, data)

    def truncate(self, handle: int, size: int) -> None:
        self._change()
        super().truncate(handle, size)

    def sync(self, handle: int) -> None:
        self._change()
        super().sync(handle)

    def rename(self, old: str, new: str) -> None:
        self._change()
        super().rename(old, new)

    def remove(self, path: str) -> None:
        self._change()
        super().remove(path)

    def sync_directory(self, path: str) -> None:
        self._change()
        super().sync_directory(path)

    def replace_file(self, path: str, data: bytes, *, mode: int = 0o640) -> None:
        self._change()
        super().replace_file(path, data)


class SmallDisk(FatefulDisk):
    """A disk of so many bytes: what does not fit is refused, a file that is replaced whole included."""

    def __init__(self, size_bytes: int = 1 << 30) -> None:
        super().__init__()
        self.size_bytes = size_bytes

    def used_bytes(self) -> int:
        return sum(len(file.data) for file in self._live.values())

    def free_bytes(self, path: str) -> int:
        return max(0, self.size_bytes - self.used_bytes())

    def total_bytes(self, path: str) -> int:
        return self.size_bytes

    def append(self, handle: int, data: Buffer) -> None:
        if len(data) > self.free_bytes(""):
            raise OSError(errno.ENOSPC, "No space left on device")
        super().append(handle, data)

    def replace_file(self, path: str, data: bytes, *, mode: int = 0o640) -> None:
        if len(data) > self.free_bytes(""):
            raise OSError(errno.ENOSPC, "No space left on device")
        super().replace_file(path, data)


class Tended:
    """A store on a forgetful disk with its upkeep, a trusted clock, and a note of every event."""

    def __init__(self, disk: FatefulDisk | None = None, settings: LogSettings = SMALL, **more: Any) -> None:
        self.disk = disk or FatefulDisk()
        self.settings = settings
        self.clock = ManualClock(wall_ms=NOW_MS)
        self.trusted = True
        self.settled: dict[str, int] = {}
        self.events: list[dict[str, Any]] = []
        self.events_fail = False
        self.alarms: list[str] = []
        self.open(**more)

    def open(self, **more: Any) -> None:
        self.store = open_store(self.disk, settings=self.settings, clock=self.clock, alarm=self.alarms.append, **more)
        self.upkeep = Upkeep(
            self.store,
            clock=self.clock,
            trusted=lambda: self.trusted,
            emit=self._emit,
            settled=lambda topic, partition: self.settled.get(topic),
        )

    def _emit(self, kind: str, **detail: Any) -> None:
        if self.events_fail:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.events.append({"kind": kind, **detail})

    def log(self, topic: str = "readings", **config: str) -> PartitionLog:
        found = self.store.topics.get(topic)
        if found is None:
            found = self.store.create_topic(
                topic, config={name.replace("_", "."): value for name, value in config.items()}
            )
        return found.partitions[0]

    def fill(self, log: PartitionLog, count: int = 10) -> None:
        """So many batches of about 1 kB; a segment of the small settings takes three."""
        for number in range(count):
            batch = records.encode_batch([(NOW_MS + number, b"k", bytes(1_000), records.NO_HEADERS)])
            log.append(batch, now_ms=self.clock.wall_ms())
        self.store.flush_now()

    def turn(self, after_ms: int = 1_000) -> None:
        self.clock.advance(after_ms)
        run_steps(self.upkeep.turn())
        self.store.flush_now()

    def expiries(self) -> list[tuple[str, int, int, str, int | None]]:
        """(topic, first, end, cause, owed from) of each expiry event."""
        return [
            (each["topic"], each["first"], each["end"], each["cause"], each["owed_from"])
            for each in self.events
            if each["kind"] == "expiry"
        ]

    def files(self, topic: str = "readings") -> list[str]:
        return [name for name in self.disk.names(f"{DATA}/log/{topic}-0") if name[:1] == "0"]
