"""What people see of the uplink: state, counters, and one log line per change of state (never one per message)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Literal

LinkState = Literal["up", "connecting", "down", "stopped"]
Emit = Callable[..., object]

_log = logging.getLogger(__name__)

DRAIN_RECORDS_MIN = 1_000
"""A backlog from this size on is announced as a drain."""


class Link:
    """State and counters; `emit(kind, **detail)` takes events for topic `events`."""

    def __init__(self, node: str, central: str, emit: Emit, now: float) -> None:
        self.state: LinkState = "connecting"
        self.since_ms = now
        self.error = ""
        self.last_success_ms: float | None = None
        self.transactions = 0
        self.records = 0
        self.fenced = 0
        self.aborted = 0
        self.gone = 0
        self.buried = 0
        self._node = node
        self._central = central
        self._emit = emit
        self._drain: tuple[float, int] | None = None
        self._tell_drain = True

    def up(self, now: float, backlog_records: int, note: str) -> None:
        """The progress record is read, transactions may open."""
        if self.state != "up":
            after = f" after {(now - self.since_ms) / 1000:.1f} s" if self.state == "down" else ""
            _log.info(
                "%s: link up to %s%s: %s, backlog %d records", self._node, self._central, after, note, backlog_records
            )
            self._emit("link-up", central=self._central, backlog_records=backlog_records)
            self._change("up", now)
            self.error = ""
        if self._drain is None and backlog_records >= DRAIN_RECORDS_MIN:
            self._drain = (now, self.records)
            _log.info("%s: drain start: %d records behind", self._node, backlog_records)

    def caught_up(self, now: float) -> None:
        """Nothing waits any more."""
        if self._drain is not None:
            started, before = self._drain
            self._drain = None
            sent, seconds = self.records - before, max(now - started, 1.0) / 1000
            _log.info("%s: drain end: %d records in %.1f s (%.0f/s)", self._node, sent, seconds, sent / seconds)
            self._emit("drain-end", records=sent, seconds=round(seconds, 3))

    def down(self, now: float, cause: str, *, quiet: bool = False) -> None:
        """The link failed; told once until it is up again. `quiet`: no news while it has not been up yet."""
        self.error = cause
        if self.state == "up" or (self.state == "connecting" and not quiet):
            _log.warning("%s: link down: %s (%s)", self._node, cause, self._central)
            self._emit("link-down", central=self._central, cause=cause)
            self._change("down", now)

    def stopped(self, now: float, reason: str, detail: str, hint: str) -> None:
        """Replication stands still; ingest goes on."""
        _log.error("%s: replication stopped: %s: %s. %s", self._node, reason, detail, hint)
        self._emit("replication-stopped", reason=reason, detail=detail)
        self.error = f"{reason}: {detail}. {hint}"
        self._change("stopped", now)

    def resumed(self, now: float, choice: str) -> None:
        """The operator has chosen."""
        _log.warning("%s: replication goes on, the operator chose “%s”", self._node, choice)
        self._emit("replication-resumed", choice=choice)
        self._change("connecting", now)

    def abort(self, cause: str, records: int, *, unknown: bool) -> None:
        """An open transaction is given up."""
        self.aborted += 1
        outcome = (
            "its outcome is unknown until the progress record is read" if unknown else "its records stay in the log"
        )
        _log.warning("%s: transaction aborted: %s (%d records; %s)", self._node, cause, records, outcome)

    def fenced_by_timeout(self) -> None:
        """The central had aborted our transaction and bumped the epoch; nobody else wrote."""
        self.fenced += 1
        _log.warning(
            "%s: fenced by time-out: the central aborted a transaction that had not ended; going on from its record",
            self._node,
        )
        self._emit("fenced", cause="time-out")

    def committed(self, now: float, records: int, gone: int) -> None:
        """A transaction is at the central."""
        self.transactions += 1
        self.records += records
        self.gone += gone
        self.last_success_ms = now

    def bury(self, identity: str, reason: str) -> None:
        """One record is dead-lettered."""
        self.buried += 1
        _log.warning("%s: record %s refused by the central, moved to deadletter: %s", self._node, identity, reason)

    def note(self, text: str) -> None:
        """Something that an operator should read once."""
        _log.warning("%s: %s", self._node, text)

    def _change(self, state: LinkState, now: float) -> None:
        self.state = state
        self.since_ms = now
