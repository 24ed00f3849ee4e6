"""Wills that wait for their delay after a connection died (MQTT 5, 3.1.3.2.2). Sans-IO; times are monotonic ms.

A will without a delay never comes here: it is taken at the connection's end. Waiting wills are kept in memory only:
a node that stops or is killed forgets them, as it does not know then whether the device is still there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from gateway.ingest.mqtt.packets import Will
from gateway.ingest.sources import Source

WAITING_BYTES_MAX = 4 << 20


class WaitingWill(NamedTuple):
    """A dead client's will and when it is due."""

    source: Source
    will: Will
    due_ms: float


class WaitingWills:
    """By client id, at most one each; bounded in bytes: beyond, the oldest is due at once."""

    def __init__(self, *, bytes_max: int = WAITING_BYTES_MAX) -> None:
        self._waiting: dict[str, WaitingWill] = {}
        self._bytes = 0
        self._bytes_max = bytes_max

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, client_id: str, waiting: WaitingWill) -> None:
        self.pop(client_id)
        self._waiting[client_id] = waiting
        self._bytes += _size(waiting)

    def pop(self, client_id: str) -> WaitingWill | None:
        """Take a client's will out: it came back, or its session ended."""
        waiting = self._waiting.pop(client_id, None)
        if waiting is not None:
            self._bytes -= _size(waiting)
        return waiting

    def due(self, now_ms: float) -> Iterator[WaitingWill]:
        """Take out what is due, and what there is no room for."""
        for client_id, waiting in list(self._waiting.items()):
            if waiting.due_ms <= now_ms or self._bytes > self._bytes_max:
                self.pop(client_id)
                yield waiting


def delay_ms(will: Will, session_expiry_s: int) -> float:
    """How long a will waits: its delay, but not beyond its session [MQTT-3.1.3-9, -3.1.2-8]."""
    return min(will.delay_s, session_expiry_s) * 1_000.0


def _size(waiting: WaitingWill) -> int:
    return len(waiting.will.payload) + len(waiting.will.topic) + 256
