"""Connections whose clients are not known yet: only so many, and with one more the oldest goes.

An honest client needs a moment to show who it is. Whoever fills the places with silence loses them to newcomers.
"""

from __future__ import annotations

from collections.abc import Callable


class Strangers:
    """In the order in which they came."""

    def __init__(self, places_max: int) -> None:
        self._places_max = places_max
        self._ends: dict[object, Callable[[], None]] = {}
        self.evicted = 0

    def __len__(self) -> int:
        return len(self._ends)

    def add(self, key: object, end: Callable[[], None]) -> object | None:
        """One more, or one that waits on in another way; returns whose connection was ended for it."""
        self._ends[key] = end
        if len(self._ends) <= self._places_max:
            return None
        oldest = next(iter(self._ends))
        end = self._ends.pop(oldest)
        self.evicted += 1
        end()
        return oldest

    def left(self, key: object) -> None:
        """It is known, or gone."""
        self._ends.pop(key, None)

    def end_all(self) -> None:
        """Nobody waits any more: the listener stops."""
        ends, self._ends = list(self._ends.values()), {}
        for end in ends:
            end()
