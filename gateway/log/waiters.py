"""Who waits for a partition's synced end, and who wants to hear of each advance."""

from __future__ import annotations

import heapq
import logging
from collections.abc import Callable

Callback = Callable[[], None]

_log = logging.getLogger(__name__)


class Waiters:
    """Callbacks per end offset, and subscribers; all called in the loop."""

    __slots__ = ("_count", "_heap", "_subscribers")

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Callback, Callback | None]] = []
        self._subscribers: dict[int, Callback] = {}
        self._count = 0

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, end_offset: int, callback: Callback, failed: Callback | None) -> None:
        self._count += 1
        heapq.heappush(self._heap, (end_offset, self._count, callback, failed))

    def subscribe(self, callback: Callback) -> Callback:
        self._count += 1
        key = self._count
        self._subscribers[key] = callback
        return lambda: self._subscribers.pop(key, None) and None

    def advance(self, synced_offset: int) -> None:
        """Release every waiter at or below the new end, then tell the subscribers."""
        heap = self._heap
        while heap and heap[0][0] <= synced_offset:
            _call(heapq.heappop(heap)[2])
        for callback in list(self._subscribers.values()):
            _call(callback)

    def fail(self, synced_offset: int) -> None:
        """What lies above the synced end is gone: so are the hopes of those who wait for it."""
        heap, self._heap = self._heap, []
        for end_offset, _, callback, failed in sorted(heap, key=lambda each: each[:2]):
            if end_offset <= synced_offset:
                _call(callback)
            elif failed is not None:
                _call(failed)


def _call(callback: Callback) -> None:
    try:
        callback()
    except Exception:  # one listener's mistake must not keep the others' acknowledgements back
        _log.exception("a listener of the log failed")
