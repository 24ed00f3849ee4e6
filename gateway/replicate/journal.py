"""The run journal, `<data>/node/runs`: every start of this node, and where its log stood then.

A run is one start. Its id goes into the progress record, so that a node can tell its own record from one that was
written by a copy of its card: a record whose newest run is not in the journal was written by somebody else. The file
is one JSON object, replaced whole and fsynced before the node may call init_transactions. Beside it,
`<data>/node/central` remembers that a central holds a record of this node, and near which offset. Both check
themselves and lie on the disk twice (`headwater.sealed`): one bad sector must not make a node a stranger to its own
record. Where both copies are damaged they are moved aside and named in `damaged`: the node starts, and replication
stops and asks where it must not guess.
"""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any, TypeVar

import msgspec

from gateway.replicate.progress import RUNS_MAX, Run
from headwater.disk import Disk
from headwater.sealed import copy_of, mend_sealed, read_sealed, write_sealed

T = TypeVar("T")

RUNS_KEPT_MAX = 256
RAISES_KEPT_MAX = 16


class RunEntry(msgspec.Struct, kw_only=True):
    """One start: its id, the first offset that it could write per source partition, and what the clocks said."""

    run: str
    first: dict[str, int]
    boot: str
    wall_ms: int
    monotonic_ms: float


class _Runs(msgspec.Struct, kw_only=True):
    v: int = 1
    runs: list[RunEntry] = []  # oldest first
    raised: dict[str, list[tuple[int, int]]] = {}


class Remembered(msgspec.Struct, kw_only=True):
    """What this node last knew of its record at the central; a hint, except that there was one."""

    v: int = 1
    cluster: str
    topic_id: str
    """Of the progress topic."""
    partition: int
    offset: int
    """The record stood here, or it stands above."""
    txn: int
    done: dict[str, int] = {}
    run: str = ""
    """The newest run that the record named."""


class RunJournal:
    """The journal of one data directory; `runs[-1]` is the run that goes on now."""

    def __init__(self, disk: Disk, directory: str) -> None:
        self._disk = disk
        self.damaged: list[str] = []
        self._runs_path = f"{directory}/runs"
        self._central_path = f"{directory}/central"
        self._state = self._load(_Runs, self._runs_path) or _Runs()
        self._remembered = self._load(Remembered, self._central_path)

    @classmethod
    def begin(
        cls,
        disk: Disk,
        data_dir: str,
        *,
        first: Mapping[str, int],
        random: Random,
        boot_id: str,
        wall_ms: int,
        monotonic_ms: float,
    ) -> RunJournal:
        """Open the journal and enter a new run, fsynced: once the node is up, before anything is sent to a central.

        `first`: the log end of each source partition (`readings/0`) after the log's recovery, before anything was
        appended. Raises `OSError` as the disk does.
        """
        directory = f"{data_dir}/node"
        disk.make_directory(directory)
        journal = cls(disk, directory)
        entry = RunEntry(
            run=f"{random.getrandbits(64):016x}",
            first=dict(first),
            boot=boot_id,
            wall_ms=wall_ms,
            monotonic_ms=monotonic_ms,
        )
        named = journal.remembered.run if journal.remembered is not None else ""
        journal._state.runs = _bounded([*journal._state.runs, entry], named)
        journal._save()
        if journal.remembered is not None:
            mend_sealed(disk, journal._central_path, _members(journal.remembered))
        return journal

    @property
    def run(self) -> str:
        """The id of the run that goes on now."""
        return self._state.runs[-1].run

    @property
    def runs(self) -> list[RunEntry]:
        """All runs that are remembered, oldest first."""
        return self._state.runs

    @property
    def remembered(self) -> Remembered | None:
        """What is known of this node's record at the central; None when there never was one."""
        return self._remembered

    @property
    def raised(self) -> Mapping[str, list[tuple[int, int]]]:
        """Per source partition: (offset, epoch): records from that offset on have at least that epoch upstream."""
        return self._state.raised

    def newest(self) -> list[Run]:
        """The newest runs for the progress record, newest first."""
        return [(entry.run, entry.first) for entry in reversed(self._state.runs[-RUNS_MAX:])]

    def raise_epoch(self, starts: Mapping[str, int], epoch: int) -> None:
        """From these offsets on, records are sent under at least `epoch`; fsynced. For a restored or copied card."""
        for source, offset in starts.items():
            self._state.raised[source] = [*self._state.raised.get(source, []), (offset, epoch)][-RAISES_KEPT_MAX:]
        self._save()

    def remember(self, remembered: Remembered | None) -> None:
        """Keep (or forget) what is known of the record at the central; fsynced."""
        self._remembered = remembered
        if remembered is not None:
            write_sealed(self._disk, self._central_path, _members(remembered))
        elif there := self._there(self._central_path):
            for path in there:
                self._disk.remove(path)
            self._disk.sync_directory(self._central_path.rpartition("/")[0])

    def _save(self) -> None:
        write_sealed(self._disk, self._runs_path, _members(self._state))

    def _there(self, path: str) -> list[str]:
        return [each for each in (path, copy_of(path)) if self._disk.exists(each)]

    def _load(self, kind: type[T], path: str) -> T | None:
        found = read_sealed(self._disk, path, lambda fields: msgspec.convert(fields, kind))
        if found is None and (there := self._there(path)):
            for each in there:
                self.damaged.append(f"{each} could not be read and was moved to {each}.damaged")
                self._disk.rename(each, f"{each}.damaged")
            self._disk.sync_directory(path.rpartition("/")[0])
        return found


def _members(state: _Runs | Remembered) -> dict[str, Any]:
    members: dict[str, Any] = msgspec.to_builtins(state)
    return members


def _bounded(runs: list[RunEntry], named: str) -> list[RunEntry]:
    """Without one run when there is one too many: a start before which nothing had been written, else the oldest.

    The run that the central's record names stays, so that the record is known for this node's own; so does the one
    after it, whose first offset says where that run ended.
    """
    if len(runs) <= RUNS_KEPT_MAX:
        return runs
    at = next((index for index, entry in enumerate(runs) if entry.run == named), -2)
    idle = [index for index in range(1, len(runs) - 1) if runs[index].first == runs[index - 1].first]
    goes = next(index for index in [*idle, *range(len(runs))] if index not in (at, at + 1))
    return runs[:goes] + runs[goes + 1 :]
