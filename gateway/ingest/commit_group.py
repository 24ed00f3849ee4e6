"""A commit group between its append and the sync of the logs that it stands in."""

from __future__ import annotations

from typing import Protocol

from gateway.ingest.sources import Entry


class Committer(Protocol):
    """Who appended a group and hears what became of it."""

    def release(self, group: CommitGroup) -> None: ...
    def fail(self, group: CommitGroup) -> None: ...


class CommitGroup:
    """Released when all `logs` are synced, failed when one of them cannot be."""

    __slots__ = ("_committer", "_logs_left", "ends", "entries", "live_before_ms", "lost")

    def __init__(self, committer: Committer, entries: list[Entry], *, logs: int, live_before_ms: int) -> None:
        self._committer = committer
        self._logs_left = logs
        self.ends: dict[str, int] = {}  # topic -> the end of what the group wrote there
        self.entries = entries
        self.live_before_ms = live_before_ms
        self.lost = False

    def one_log_synced(self) -> None:
        self._logs_left -= 1
        if not self._logs_left and not self.lost:
            self._committer.release(self)

    def failed(self) -> None:
        if not self.lost:
            self._committer.fail(self)
