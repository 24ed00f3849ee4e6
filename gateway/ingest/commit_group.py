"""A commit group between its append and the sync of the logs that it stands in."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.ingest.pipeline import Ingest
    from gateway.ingest.sources import Entry


class CommitGroup:
    """Released when all logs are synced, failed when one of them cannot be."""

    __slots__ = ("_ingest", "_logs_left", "ends", "entries", "live_before_ms", "lost")

    def __init__(self, ingest: Ingest, entries: list[Entry]) -> None:
        self._ingest = ingest
        self._logs_left = len(ingest.logs)
        self.ends: dict[str, int] = {}  # topic -> the end of what the group wrote there
        self.entries = entries
        self.live_before_ms = ingest.marks.live
        self.lost = False

    def one_log_synced(self) -> None:
        self._logs_left -= 1
        if not self._logs_left and not self.lost:
            self._ingest.release(self)

    def failed(self) -> None:
        if not self.lost:
            self._ingest.fail(self)
