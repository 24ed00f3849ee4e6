"""How often a source speaks, learnt from when it spoke: for sources whose profile does not say. Sans-IO.

A source's period is the time from the beginning of one burst to that of the next; what comes within `BURST_MS` of the
last is one burst, however many messages it has. The interval is the median of the last `PERIODS_KEPT` periods, from
`PERIODS_MIN` on: an outage, a restart or a night of silence is one odd period among them and moves nothing. A source
whose bursts last longer than the silence after them streams, and has no interval.

Costs nothing while a source streams, and at most some 700 bytes a source.
"""

from __future__ import annotations

from statistics import median_low

BURST_MS = 1_000
PERIODS_KEPT = 15
PERIODS_MIN = 5
SILENT_AFTER = 3
"""So many intervals without a word are silence (design section 9)."""


class Interval:
    """What is known of one source. All times in milliseconds, of one clock."""

    __slots__ = ("_began_ms", "_periods", "learnt_ms")

    def __init__(self, learnt_ms: int | None = None) -> None:
        """`learnt_ms`: what an earlier run had learnt."""
        self.learnt_ms = learnt_ms
        self._began_ms: float | None = None
        self._periods = [learnt_ms] * PERIODS_MIN if learnt_ms else []  # a deque would take 700 bytes

    def spoke(self, now_ms: float, last_ms: float) -> None:
        """It spoke at `now_ms`, more than `BURST_MS` after the last time, `last_ms` (-inf: never before)."""
        began_ms, self._began_ms = self._began_ms, now_ms
        if began_ms is None:
            return
        if last_ms - began_ms > now_ms - last_ms:
            self._periods.clear()
        else:
            self._periods.append(round(now_ms - began_ms))
            del self._periods[:-PERIODS_KEPT]
        self.learnt_ms = median_low(self._periods) if len(self._periods) >= PERIODS_MIN else None

    def forget_if_streaming(self, last_ms: float) -> None:
        """What was learnt of a source whose burst goes on for longer than that is no longer true."""
        if self.learnt_ms is None or self._began_ms is None:
            return
        if last_ms - self._began_ms > SILENT_AFTER * self.learnt_ms:
            self._periods.clear()
            self.learnt_ms = None
