"""The segments of one partition as one sequence of batches: finding, reading, times and aborted transactions."""

from __future__ import annotations

from bisect import bisect_right

from gateway.log.columns import decode_batch
from gateway.log.errors import MissingCodec
from gateway.log.index import NO_TIMESTAMP
from gateway.log.layout import LENGTH_OFFSET
from gateway.log.segment import Segment, SegmentCache, chain_in, find_batch, headers, last_boundary
from gateway.log.transactions import AbortedTransaction
from headwater.disk import Disk


class Segments:
    """Ascending by base offset; the last one is active."""

    def __init__(self, disk: Disk, cache: SegmentCache, segments: list[Segment]) -> None:
        self._disk = disk
        self._cache = cache
        self._all = segments
        self._bases = [segment.base_offset for segment in segments]
        # Segments that may hold entries of a transaction index, ascending.
        self._with_aborts = [segment for segment in segments if segment.has_aborts]

    @property
    def active(self) -> Segment:
        return self._all[-1]

    def all(self) -> list[Segment]:
        return self._all

    def size_bytes(self) -> int:
        return sum(segment.size for segment in self._all)

    def add(self, segment: Segment) -> None:
        self._all.append(segment)
        self._bases.append(segment.base_offset)

    def pop(self) -> Segment:
        """Take the last segment away."""
        self._bases.pop()
        segment = self._all.pop()
        if segment in self._with_aborts:
            self._with_aborts.remove(segment)
        return segment

    def base_after(self, base_offset: int) -> int:
        """The base of the segment after the one that begins there, which must not be the active one."""
        return self._bases[bisect_right(self._bases, base_offset)]

    def drop_first(self, count: int) -> list[Segment]:
        """Take the oldest segments away, at most all but the active one."""
        gone = self._all[: min(count, len(self._all) - 1)]
        self._splice(0, len(gone), [])
        return gone

    def replace(self, old: list[Segment], new: Segment) -> None:
        """Put one closed segment in the place of neighbours."""
        slot = self._all.index(old[0])
        self._splice(slot, len(old), [new])

    def _splice(self, slot: int, count: int, new: list[Segment]) -> None:
        for segment in self._all[slot : slot + count]:
            self._cache.release(segment)
        self._all[slot : slot + count] = new
        self._bases = [segment.base_offset for segment in self._all]
        self._with_aborts = [segment for segment in self._all if segment.has_aborts]

    def aborted_below(self, end_offset: int) -> list[AbortedTransaction]:
        """The entries of every transaction index whose marker is below `end_offset`."""
        found: list[AbortedTransaction] = []
        for segment in self._with_aborts:
            if segment.base_offset >= end_offset:
                break
            self._cache.use(segment)
            found += [entry for entry in segment.aborted if entry.last_offset < end_offset]
        return found

    def note_abort(self, segment: Segment) -> None:
        """The segment has its first aborted transaction."""
        segment.has_aborts = True
        if not self._with_aborts or self._with_aborts[-1] is not segment:
            self._with_aborts.append(segment)

    def holding(self, offset: int) -> int:
        """The slot of the segment in which `offset` lies."""
        return max(0, bisect_right(self._bases, offset) - 1)

    def read(self, offset: int, max_bytes: int, limit_offset: int, synced: tuple[Segment, int]) -> tuple[bytes, int]:
        """Whole batches from the one that holds `offset` (or the next after a gap), ending at or below `limit_offset`.

        At least one batch, then at most `max_bytes`; never past `synced` (segment and position). Also the offset that
        the data ends before. Raises `CorruptBatch` when the file's framing is damaged.
        """
        for slot in range(self.holding(offset), len(self._all)):
            segment = self._all[slot]
            if segment.base_offset >= limit_offset:
                break
            self._cache.use(segment)
            end = self._end_position(segment, limit_offset, synced)
            start = find_batch(self._disk, segment, offset, end)
            if start >= end:
                continue
            stop, next_base = last_boundary(self._disk, segment, start, start + max_bytes, end)
            upper = min(segment.next_offset, limit_offset) if next_base is None else next_base
            segment.hint(upper, stop)
            return self._disk.read_at(segment.handle, stop - start, start), upper
        return b"", limit_offset

    def _end_position(self, segment: Segment, limit_offset: int, synced: tuple[Segment, int]) -> int:
        end = synced[1] if segment is synced[0] else segment.size
        if segment.next_offset <= limit_offset or (segment is synced[0] and self._ends_at(segment, end, limit_offset)):
            return end
        return find_batch(self._disk, segment, limit_offset, end)

    def _ends_at(self, segment: Segment, end: int, limit_offset: int) -> bool:
        # The synced end is by far the most usual limit: the hint that marks it spares a search.
        return segment.hints.get(limit_offset) == end

    def aborted(self, offset: int, upper_offset: int) -> list[tuple[int, int]]:
        """(producer id, first offset) of every aborted transaction with records in [offset, upper_offset)."""
        found: list[tuple[int, int]] = []
        for segment in self._with_aborts:
            if segment.next_offset <= offset:
                continue
            self._cache.use(segment)
            for entry in segment.aborted:
                if entry.last_offset >= offset and entry.first_offset < upper_offset:
                    found.append((entry.producer_id, entry.first_offset))
                if entry.last_stable_offset >= upper_offset:
                    return found
        return found

    def offset_for_timestamp(self, timestamp: int, first_offset: int, limit_offset: int) -> tuple[int, int] | None:
        """Offset and timestamp of the first record in [first_offset, limit_offset) that is not older."""
        for segment in self._all[self.holding(first_offset) :]:
            if segment.base_offset >= limit_offset:
                return None
            if not segment.newest_known:
                self._cache.use(segment)
            if segment.newest_timestamp < timestamp:
                continue
            self._cache.use(segment)
            near = segment.base_offset + segment.times.offset_before(timestamp)
            start = find_batch(self._disk, segment, max(near, first_offset), segment.size)
            for position, fields, _ in headers(self._disk, segment.handle, start, segment.size):
                if fields[0] >= limit_offset:
                    return None
                if fields[8] >= timestamp:
                    found = self._first_not_older(segment, position, fields, timestamp, first_offset)
                    if found is not None:
                        return found
        return None

    def _first_not_older(
        self, segment: Segment, position: int, fields: tuple[int, ...], timestamp: int, first_offset: int
    ) -> tuple[int, int] | None:
        batch = self._disk.read_at(segment.handle, fields[1] + LENGTH_OFFSET, position)
        try:
            columns = decode_batch(batch)
        except MissingCodec:
            return max(fields[0], first_offset), fields[7]  # the batch's beginning is the nearest that can be said
        for offset, each in zip(columns.offsets, columns.timestamps, strict=True):
            if each >= timestamp and offset >= first_offset:
                return offset, each
        return None  # compaction took the record out that the batch's time tells of, or it is deleted

    def newest_timestamp(self) -> tuple[int, int] | None:
        """Offset and value of the greatest timestamp; the offset is that of its batch's last record."""
        best: tuple[int, int] | None = None
        for segment in self._all:
            if not segment.newest_known:
                self._cache.use(segment)
            if segment.newest_timestamp != NO_TIMESTAMP and (best is None or segment.newest_timestamp > best[1]):
                best = segment.newest_offset, segment.newest_timestamp
        return best

    def chain_at(self, offset: int) -> int | None:
        """The hash chain's value at a batch boundary, or None when it is unknown."""
        segment = self._all[self.holding(offset)]
        if segment.chain is None:
            return None
        self._cache.use(segment)
        return chain_in(self._disk, segment, offset)

    def chain_anchors(self) -> dict[int, int]:
        return {segment.base_offset: segment.chain for segment in self._all if segment.chain is not None}

    def close(self) -> None:
        """Give back every handle."""
        for segment in self._all:
            self._cache.release(segment)
