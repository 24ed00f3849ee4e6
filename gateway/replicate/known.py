"""What the central is known to have of each source partition, in memory and, now and then, in the run journal."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from msgspec.structs import replace

from gateway.replicate.gather import Position
from gateway.replicate.journal import Remembered, RunJournal

_log = logging.getLogger("headwater.replicate")

REMEMBER_EVERY_MS = 600_000.0


class LastKnown:
    """The offsets below which the central has everything, as it was last heard; `<topic>/<partition>` each."""

    def __init__(self, journal: RunJournal) -> None:
        self._journal = journal
        self._done = dict(journal.remembered.done) if journal.remembered else {}
        self._written_ms: float | None = None

    def with_positions(self, positions: Mapping[str, Position]) -> dict[str, int]:
        """The same, where `positions` go on from it."""
        return self._done | {key: position.done for key, position in positions.items()}

    def keep(self, positions: Mapping[str, Position]) -> None:
        """They are given up: what they said is last known from now on."""
        self._done = self.with_positions(positions)

    def forget(self) -> None:
        """Everything is sent again: none of it counts as replicated, nor after a restart before the next commit."""
        self._done = {}
        if (known := self._journal.remembered) is not None:
            self._write(replace(known, done={}))

    def write_next(self) -> None:
        """The next commit is written to the journal, however short ago the last one was."""
        self._written_ms = None

    def committed(self, remembered: Remembered, now: float) -> None:
        """A transaction is committed; the journal hears of one in ten minutes."""
        if self._written_ms is None or now - self._written_ms >= REMEMBER_EVERY_MS:
            self._written_ms = now
            self._write(replace(remembered, run=self._journal.run))

    def _write(self, remembered: Remembered) -> None:
        try:
            self._journal.remember(remembered)
        except OSError as error:  # a hint: replication goes on without it
            _log.warning("what the central has could not be noted in the run journal: %s", error)
