"""What was appended and is not indexed and chained yet: who waits for the disk need not wait for that too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate, repeat
from operator import add, itemgetter

from gateway.log.chain import chain_all
from gateway.log.layout import HEADER_BYTES
from gateway.log.plan import PlannedBatch
from gateway.log.records import Buffer
from gateway.log.segment import Segment

_SIZE = itemgetter(0)


class Unnoted:
    """Appends to one active segment, in order. Indexes without them are right as far as they go."""

    __slots__ = ("_appends",)

    def __init__(self) -> None:
        self._appends: list[tuple[int, Buffer, list[PlannedBatch]]] = []

    def add(self, position: int, data: Buffer, batches: list[PlannedBatch]) -> None:
        """Bytes at a position of the segment, which stay as they are until `note`."""
        self._appends.append((position, data, batches))

    def note(self, segment: Segment, chain: int | None) -> int | None:
        """Index all of it in `segment`; takes the chain's value before it, if there is one, and gives that after it."""
        if self._appends:
            appends, self._appends = self._appends, []
            for position, data, batches in appends:
                links = None
                if chain is not None:
                    *links, chain = chain_all(chain, _headers(data, batches))
                segment.note_all(position, batches, links)
        return chain


def _headers(data: Buffer, batches: Sequence[PlannedBatch]) -> Iterator[Buffer]:
    starts = list(accumulate(map(_SIZE, batches), initial=0))
    starts.pop()
    return map(data.__getitem__, map(slice, starts, map(add, starts, repeat(HEADER_BYTES))))
