"""What compaction and retention may do to a partition log, beside appends that never wait for them.

Only closed segments are touched, and only those that a sync round has finished: below the segment that holds the
synced end. All methods are for the loop's thread and return at once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from gateway.log.files import PartitionFiles
from gateway.log.segment import Segment
from gateway.log.segments import Segments
from gateway.log.settings import LogSettings
from gateway.log.state import PartitionState
from gateway.log.transactions import AbortedTransaction


class Upkept(ABC):
    """The part of `PartitionLog` for upkeep."""

    topic: str
    index: int
    log_start_offset: int
    synced_offset: int
    closed: bool
    _unready: bool
    _files: PartitionFiles
    _segments: Segments
    _state: PartitionState
    _synced: tuple[Segment, int]
    _generation: int
    _settings: LogSettings
    _chained: bool
    _chain: int | None

    compacts = False  # whether of each key the latest record is kept, as its topic says now
    trusted_at_stop = True  # whether the next start may take the active segment on trust

    @property
    def files(self) -> PartitionFiles:
        return self._files

    @property
    def generation(self) -> int:
        """Grows with each failed sync: what was planned before it is off."""
        return self._generation

    @property
    def segment_bytes(self) -> int:
        return self._settings.segment_bytes

    @property
    def segment_ms(self) -> int:
        return self._settings.segment_ms

    def segment_sizes(self) -> list[tuple[int, int]]:
        """(base offset, size in bytes) of every segment, the active one last."""
        return [(segment.base_offset, segment.size) for segment in self._segments.all()]

    def obey(self, settings: LogSettings, *, compacted: bool) -> None:
        """Go on with a topic's changed settings. A log that is compacted has no hash chain from then on."""
        self._settings = settings
        self.compacts = compacted
        if compacted:
            self._chained, self._chain = False, None
            for segment in self._segments.all():
                segment.chain = None

    @property
    def active_segment(self) -> Segment:
        return self._segments.active

    def consists_of(self, segment: Segment) -> bool:
        """Whether it is still one of the log's segments."""
        return any(each is segment for each in self._segments.all())

    def closed_segments(self) -> list[Segment]:
        """Segments that are finished on disk and that neither appends nor syncs touch any more, oldest first."""
        limit = self._synced[0].base_offset
        return [segment for segment in self._segments.all() if segment.base_offset < limit]

    def segments_between(self, first: int, end: int) -> list[Segment]:
        """Those with offsets in [first, end), the active one too."""
        return [each for each in self._segments.all() if each.base_offset < end and each.next_offset > first]

    def next_base(self, segment: Segment) -> int:
        """Where the segment after a closed one begins."""
        return self._segments.base_after(segment.base_offset)

    def roll_now(self) -> bool:
        """Close the active segment, so that upkeep may have it after the next sync; False when it is empty or failed.

        Raises `LogFailed`.
        """
        if self._unready or not self._segments.active.size:
            return False
        self._roll()
        return True

    @abstractmethod
    def _roll(self) -> None:
        """Close the active segment and go on in a new one. Raises `LogFailed`."""

    deleted_below = 0
    """Where clients have wished the log to begin."""

    def delete_below(self, offset: int) -> None:
        """Serve nothing below `offset`, at most the synced end, any more; the caller has made that durable."""
        self.deleted_below = max(self.deleted_below, min(offset, self.synced_offset))
        self.log_start_offset = max(self.log_start_offset, self.deleted_below)

    def start_at(self, offset: int) -> list[Segment]:
        """Give up everything below `offset`, a closed segment's end: readers see it gone at once.

        The caller makes the new start durable and then removes the files of the returned segments.
        """
        count = sum(self.next_base(segment) <= offset for segment in self.closed_segments())
        gone = self._segments.drop_first(count)
        self.log_start_offset = max(self.log_start_offset, offset)
        return gone

    def replace_segments(self, old: list[Segment], new: Segment) -> None:
        """Serve `new`, whose files are in place, instead of neighbouring closed segments."""
        self._segments.replace(old, new)

    def aborted_below(self, end_offset: int) -> list[AbortedTransaction]:
        """Transaction index entries of aborts whose marker is below `end_offset`; reads index files."""
        return self._segments.aborted_below(end_offset)

    def last_offsets(self) -> dict[int, int | None]:
        """Per known producer the offset of its last record, None where only its epoch is known."""
        return self._state.producers.last_offsets()
