"""What the inline driver has written: read back after a start, and written on with sequence numbers.

An output is known by its header `hw-out`. Reading from the end that the checkpoint names finds the highest number of
each (rule version, input partition); the driver computes the same outputs again and drops those.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from gateway.consume.reader import Block
from gateway.log.records import Record, decode_headers
from headwater.errors import UNREADABLE, PeerError
from processors.alerts import Instance
from processors.checkpoint import Checkpoint, Writer
from processors.processor import AGGREGATES, ALERTS, OUT_HEADER, Output

_SEQUENCE_MASK = 0x7FFFFFFF  # sequence numbers go from 2^31 - 1 to 0 (KIP-98)
_RECORDS_MAX = 500
_BYTES_MAX = 256 << 10
_OUT = OUT_HEADER.encode()
INDEX_BITS = 24
"""A number with a dot is `<offset of the input record> << INDEX_BITS | <which of its outputs>`."""


class Log(Protocol):
    """The part of `gateway.consume.reader.Reader` that the driver needs; tests hand in one in memory."""

    ends: dict[tuple[str, int], int]

    async def partitions(self, topic: str) -> int: ...
    async def ensure_topic(self, name: str, partitions: int, config: Mapping[str, str] | None = None) -> None: ...
    async def offset(self, topic: str, partition: int, at: str | int) -> int: ...
    def assign(self, positions: Mapping[tuple[str, int], int]) -> None: ...
    async def poll(self, *, max_wait_ms: int = 500, max_bytes: int = 1 << 20) -> list[Block]: ...
    async def init_producer(self) -> tuple[int, int]: ...
    async def produce(
        self,
        topic: str,
        partition: int,
        records: Sequence[Record],
        *,
        producer: tuple[int, int] = (-1, -1),
        base_sequence: int = -1,
    ) -> int: ...
    async def close(self) -> None: ...


class Written:
    """Outputs found in their topics: per (version, input partition) how many, how far and in what state.

    `floors` and `instances` are gathered only when the state must be rebuilt from a log whose start has expired.
    `owns`: whether a version is of this job; others may write to the same topics.
    """

    def __init__(self, *, whole: bool, owns: Callable[[str], bool]) -> None:
        self.whole = whole
        self._owns = owns
        self.records: dict[tuple[str, int], dict[tuple[str, int], int]] = {}
        """How many outputs there are, of those whose numbers have gaps."""
        self.is_torn = False
        """Whether some output partition does not reach as far as the checkpoint says."""
        self.counts: dict[tuple[str, int], int] = {}
        self.floors: dict[tuple[str, int], dict[str, int]] = {}
        self.instances: dict[tuple[str, int], dict[str, Instance]] = {}
        self.by_output: dict[tuple[str, int], dict[tuple[str, int], int]] = {}

    def take(self, block: Block) -> None:
        """Take in a block of an output topic."""
        counts = self.by_output.setdefault((block.topic, block.partition), {})
        for row, headers in enumerate(block.headers):
            if _OUT not in headers or (found := _parse(headers)) is None:
                continue
            version, partition, number, has_gaps = found
            source = (version, partition)
            if not self._owns(version):
                continue
            self.counts[source] = max(self.counts.get(source, 0), number + 1)
            counts[source] = max(counts.get(source, 0), number + 1)
            if has_gaps:
                records = self.records.setdefault((block.topic, block.partition), {})
                records[source] = records.get(source, 0) + 1
            if self.whole:
                self._remember(source, block, row)

    def _remember(self, source: tuple[str, int], block: Block, row: int) -> None:
        key = block.keys[row] or b""
        if block.topic == AGGREGATES:
            node = key.partition(b"/")[0].decode(errors="replace")
            floors = self.floors.setdefault(source, {})
            floors[node] = max(floors.get(node, 0), block.timestamps[row])
            return
        if block.topic != ALERTS:
            return
        try:
            value: dict[str, Any] = msgspec.json.decode(block.values[row] or b"{}")
            instance = Instance(
                *(value["state"], value["since"], value["transition"], value["value"]),
                *(value["at"], value["window"], value["value"]),
            )
            self.instances.setdefault(source, {})[value["instance"]] = instance
        except (*UNREADABLE, KeyError):
            return  # somebody else's record with our header: it changes nothing of ours


def _parse(headers: bytes) -> tuple[str, int, int, bool] | None:
    """(version, input partition, number, whether numbers have gaps): `offset.index` is such a number."""
    try:
        text = (dict(decode_headers(headers)).get(OUT_HEADER) or b"").decode()
        version, partition, number = text.rsplit("/", 2)
        offset, dot, index = number.partition(".")
        return version, int(partition), int(offset) << INDEX_BITS | int(index) if dot else int(offset), bool(dot)
    except (PeerError, ValueError):
        return None


async def read_written(log: Log, topics: Mapping[str, int], checkpoint: Checkpoint, written: Written) -> None:
    """Read output topics (with their partitions) from the checkpoint's ends to their ends; moves those there."""
    for topic, partitions in topics.items():
        for partition in range(partitions):
            end = checkpoint.ends.get(f"{topic}/{partition}", 0)
            earliest = await log.offset(topic, partition, "earliest")
            latest = await log.offset(topic, partition, "latest")
            position = end if earliest <= end <= latest else earliest
            written.is_torn |= position != end
            while position < latest:
                log.assign({(topic, partition): position})
                for block in await log.poll(max_wait_ms=500):
                    written.take(block)
                    position = block.next_offset
            checkpoint.ends[f"{topic}/{partition}"] = position


def writer_after(saved: Writer, known: Mapping[str, int], written: Written, partition: int) -> Writer | None:
    """The writer of a checkpoint behind what it wrote since; None when that cannot be told.

    `known`: how many outputs of each version the checkpoint knows to be written, with 0 for versions new since.
    """
    sequences = dict(saved.sequences)
    for (topic, output), counts in written.by_output.items():
        mine = {version: count for (version, source), count in counts.items() if source == partition}
        if not mine.keys() <= known.keys():
            return None  # other rules ran here for a while
        name = f"{topic}/{output}"
        if (records := written.records.get((topic, output))) is not None:
            if written.is_torn:
                return None
            fresh = sum(count for (_, source), count in records.items() if source == partition)
        else:
            fresh = sum(max(0, count - known[version]) for version, count in mine.items())
        sequences[name] = (sequences.get(name, 0) + fresh) & _SEQUENCE_MASK
    return Writer(saved.producer, sequences)


async def write(log: Log, ends: dict[str, int], writer: Writer, outputs: Sequence[Output], partition: int) -> None:
    """Write outputs in their order, to output partition `partition` what names none. All are on disk afterwards."""
    sorted_out: dict[tuple[str, int], list[Record]] = {}
    for output in outputs:
        target = partition if output.partition is None else output.partition
        sorted_out.setdefault((output.topic, target), []).append(output.record)
    for (topic, target), records in sorted_out.items():
        name = f"{topic}/{target}"
        for batch in _batches(records):
            sequence = writer.sequences.get(name, 0)
            offset = await log.produce(topic, target, batch, producer=writer.producer, base_sequence=sequence)
            writer.sequences[name] = (sequence + len(batch)) & _SEQUENCE_MASK
            ends[name] = max(ends[name], offset + len(batch))


def _batches(records: Sequence[Record]) -> Iterable[list[Record]]:
    batch: list[Record] = []
    size = 0
    for record in records:
        batch.append(record)
        size += len(record[1] or b"") + len(record[2] or b"") + len(record[3])
        if len(batch) >= _RECORDS_MAX or size >= _BYTES_MAX:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
