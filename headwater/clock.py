"""The clock seam: every part that needs the time is handed a `Clock`.

Wall time and monotonic time are unrelated on purpose: a Pi has no clock battery, so wall time steps.
Order is by offset and intervals are by monotonic time; wall time only labels records.
"""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """What time it is."""

    def wall_ms(self) -> int:
        """Milliseconds since the Unix epoch, as this machine believes."""
        ...

    def monotonic_ms(self) -> float:
        """Milliseconds since an arbitrary point; never steps."""
        ...


class SystemClock:
    """The machine's own clock."""

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic_ms(self) -> float:
        return time.monotonic_ns() / 1e6


class ManualClock:
    """A clock for tests: it moves only when told, and its two times start far apart."""

    def __init__(self, wall_ms: int = 1_700_000_000_000, monotonic_ms: float = 5_000.0) -> None:
        self._wall_ms = wall_ms
        self._monotonic_ms = monotonic_ms

    def wall_ms(self) -> int:
        return self._wall_ms

    def monotonic_ms(self) -> float:
        return self._monotonic_ms

    def advance(self, ms: float) -> None:
        """Let `ms` milliseconds pass on both."""
        self._wall_ms += int(ms)
        self._monotonic_ms += ms

    def step_wall(self, ms: int) -> None:
        """Step the wall clock alone, as NTP does after boot."""
        self._wall_ms += ms
