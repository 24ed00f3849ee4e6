"""What the disk would not take, of devices that cannot be asked again: kept, up to a limit, and taken again."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from itertools import groupby

from gateway.ingest.messages import Message
from gateway.ingest.sources import Source

_log = logging.getLogger("headwater.ingest")

RETAKE_MS = 1_000.0
RETAKE_MESSAGES_MAX = 4_096


class Retake:
    """Keeps the newest `RETAKE_MESSAGES_MAX` messages of one part's sources; `take` is called with them later."""

    def __init__(self, name: str, take: Callable[[Source, list[Message], Sequence[str]], None]) -> None:
        """`name` is the part's in the log."""
        self._name = name
        self._take = take
        self._kept: deque[tuple[Source, Message, str]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self.lost_messages = 0

    def keep(self, source: Source, messages: list[Message], reasons: Sequence[str] = ()) -> None:
        """Take these again in a while; the oldest are given up beyond the limit. `reasons`: as in `Ingest.take`."""
        self._kept += [(source, *pair) for pair in zip(messages, reasons or [""] * len(messages), strict=True)]
        if (over := len(self._kept) - RETAKE_MESSAGES_MAX) > 0:
            self.lost_messages += over
            source.problem = f"the disk failed: {self.lost_messages} messages lost"
            _log.error("%s: the disk failed, %d messages lost", self._name, over)
            for _ in range(over):
                self._kept.popleft()
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(RETAKE_MS / 1000, self._again)

    def _again(self) -> None:
        self._timer = None
        kept, self._kept = self._kept, deque()
        for _, run in groupby(kept, key=lambda one: (one[0].id, one[2] != "")):
            sources, messages, reasons = zip(*run, strict=True)
            self._take(sources[0], list(messages), reasons if reasons[0] else ())

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
