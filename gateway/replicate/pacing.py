"""How large a transaction may be, when the next one may open, and how long to wait after a failure. Pure arithmetic."""

from __future__ import annotations

from random import Random

TRANSACTION_BYTES_MIN = 16 << 10
TRANSACTION_BYTES_START = 256 << 10
GOODPUT_WINDOW_MS = 2_000.0
_BACKOFF_START_MS = 50.0


class Pacer:
    """The size of a transaction in bytes of the local log, so that one takes at most two seconds on this link.

    A full transaction that was quicker doubles it at most; a slower one, or a time-out, shrinks it.
    """

    def __init__(self, *, bytes_max: int, linger_ms: int, rate_bytes_per_s: int = 0) -> None:
        self.size_bytes = min(TRANSACTION_BYTES_START, bytes_max)
        self._bytes_max = bytes_max
        self._linger_ms = linger_ms
        self._rate = rate_bytes_per_s
        self._opened_ms: float | None = None
        self._free_at_ms = 0.0

    def ready_at(self, waiting_bytes: int) -> float:
        """From when on (monotonic ms) the next transaction may open: a full one at once, a trickle after the linger."""
        if self._opened_ms is None or waiting_bytes >= self.size_bytes:
            return self._free_at_ms
        return max(self._opened_ms + self._linger_ms, self._free_at_ms)

    def opened(self, now: float, source_bytes: int) -> None:
        """A transaction with so many bytes of the log begins."""
        self._opened_ms = now
        if self._rate:
            self._free_at_ms = max(now, self._free_at_ms) + 1000.0 * source_bytes / self._rate

    def committed(self, now: float, source_bytes: int) -> None:
        """It is committed: learn from the time that it took."""
        took = max(now - (now if self._opened_ms is None else self._opened_ms), 1.0)
        fit = source_bytes * GOODPUT_WINDOW_MS / took
        if took > GOODPUT_WINDOW_MS:
            self._resize(fit)
        elif 2 * source_bytes >= self.size_bytes:  # a small one says little about the link
            self._resize(min(max(fit, self.size_bytes), 2 * self.size_bytes))

    def timed_out(self) -> None:
        """It did not fit into the time-out: try half."""
        self._resize(self.size_bytes / 2)

    def _resize(self, size_bytes: float) -> None:
        self.size_bytes = int(min(max(size_bytes, TRANSACTION_BYTES_MIN), self._bytes_max))


class Backoff:
    """Pauses that double up to a bound, with jitter, and that count the time which the attempt itself took."""

    def __init__(self, random: Random, max_ms: float) -> None:
        self._random = random
        self._max_ms = max_ms
        self._next_ms = _BACKOFF_START_MS

    def until(self, now: float, started: float) -> float:
        """When (monotonic ms) the next attempt may begin, the last one having begun at `started`."""
        pause = self._next_ms * self._random.uniform(0.5, 1.0)
        self._next_ms = min(2 * self._next_ms, self._max_ms)
        return max(now, min(started, now) + pause)

    def reset(self) -> None:
        """It worked: the next failure begins with a short pause again."""
        self._next_ms = _BACKOFF_START_MS
