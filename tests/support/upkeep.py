"""Compacting a log in tests: keyed records, a pass from end to end, and a disk whose power goes at the n-th change."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gateway.log import records
from gateway.log.cleaner import Cleaned, Cleaner
from gateway.log.partition import PartitionLog
from gateway.log.steps import run_steps
from gateway.log.store import LogStore
from gateway.log.topic_config import parse_config
from headwater.disk import Buffer
from tests.support.logs import NOW_MS, FlakyDisk, open_store

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

    def replace_file(self, path: str, data: bytes) -> None:
        self._change()
        super().replace_file(path, data)
