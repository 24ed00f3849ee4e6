"""What readers ask of a partition log: whole batches up to the fsynced end, offsets by time, and how things stand."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

from gateway.log.errors import OffsetOutOfRange
from gateway.log.segment import Segment
from gateway.log.segments import Segments
from gateway.log.state import PartitionState


class ReadResult(NamedTuple):
    """Whole batches, and the offsets that a Fetch response needs."""

    data: bytes
    high_watermark: int
    last_stable_offset: int
    log_start_offset: int
    aborted: list[tuple[int, int]]


class Readable(ABC):
    """The part of `PartitionLog` for readers."""

    topic: str
    index: int
    log_start_offset: int
    log_end_offset: int
    synced_offset: int
    _segments: Segments
    _state: PartitionState
    _synced: tuple[Segment, int]
    _chain: int | None

    @abstractmethod
    def _write_gathered(self) -> None:
        """Have in the file what the indexes tell of. Raises `LogFailed`."""

    @abstractmethod
    def _note_written(self) -> None:
        """Have in indexes and chain what was appended."""

    @property
    def last_stable_offset(self) -> int:
        """What read_committed may see: below every transaction that is open or whose marker is not on disk."""
        unstable = self._state.transactions.first_unstable
        if unstable is None or unstable > self.synced_offset:
            return self.synced_offset
        return max(unstable, self.log_start_offset)  # a transaction's first records may have been deleted

    @property
    def size_bytes(self) -> int:
        return self._segments.size_bytes()

    @property
    def segments_count(self) -> int:
        return len(self._segments.all())

    def open_transactions(self) -> list[tuple[int, int, int, int]]:
        """(producer id, epoch, first offset, started in wall ms) of each transaction without a marker."""
        return [(*each,) for each in self._state.transactions.open()]

    def read(self, offset: int, max_bytes: int, *, committed: bool = False) -> ReadResult:
        """Whole batches from the one that holds `offset`: at least one, then up to `max_bytes`; none at the end.

        Raises `OffsetOutOfRange`; `OSError` and `CorruptBatch` when the file went bad since it was recovered.
        """
        if not self.log_start_offset <= offset <= self.log_end_offset:
            raise OffsetOutOfRange(
                f"{self.topic}-{self.index} holds {self.log_start_offset} to {self.log_end_offset}, not {offset}"
            )
        stable = self.last_stable_offset
        limit = stable if committed else self.synced_offset
        data, aborted = b"", []
        if offset < limit:
            data, upper = self._segments.read(offset, max_bytes, limit, self._synced)
            if committed and data:
                aborted = self._segments.aborted(offset, upper)
        return ReadResult(data, self.synced_offset, stable, self.log_start_offset, aborted)

    def offset_for_timestamp(self, timestamp_ms: int) -> tuple[int, int] | None:
        """Offset and timestamp of the first record at or after a time, or None."""
        self._note_written()
        self._write_gathered()  # the search reads headers up to the segment's end
        return self._segments.offset_for_timestamp(timestamp_ms, self.log_start_offset, self.synced_offset)

    def newest_timestamp(self) -> tuple[int, int] | None:
        """Offset and timestamp of the newest record (ListOffsets -3), or None; None too when that one was deleted."""
        self._note_written()
        found = self._segments.newest_timestamp()
        return None if found is None or found[0] < self.log_start_offset else found

    def chain_at(self, offset: int) -> int | None:
        """The hash chain's value at a batch boundary; None when `offset` is none, or the history there is unknown."""
        # From the files' first offset on: a batch of which records are deleted is the link to the next.
        if not self._segments.all()[0].base_offset <= offset <= self.log_end_offset:
            return None
        self._note_written()
        if offset == self.log_end_offset:
            return self._chain
        self._write_gathered()
        return self._segments.chain_at(offset)
