"""When to try a broker again, and with which version of MQTT. Sans-IO; times are monotonic milliseconds."""

from __future__ import annotations

from random import Random

FIRST_MS = 500.0
STABLE_MS = 30_000.0
"""A connection that lasted this long was a good one; one that ends sooner makes the next wait longer."""


class Backoff:
    """Waits that double up to `max_ms`, each of them between half and whole, so that a site's nodes spread."""

    def __init__(self, random: Random, *, max_ms: float, first_ms: float = FIRST_MS) -> None:
        self._random = random
        self._first_ms = min(first_ms, max_ms)
        self._max_ms = max_ms
        self._next_ms = self._first_ms

    def wait_ms(self, *, lasted_ms: float) -> float:
        """How long to wait after a connection that was up for `lasted_ms`, 0 when none came about."""
        if lasted_ms >= STABLE_MS:
            self._next_ms = self._first_ms
        wait_ms, self._next_ms = self._next_ms, min(self._next_ms * 2, self._max_ms)
        return self._random.uniform(wait_ms / 2, wait_ms)


class Versions:
    """Which protocol level to try: 5 first, 4 (3.1.1) for a broker that knows no other."""

    def __init__(self, version: str) -> None:
        """`version` as in the settings: "auto", "5" or "3.1.1"."""
        self._is_free = version == "auto"
        self.level = 4 if version == "3.1.1" else 5
        self._settled = False

    def accepted(self) -> None:
        """The broker let us in: what it speaks is known."""
        self._settled = True

    def refused(self) -> bool:
        """It named the version as its reason. True: try another one at once."""
        if not self._is_free or self.level == 4:
            return False
        self.level, self._settled = 4, True
        return True

    def closed_unanswered(self) -> None:
        """It hung up on CONNECT without a word, as old brokers do and as one does that is about to stop: take turns."""
        if self._is_free and not self._settled:
            self.level = 9 - self.level
