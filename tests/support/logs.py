"""A log on a forgetful disk, and batches to put into it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gateway.log import records
from gateway.log.partition import PartitionLog
from gateway.log.settings import LogSettings
from gateway.log.store import LogStore
from headwater.clock import ManualClock
from headwater.disk import Buffer, Disk, ForgetfulDisk

DATA = "/data"
NOW_MS = 1_700_000_000_000
SMALL = LogSettings(fsync_interval_ms=0, segment_bytes=4_096, index_interval_bytes=256)


class FlakyDisk(ForgetfulDisk):
    """A forgetful disk that can also fail at its n-th next sync, write half of an append, and refuse to truncate."""

    def __init__(self) -> None:
        super().__init__()
        self.syncs_until_failure: int | None = None
        self.tear_next_append = False
        self.refuse_truncate = False
        self.unreadable: dict[str, range] = {}  # bytes of a file that the disk cannot read
        self._paths: dict[int, str] = {}

    def open(self, path: str, *, create: bool = False) -> int:
        handle = super().open(path, create=create)
        self._paths[handle] = path
        return handle

    def read_at(self, handle: int, size: int, position: int) -> bytes:
        bad = self.unreadable.get(self._paths[handle], range(0))
        if max(bad.start, position) < min(bad.stop, position + size):
            raise OSError(5, "Input/output error")
        return super().read_at(handle, size, position)

    def sync(self, handle: int) -> None:
        if self.syncs_until_failure is not None:
            self.syncs_until_failure -= 1
            if self.syncs_until_failure < 0:
                self.syncs_until_failure = None
                raise OSError(5, "Input/output error")
        super().sync(handle)

    def append(self, handle: int, data: Buffer) -> None:
        if self.tear_next_append:
            self.tear_next_append = False
            super().append(handle, memoryview(data)[: len(data) // 2])
            raise OSError(28, "No space left on device")
        super().append(handle, data)

    def truncate(self, handle: int, size: int) -> None:
        if self.refuse_truncate:
            raise OSError(5, "Input/output error")
        super().truncate(handle, size)


def open_store(disk: Disk, *, settings: LogSettings = SMALL, node: str = "edge-1", **more: Any) -> LogStore:
    """A store whose syncs happen at `flush_now`, and whose loop is the caller."""
    more.setdefault("clock", ManualClock())
    return LogStore.open(
        DATA,
        node=node,
        settings=settings,
        disk=disk,
        call_in_loop=lambda callback: callback(),
        flusher="manual",
        **more,
    )


def open_log(disk: Disk, **more: Any) -> tuple[LogStore, PartitionLog]:
    """The store, and the one partition of topic `t`, created when it is not there."""
    store = open_store(disk, **more)
    topic = store.topics.get("t") or store.create_topic("t")
    return store, topic.partitions[0]


def batch(*values: bytes, timestamp: int = NOW_MS, **more: Any) -> bytearray:
    """One batch with these values, a millisecond apart."""
    rows = [(timestamp + number, b"key", value, records.NO_HEADERS) for number, value in enumerate(values)]
    return records.encode_batch(rows, **more)


def append(log: PartitionLog, *values: bytes, **more: Any) -> int:
    """Append one batch; the offset of its first record."""
    return log.append(batch(*values, **more), now_ms=NOW_MS).base_offset


def marker(log: PartitionLog, producer_id: int, *, commit: bool, epoch: int = 0) -> int:
    """Append a transaction marker; its offset."""
    control = records.encode_control(
        commit=commit, producer_id=producer_id, producer_epoch=epoch, coordinator_epoch=0, timestamp_ms=NOW_MS
    )
    return log.append(control, now_ms=NOW_MS, control=True).base_offset


def values(data: bytes) -> Iterable[tuple[int, bytes | None]]:
    """(offset, value) of every record, each batch's CRC checked."""
    for view in records.split_batches(data):
        records.check_batch(view)
        columns = records.decode_batch(view)
        yield from zip(columns.offsets, columns.values, strict=True)


def read_all(log: PartitionLog, offset: int | None = None, *, max_bytes: int = 700) -> list[tuple[int, bytes | None]]:
    """Every record from `offset` (else the start) to the synced end, read as a consumer would."""
    at = log.log_start_offset if offset is None else offset
    found: list[tuple[int, bytes | None]] = []
    while data := log.read(at, max_bytes).data:
        rows = [row for row in values(data) if row[0] >= at]
        assert rows, "a read that does not get on"
        found += rows
        at = rows[-1][0] + 1
    return found


def segment_path(base_offset: int, suffix: str = ".log") -> str:
    return f"{DATA}/log/t-0/{base_offset:020d}{suffix}"


def overwrite(disk: ForgetfulDisk, path: str, data: bytes) -> None:
    """Put other bytes into a file, on the disk for good."""
    disk.replace_file(path, data)


def all_files(disk: ForgetfulDisk) -> dict[str, bytes]:
    """Path -> bytes, synced or not."""
    return {path: bytes(file.data) for path, file in disk._live.items()}
