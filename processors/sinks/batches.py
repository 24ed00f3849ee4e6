"""Blocks of records cut into batches of lines, and what each batch stands for when it is settled."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.consume.reader import Block
from processors.sinks.points import Line, Mapper, Unfit

Origin = tuple[Block, int]
"""A record: its block and its place in it."""


class Batch:
    """Lines with the records that they came from, records that can be no point, and the offsets behind it all."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.origins: list[Origin] = []
        self.unfit: list[tuple[Origin, str]] = []
        self.offsets: dict[tuple[str, int], int] = {}
        self.bytes = 0
        self.superseded = 0
        self._aggregates: dict[tuple[str, int], int] = {}

    def add(self, line: Line, origin: Origin) -> None:
        """Take a line; a window's later revision takes the place of the earlier one's."""
        self.bytes += len(line.series) + sum(len(name) + len(value) + 2 for name, value in line.fields) + 14
        if origin[0].topic == "aggregates":
            point = (line.series, line.time_ms)
            if (earlier := self._aggregates.get(point)) is not None:
                self.lines[earlier], self.origins[earlier] = line, origin
                self.superseded += 1
                return
            self._aggregates[point] = len(self.lines)
        self.lines.append(line)
        self.origins.append(origin)


class Batcher:
    """Fills a batch until it is full; the driver also takes one that is not, when its time has come."""

    def __init__(self, mapper: Mapper, *, lines_max: int, bytes_max: int) -> None:
        self._mapper = mapper
        self._lines_max = lines_max
        self._bytes_max = bytes_max
        self._batch = Batch()

    @property
    def empty(self) -> bool:
        """Whether nothing waits."""
        return not self._batch.offsets

    def add(self, block: Block) -> Iterator[Batch]:
        """Take a block; yields the batches that are full."""
        where = (block.topic, block.partition)
        for at, line in enumerate(self._mapper.lines(block, 0, len(block.offsets))):
            batch = self._batch
            batch.offsets[where] = block.offsets[at] + 1
            if isinstance(line, Line):
                batch.add(line, (block, at))
            elif isinstance(line, Unfit):
                batch.unfit.append(((block, at), str(line)))
            held = len(batch.lines) + len(batch.unfit)
            if held >= self._lines_max or batch.bytes >= self._bytes_max:
                yield self.take()
        self._batch.offsets[where] = block.next_offset

    def take(self) -> Batch:
        """What has come so far; the next batch begins."""
        batch, self._batch = self._batch, Batch()
        return batch
