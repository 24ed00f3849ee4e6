"""One segment of a partition: its files, its indexes, and finding batches in it.

The active segment keeps its handle and its indexes in memory and is indexed exactly as Kafka does it, so that closing
it writes Kafka's files. Closed segments hold neither: `SegmentCache` opens the few that are being read.
"""

from __future__ import annotations

import errno
from array import array
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from itertools import accumulate
from operator import itemgetter

from crc32c import crc32c

from gateway.log.chain import chain_next
from gateway.log.errors import CorruptBatch
from gateway.log.index import NO_TIMESTAMP, OffsetIndex, TimeIndex
from gateway.log.layout import HEADER_BYTES, HEADER_STRUCT, LENGTH_OFFSET
from gateway.log.transactions import AbortedTransaction, decode_aborted
from headwater.disk import Disk, read_checked

_WINDOW_BYTES = 8_192
_HINTS_MAX = 32
CLOSED = -1  # no handle
_MANY = 4  # batches that are sooner noted together than one by one
_SIZE, _NEWEST = itemgetter(0), itemgetter(2)


class Segment:
    """Positions are bytes in `<path>.log`; `size` is its good part, which may be less than the file's."""

    __slots__ = (
        "aborted",
        "aborted_sum",
        "anchor_chains",
        "anchor_positions",
        "base_offset",
        "chain",
        "first_ms",
        "handle",
        "has_aborts",
        "hints",
        "index",
        "index_interval_bytes",
        "newest_known",
        "newest_offset",
        "newest_timestamp",
        "next_offset",
        "path",
        "size",
        "times",
        "unindexed",
    )

    def __init__(self, directory: str, base_offset: int, index_interval_bytes: int) -> None:
        self.base_offset = base_offset
        self.path = f"{directory}/{base_offset:020d}"
        self.index_interval_bytes = index_interval_bytes
        self.size = 0
        self.next_offset = base_offset
        self.handle = CLOSED
        self.index = OffsetIndex()
        self.times = TimeIndex()
        self.newest_timestamp = NO_TIMESTAMP
        self.newest_known = False  # a closed segment's newest timestamp is read when first asked for
        self.newest_offset = base_offset
        self.unindexed = 0
        self.aborted: list[AbortedTransaction] = []
        self.has_aborts = False
        self.aborted_sum: int | None = None  # of the transaction index on the disk, None while that is not known
        # The chain's value at the base, and while active also at each indexed batch.
        self.chain: int | None = None
        self.anchor_positions = array("q")
        self.anchor_chains = array("Q")
        self.first_ms: int | None = None
        self.hints: dict[int, int] = {}

    @property
    def log_path(self) -> str:
        return self.path + ".log"

    def start(self, handle: int) -> None:
        """Become the active segment, to be indexed from its first batch."""
        self.handle = handle
        self.newest_known = True

    def note(self, size: int, last_offset: int, max_timestamp: int, chain: int | None) -> None:
        """Index one batch appended at `self.size`; `chain` is the value before it (Kafka: LogSegment.append)."""
        position = self.size
        self.grow(size, last_offset + 1)
        self.note_all(position, [(size, last_offset, max_timestamp)], None if chain is None else [chain])

    def grow(self, size: int, next_offset: int) -> None:
        """So much has been appended; `note_all` is told of each batch of it sooner or later, in order."""
        self.size += size
        self.next_offset = next_offset

    def note_all(self, position: int, batches: list[tuple[int, int, int]], chains: Sequence[int] | None) -> None:
        """Index batches that follow one another from `position` on, at least one; `chains` are the values before each.

        A batch is its size, last offset and newest timestamp.
        """
        if len(batches) >= _MANY:
            self._note_many(position, batches, chains)
            return
        base, interval, unindexed = self.base_offset, self.index_interval_bytes, self.unindexed
        for slot, (size, last_offset, max_timestamp) in enumerate(batches):
            if max_timestamp > self.newest_timestamp:
                self.newest_timestamp = max_timestamp
                self.newest_offset = last_offset
            if unindexed > interval:
                self.index.append(last_offset - base, position)
                self.times.append(self.newest_timestamp, self.newest_offset - base)
                unindexed = 0
                if chains is not None:
                    self.anchor_positions.append(position)
                    self.anchor_chains.append(chains[slot])
            position += size
            unindexed += size
        self.unindexed = unindexed

    def _note_many(self, position: int, batches: list[tuple[int, int, int]], chains: Sequence[int] | None) -> None:
        """The same: only the batches that get an entry are looked at one by one."""
        starts = list(accumulate(map(_SIZE, batches), initial=position))
        end = starts.pop()
        base, done, indexed_at = self.base_offset, 0, position - self.unindexed
        while (slot := bisect_right(starts, indexed_at + self.index_interval_bytes, done)) < len(batches):
            self._note_newest(batches[done : slot + 1])
            self.index.append(batches[slot][1] - base, starts[slot])
            self.times.append(self.newest_timestamp, self.newest_offset - base)
            if chains is not None:
                self.anchor_positions.append(starts[slot])
                self.anchor_chains.append(chains[slot])
            done, indexed_at = slot + 1, starts[slot]
        if done < len(batches):
            self._note_newest(batches[done:])
        self.unindexed = end - indexed_at

    def _note_newest(self, batches: list[tuple[int, int, int]]) -> None:
        _, last_offset, newest = max(batches, key=_NEWEST)  # the first of those that are equally new
        if newest > self.newest_timestamp:
            self.newest_timestamp, self.newest_offset = newest, last_offset

    def index_files(self) -> dict[str, bytes]:
        """The bytes of each index file of a segment that closes; no `.txnindex` when nothing was aborted."""
        if self.size:
            self.times.append(self.newest_timestamp, self.newest_offset - self.base_offset)
        return {".index": self.index.encode(), ".timeindex": self.times.encode()}

    def hint(self, offset: int, position: int) -> None:
        """A reader that stopped at `position` will come back for `offset`."""
        if len(self.hints) >= _HINTS_MAX:
            self.hints.clear()
        self.hints[offset] = position


def headers(disk: Disk, handle: int, start: int, end: int) -> Iterator[tuple[int, tuple[int, ...], bytes]]:
    """Position, fields and the 61 bytes of each batch header in [start, end); raises `CorruptBatch` for nonsense.

    CRCs are not checked: this is for finding one's way in bytes that were checked when they were appended or recovered.
    """
    position = start
    window = b""
    origin = start
    while position < end:
        near = position - origin
        if near + HEADER_BYTES > len(window):
            window = disk.read_at(handle, min(_WINDOW_BYTES, end - position), position)
            origin, near = position, 0
            if len(window) < HEADER_BYTES:
                raise CorruptBatch(f"Record batch cut short at byte {position}")
        fields = HEADER_STRUCT.unpack_from(window, near)
        size = fields[1] + LENGTH_OFFSET
        if not HEADER_BYTES <= size <= end - position:
            raise CorruptBatch(f"Record batch of {size} bytes at byte {position} of {end}")
        yield position, fields, window[near : near + HEADER_BYTES]
        position += size


def find_batch(disk: Disk, segment: Segment, offset: int, end: int) -> int:
    """The position of the first batch whose last offset is at least `offset`; `end` when there is none below it."""
    found = segment.hints.get(offset)
    if found is not None and found <= end:
        return found
    start = segment.index.position_before(offset - segment.base_offset) if offset > segment.base_offset else 0
    for position, fields, _ in headers(disk, segment.handle, min(start, end), end):
        if fields[0] + fields[6] >= offset:
            return position
    return end


def last_boundary(disk: Disk, segment: Segment, start: int, target: int, end: int) -> tuple[int, int | None]:
    """The end of the last whole batch at or before `target`, but one batch after `start` at least.

    Also the base offset of the batch that begins there, or None at `end`.
    """
    if target >= end:
        return end, None
    floor = max(start, segment.index.boundary_before(target))
    for position, fields, _ in headers(disk, segment.handle, floor, end):
        if position > start and position + fields[1] + LENGTH_OFFSET > target:
            return position, fields[0]
    return end, None


def chain_in(disk: Disk, segment: Segment, offset: int) -> int | None:
    """The chain's value at a batch boundary of this segment; None when `offset` is none or the value is unknown."""
    if segment.chain is None:
        return None
    if offset == segment.base_offset:
        return segment.chain
    value, start = segment.chain, 0
    if segment.anchor_positions:
        limit = find_batch(disk, segment, offset, segment.size)
        slot = bisect_right(segment.anchor_positions, limit)
        if slot:
            value, start = segment.anchor_chains[slot - 1], segment.anchor_positions[slot - 1]
    at = segment.next_offset if start >= segment.size else -1  # the last anchor may stand at the very end
    for _, fields, header in headers(disk, segment.handle, start, segment.size):
        if fields[0] >= offset:
            return value if fields[0] == offset or at == offset else None
        value = chain_next(value, header)
        at = fields[0] + fields[6] + 1
    return value if at == offset else None


class SegmentCache:
    """The closed segments that are open for reading, the longest unused closed first."""

    def __init__(self, disk: Disk, open_max: int = 32) -> None:
        self._disk = disk
        self._open_max = open_max
        self._open: OrderedDict[Segment, None] = OrderedDict()

    def use(self, segment: Segment) -> None:
        """Make a closed segment readable now: its handle, index and aborted list."""
        if segment in self._open:
            self._open.move_to_end(segment)
            return
        if segment.handle != CLOSED:
            return  # active, or closing
        segment.handle = self._disk.open(segment.log_path)
        try:
            load_indexes(self._disk, segment)
        except BaseException:
            self._disk.close(segment.handle)
            segment.handle = CLOSED
            raise
        self.adopt(segment)

    def adopt(self, segment: Segment) -> None:
        """Take over a segment that has just been closed, indexes and handle still in memory."""
        self._open[segment] = None
        while len(self._open) > self._open_max:
            self._release(next(iter(self._open)))

    def release(self, segment: Segment) -> None:
        """Close the segment's handle, active or not, and drop what was read of its indexes."""
        if segment in self._open:
            self._release(segment)
        elif segment.handle != CLOSED:
            self._disk.close(segment.handle)
            segment.handle = CLOSED

    def close(self) -> None:
        for segment in list(self._open):
            self._release(segment)

    def _release(self, segment: Segment) -> None:
        del self._open[segment]
        if segment.handle != CLOSED:
            self._disk.close(segment.handle)
        segment.handle = CLOSED
        segment.index = OffsetIndex()
        segment.times = TimeIndex()
        if segment.aborted and self._disk.exists(segment.path + ".txnindex"):
            segment.aborted = []  # else the disk had no room for it: this is all there is
        segment.hints.clear()
        segment.anchor_positions = array("q")
        segment.anchor_chains = array("Q")


def load_indexes(disk: Disk, segment: Segment) -> bool:
    """Read a closed segment's index files; rebuilds what is missing or damaged, and returns whether it had to.

    Raises `CorruptBatch` for a damaged transaction index: records that were taken back would be read without it.
    """
    if segment.aborted_sum is not None or disk.exists(segment.path + ".txnindex"):
        segment.aborted = read_aborted(disk, segment)
    try:
        index = OffsetIndex.decode(read_checked(disk, segment.path + ".index"), segment.size)
        times = TimeIndex.decode(read_checked(disk, segment.path + ".timeindex"))
        if segment.size and not times.timestamps:
            raise ValueError("time index without its last entry")
        # Before a start has walked the segment its end is not known.
        if times.offsets and times.offsets[-1] >= segment.next_offset - segment.base_offset > 0:
            raise ValueError("time index beyond the end of its segment")
    except (FileNotFoundError, ValueError):
        rebuild_indexes(disk, segment)
        return True
    segment.index, segment.times = index, times
    segment.newest_timestamp, segment.newest_known = times.newest, True
    segment.newest_offset = segment.base_offset + (times.offsets[-1] if times.offsets else 0)
    return False


def read_aborted(disk: Disk, segment: Segment) -> list[AbortedTransaction]:
    """What the segment's transaction index says. Raises `CorruptBatch`, and `OSError` but for a bad sector."""
    path = segment.path + ".txnindex"
    try:
        data = disk.read_file(path)
        if segment.aborted_sum is not None and crc32c(data) != segment.aborted_sum:
            raise ValueError("its checksum is wrong")
        return decode_aborted(data)
    except ValueError as error:
        raise CorruptBatch(f"{path} is damaged: {error}") from error
    except OSError as error:
        if error.errno not in (errno.EIO, errno.ENOENT):
            raise
        raise CorruptBatch(f"{path} cannot be read: {error.strerror}") from error


def rebuild_indexes(disk: Disk, segment: Segment) -> None:
    """Index a closed segment again from its batch headers."""
    end = segment.size
    segment.index, segment.times = OffsetIndex(), TimeIndex()
    segment.newest_timestamp, segment.newest_known, segment.size, segment.unindexed = NO_TIMESTAMP, True, 0, 0
    for position, fields, _ in headers(disk, segment.handle, 0, end):
        if not 0 <= fields[0] + fields[6] - segment.base_offset < 1 << 31:
            raise CorruptBatch(f"Record batch at byte {position} of {segment.log_path} with offset {fields[0]}")
        segment.note(fields[1] + LENGTH_OFFSET, fields[0] + fields[6], fields[8], None)
    segment.index_files()  # adds the time index's last entry
