"""Group commit: one thread syncs what is dirty, and while it does the next group gathers.

Appends write at once, in the loop. The first append to a clean log puts it into the dirty queue; the thread is woken
when the loop has done what it is at, so that all of that is one group: in its next turn, or by `let_go`. A round syncs
each dirty log once and reports in one call into the loop, which releases every waiter. No timer but the least interval.

While the disk is so quick that waking a thread takes longer, the loop runs itself the rounds that need not wait for
the least interval; `quick_disk` decides. What then gathers does so in the sockets.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple, Protocol

from gateway.log.quick_disk import QuickDisk
from gateway.log.segment import Segment
from headwater.clock import Clock

CallInLoop = Callable[[Callable[[], None]], object]


class SyncResult(NamedTuple):
    """What a round did for one log: everything below `end_offset` is on disk, or `error` says why not."""

    generation: int
    end_offset: int
    segment: Segment
    position: int
    closed: list[Segment]
    error: OSError | None


class Syncable(Protocol):
    """The flusher's view of a partition log."""

    dirty: bool

    def sync_round(self) -> SyncResult | None:
        """Called by the flusher's thread: sync up to the end as it is now."""
        ...

    def complete(self, result: SyncResult) -> None:
        """Called in the loop with what `sync_round` returned."""
        ...


class Flusher:
    """Syncs logs in rounds, by its own thread or, when that is not started, by `flush_now` alone.

    `call_soon` calls in the loop's next turn, from the loop; without it the thread is woken in the middle of this one.
    """

    def __init__(
        self,
        *,
        interval_ms: int,
        hurry_bytes: int,
        clock: Clock,
        call_in_loop: CallInLoop,
        call_soon: CallInLoop | None = None,
    ) -> None:
        self._interval_ms = interval_ms
        self._hurry_bytes = hurry_bytes
        self._clock = clock
        self._call_in_loop = call_in_loop
        self._call_soon = call_soon
        self._waking = False
        self._held = False
        self._later: list[Callable[[], None]] = []
        self._dirty: deque[Syncable] = deque()
        self._done: deque[tuple[Syncable, SyncResult]] = deque()
        self._wake: SimpleQueue[None] = SimpleQueue()
        self._round_lock = threading.Lock()
        self._thread: threading.Thread | None = None
        # What waits is the difference. One is the loop's and one the round's: neither takes back what the other did.
        self._written_bytes = self._taken_bytes = 0
        self._stopping = threading.Event()
        self._quick = QuickDisk()
        self._began_ms = float("-inf")  # when the last round did that synced something
        self.telling = False  # whether the waiters of a round are being released just now
        self.after_telling: list[Callable[[], None]] = []  # what is called when all have been
        self.rounds = 0
        self.rounds_in_loop = 0
        self.last_round_ms = 0.0
        self.slowest_round_ms = 0.0

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="log-flusher", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread after the round it is in; what is dirty stays so."""
        if self._thread is not None:
            self._stopping.set()
            self._wake.put(None)
            self._thread.join()
            self._thread = None

    def written(self, log: Syncable, size_bytes: int) -> None:
        """Called in the loop after each append, when the log's new end is already visible to `sync_round`."""
        is_new = not log.dirty
        if is_new:
            log.dirty = True
            self._dirty.append(log)
        # Behind it, for a round to take, and before the thread is woken: a count too high costs a sync sooner, one too
        # low would keep everybody waiting for the interval.
        self._written_bytes += size_bytes
        waiting = self._written_bytes - self._taken_bytes
        if is_new or waiting - size_bytes < self._hurry_bytes <= waiting:
            self._round_soon()

    @property
    def waiting_bytes(self) -> int:
        """What was written since the last round began."""
        return self._written_bytes - self._taken_bytes

    def _round_soon(self) -> None:
        if self._call_soon is None:
            self._wake.put(None)
        elif not self._waking:
            self._waking = True
            if not self._held:
                self._call_soon(self._begin_round)

    def hold(self) -> None:
        """Called in the loop: what is appended from now on is synced when `let_go` is called, in this same turn."""
        self._held = True

    def sync_held(self) -> None:
        """Do so now. Whoever held it lets go even so."""
        if self._held and self._waking:
            self._begin_round()

    def let_go(self) -> None:
        """Nobody else is going to append in this turn: a turn more would only be waited for."""
        self._held = False
        try:
            if self._waking:
                self._begin_round()
        finally:
            later, self._later = self._later, []
            for callback in later:
                callback()

    def later(self, callback: Callable[[], None]) -> None:
        """Have done what nobody waits for: behind the sync and the answers of this turn where it is held, else now."""
        if self._held:
            self._later.append(callback)
        else:
            callback()

    def _begin_round(self) -> None:
        """In the loop, which has done what it was at: sync here, or have it done."""
        if not self._waking:
            return  # `let_go` has been quicker in this turn than the one before it
        self._waking = False
        if self._is_threads() or not self._sync_here():
            self._wake.put(None)

    def _is_threads(self) -> bool:
        """Whether a round is the thread's in any case: it may have to wait. With an interval nothing is tried."""
        waits = self._interval_ms and (self.waiting_bytes < self._hurry_bytes or not self._quick.is_quick)
        return bool(waits) or self._thread is None

    def _sync_here(self) -> bool:
        """A round in the loop, if it may have one; not while the thread is in its own."""
        logs, now_ms = len(self._dirty), self._clock.monotonic_ms()
        if not self._quick.may_sync(logs, now_ms) or not self._round_lock.acquire(blocking=False):
            return False
        try:
            synced = self._sync_dirty(now_ms)
            if synced:
                self._began_ms = now_ms
                self.rounds_in_loop += 1
                self._quick.synced(synced, self.last_round_ms, now_ms + self.last_round_ms)
        finally:
            self._round_lock.release()
        self._complete()
        return True

    def between_rounds(self) -> AbstractContextManager[object]:
        """No round runs inside; for the rare repair that must not meet one."""
        return self._round_lock

    def flush_now(self) -> None:
        """Sync everything that is dirty and complete it before returning; called in the loop."""
        self._complete()
        while self._dirty:
            with self._round_lock:
                self._sync_dirty(self._clock.monotonic_ms())
            self._complete()

    def status(self) -> dict[str, Any]:
        """How syncing goes, for people and metrics."""
        return {
            "syncs": self.rounds,
            "syncs_in_loop": self.rounds_in_loop,
            "last_sync_ms": round(self.last_round_ms, 3),
            "slowest_sync_ms": round(self.slowest_round_ms, 3),
        }

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._wake.get()
            while not self._stopping.is_set() and self.waiting_bytes < self._hurry_bytes:
                wait_ms = self._began_ms + self._interval_ms - self._clock.monotonic_ms()
                if wait_ms <= 0:
                    break
                try:
                    self._wake.get(timeout=wait_ms / 1_000)
                except Empty:
                    break
            if self._stopping.is_set():
                return
            began_ms = self._clock.monotonic_ms()
            with self._round_lock:
                synced = self._sync_dirty(began_ms)
                if synced:
                    self._quick.heard(synced, self.last_round_ms)
            if synced:
                self._began_ms = began_ms  # what found nothing to do must not keep the next that comes waiting
                try:
                    self._call_in_loop(self._complete)
                except RuntimeError:
                    return  # the loop is closed: nobody is left to tell, and `flush_now` does the rest

    def _complete(self) -> None:
        """In the loop: tell the logs what the rounds since the last time did, in order."""
        self.telling = True
        try:
            while self._done:
                log, result = self._done.popleft()
                log.complete(result)
        finally:
            self.telling = False
        for callback in self.after_telling:
            callback()

    def _sync_dirty(self, started_ms: float) -> int:
        """One round, whose results are in `_done` then; how many logs it synced. The caller has the lock."""
        synced = 0
        self._taken_bytes = self._written_bytes
        for _ in range(len(self._dirty)):
            try:
                log = self._dirty.popleft()
            except IndexError:
                break
            # Clean before its end is read: an append after that makes it dirty again.
            log.dirty = False
            result = log.sync_round()
            if result is not None:
                self._done.append((log, result))
                synced += 1
        if synced:
            self.rounds += 1
            self.last_round_ms = self._clock.monotonic_ms() - started_ms
            self.slowest_round_ms = max(self.slowest_round_ms, self.last_round_ms)
        return synced
