"""What a read_committed reader sees in fetched bytes: control batches and aborted transactions left out (KIP-98).

The broker sends whole batches up to the last stable offset and a list of aborted transactions that overlap them; the
reader drops the batches of an aborted producer from the transaction's first offset up to its abort marker.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from heapq import heapify, heappop

from gateway.log.records import BatchHeader, Buffer, control_type, read_header, split_batches

Aborted = Iterable[tuple[int, int]]
"""(producer id, first offset)"""


def whole_batches(data: Buffer) -> list[memoryview]:
    """The whole batches of fetched bytes; a broker may cut the last one short (KIP-74), which is left out."""
    view = memoryview(data)
    end = 0
    while len(view) - end >= 12:
        size = int.from_bytes(view[end + 8 : end + 12], "big", signed=True) + 12
        if size <= 12 or end + size > len(view):
            break
        end += size
    return split_batches(view[:end])


def settled_batches(data: Buffer, aborted: Aborted) -> Iterator[tuple[BatchHeader, memoryview, bool]]:
    """Each whole batch as (header, bytes, whether its records count). Raises `CorruptBatch`."""
    waiting = [(first, producer) for producer, first in aborted]
    heapify(waiting)
    open_aborts: set[int] = set()
    for batch in whole_batches(data):
        header = read_header(batch)
        while waiting and waiting[0][0] <= header.last_offset:
            open_aborts.add(heappop(waiting)[1])
        if header.is_control:
            if not control_type(batch):
                open_aborts.discard(header.producer_id)
            yield header, batch, False
        else:
            yield header, batch, not (header.is_transactional and header.producer_id in open_aborts)
