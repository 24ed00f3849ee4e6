"""Finding the one record that the central refuses: halve the refused batch until it is alone, then dead-letter it.

A refused batch is never retried whole and never given up whole. Its first half is tried next; what passes is settled,
what is refused again is halved again, so one bad record among n costs about log2(n) refused transactions.
"""

from __future__ import annotations

from collections.abc import Mapping

from gateway.replicate.actions import Bury
from gateway.replicate.gather import REFUSED, Outgoing, Position
from gateway.wire.errors import ErrorCode, error_name

CORRUPT_RETRIES = 2  # a batch may be damaged on its way: not the record's fault until it happens again


class Trial:
    """Refused batches under search, and records already condemned, per source partition."""

    def __init__(self) -> None:
        self.condemned: dict[str, dict[int, str]] = {}
        self._suspects: dict[str, tuple[int, int]] = {}  # end of the refused batch, width to try next
        self._corrupt: dict[str, int] = {}

    def refuse(self, batch: Outgoing, code: int) -> Bury | None:
        """The central refused `batch`. A verdict when it is a single record, else None: try less."""
        if batch.records > 1:
            self._suspects[batch.source] = (batch.end, max((batch.end - batch.start) // 2, 1))
            return None
        if code == ErrorCode.CORRUPT_MESSAGE:
            seen = self._corrupt[batch.last_identity] = self._corrupt.get(batch.last_identity, 0) + 1
            if seen <= CORRUPT_RETRIES:
                return None
        offset = int(batch.last_identity.rpartition("/")[2])
        return Bury(batch.source, offset, batch.last_identity, f"{REFUSED}: {error_name(code)}")

    def condemn(self, verdict: Bury) -> None:
        """It is in the dead letters: the next transaction passes it."""
        self.condemned.setdefault(verdict.source, {})[verdict.offset] = verdict.reason
        self._corrupt.pop(verdict.identity, None)

    def until(self, positions: Mapping[str, Position]) -> dict[str, int]:
        """Where the next transaction has to stop, per source under suspicion."""
        suspects = self._suspects.items()
        return {key: min(positions[key].done + width, end) for key, (end, width) in suspects if key in positions}

    def settle(self, positions: Mapping[str, Position]) -> None:
        """A transaction is committed: forget what it passed."""
        for key, position in positions.items():
            if key in self._suspects and position.done >= self._suspects[key][0]:
                del self._suspects[key]
            if key in self.condemned:
                self.condemned[key] = {o: why for o, why in self.condemned[key].items() if o >= position.done}
