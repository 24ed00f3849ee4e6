"""After a failed sync: back to the synced end, and on from there in a new segment with the next epoch.

A file whose sync failed once may lie about the next one (the kernel drops the pages and reports success), so it is
never synced again; what it held beyond the synced end was never acknowledged. Recovery cuts such a file at its
successor's base.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import NamedTuple

from gateway.log.chain import CHAIN_START
from gateway.log.errors import CorruptBatch
from gateway.log.files import PartitionFiles
from gateway.log.replay import Replay
from gateway.log.scan import Stop, scan_run
from gateway.log.segment import Segment, chain_in, rebuild_indexes
from gateway.log.segments import Segments
from gateway.log.state import PartitionState


class GoingOn(NamedTuple):
    """The new active segment, the state at its base, and the epochs with the new one."""

    segment: Segment
    state: PartitionState
    epochs: list[tuple[int, int]]


def go_on_after_failure(
    files: PartitionFiles,
    segments: Segments,
    epochs: list[tuple[int, int]],
    synced_offset: int,
    synced: tuple[Segment, int],
    snapshots: dict[int, bytes],
) -> GoingOn:
    """Drop what is beyond the synced end and start a segment there.

    Raises `OSError` or, where the synced part went bad, `CorruptBatch`, and may be called again then. Until it works
    the segments stay listed, so that a log always has an active one; nobody reads that far.
    """
    # First: segments that go may have raised it, and a start in between would take them for lost.
    files.set_recovery_point(synced_offset)
    held = segments.all()
    doomed = sum(segment.base_offset >= synced_offset for segment in held)
    for segment in held[len(held) - doomed :]:
        files.remove_segment(segment)
    files.remove_snapshots_beyond(synced_offset)
    chain: int | None = synced[0].chain
    kept = held[-1 - doomed] if len(held) > doomed else None
    if kept is not None:
        files.cache.use(kept)  # one that the last good round closed may be shut already, with more in it than is synced
        if kept is synced[0]:  # else its indexes may be in memory alone
            if kept.size != synced[1]:
                _cut(files, kept, synced_offset, synced[1])
            files.try_write_indexes(kept)
            files.write_aborted(kept)
            files.cache.adopt(kept)
        chain = chain_in(files.disk, kept, synced_offset)
    state = _state_at(files, kept, synced_offset, snapshots)
    segment = files.create_segment(synced_offset)
    try:
        files.disk.sync_directory(files.directory)  # before the epochs: they speak of the segments as they are now
        # The next epoch is above every one that unacknowledged batches may have carried.
        epochs = [*(each for each in epochs if each[1] < synced_offset), (epochs[-1][0] + 1, synced_offset)]
        files.write_epochs(epochs)
    except OSError:
        files.disk.close(segment.handle)
        raise
    segment.chain = CHAIN_START if chain is None else chain
    for _ in range(doomed):
        segments.pop()
    segments.add(segment)
    return GoingOn(segment, state, epochs)


def _cut(files: PartitionFiles, segment: Segment, end_offset: int, size: int) -> None:
    """Forget the batches beyond the synced end; the file itself is left as it is."""
    segment.size, segment.next_offset = size, end_offset
    segment.hints.clear()
    anchors = bisect_left(segment.anchor_positions, size)
    del segment.anchor_positions[anchors:], segment.anchor_chains[anchors:]
    segment.aborted = [entry for entry in segment.aborted if entry.last_offset < end_offset]
    rebuild_indexes(files.disk, segment)


def _state_at(
    files: PartitionFiles, kept: Segment | None, synced_offset: int, snapshots: dict[int, bytes]
) -> PartitionState:
    if kept is None or synced_offset in snapshots:
        return PartitionState.restore(snapshots[synced_offset])
    replay = Replay(PartitionState.restore(snapshots[kept.base_offset]), None)
    end = scan_run(files.disk, kept.handle, 0, kept.size, kept.base_offset, synced_offset, replay.visit)
    if end.stop is Stop.BAD:
        raise CorruptBatch(f"{kept.log_path} went bad at offset {end.next_offset}")  # the next start mends it
    replay.state.transactions.synced(synced_offset)
    return replay.state
