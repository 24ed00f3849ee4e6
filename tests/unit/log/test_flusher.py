from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from queue import Empty, SimpleQueue

import pytest

from gateway.log.flusher import Flusher, SyncResult
from gateway.log.partition import PartitionLog
from gateway.log.segment import Segment
from gateway.log.settings import LogSettings
from gateway.log.store import LogStore
from headwater.clock import ManualClock, SystemClock
from headwater.disk import ForgetfulDisk
from tests.support.logs import DATA, append, read_all
from tests.support.waiting import until

WAIT_S = 30.0


class FakeLog:
    """A log whose sync takes as long as the test wants."""

    def __init__(self) -> None:
        self.dirty = False
        self.written = 0
        self.completed: list[int] = []
        self.syncing = threading.Semaphore(0)
        self.go_on = threading.Semaphore(0)

    def sync_round(self) -> SyncResult:
        end = self.written
        self.syncing.release()
        assert self.go_on.acquire(timeout=WAIT_S)
        return SyncResult(0, end, Segment("/t-0", 0, 0), 0, [], None)

    def complete(self, result: SyncResult) -> None:
        self.completed.append(result.end_offset)


class Loop:
    """Callbacks wait until the test runs them, in its own thread."""

    def __init__(self) -> None:
        self.calls: SimpleQueue[Callable[[], None]] = SimpleQueue()

    def run_one(self) -> None:
        self.calls.get(timeout=WAIT_S)()


def test_what_comes_during_a_sync_is_one_group_and_waits_for_the_next() -> None:
    loop, log = Loop(), FakeLog()
    flusher = Flusher(interval_ms=0, hurry_bytes=1 << 30, clock=SystemClock(), call_in_loop=loop.calls.put)
    flusher.start()
    log.written = 1
    flusher.written(log, 10)
    assert log.syncing.acquire(timeout=WAIT_S)
    for end in (2, 3, 4):
        log.written = end
        flusher.written(log, 10)
    log.go_on.release()
    loop.run_one()
    assert log.completed == [1]
    assert log.syncing.acquire(timeout=WAIT_S)
    log.go_on.release()
    loop.run_one()
    assert log.completed == [1, 4]
    flusher.stop()
    assert flusher.rounds == 2


def test_the_interval_is_kept_until_enough_bytes_wait() -> None:
    loop, log = Loop(), FakeLog()
    log.go_on = threading.Semaphore(10)
    flusher = Flusher(interval_ms=3_600_000, hurry_bytes=100, clock=SystemClock(), call_in_loop=loop.calls.put)
    flusher.start()
    log.written = 1
    flusher.written(log, 10)  # the last sync is older than the interval: at once
    loop.run_one()
    log.written = 2
    flusher.written(log, 60)
    log.written = 3
    flusher.written(log, 60)  # past 100 bytes: without regard to the interval
    loop.run_one()
    assert log.completed[0] == 1
    assert log.completed[-1] == 3
    log.written = 4
    flusher.written(log, 10)
    flusher.flush_now()
    assert log.completed[-1] == 4
    flusher.stop()


def test_a_wake_for_nothing_begins_no_interval() -> None:
    loop, log, soon = Loop(), FakeLog(), list[Callable[[], None]]()
    log.go_on = threading.Semaphore(10)
    flusher = Flusher(
        interval_ms=3_600_000, hurry_bytes=100, clock=SystemClock(), call_in_loop=loop.calls.put, call_soon=soon.append
    )
    flusher.start()
    flusher.written(log, 10)
    flusher.flush_now()
    soon.pop()()  # which had its turn coming, and finds nothing left
    until(flusher._wake.empty)
    with flusher.between_rounds():
        pass  # nor in the round that it began
    log.written = 2
    flusher.written(log, 10)
    soon.pop()()
    loop.run_one()
    assert log.completed[-1] == 2
    flusher.stop()


def test_who_lets_go_before_the_turn_that_was_asked_for_wakes_the_thread_once() -> None:
    log, soon = FakeLog(), list[Callable[[], None]]()
    flusher = Flusher(
        interval_ms=1, hurry_bytes=100, clock=SystemClock(), call_in_loop=lambda call: None, call_soon=soon.append
    )
    flusher.written(log, 10)
    flusher.hold()
    flusher.let_go()
    assert (len(soon), flusher._wake.qsize()) == (1, 1)
    soon.pop()()
    assert flusher._wake.qsize() == 1


@pytest.mark.parametrize("interval_ms", [0, 1])
def test_every_acknowledgement_comes_from_the_thread_through_the_loop(interval_ms: int) -> None:
    loop = Loop()
    store = LogStore.open(
        DATA,
        node="edge-1",
        settings=LogSettings(fsync_interval_ms=interval_ms, segment_bytes=4_096),
        disk=ForgetfulDisk(),
        clock=SystemClock(),
        call_in_loop=loop.calls.put,
    )
    log: PartitionLog = store.create_topic("t").partitions[0]
    acknowledged: deque[int] = deque()
    for number in range(300):
        end = append(log, b"%d" % number + b"x" * 50) + 1
        log.when_synced(end, lambda end=end: acknowledged.append(end))  # type: ignore[misc]
        while not loop.calls.empty():
            loop.run_one()
    while len(acknowledged) < 300:
        loop.run_one()
    assert list(acknowledged) == list(range(1, 301))
    assert len(read_all(log)) == 300
    assert log.segments_count > 3
    store.close()


def test_a_round_whose_report_the_loop_has_not_heard_is_acknowledged_by_close() -> None:
    loop = Loop()
    store = LogStore.open(
        DATA,
        node="edge-1",
        settings=LogSettings(fsync_interval_ms=0),
        disk=ForgetfulDisk(),
        clock=SystemClock(),
        call_in_loop=loop.calls.put,
    )
    log = store.create_topic("t").partitions[0]
    acknowledged: list[int] = []
    append(log, b"a")
    log.when_synced(1, lambda: acknowledged.append(1))
    report = loop.calls.get(timeout=WAIT_S)
    store.close()
    assert acknowledged == [1]
    report()  # late, and without effect
    assert acknowledged == [1]


def test_a_closed_loop_ends_the_thread_quietly_and_close_does_the_rest() -> None:
    refused = threading.Event()

    def closed(callback: Callable[[], None]) -> None:
        refused.set()
        raise RuntimeError("Event loop is closed")

    store = LogStore.open(
        DATA,
        node="edge-1",
        settings=LogSettings(fsync_interval_ms=0),
        disk=ForgetfulDisk(),
        clock=SystemClock(),
        call_in_loop=closed,
    )
    log = store.create_topic("t").partitions[0]
    append(log, b"a")
    assert refused.wait(WAIT_S)
    append(log, b"b")
    store.close()
    assert log.synced_offset == 2


class TimedLog:
    """Syncs as quickly as the test says, and remembers by whom it was synced."""

    def __init__(self, clock: ManualClock, takes_ms: float) -> None:
        self.dirty = False
        self.takes_ms = takes_ms
        self.synced_by: SimpleQueue[str] = SimpleQueue()
        self.completed = 0
        self._clock = clock

    def sync_round(self) -> SyncResult:
        self._clock.advance(self.takes_ms)
        self.synced_by.put(threading.current_thread().name)
        return SyncResult(0, 0, Segment("/t-0", 0, 0), 0, [], None)

    def complete(self, result: SyncResult) -> None:
        self.completed += 1


LOOP, THREAD = "MainThread", "log-flusher"


def timed(interval_ms: int, takes_ms: float, hurry_bytes: int = 1 << 30) -> tuple[ManualClock, Loop, TimedLog, Flusher]:
    clock, loop = ManualClock(), Loop()
    flusher = Flusher(
        interval_ms=interval_ms,
        hurry_bytes=hurry_bytes,
        clock=clock,
        call_in_loop=loop.calls.put,
        call_soon=loop.calls.put,
    )
    flusher.start()
    return clock, loop, TimedLog(clock, takes_ms), flusher


def test_the_loop_syncs_a_quick_disk_itself_and_a_slow_one_is_the_threads() -> None:
    clock, loop, log, flusher = timed(0, 0.2)
    for turn in range(1, 4):
        flusher.written(log, 10)
        flusher.written(log, 10)
        loop.run_one()
        assert log.synced_by.get_nowait() == LOOP
        assert log.completed == turn  # in the same call: nobody was woken
    log.takes_ms = 30.0
    flusher.written(log, 10)
    loop.run_one()
    assert log.synced_by.get_nowait() == LOOP  # it could not be known
    flusher.written(log, 10)
    loop.run_one()
    assert log.synced_by.get(timeout=WAIT_S) == THREAD
    loop.run_one()
    assert log.completed == 5
    clock.advance(29.0 * 200)
    log.takes_ms = 0.2
    flusher.written(log, 10)
    loop.run_one()
    assert log.synced_by.get_nowait() == LOOP
    flusher.stop()
    assert (flusher.rounds, flusher.rounds_in_loop) == (6, 5)
    assert loop.calls.empty()


def test_the_loop_syncs_again_once_the_thread_has_found_the_disk_quick() -> None:
    clock, loop, log, flusher = timed(0, 8.0)
    flusher.written(log, 10)
    loop.run_one()
    assert log.synced_by.get_nowait() == LOOP  # the trial
    log.takes_ms = 0.2
    threads = 0
    while flusher.rounds_in_loop == 1:
        threads += 1
        flusher.written(log, 10)
        loop.run_one()
        if log.synced_by.get(timeout=WAIT_S) == THREAD:
            loop.run_one()
    flusher.stop()
    assert clock.monotonic_ms() < 5_000.0 + 8.0 + 7.0 * 3 + 1.0  # a quarter of the loop's time, not a two-hundredth
    assert threads > 13


def test_what_nobody_waits_for_is_done_behind_the_sync_that_was_held() -> None:
    _, _, log, flusher = timed(0, 0.2)
    done = list[int]()
    flusher.later(lambda: done.append(log.completed))
    assert done == [0]  # nothing was held: at once
    flusher.hold()
    flusher.written(log, 10)
    flusher.later(lambda: done.append(log.completed))
    flusher.sync_held()
    assert (log.completed, done) == (1, [0])
    flusher.let_go()
    assert done == [0, 1]
    flusher.stop()


def test_what_is_held_is_synced_when_it_is_let_go_and_not_a_turn_later() -> None:
    _, loop, log, flusher = timed(0, 0.2)
    flusher.let_go()
    assert flusher.rounds == 0  # nothing was written
    flusher.hold()
    flusher.written(log, 10)
    assert loop.calls.empty()
    flusher.let_go()
    assert log.synced_by.get_nowait() == LOOP
    assert (log.completed, loop.calls.empty()) == (1, True)
    flusher.written(log, 10)
    assert not loop.calls.empty()  # as before
    flusher.hold()
    flusher.written(log, 10)
    flusher.let_go()
    assert log.completed == 2
    loop.run_one()  # which finds nothing left to do
    flusher.stop()
    assert flusher.rounds == 2


def test_with_an_interval_what_may_wait_is_the_threads() -> None:
    clock, loop, log, flusher = timed(50, 0.1)
    for _ in range(3):
        clock.advance(50)
        flusher.written(log, 10)
        loop.run_one()
        assert log.synced_by.get(timeout=WAIT_S) == THREAD
        loop.run_one()
    flusher.stop()
    assert (log.completed, flusher.rounds_in_loop) == (3, 0)


def test_with_an_interval_the_loop_syncs_what_need_not_wait_once_the_thread_has_found_the_disk_quick() -> None:
    hour_ms = 3_600_000
    clock, loop, log, flusher = timed(hour_ms, 0.1, hurry_bytes=100)
    while flusher.rounds_in_loop == 0:
        flusher.written(log, 60)
        flusher.written(log, 60)  # more than may wait for the interval
        loop.run_one()
        if log.synced_by.get(timeout=WAIT_S) == THREAD:
            loop.run_one()
    assert flusher.rounds > 9  # never by way of trial
    clock.advance(hour_ms)
    flusher.written(log, 120)
    loop.run_one()
    assert log.synced_by.get_nowait() == LOOP
    flusher.written(log, 10)  # little: it waits for the interval, which began with the loop's sync
    loop.run_one()
    with pytest.raises(Empty):
        log.synced_by.get(timeout=0.05)
    flusher.written(log, 120)
    loop.run_one()
    assert log.synced_by.get_nowait() == LOOP
    flusher.stop()
    assert log.completed == flusher.rounds


def test_while_the_thread_is_in_a_round_the_loop_does_not_wait_for_it() -> None:
    clock, loop, other, flusher = timed(0, 30.0)
    flusher.written(other, 10)
    loop.run_one()
    assert other.synced_by.get_nowait() == LOOP  # and is slow: the next round is the thread's
    log, other.completed, other.takes_ms = FakeLog(), 0, 0.1
    log.written = 1
    flusher.written(log, 10)
    loop.run_one()
    assert log.syncing.acquire(timeout=WAIT_S)
    clock.advance(29.0 * 200)  # the loop might sync again
    flusher.written(other, 10)
    loop.run_one()
    assert (log.completed, other.completed) == ([], 0)
    log.go_on.release()
    loop.run_one()
    assert log.completed == [1]
    assert other.synced_by.get(timeout=WAIT_S) == THREAD
    loop.run_one()
    assert other.completed == 1
    flusher.stop()


def test_a_sync_that_fails_in_the_loop_fails_as_one_of_the_threads_does() -> None:
    loop, disk, heard = Loop(), ForgetfulDisk(), list[str]()
    store = LogStore.open(
        DATA,
        node="edge-1",
        settings=LogSettings(fsync_interval_ms=0),
        disk=disk,
        clock=ManualClock(),
        call_in_loop=loop.calls.put,
        call_soon=loop.calls.put,
        alarm=heard.append,
    )
    log = store.create_topic("t").partitions[0]
    append(log, b"lost")
    log.when_synced(1, lambda: heard.append("acknowledged"), lambda: heard.append("failed"))
    disk.fail_next["sync"] = OSError(5, "Input/output error")
    loop.run_one()
    assert [each.split(";")[0] for each in heard] == ["t-0: the disk failed (Input/output error)", "failed"]
    append(log, b"kept")
    log.when_synced(1, lambda: heard.append("acknowledged"))
    loop.run_one()
    assert heard[-1] == "acknowledged"
    assert (log.leader_epoch, len(read_all(log))) == (1, 1)
    assert store.status()["syncs_in_loop"] == 2
    store.close()
