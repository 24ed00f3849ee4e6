"""Whether the loop may sync by itself: only a disk that has proved quick, and never for more than a share of its time.

To hand a sync to a thread and to hear of it wakes that thread and then the loop, which costs more than a quick disk's
sync takes. A disk that is not quick, or not today, must not hold up the loop. Nothing but a sync tells which it is:
the thread's do, and now and then the loop tries one. How long it was held decides when it may again.
"""

from __future__ import annotations

QUICK_MS = 1.0  # the loop's work comes in slices of about that; a sync that takes longer is a slow one
HELD_MAX_MS = 1.0  # what the syncs of one round may be expected to take
_SLOW_MS = 2.0  # what counts at most: one sync of a second says no more than one of 2 ms
_SAMPLES = 16
_REST_QUICK = 3.0
_REST_SLOW = 200.0


class QuickDisk:
    """Times of syncs in, decisions out. Until it is known better a disk is taken for a slow one.

    After a sync that took T longer than QUICK_MS the loop syncs nothing for 3 T, and for 200 T as long as the disk
    mostly is slow: what is beyond quick takes at most a quarter, or a two-hundredth, of the loop's time, and one long
    sync. Once the thread finds the disk quick again, the loop waits no longer than for a quick one.
    """

    def __init__(self) -> None:
        self.typical_ms = _SLOW_MS
        self._beyond_ms = 0.0  # by how much the last slow sync of the loop was longer than a quick one
        self._slow_at_ms = 0.0  # when that ended

    @property
    def rests_until_ms(self) -> float:
        """Until when the loop syncs nothing, as far as is known now."""
        return self._slow_at_ms + self._beyond_ms * (_REST_QUICK if self.is_quick else _REST_SLOW)

    @property
    def is_quick(self) -> bool:
        """Whether the disk mostly is, by the syncs so far."""
        return self.typical_ms <= QUICK_MS

    def may_sync(self, logs: int, now_ms: float) -> bool:
        """Whether the loop may sync this many files now."""
        return now_ms >= self.rests_until_ms and (logs == 1 or logs * self.typical_ms < HELD_MAX_MS)

    def heard(self, logs: int, took_ms: float) -> None:
        """The thread has synced so many files, which took so long in all."""
        self.typical_ms += (min(took_ms / logs, _SLOW_MS) - self.typical_ms) / _SAMPLES

    def synced(self, logs: int, took_ms: float, now_ms: float) -> None:
        """The loop has, and ended now."""
        self.heard(logs, took_ms)
        beyond_ms = took_ms - QUICK_MS * logs
        if beyond_ms > 0:
            self._beyond_ms = beyond_ms
            self._slow_at_ms = now_ms
