"""Fetched record batches to columns, a part at a time: what aborted transactions wrote and markers are left out."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import NamedTuple

from gateway.log.layout import HEADER_BYTES, LENGTH_OFFSET
from gateway.log.records import check_batch, control_type, decode_batch, read_header, split_batches
from headwater.errors import PeerError


class RecordColumns(NamedTuple):
    """Records of some batches, as in `Block`."""

    offsets: Sequence[int]
    timestamps: Sequence[int]
    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]
    headers: Sequence[bytes]


Decode = Callable[[Sequence[memoryview]], RecordColumns]
"""What makes columns of checked batches; `one_by_one`, or a quicker one that says the same."""


def one_by_one(views: Sequence[bytes | bytearray | memoryview]) -> RecordColumns:
    """Batches whose CRCs were checked, one behind the other. Raises what `gateway.log.columns.decode_batch` does."""
    if len(views) == 1:
        only = decode_batch(views[0])
        return RecordColumns(only.offsets, only.timestamps, only.keys, only.values, only.headers)
    offsets, timestamps, headers = list[int](), list[int](), list[bytes]()
    keys, values = list[bytes | None](), list[bytes | None]()
    for columns in map(decode_batch, views):
        offsets += columns.offsets
        timestamps += columns.timestamps
        keys += columns.keys
        values += columns.values
        headers += columns.headers
    return RecordColumns(offsets, timestamps, keys, values, headers)


class Block(NamedTuple):
    """Records of one partition in offset order; all columns have the same length, which may be 0.

    `headers` are encoded header sections. `next_offset` is where to read on: above the last record's when
    transaction markers or aborted batches followed.
    """

    topic: str
    partition: int
    offsets: Sequence[int]
    timestamps: Sequence[int]
    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]
    headers: Sequence[bytes]
    next_offset: int


def no_records(topic: str, partition: int, position: int) -> Block:
    """A block to be filled, from `position` on."""
    return Block(topic, partition, [], [], [], [], [], position)


class Fetched:
    """The batches of one partition in one answer.

    `next_offset` is where to fetch on, known before anything is decoded; `leader_epoch` the epoch of the last batch, -1
    without one. A last batch that is cut short (the protocol allows it) is left for the next fetch.
    """

    __slots__ = ("_aborted", "_batches", "_begun", "leader_epoch", "next_offset", "position", "size_bytes")

    def __init__(self, position: int, data: bytes | memoryview, aborted: Sequence[tuple[int, int]]) -> None:
        """`aborted` are (producer id, first offset) of aborted transactions. Raises `CorruptBatch`, `PeerError`."""
        self._batches = split_batches(_whole_batches(data))
        self._batches.reverse()  # the next one stands last, here and below
        self._aborted = sorted(aborted, key=lambda item: item[1], reverse=True)
        self._begun: set[int] = set()  # producers whose aborted transaction we are in
        self.position = position
        self.size_bytes = len(data)
        self.next_offset, self.leader_epoch = position, -1
        if self._batches:
            last = read_header(self._batches[0])
            self.next_offset, self.leader_epoch = max(position, last.next_offset), last.leader_epoch

    @property
    def done(self) -> bool:
        return not self._batches

    def take(self, block: Block, records_max: int | None = None, *, decode: Decode = one_by_one) -> Block:
        """`block` with the next batches' records behind its own, until it has `records_max` or more.

        Raises `CorruptBatch` on damage, `MissingCodec`.
        """
        next_offset, waiting, views = block.next_offset, self._aborted, list[memoryview]()
        left = math.inf if records_max is None else records_max - len(block.offsets)
        while self._batches and left > 0:
            view = self._batches.pop()
            header = check_batch(view)
            if header.next_offset <= self.position:
                continue
            while waiting and waiting[-1][1] <= header.last_offset:
                self._begun.add(waiting.pop()[0])
            next_offset = header.next_offset
            if header.is_control:
                if not control_type(view):
                    self._begun.discard(header.producer_id)
            elif not (header.is_transactional and header.producer_id in self._begun):
                views.append(view)
                left -= header.count
        if views:
            block = _longer(block, decode(views), self.position)
        return block._replace(next_offset=next_offset)


def decode_fetched(
    topic: str,
    partition: int,
    position: int,
    data: bytes | memoryview,
    aborted: Sequence[tuple[int, int]],
    *,
    decode: Decode = one_by_one,
) -> Block:
    """Fetched batches as one block from `position` on; raises what `Fetched` does."""
    return Fetched(position, data, aborted).take(no_records(topic, partition, position), decode=decode)


def _whole_batches(data: bytes | memoryview) -> memoryview:
    """The part of a fetch that holds whole batches: a broker may cut the last one at the byte limit."""
    view = memoryview(data)
    end = 0
    while len(view) - end >= HEADER_BYTES:
        size = int.from_bytes(view[end + 8 : end + 12], "big", signed=True) + LENGTH_OFFSET
        if size < HEADER_BYTES:
            return view  # damage, not a cut: the splitter says so
        if end + size > len(view):
            break
        end += size
    if not end and len(view):
        raise PeerError(f"the node sent {len(view)} bytes that hold no whole record batch")
    return view[:end]


def _longer(block: Block, more: RecordColumns, position: int) -> Block:
    """The block with these records behind its own, from `position` on."""
    if skip := bisect_left(more.offsets, position):
        offsets, timestamps = more.offsets[skip:], more.timestamps[skip:]
        more = RecordColumns(offsets, timestamps, more.keys[skip:], more.values[skip:], more.headers[skip:])
    if block.offsets:
        more = RecordColumns(
            [*block.offsets, *more.offsets],
            [*block.timestamps, *more.timestamps],
            [*block.keys, *more.keys],
            [*block.values, *more.values],
            [*block.headers, *more.headers],
        )
    return Block(block.topic, block.partition, *more, block.next_offset)
