"""What one member of a group decides: where a partition begins, what it says, what is committed with it. Sans-IO.

A transaction carries outputs, positions and, from time to time, snapshots. Between two snapshots a partition's state
is only in memory: its next owner takes the last snapshot, reads on from there, and says nothing of what lies below
the group's committed offset, because that was said in the same transaction as the offset. The processors compute
the same from the same records however they are cut into blocks, so nothing is lost and nothing is said twice.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Container
from typing import Any, NamedTuple

from gateway.consume.reader import Block
from processors.budget import NO_LIMITS, Limits
from processors.group.changelog import Snapshot, encode_snapshot
from processors.group.refusals import lost_records, other_partitions
from processors.job import Job, PartitionWork, as_job
from processors.processor import Output, Place
from processors.rules.model import Rules

Source = tuple[str, int]  # topic without the prefix, partition


class Begun(NamedTuple):
    """Where a partition goes on. `fresh`: rule versions that begin here; `expired`: records that are gone unread."""

    offset: int
    fresh: list[str]
    expired: int


class _Share:
    """One partition in this member's hands."""

    def __init__(self, processor: PartitionWork, position: int, committed: int) -> None:
        self.processor = processor
        self.position = position
        self.committed = committed
        """Outputs of records below it are in their topics already."""
        self.snapshot_chunks = 0
        self.fresh: frozenset[str] = frozenset()
        """Rule versions that the snapshot did not know: nobody has said what they say of records below `committed`."""
        self.changed = False
        self.unsaved = False
        self.saved_once = False


class Member:
    """The partitions that this process has now."""

    def __init__(self, rules: Rules | Job, *, place: Place, limits: Limits = NO_LIMITS) -> None:
        self._job = as_job(rules, place, "")
        self._limits = limits
        self._shares: dict[Source, _Share] = {}
        self.expired = 0

    def begin(
        self,
        source: Source,
        snapshot: Snapshot | None,
        *,
        partitions: int,
        committed: int | None,
        start: int,
        end: int | None = None,
    ) -> Begun:
        """Take a partition over. `committed`: the group's offset; `start`, `end`: where the log begins and ends now.

        Raises `UserError` when the state is one of another number of partitions, and for a log without the records that
        were read.
        """
        topic, partition = source
        if snapshot is not None and snapshot.partitions != partitions:
            raise other_partitions(topic, partitions, snapshot.partitions)
        if committed is not None and end is not None and committed > end:
            raise lost_records(topic, partition, end, committed)  # or it would wait for what has been read already
        processor = self._job.begin(topic, partition, self._limits)
        fresh, position = [], start
        if snapshot is not None:
            fresh = processor.restore(snapshot.state)
            position = max(start, snapshot.offset)
            self.expired += max(0, start - snapshot.offset)
        if start > (0 if snapshot is None else snapshot.offset):
            processor.lost_before(start)
        share = self._shares[source] = _Share(processor, position, max(position, committed or 0))
        if snapshot is not None:
            share.snapshot_chunks, share.saved_once = snapshot.chunks, True
        share.fresh = frozenset(fresh)
        return Begun(position, fresh, max(0, start - snapshot.offset) if snapshot is not None else 0)

    def process(self, block: Block) -> list[Output]:
        """The next records of a partition; what they let be said for the first time."""
        share = self._shares.get((block.topic, block.partition))
        if share is None or not block.offsets:
            return []  # fetched before the partition was taken away
        made: list[Output] = []
        known = bisect_left(block.offsets, share.committed)
        if known:
            again = share.processor.process(_part(block, 0, known))
            made = [output for output in again if output.version in share.fresh]
            if share.processor.stopped_at is not None:
                share.position = share.processor.stopped_at
                return made
        if known < len(block.offsets):
            made += share.processor.process(_part(block, known, len(block.offsets)))
            share.changed = share.unsaved = True
        stopped_at = share.processor.stopped_at
        share.position = block.next_offset if stopped_at is None else stopped_at
        return made

    def said_up_to(self, source: Source) -> int:
        """Results of records below it are in their topics, whatever becomes of this member; 0: of no such partition.

        What was processed since the last commit lies beyond, and a new beginning takes it back.
        """
        share = self._shares.get(source)
        return 0 if share is None else share.committed

    @property
    def wants_to_stop(self) -> bool:
        """Whether a processor has come to where it does not go on: commit, and end."""
        return any(share.processor.stopped_at is not None for share in self._shares.values())

    def positions(self, also: Container[Source] = ()) -> dict[Source, int]:
        """The offsets to commit: of partitions that have come further than what is committed, and those in `also`."""
        return {source: share.position for source, share in self._shares.items() if share.changed or source in also}

    def snapshots(self, partitions: dict[str, int], only: set[Source] | None = None) -> dict[Source, list[Any]]:
        """Records for the changelog, per partition, of those that have changed since their last snapshot."""
        found = {}
        for source, share in self._shares.items():
            if share.unsaved and share.position >= share.committed and (only is None or source in only):
                name = f"{source[0]}/{source[1]}"
                state = share.processor.snapshot()
                records = encode_snapshot(
                    name, share.position, partitions[source[0]], state, chunks_before=share.snapshot_chunks
                )
                share.snapshot_chunks = sum(1 for _, value in records if value is not None) - 1
                share.unsaved, share.saved_once = False, True
                found[source] = records
        return found

    @property
    def unsaved(self) -> set[Source]:
        """Partitions that have no snapshot at all yet: the first is written with the first positions."""
        return {source for source, share in self._shares.items() if share.unsaved and not share.saved_once}

    def committed(self) -> None:
        """A transaction with all positions is through."""
        for share in self._shares.values():
            if share.changed:
                share.committed, share.changed = share.position, False

    def end(self, source: Source) -> None:
        """A partition is somebody else's."""
        self._shares.pop(source, None)

    @property
    def sources(self) -> set[Source]:
        return set(self._shares)

    @property
    def parts(self) -> dict[Source, PartitionWork]:
        """What works on each of this member's partitions."""
        return {source: share.processor for source, share in self._shares.items()}

    # for people

    def status(self) -> dict[str, Any]:
        """Counters over this member's partitions."""
        totals: dict[str, int] = {}
        for share in self._shares.values():
            for name, count in share.processor.counters().items():
                totals[name] = totals.get(name, 0) + count
        positions = {f"{topic}/{partition}": share.position for (topic, partition), share in self._shares.items()}
        about = self._job.about([share.processor for share in self._shares.values()])
        return {**totals, **about, "expired": self.expired, "positions": positions}


def _part(block: Block, begin: int, end: int) -> Block:
    if begin == 0 and end == len(block.offsets):
        return block
    return Block(
        block.topic,
        block.partition,
        block.offsets[begin:end],
        block.timestamps[begin:end],
        block.keys[begin:end],
        block.values[begin:end],
        block.headers[begin:end],
        block.next_offset if end == len(block.offsets) else block.offsets[end],
    )
