"""Compaction of one partition log: two passes over its closed segments, in steps that its caller spaces out.

Appends never wait: segments that they touch are left alone, and what blocks on the disk is done off the loop.

How the new files take the place of the old ones, so that a crash at any point recovers: `gateway.log.swap`.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Generator
from functools import partial
from typing import NamedTuple

from crc32c import crc32c

from gateway.log.chain import CHAIN_START, chain_next
from gateway.log.compaction import Compactor, Fates, KeyMap, decode_in_steps, empty_batch
from gateway.log.errors import CorruptBatch
from gateway.log.layout import ATTRIBUTE_CONTROL, HEADER_BYTES, HEADER_STRUCT, LENGTH_OFFSET
from gateway.log.partition import PartitionLog
from gateway.log.replay import is_abort
from gateway.log.segment import Segment
from gateway.log.steps import Step, Steps
from gateway.log.swap import CLEANED, clear_swapped, commit_cleaned, swap_in
from gateway.log.topic_config import TopicConfig
from gateway.log.transactions import encode_aborted
from headwater.disk import Disk

_CHUNK_BYTES = 256 << 10
_CRC_START = 21
_RELATIVE_OFFSET_MAX = (1 << 31) - 1


class Cleaned(NamedTuple):
    """What a pass did: below `end_offset` each key is there once; `segments` counts those that were rewritten."""

    end_offset: int
    segments: int
    records_removed: int
    bytes_before: int
    bytes_after: int


class _Source:
    """Reads a closed segment's whole batches, checked by their CRCs, a chunk at a time."""

    def __init__(self, disk: Disk, segment: Segment) -> None:
        self._disk = disk
        self._path = segment.log_path
        self._size = segment.size
        self._position = 0
        self._handle: int | None = None
        self.batches: list[tuple[tuple[int, ...], memoryview]] = []

    def load(self) -> None:
        """Blocks: replaces `batches` with the next ones, none at the end. Raises `OSError`, `CorruptBatch`."""
        if self._handle is None:
            self._handle = self._disk.open(self._path)
        self.batches = []
        chunk = self._read(min(_CHUNK_BYTES, self._size - self._position))
        near = 0
        while near + HEADER_BYTES <= len(chunk):
            fields = HEADER_STRUCT.unpack_from(chunk, near)
            size = fields[1] + LENGTH_OFFSET
            if not HEADER_BYTES <= size <= self._size - self._position - near:
                raise CorruptBatch(f"Record batch of {size} bytes in {self._path} at byte {self._position + near}")
            if near + size > len(chunk):
                if near:
                    break
                chunk = self._read(size)
            view = memoryview(chunk)[near : near + size]
            if crc32c(view[_CRC_START:]) != fields[4]:
                raise CorruptBatch(f"Record batch with a wrong CRC in {self._path} at byte {self._position + near}")
            self.batches.append((fields, view))
            near += size
        if not self.batches and self._position < self._size:
            raise CorruptBatch(f"Record batch cut short in {self._path} at byte {self._position}")
        self._position += near

    def _read(self, size: int) -> bytes:
        assert self._handle is not None  # noqa: S101 - opened by `load`
        return self._disk.read_at(self._handle, size, self._position)

    def close(self) -> None:
        if self._handle is not None:
            self._disk.close(self._handle)
            self._handle = None


class Cleaner:
    """One pass over one log; ask `worth` first, then take `steps` to their end, then read `result`."""

    def __init__(
        self, log: PartitionLog, config: TopicConfig, *, cleaned_offset: int, now_ms: int | None, keys_max: int
    ) -> None:
        """`now_ms` is None while the clock is not trusted. Below `cleaned_offset` earlier passes have been."""
        self._log = log
        self._disk = log.files.disk
        self._config = config
        self._start = max(cleaned_offset, log.log_start_offset)
        self._now_ms = now_ms
        self._keys = KeyMap(keys_max)
        self._generation = log.generation
        stable = log.last_stable_offset
        self._segments = [each for each in log.closed_segments() if log.next_base(each) <= stable]
        self._bytes_before = 0
        self.result: Cleaned | None = None

    def worth(self) -> bool:
        """Whether enough was written since the last pass (`min.cleanable.dirty.ratio`)."""
        total = sum(segment.size for segment in self._segments)
        dirty = sum(segment.size for segment in self._segments if self._log.next_base(segment) > self._start)
        return dirty > 0 and dirty >= self._config.min_cleanable_ratio * total

    def steps(self) -> Steps:
        """Raises `OSError`, `CorruptBatch`, `MissingCodec`; what was swapped by then stays, the rest is as before."""
        yield from self._map_keys()
        waiting = deque(each for each in self._segments if each.base_offset < self._keys.end_offset)
        segments, after = len(waiting), 0
        compactor = Compactor(
            self._keys,
            # The last segment may go on beyond the mapped keys: its transactions are judged as well.
            self._log.aborted_below(self._log.next_base(waiting[-1])),
            now_ms=self._now_ms,
            delete_retention_ms=self._config.delete_retention_ms,
            retained=self._retained(),
        )
        while waiting:
            new = yield from self._rewrite(waiting, compactor)
            if new is None:
                return  # the log is gone, or went back after a failed sync: another time
            after += new.size
        self.result = Cleaned(self._keys.end_offset, segments, compactor.records_removed, self._bytes_before, after)

    # -- the first pass

    def _map_keys(self) -> Steps:
        keys = self._keys
        dirty = [segment for segment in self._segments if self._log.next_base(segment) > self._start]
        # Of a transaction whose marker lies before nothing can come.
        aborted = self._log.aborted_below(self._log.last_stable_offset)
        fates = Fates(entry for entry in aborted if entry.last_offset >= dirty[0].base_offset)
        for segment in dirty:
            next_base = self._log.next_base(segment)
            source = _Source(self._disk, segment)
            try:
                while (yield from self._load(source)):
                    for fields, view in source.batches:
                        if not (yield from self._map_batch(fields, view, fates)):
                            keys.end_offset = fields[0]
                            return
                        yield None
            finally:
                source.close()
            keys.end_offset = next_base

    def _map_batch(self, fields: tuple[int, ...], view: memoryview, fates: Fates) -> Generator[Step, None, bool]:
        if fields[5] & ATTRIBUTE_CONTROL:
            fates.marker(fields, abort=is_abort(view))
            return True
        if fates.data(fields) or not fields[12] or fields[0] + fields[6] < self._start:
            return True
        columns = yield from decode_in_steps(view)
        return (yield from self._keys.add(columns))

    def _load(self, source: _Source) -> Generator[Step, None, bool]:
        yield source.load
        return bool(source.batches)

    # -- the second pass

    def _retained(self) -> set[int]:
        return {offset for offset in self._log.last_offsets().values() if offset is not None}

    def _rewrite(self, waiting: deque[Segment], compactor: Compactor) -> Generator[Step, None, Segment | None]:
        """Write the next segment out of the oldest ones of `waiting`; None when the log went another way meanwhile."""
        new = self._log.files.segment(waiting[0].base_offset)
        new.newest_known = True
        path = new.log_path + CLEANED
        rewritten = self._log.files.rewritten
        if self._disk.exists(path):  # left by a pass that failed: what it noted never came to be
            yield partial(rewritten.forget, [new.base_offset])
        target = self._disk.open(path, create=True)
        group: list[Segment] = []
        try:
            self._disk.truncate(target, 0)
            changed, chain = yield from self._fill(new, target, group, waiting, compactor)
            if changed or len(group) > 1:
                yield lambda: self._disk.sync(target)
        except BaseException:
            with contextlib.suppress(OSError):
                self._disk.remove(path)
            raise
        finally:
            self._disk.close(target)
        new.aborted, compactor.fates.kept = compactor.fates.kept, []
        self._bytes_before += sum(segment.size for segment in group)
        if not changed and len(group) == 1:
            self._disk.remove(path)
            return group[0]
        files = new.index_files() | {".txnindex": encode_aborted(new.aborted)}
        yield partial(self._note_aborted, new, files[".txnindex"])
        note = partial(rewritten.note, new.base_offset, chain, [segment.base_offset for segment in group])
        yield lambda: commit_cleaned(self._disk, self._log.files.directory, new.path, files, note)
        if self._log.closed or self._log.generation != self._generation:
            return None  # the next start finishes the swap, or the topic is deleted with it
        swap_in(self._disk, new.path, [segment.path for segment in group[1:]])
        new.has_aborts = bool(new.aborted)
        self._log.replace_segments(group, new)
        yield lambda: clear_swapped(self._disk, self._log.files.directory, new.path, [each.path for each in group[1:]])
        return new

    def _note_aborted(self, new: Segment, index: bytes) -> None:
        new.aborted_sum = self._log.files.aborted_sums.note(new.base_offset, index)

    def _fill(
        self, new: Segment, target: int, group: list[Segment], waiting: deque[Segment], compactor: Compactor
    ) -> Generator[Step, None, tuple[bool, int]]:
        """Write as many segments as surely fit; they go from `waiting` to `group`.

        Returns whether anything changed, and the chain over what was written.
        """
        changed, chain = False, CHAIN_START
        while not group or (waiting and self._fits(new, waiting[0])):
            segment = waiting.popleft()
            group.append(segment)
            source = _Source(self._disk, segment)
            try:
                while (yield from self._load(source)):
                    out = bytearray()
                    for fields, view in source.batches:
                        data = yield from compactor.compact(fields, view)
                        if data is None and fields[0] + fields[6] + 1 == segment.next_offset:
                            data = self._last(new, fields, view, waiting)
                        changed = changed or data is not view
                        if data is not None:
                            newest = HEADER_STRUCT.unpack_from(data)[8]
                            new.note(len(data), fields[0] + fields[6], newest, None)
                            chain = chain_next(chain, memoryview(data)[:HEADER_BYTES])
                            out += data
                        yield None
                    yield partial(self._disk.append, target, out)
            finally:
                source.close()
        return changed, chain

    def _fits(self, new: Segment, following: Segment) -> bool:
        span = self._log.next_base(following) - new.base_offset
        return new.size + following.size <= self._log.segment_bytes and span <= _RELATIVE_OFFSET_MAX

    def _last(
        self, new: Segment, fields: tuple[int, ...], view: memoryview, waiting: deque[Segment]
    ) -> bytearray | memoryview | None:
        """What stays of a segment's last batch when nothing in it does: the new segment's end is read from there."""
        if waiting and self._fits(new, waiting[0]):
            return None
        return view if fields[5] & ATTRIBUTE_CONTROL else empty_batch(fields)
