"""The files beside the batches in a partition's directory: what is written when a segment closes, and the epochs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import NamedTuple

from gateway.log import checkpoints
from gateway.log.aborted_sums import AbortedSums
from gateway.log.chain import encode_anchors
from gateway.log.rewritten import Rewritten
from gateway.log.segment import Segment, SegmentCache
from gateway.log.state import PartitionState
from gateway.log.transactions import encode_aborted
from headwater.disk import Disk, read_or_none

NOBODY = PartitionState().snapshot()
"""A snapshot without producers: what a missing one at a log's beginning means."""


class Closing(NamedTuple):
    """A segment that was closed, with what must be written about it: state and chain at the next segment's base."""

    segment: Segment
    next_base: int
    snapshot: bytes
    anchors: dict[int, int]


class PartitionFiles:
    """Paths, and the writes that both the loop and the flusher's thread need.

    `set_recovery_point(offset)` makes it durable that everything below is on disk; it may raise `OSError`.
    """

    def __init__(
        self,
        disk: Disk,
        cache: SegmentCache,
        *,
        directory: str,
        topic: str,
        partition: int,
        chain_path: str,
        aborted_sums_path: str,
        rewritten_path: str,
        index_interval_bytes: int,
        set_recovery_point: Callable[[int], None],
    ) -> None:
        self.disk = disk
        self.cache = cache
        self.directory = directory
        self.topic = topic
        self.partition = partition
        self.chain_path = chain_path
        self.aborted_sums = AbortedSums(disk, aborted_sums_path)
        self.rewritten = Rewritten(disk, rewritten_path)
        self.index_interval_bytes = index_interval_bytes
        self.set_recovery_point = set_recovery_point

    def segment(self, base_offset: int) -> Segment:
        segment = Segment(self.directory, base_offset, self.index_interval_bytes)
        segment.aborted_sum = self.aborted_sums.of(base_offset)
        return segment

    def create_segment(self, base_offset: int) -> Segment:
        """An empty active segment; its name is durable only after the directory is synced."""
        segment = self.segment(base_offset)
        segment.start(self.disk.open(segment.log_path, create=True))
        return segment

    def write_epochs(self, epochs: list[tuple[int, int]]) -> None:
        self.disk.replace_file(f"{self.directory}/{checkpoints.LEADER_EPOCHS}", checkpoints.encode_epochs(epochs))

    def finish(self, closing: Closing) -> None:
        """Make a closed segment durable with its indexes, before anything after it is acknowledged.

        The recovery point comes last: at or above the next base it proves that this segment is whole on disk.
        """
        self.disk.sync(closing.segment.handle)
        self.write_aborted(closing.segment)
        # Other indexes, snapshot and chain can be made again from the batches: a disk too full for them stops nothing.
        with contextlib.suppress(OSError):
            self._write_indexes(closing.segment)
            self._write_snapshot(closing.next_base, closing.snapshot, keep=closing.segment.base_offset)
            self.disk.replace_file(self.chain_path, encode_anchors(closing.anchors))
        self.disk.sync_directory(self.directory)  # the next segment's name, where none of these could be written
        self.set_recovery_point(closing.next_base)

    def finish_clean(self, active: Segment, base_snapshot: bytes, snapshot: bytes, anchors: dict[int, int]) -> None:
        """The same for the active segment, at a clean stop; it stays the active one."""
        with contextlib.suppress(OSError):
            self.write_aborted(active)
            self._write_indexes(active)
            path = f"{self.directory}/{active.base_offset:020d}.snapshot"
            if (read_or_none(self.disk, path) or NOBODY) != base_snapshot:
                self.disk.replace_file(path, base_snapshot)  # a start that recovered the segment had none
            self._write_snapshot(active.next_offset, snapshot, keep=active.base_offset)
            self.disk.replace_file(self.chain_path, encode_anchors(anchors))

    def try_write_indexes(self, segment: Segment) -> None:
        """Write a closed segment's indexes if the disk takes them; they can be made again from the batches."""
        with contextlib.suppress(OSError):
            self.write_aborted(segment)
            self._write_indexes(segment)

    def remove_segment(self, segment: Segment) -> None:
        """Give back its handle and remove its files; the caller syncs the directory."""
        self.cache.release(segment)
        for suffix in (".log", ".index", ".timeindex", ".txnindex"):
            if self.disk.exists(segment.path + suffix):
                self.disk.remove(segment.path + suffix)
        segment.aborted_sum = self.aborted_sums.note(segment.base_offset, b"")
        self.rewritten.forget([segment.base_offset])

    def _write_indexes(self, segment: Segment) -> None:
        for suffix, data in segment.index_files().items():
            self.disk.replace_file(segment.path + suffix, data)

    def write_aborted(self, segment: Segment) -> None:
        """The transaction index, which alone cannot be made from its segment's batches; nothing goes on without it."""
        index = encode_aborted(segment.aborted)
        segment.aborted_sum = None  # without room for the file, what is in memory counts
        noted = self.aborted_sums.note(segment.base_offset, index)
        if index:
            self.disk.replace_file(segment.path + ".txnindex", index)
        elif self.disk.exists(segment.path + ".txnindex"):
            self.disk.remove(segment.path + ".txnindex")  # of batches that a failed sync took back
        segment.aborted_sum = noted

    def _write_snapshot(self, offset: int, snapshot: bytes, *, keep: int) -> None:
        """Recovery begins at a snapshot of a segment's base: the one at `keep` stays until a newer base has one."""
        self.disk.replace_file(f"{self.directory}/{offset:020d}.snapshot", snapshot)
        kept = {f"{each:020d}.snapshot" for each in (offset, keep)}
        for name in self.snapshot_names():
            if name not in kept:
                self.disk.remove(f"{self.directory}/{name}")

    def remove_indexes(self, active: Segment) -> None:
        """Those that a clean stop wrote describe less than what will be appended."""
        for suffix in (".index", ".timeindex", ".txnindex"):
            if self.disk.exists(active.path + suffix):
                self.disk.remove(active.path + suffix)

    def remove_snapshots_beyond(self, end_offset: int) -> None:
        """Those that know of batches which the log does not hold: other batches will get their offsets."""
        for name in self.snapshot_names():
            if name > f"{end_offset:020d}.snapshot":
                self.disk.remove(f"{self.directory}/{name}")

    def snapshot_names(self) -> list[str]:
        return [name for name in self.disk.names(self.directory) if name.endswith(".snapshot")]
