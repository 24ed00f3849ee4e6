"""A sync that fails after a round that closed the very segment in which the synced end lies."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gateway.log.partition import PartitionLog
from gateway.log.settings import LogSettings
from gateway.log.store import LogStore
from tests.support.logs import NOW_MS, FlakyDisk, append, marker, open_log, read_all

SETTINGS = LogSettings(fsync_interval_ms=0, segment_bytes=4_096, index_interval_bytes=256, open_segments_max=1)
LOST = b"lost" * 40


class WatchedDisk(FlakyDisk):
    """Calls once when it is to sync, and may refuse a kind of small file."""

    def __init__(self) -> None:
        super().__init__()
        self.at_sync: Callable[[], None] | None = None
        self.at_failure: Callable[[], None] = lambda: None
        self.refused: tuple[str, ...] = ()

    def fail(self) -> None:
        """The next sync does."""
        self.syncs_until_failure = 0
        self.at_sync = self.at_failure

    def sync(self, handle: int) -> None:
        call, self.at_sync = self.at_sync, None
        if call is not None:
            call()
        super().sync(handle)

    def replace_file(self, path: str, data: bytes, *, mode: int = 0o640) -> None:
        if path.endswith(self.refused):
            raise OSError(28, "No space left on device", path)
        super().replace_file(path, data, mode=mode)


def closed_too_early(*, shut: bool) -> tuple[WatchedDisk, LogStore, PartitionLog]:
    """A log whose first flush leaves the synced end in its second segment: closed and finished, perhaps shut already.

    That holds an aborted transaction below the end and one beyond it. The flush's second sync fails.
    """
    disk = WatchedDisk()
    store, log = open_log(disk, settings=SETTINGS)
    while log.segments_count == 1:
        append(log, b"x" * 150)
    append(log, b"y", timestamp=NOW_MS + 5, producer_id=7, producer_epoch=0, base_sequence=0, transactional=True)
    marker(log, 7, commit=False)

    def fill() -> None:  # while the first segment is finished: the round finishes the second one too
        append(log, b"z", producer_id=7, producer_epoch=0, base_sequence=1, transactional=True)
        marker(log, 7, commit=False)
        append(log, LOST, timestamp=NOW_MS + 9)
        assert log.roll_now()

    def told() -> None:
        if shut:
            log.read(0, 1)  # no more than one may be open
        disk.fail()

    disk.at_sync = fill
    log.when_synced(log.log_end_offset, told)
    return disk, store, log


@pytest.mark.parametrize("shut", [False, True])
def test_what_it_holds_beyond_the_synced_end_is_not_served(shut: bool) -> None:
    disk, store, log = closed_too_early(shut=shut)
    end = log.log_end_offset
    first = log.segment_sizes()[0]
    store.flush_now()
    assert (log.leader_epoch, log.log_end_offset, log.segment_sizes()[0]) == (1, end, first)
    kept = read_all(log)
    for _ in range(4):
        append(log, b"new")
    store.flush_now()
    shown = read_all(log)
    assert shown == [*kept, *((end + number, b"new") for number in range(4))]
    assert log.read(end - 2, 1 << 20, committed=True).aborted == [(7, end - 2)]
    disk.power_cut(keep_tail_bytes=1 << 20)
    assert read_all(open_log(disk, settings=SETTINGS)[1]) == shown


def test_indexes_that_could_not_be_written_again_tell_of_nothing_beyond_its_end() -> None:
    disk, store, log = closed_too_early(shut=False)
    newest = log.log_end_offset - 2, NOW_MS + 5
    disk.at_failure = lambda: setattr(disk, "refused", (".index", ".timeindex"))
    store.flush_now()
    assert log.newest_timestamp() == newest
    log.read(0, 1)
    log.read(newest[0], 1)  # it was shut, and its indexes are read
    assert log.newest_timestamp() == newest
