"""Who asked for what it does not get: SUBSCRIBE filters and topics, by client, also when it is gone. Sans-IO, bounded.

A script that subscribes for a moment is refused and goes; whoever wonders why it hears nothing looks later.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import msgspec

from gateway.ingest.mqtt.state import Exchange
from gateway.ingest.sources import ANONYMOUS

REFUSALS_MAX = 200
_SHOWN = 80  # characters: ids and filters may be of 64 KiB
SUBSCRIBES, PUBLISHES = "subscribes", "publishes"
_Key = tuple[str, str, str]


class Refusal(msgspec.Struct):
    """`does` is “subscribes” or “publishes”, `what` the filter or topic; `last_ms` wall time."""

    client: str
    does: str
    what: str
    last_ms: int
    count: int = 0


class Refusals:
    """The `REFUSALS_MAX` latest ones."""

    def __init__(self) -> None:
        self._rows: OrderedDict[_Key, Refusal] = OrderedDict()

    def of(self, machine: Exchange, client: str, wall_ms: int) -> str:
        """Note what a client was refused just now; returns the sentence about it."""
        topic, filter_ = machine.topic_refused, machine.filter_refused
        machine.topic_refused = machine.filter_refused = None
        if filter_ is not None:
            self.note(client, SUBSCRIBES, filter_, wall_ms)
        if topic is not None:
            self.note(client, PUBLISHES, topic, wall_ms)
            return f"it publishes to “{topic:.80}”, which is not for it: not stored"
        return f"it subscribes to “{filter_ or '':.80}”, and this listener delivers nothing: read the node over Kafka"

    def note(self, client: str, does: str, what: str, wall_ms: int) -> None:
        """It happened again, or for the first time."""
        if f"mqtt:{client}".startswith(f"{ANONYMOUS}-"):
            client = "anonymous"  # one row, as they are one source: each comes with a number of its own
        client, what = client[:_SHOWN], what[:_SHOWN]
        key = (client, does, what)
        row = self._rows.get(key)
        if row is None:
            if len(self._rows) >= REFUSALS_MAX:
                self._rows.popitem(last=False)
            row = self._rows[key] = Refusal(client, does, what, wall_ms)
        row.last_ms, row.count = wall_ms, row.count + 1
        self._rows.move_to_end(key)

    def status(self) -> list[dict[str, Any]]:
        """The latest first."""
        return [msgspec.to_builtins(row) for row in reversed(self._rows.values())]
