"""How many bytes wait for a sync: the loop counts what it writes while the thread takes it."""

from __future__ import annotations

from collections.abc import Callable

from gateway.log.flusher import Flusher, SyncResult
from gateway.log.segment import Segment
from headwater.clock import ManualClock


class CountedLog:
    """Counts its rounds; the first one may come while the loop is about to tell of an append to it."""

    def __init__(self) -> None:
        self._dirty = False
        self.rounds = 0
        self.meanwhile: Callable[[], None] = lambda: None

    @property
    def dirty(self) -> bool:
        return self._dirty

    @dirty.setter
    def dirty(self, dirty: bool) -> None:
        self._dirty = dirty
        if dirty:
            self.meanwhile()

    def sync_round(self) -> SyncResult:
        self.rounds += 1
        return SyncResult(0, 0, Segment("/t-0", 0, 0), 0, [], None)

    def complete(self, result: SyncResult) -> None:
        pass


def test_a_round_in_the_middle_of_an_append_takes_what_waited_and_no_more() -> None:
    one, other = CountedLog(), CountedLog()
    flusher = Flusher(interval_ms=50, hurry_bytes=1_000, clock=ManualClock(), call_in_loop=lambda callback: None)
    flusher.written(one, 900)
    other.meanwhile = flusher.flush_now
    flusher.written(other, 90)
    assert (one.rounds, other.rounds) == (1, 0)
    assert flusher.waiting_bytes == 90  # else a few bytes more would be in a hurry


def test_what_makes_enough_is_counted_before_the_thread_is_woken_for_it() -> None:
    """Else it wakes, sees too little, and keeps everybody waiting for the interval."""
    log = CountedLog()
    seen: list[int] = []

    def call_soon(begin: Callable[[], None]) -> None:
        seen.append(flusher.waiting_bytes)
        begin()

    flusher = Flusher(
        interval_ms=50,
        hurry_bytes=1_000,
        clock=ManualClock(),
        call_in_loop=lambda callback: None,
        call_soon=call_soon,
    )
    for size_bytes in (600, 300, 200, 200):
        flusher.written(log, size_bytes)
    assert seen == [600, 1_100]
