"""What is appended while the log's file is being synced: written after the sync, in order, or wholly taken back."""

from __future__ import annotations

import errno
from collections.abc import Callable
from functools import partial

import pytest

from gateway.log import partition
from gateway.log.errors import LogFailed
from gateway.log.partition import PartitionLog
from gateway.log.store import LogStore
from headwater.disk import ForgetfulDisk
from tests.support.logs import NOW_MS, FlakyDisk, append, batch, open_log, read_all, segment_path


class BusyDisk(FlakyDisk):
    """While its next sync is under way, the loop does `meanwhile`."""

    def __init__(self) -> None:
        super().__init__()
        self.meanwhile: Callable[[], object] | None = None
        self.appends = 0

    def sync(self, handle: int) -> None:
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            meanwhile()
        super().sync(handle)

    def append(self, handle: int, data: bytes | bytearray | memoryview) -> None:
        self.appends += 1
        super().append(handle, data)


def busy() -> tuple[BusyDisk, LogStore, PartitionLog]:
    """A log with one batch in it, not synced yet."""
    disk = BusyDisk()
    store, log = open_log(disk)
    append(log, b"0")
    disk.appends = 0
    return disk, store, log


def test_what_comes_during_a_sync_is_written_at_once_after_it() -> None:
    disk, store, log = busy()
    heard = list[int]()

    def meanwhile() -> None:
        for number in range(1, 4):
            assert append(log, b"%d" % number) == number
            log.when_synced(number + 1, partial(heard.append, number))
        assert disk.appends == 0
        assert log.log_end_offset == 4

    disk.meanwhile = meanwhile
    store.flush_now()
    assert disk.appends == 1
    assert heard == [1, 2, 3]
    assert read_all(log) == [(number, b"%d" % number) for number in range(4)]
    append(log, b"4")
    assert disk.appends == 2  # no sync is under way: at once
    store.close()
    disk.power_cut()
    _, log = open_log(disk)
    assert log.log_end_offset == 5


def test_what_is_gathered_is_below_no_synced_end() -> None:
    disk, store, log = busy()
    seen = list[tuple[int, int]]()

    def meanwhile() -> None:
        append(log, b"1")
        log.subscribe(lambda: seen.append((log.synced_offset, len(disk.read_file(segment_path(0))))))

    disk.meanwhile = meanwhile
    store.flush_now()
    assert [synced for synced, _ in seen] == [1, 2]
    assert seen[0][1] == seen[1][1]  # when the others are told, the next group is with the disk already


def test_a_gathered_group_that_cannot_be_written_is_taken_back_and_what_was_synced_is_acknowledged() -> None:
    disk, store, log = busy()
    heard = list[str]()
    log.when_synced(1, lambda: heard.append("0 acknowledged"), lambda: heard.append("0 failed"))

    def meanwhile() -> None:
        append(log, b"lost", producer_id=7, producer_epoch=0, base_sequence=0)
        log.when_synced(2, lambda: heard.append("1 acknowledged"), lambda: heard.append("1 failed"))
        disk.tear_next_append = True

    disk.meanwhile = meanwhile
    store.flush_now()
    assert heard == ["0 acknowledged", "1 failed"]
    assert (log.log_end_offset, log.synced_offset, log.leader_epoch) == (1, 1, 1)
    again = log.append(batch(b"again", producer_id=7, producer_epoch=0, base_sequence=0), now_ms=NOW_MS)
    assert tuple(again) == (1, 2, False)
    store.flush_now()
    assert read_all(log) == [(0, b"0"), (1, b"again")]


def test_a_failed_sync_takes_back_what_was_gathered_during_it() -> None:
    disk, store, log = busy()
    disk.meanwhile = lambda: append(log, b"lost too")
    disk.syncs_until_failure = 0
    store.flush_now()
    assert log.log_end_offset == 0
    append(log, b"new")
    store.flush_now()
    append(log, b"newer")
    store.flush_now()
    assert read_all(log) == [(0, b"new"), (1, b"newer")]


def test_more_than_the_limit_is_not_gathered_but_written() -> None:
    disk, store, log = busy()
    size = len(batch(b"1"))

    def meanwhile() -> None:
        for number in range(1, 8):
            append(log, b"%d" % number)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(partition, "_GATHERED_BYTES_MAX", 2 * size)
        disk.meanwhile = meanwhile
        store.flush_now()
    assert disk.appends > 2
    assert read_all(log) == [(number, b"%d" % number) for number in range(8)]


def test_a_segment_that_closes_during_a_sync_has_all_that_was_gathered_for_it() -> None:
    disk, store, log = busy()
    disk.meanwhile = lambda: [append(log, b"%d" % number + b"x" * 300) for number in range(1, 40)]
    store.flush_now()
    assert log.segments_count > 2
    assert [(value or b"")[:2].rstrip(b"x") for _, value in read_all(log)] == [b"%d" % number for number in range(40)]
    store.close()
    disk.power_cut()
    _, log = open_log(disk)
    assert log.log_end_offset == 40


def test_questions_about_the_unsynced_part_find_it_in_the_file() -> None:
    disk, store, log = busy()

    def meanwhile() -> None:
        append(log, b"1", timestamp=NOW_MS + 10)
        append(log, b"2", timestamp=NOW_MS + 20)
        assert log.chain_at(2) is not None
        append(log, b"3", timestamp=NOW_MS + 30)
        assert log.offset_for_timestamp(NOW_MS + 10) is None  # nobody is told of what is not synced

    disk.meanwhile = meanwhile
    store.flush_now()
    assert log.offset_for_timestamp(NOW_MS + 10) == (1, NOW_MS + 10)


def test_memory_that_its_owner_uses_again_is_not_what_is_gathered() -> None:
    disk, store, log = busy()

    def meanwhile() -> None:
        data = batch(b"1")
        log.append(memoryview(data), now_ms=NOW_MS)
        data[:] = bytes(len(data))

    disk.meanwhile = meanwhile
    store.flush_now()
    assert read_all(log) == [(0, b"0"), (1, b"1")]


def test_a_round_that_a_failed_write_overtakes_is_one_of_the_past() -> None:
    """The loop's thread gives up the file just after the flusher's has looked whether it still may sync it."""
    store, log = open_log(ForgetfulDisk())
    append(log, b"kept")
    store.flush_now()
    append(log, b"lost")

    class Overtaken(PartitionLog):
        """Fails at the first look of a round."""

        looks = 0

        @property
        def _sync_failed(self) -> bool:
            self.looks += 1
            if self.looks == 1:
                self._fail(OSError(errno.EIO, "the disk"))
                return False
            return bool(self.__dict__["_failed"])

        @_sync_failed.setter
        def _sync_failed(self, value: bool) -> None:
            self.__dict__["_failed"] = value

        def _go_on(self, error: OSError) -> None:
            if self.looks == 1:
                raise LogFailed("it waits for the round to end")
            super()._go_on(error)

    del log.__dict__["_sync_failed"]
    log.__class__ = Overtaken
    result = log.sync_round()
    log.looks += 1  # type: ignore[attr-defined]
    assert result is not None
    log.complete(result)
    assert (log.synced_offset, log.log_end_offset) == (1, 1)
    append(log, b"next")
    store.flush_now()
    assert read_all(log) == [(0, b"kept"), (1, b"next")]
