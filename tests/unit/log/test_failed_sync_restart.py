"""A log that could not leave a failed file, and the start after it: what the disk never got is never acknowledged."""

from __future__ import annotations

import errno

import pytest

from headwater.clock import ManualClock
from headwater.disk import ForgetfulDisk, _File
from tests.support.logs import DATA, append, open_log, open_store, read_all

EIO = OSError(errno.EIO, "Input/output error")


class CachedDisk(ForgetfulDisk):
    """A failed sync leaves what was written where it is read, and no later sync writes it: as Linux does."""

    def __init__(self) -> None:
        super().__init__()
        self.broken = False
        self.lost: dict[int, tuple[int, int]] = {}  # by file: from where to where memory alone has it

    def open(self, path: str, *, create: bool = False) -> int:
        if self.broken and create:
            raise EIO
        return super().open(path, create=create)

    def replace_file(self, path: str, data: bytes, *, mode: int = 0o640) -> None:
        if self.broken:
            raise EIO
        super().replace_file(path, data, mode=mode)

    def sync(self, handle: int) -> None:
        file = self._handles[handle]
        if self.broken:
            self.lost[id(file)] = len(file.synced), len(file.data)
            raise EIO
        super().sync(handle)

    def truncate(self, handle: int, size: int) -> None:
        super().truncate(handle, size)
        start, end = self.lost.get(id(self._handles[handle]), (0, 0))
        self.lost[id(self._handles[handle])] = min(start, size), min(end, size)

    def drop_cache(self, handle: int) -> None:
        self._forget(self._handles[handle])

    def power_cut(self, *, keep_tail_bytes: int = 0) -> None:
        for file in self._live.values():
            self._forget(file)
        super().power_cut(keep_tail_bytes=keep_tail_bytes)

    def _forget(self, file: _File) -> None:
        start, end = self.lost.pop(id(file), (0, 0))
        file.data[start:end] = bytes(end - start)


@pytest.mark.parametrize("then", ["killed", "stopped"])
def test_what_memory_alone_holds_after_a_failed_sync_is_not_taken_for_written(then: str) -> None:
    disk = CachedDisk()
    store, log = open_log(disk, alarm=lambda _: None)
    append(log, b"kept", producer_id=7, producer_epoch=0, base_sequence=0)
    store.flush_now()
    append(log, b"sent", producer_id=7, producer_epoch=0, base_sequence=1)
    disk.broken = True
    store.flush_now()
    assert (log.synced_offset, log.log_end_offset) == (1, 1)
    if then == "stopped":
        store.close()
    disk.broken = False
    store, log = open_log(disk)
    append(log, b"sent", producer_id=7, producer_epoch=0, base_sequence=1)  # its sender was never answered
    store.flush_now()
    disk.power_cut()
    store, log = open_log(disk)
    assert read_all(log) == [(0, b"kept"), (1, b"sent")]


def test_a_log_that_failed_is_brought_back_to_its_synced_end_at_a_stop_when_its_disk_is_well_again() -> None:
    disk, clock = CachedDisk(), ManualClock()
    store, log = open_log(disk, clock=clock, alarm=lambda _: None)
    append(log, b"kept")
    store.flush_now()
    append(log, b"lost")
    disk.broken = True
    store.flush_now()
    disk.broken = False
    store.close()
    store = open_store(disk)
    log = store.topics["t"].partitions[0]
    assert read_all(log) == [(0, b"kept")]
    assert disk.exists(f"{DATA}/log/t-0/{1:020d}.log")
