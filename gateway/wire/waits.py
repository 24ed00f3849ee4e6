"""Produces that are appended and wait for the disk, each answered once every batch of it is synced, or too late."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from gateway.wire.compiler import Body
from gateway.wire.errors import ErrorCode
from gateway.wire.timers import Timer, Timers
from headwater.clock import Clock

_SWEEP_MS = 1000
_TIMEOUT_MAX_MS = 60_000


class Expiring(Protocol):
    """What waits and may be told that it has waited too long."""

    deadline_ms: float

    def expire(self) -> None: ...


class Wait:
    """One Produce whose batches are appended and not all synced; called once for each that is."""

    __slots__ = ("answers", "deadline_ms", "left", "reply", "waits")

    def __init__(self, reply: Callable[[Body], None], answers: Body, left: int, waits: Waits) -> None:
        self.reply = reply
        self.answers = answers
        self.left = left
        self.deadline_ms = 0.0
        self.waits = waits

    def __call__(self) -> None:
        self.left -= 1
        if self.left == 0 and self.deadline_ms >= 0:
            self.waits.open.discard(self)
            self.reply(self.answers)

    def failed(self, answer: dict[str, Any]) -> None:
        """A failed sync took one partition's batch back."""
        answer |= {"error_code": ErrorCode.KAFKA_STORAGE_ERROR, "base_offset": -1}
        self()

    def expire(self) -> None:
        self.deadline_ms = -1.0
        for topic in self.answers["responses"]:
            for answer in topic["partition_responses"]:
                answer["error_code"] = answer["error_code"] or ErrorCode.REQUEST_TIMED_OUT
        self.reply(self.answers)


class Waits:
    """Produces that wait for the disk. One sweep a second finds those past their time: no timer per request."""

    def __init__(self, timers: Timers, clock: Clock) -> None:
        self._timers = timers
        self._clock = clock
        self.open: set[Expiring] = set()
        self._sweep: Timer | None = None

    def add(self, wait: Expiring, timeout_ms: int) -> None:
        """Answer REQUEST_TIMED_OUT after `timeout_ms`, kept within bounds, give or take the sweep."""
        now_ms = self._clock.monotonic_ms()
        wait.deadline_ms = now_ms + min(max(timeout_ms, _SWEEP_MS), _TIMEOUT_MAX_MS)
        self.open.add(wait)
        if self._sweep is None:
            self._sweep = self._timers.at(now_ms + _SWEEP_MS, self._expire)

    def _expire(self) -> None:
        now_ms = self._clock.monotonic_ms()
        for wait in [wait for wait in self.open if wait.deadline_ms <= now_ms]:
            self.open.discard(wait)
            wait.expire()
        self._sweep = self._timers.at(now_ms + _SWEEP_MS, self._expire) if self.open else None
