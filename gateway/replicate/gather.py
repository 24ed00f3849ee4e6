"""Makes one transaction's bytes out of the local log, a slice at a time, and counts what it settles on the way.

Only what is fsynced and stable is read. Every offset that is passed is settled for a reason: copied, a control batch,
an aborted transaction, or gone (expired, damaged, refused) and then named. A slice is about a millisecond of work, so
the event loop that ingest shares is not held up.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from crc32c import crc32c

from gateway.log.chain import chain_next
from gateway.log.columns import decode_batch
from gateway.log.errors import CorruptBatch
from gateway.log.records import HEADER_BYTES, BatchHeader, Compression, Record, encode_batch, read_header
from gateway.replicate.committed import settled_batches
from gateway.replicate.copies import copy_records, epoch_for, identity, source_bytes
from gateway.replicate.progress import ChainPoint, Gone, Part, spaced, with_gone

SLICE_BYTES = 16 << 10
BATCH_BYTES = 128 << 10
"""Uncompressed; well below a broker's `max.message.bytes` of 1 MiB even where compression does nothing."""
_CRC_START = 21

EXPIRED = "expired"
DAMAGED = "damaged"
REFUSED = "refused"


class ReadAnswer(Protocol):
    """What a partition's `read` gives (`gateway.log.partition.ReadResult`)."""

    @property
    def data(self) -> bytes | bytearray | memoryview: ...
    @property
    def aborted(self) -> Sequence[tuple[int, int]]: ...


class Source(Protocol):
    """The part of `gateway.log.partition.PartitionLog` that replication reads."""

    @property
    def topic(self) -> str: ...
    @property
    def index(self) -> int: ...
    @property
    def log_start_offset(self) -> int: ...
    @property
    def log_end_offset(self) -> int: ...
    @property
    def synced_offset(self) -> int: ...
    @property
    def last_stable_offset(self) -> int: ...
    @property
    def leader_epoch(self) -> int: ...
    @property
    def size_bytes(self) -> int: ...
    def read(self, offset: int, max_bytes: int, *, committed: bool = False) -> ReadAnswer: ...
    def chain_at(self, offset: int) -> int | None: ...
    def begin_epoch(self) -> int: ...


def source_key(source: Source) -> str:
    """`<topic>/<partition>`."""
    return f"{source.topic}/{source.index}"


def behind(sources: Mapping[str, Source], done: Mapping[str, int]) -> tuple[int, int]:
    """(records, bytes) that are stable and not settled; bytes are an estimate from each log's mean."""
    records = waiting_bytes = 0
    for key, source in sources.items():
        waiting = source.last_stable_offset - max(done.get(key, 0), source.log_start_offset)
        if waiting > 0:
            span = max(source.log_end_offset - source.log_start_offset, 1)
            records += waiting
            waiting_bytes += -(-source.size_bytes * waiting // span)
    return records, waiting_bytes


@dataclass
class Position:
    """How far one source partition is settled, and the log's hash chain up to there.

    `chain_offset` is the last batch boundary at or below `done`; `chain_value` is None when it cannot be told.
    """

    done: int
    ranges: list[tuple[int, int]] = field(default_factory=list)
    gone: list[Gone] = field(default_factory=list)
    chain: list[ChainPoint] = field(default_factory=list)
    chain_offset: int = -1
    chain_value: int | None = None

    @classmethod
    def resume(cls, done: int, source: Source, part: Part | None) -> Position:
        """Go on at `done`; `part` is what the progress record says about the source."""
        position = cls(done)
        if part is not None:
            position.ranges = [hole for hole in part.ranges if hole[1] > done and part.done == done]
            position.gone = list(part.gone)
            position.chain = [point for point in part.chain if point[0] <= done]
        position.anchor(source)
        return position

    def copy(self) -> Position:
        return Position(
            self.done, list(self.ranges), list(self.gone), list(self.chain), self.chain_offset, self.chain_value
        )

    def anchor(self, source: Source) -> None:
        """Take up the hash chain at the batch that holds `done`."""
        self.chain_offset, self.chain_value = self.done, None
        with suppress(OSError, CorruptBatch):  # then it cannot be told
            if source.log_start_offset <= self.done < source.log_end_offset:
                data = source.read(self.done, 1).data
                self.chain_offset = read_header(data).base_offset if data else self.done
            self.chain_value = source.chain_at(self.chain_offset)


@dataclass
class Producer:
    """The transactional producer: id, epoch, next sequence number per topic, and how it encodes."""

    id: int
    epoch: int
    compression: Compression
    sequences: dict[str, int] = field(default_factory=dict)

    def batch(self, topic: str, records: Sequence[Record]) -> bytearray:
        """The next batch for a topic's partition (the node writes to one partition of each)."""
        sequence = self.sequences.get(topic, 0)
        self.sequences[topic] = (sequence + len(records)) & 0x7FFFFFFF
        return encode_batch(
            records,
            compression=self.compression,
            producer_id=self.id,
            producer_epoch=self.epoch,
            base_sequence=sequence,
            transactional=True,
        )


class Outgoing(NamedTuple):
    """One batch of copies, of source offsets [start, end)."""

    source: str
    topic: str
    start: int
    end: int
    data: bytearray
    records: int
    last_identity: str


class Load:
    """One transaction in the making: call `step` until it says True; then `batches` and `positions` are its content."""

    def __init__(
        self,
        sources: Mapping[str, Source],
        positions: Mapping[str, Position],
        producer: Producer,
        *,
        node: str,
        raised: Mapping[str, Sequence[tuple[int, int]]],
        until: Mapping[str, int],
        condemned: Mapping[str, Mapping[int, str]],
        bytes_max: int,
    ) -> None:
        self.positions = {key: position.copy() for key, position in positions.items()}
        self.batches: list[Outgoing] = []
        self.source_bytes = 0
        self.gone = 0
        self._sources = sources
        # The end as it is now: who went on while the log grows would never be complete.
        self._stable = {key: source.last_stable_offset for key, source in sources.items()}
        self._producer = producer
        self._node = node
        self._raised = raised
        self._until = until  # source -> offset to stop at: a refused batch is being cut down
        self._condemned = condemned  # source -> offset -> reason: dead-lettered already, to be settled as gone
        self._bytes_max = bytes_max
        keys = [key for key in sources if key in self.positions and self._waits(key)]
        share = max(bytes_max // max(len(keys), 1), 1)
        # Everybody's share first, then whoever has more may fill what is left.
        self._turns = [(key, share) for key in keys] + [(key, bytes_max) for key in keys]
        self._spent = 0
        self._pending: list[Record] = []
        self._pending_bytes = 0
        self._start = 0
        self._last_epoch = 0
        self._last_offset = 0

    @property
    def records(self) -> int:
        """How many copies it carries."""
        return sum(batch.records for batch in self.batches)

    def step(self) -> bool:
        """One slice of reading and encoding; True when the load is complete."""
        while self._turns:
            key, allowance = self._turns[0]
            if self.source_bytes < self._bytes_max and self._spent < allowance and self._waits(key):
                self._read(key)
                return False
            self._flush(key)
            self._close(key)
            self._spent = 0
            del self._turns[0]
        return True

    def _end(self, key: str) -> int:
        done = self.positions[key].done
        stops = [offset for offset in self._condemned.get(key, ()) if offset > done]
        return min([self._stable[key], self._until.get(key, 1 << 62), *stops])

    def _waits(self, key: str) -> bool:
        return self.positions[key].done < self._end(key)

    def _read(self, key: str) -> None:
        source, position = self._sources[key], self.positions[key]
        if position.done < source.log_start_offset:
            self._lose(position, source.log_start_offset, EXPIRED)
            position.anchor(source)
            return
        if (reason := self._condemned.get(key, {}).get(position.done)) is not None:
            self._flush(key)
            self._lose(position, position.done + 1, reason)
            position.anchor(source)  # it may have been the last of its batch, which the chain must not miss
            return
        if not self._pending:
            self._start = position.done
        answer = _answer(source, position.done, SLICE_BYTES) or _answer(source, position.done, 1)
        if answer is not None and not len(answer.data):
            self._turns[0] = (key, 0)
            return
        before = position.done
        if answer is not None:
            self._spent += len(answer.data)
            self.source_bytes += len(answer.data)
            with suppress(CorruptBatch):  # of a batch further on; the next slice begins with it
                self._take_all(key, answer)
        if position.done == before:
            self._pass_over(key)

    def _take_all(self, key: str, answer: ReadAnswer) -> None:
        position = self.positions[key]
        for header, batch, counts in settled_batches(answer.data, answer.aborted):
            if position.done >= self._end(key) or position.done in self._condemned.get(key, ()):
                break
            self._take(key, header, batch, counts=counts)
            if self._pending_bytes >= BATCH_BYTES:
                self._flush(key)

    def _pass_over(self, key: str) -> None:
        """What cannot be read twice over while something above it can is damaged, not a disk that is away."""
        source, position = self._sources[key], self.positions[key]
        readable = _readable_from(source, position.done, self._stable[key])
        if readable is None:
            self._turns[0] = (key, 0)
            return
        self._lose(position, min(readable, self._end(key)), DAMAGED)
        position.anchor(source)

    def _take(self, key: str, header: BatchHeader, batch: memoryview, *, counts: bool) -> None:
        source, position = self._sources[key], self.positions[key]
        end = min(header.next_offset, self._end(key))
        if crc32c(batch[_CRC_START:]) != header.crc:
            self._lose(position, end, DAMAGED)
        elif counts:
            epoch = epoch_for(header.leader_epoch, header.base_offset, self._raised.get(key, ()))
            try:
                columns = decode_batch(batch)
                for low, high in _holes(position, end):
                    copies = copy_records(
                        columns, node=self._node, partition=source.index, epoch=epoch, start=low, end=high
                    )
                    if copies:
                        self._pending += copies
                        self._pending_bytes += source_bytes(copies)
                        self._last_epoch = epoch
                        self._last_offset = columns.offsets[bisect_left(columns.offsets, high) - 1]
            except CorruptBatch:
                self._lose(position, end, DAMAGED)
        position.done = max(position.done, end)
        position.ranges = [hole for hole in position.ranges if hole[1] > position.done]
        if (
            end == header.next_offset
            and position.chain_value is not None
            and header.base_offset >= position.chain_offset
        ):
            position.chain_value = chain_next(position.chain_value, bytes(batch[:HEADER_BYTES]))
            position.chain_offset = end

    def _lose(self, position: Position, end: int, reason: str) -> None:
        self.gone += end - position.done
        position.gone = with_gone(position.gone, position.done, end, reason)
        position.done = end

    def _flush(self, key: str) -> None:
        if self._pending:
            source = self._sources[key]
            last = identity(self._node, self._last_epoch, source.index, self._last_offset)
            data = self._producer.batch(source.topic, self._pending)
            done = self.positions[key].done
            self.batches.append(Outgoing(key, source.topic, self._start, done, data, len(self._pending), last))
            self._start = done
            self._pending = []
            self._pending_bytes = 0

    def _close(self, key: str) -> None:
        position = self.positions[key]
        if position.chain_value is not None and position.chain_offset == position.done:
            points = [point for point in position.chain if point[0] != position.done]
            position.chain = spaced([*points, (position.done, f"{position.chain_value:016x}")], position.done)


def _answer(source: Source, offset: int, max_bytes: int) -> ReadAnswer | None:
    """None where the disk or the framing fails."""
    try:
        return source.read(offset, max_bytes, committed=True)
    except (OSError, CorruptBatch):
        return None


def _readable_from(source: Source, bad: int, end: int) -> int | None:
    """The first offset above `bad` that can be read, found by doubling and halving; None: there is none to be found."""

    def readable(offset: int) -> bool:
        answer = _answer(source, offset, 1)
        with suppress(CorruptBatch):
            return answer is not None and any(
                header.next_offset > offset for header, _, _ in settled_batches(answer.data, ())
            )
        return False

    step = 1
    while not readable(good := min(bad + step, end - 1)):
        if good == end - 1:
            return None
        bad, step = good, step * 2
    while good - bad > 1:
        middle = (bad + good) // 2
        if readable(middle):
            good = middle
        else:
            bad = middle
    return good


def _holes(position: Position, end: int) -> list[tuple[int, int]]:
    """[done, end) without the ranges that are settled already."""
    holes = []
    low = position.done
    for start, stop in position.ranges:
        if start >= end:
            break
        if low < start:
            holes.append((low, start))
        low = max(low, stop)
    if low < end:
        holes.append((low, end))
    return holes
