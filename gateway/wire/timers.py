"""Deadlines without a clock: a driver asks when the next one is due and runs what is."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count


class Timer:
    """One deadline; `cancel` makes it never run."""

    __slots__ = ("_owner", "action", "when_ms")

    def __init__(self, owner: Timers, when_ms: float, action: Callable[[], None]) -> None:
        self._owner = owner
        self.when_ms = when_ms
        self.action: Callable[[], None] | None = action

    def cancel(self) -> None:
        if self.action is not None:
            self.action = None
            self._owner.cancelled()


class Timers:
    """A heap of deadlines on the monotonic clock. `changed` is called when a new one is the earliest."""

    def __init__(self) -> None:
        self.changed: Callable[[], None] | None = None
        self._heap: list[tuple[float, int, Timer]] = []
        self._numbers = count()
        self._cancelled = 0

    def at(self, when_ms: float, action: Callable[[], None]) -> Timer:
        """Run `action` at monotonic time `when_ms`."""
        timer = Timer(self, when_ms, action)
        heapq.heappush(self._heap, (when_ms, next(self._numbers), timer))
        if self._heap[0][2] is timer and self.changed is not None:
            self.changed()
        return timer

    def next_ms(self) -> float | None:
        """When the next one is due, None when there is none."""
        while self._heap and self._heap[0][2].action is None:
            heapq.heappop(self._heap)
            self._cancelled -= 1
        return self._heap[0][0] if self._heap else None

    def run(self, now_ms: float) -> None:
        """Run everything that is due, in order."""
        while (when := self.next_ms()) is not None and when <= now_ms:
            timer = heapq.heappop(self._heap)[2]
            action, timer.action = timer.action, None
            if action is not None:
                action()

    def cancelled(self) -> None:
        """Count a cancelled timer; most are long polls, so their corpses must not pile up for their whole wait."""
        self._cancelled += 1
        if self._cancelled > 100 and self._cancelled * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if entry[2].action is not None]
            heapq.heapify(self._heap)
            self._cancelled = 0

    def __len__(self) -> int:
        return len(self._heap) - self._cancelled
