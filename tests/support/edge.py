"""A naive edge log for tests of replication: a list of batches, a synced end, and what a power cut takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from gateway.log.chain import chain_next
from gateway.log.errors import OffsetOutOfRange
from gateway.log.records import HEADER_BYTES, NO_HEADERS, Record, encode_batch, encode_control, patch, read_header


class Answer(NamedTuple):
    data: bytes
    aborted: list[tuple[int, int]]


class NaiveLog:
    """One source partition. `leader_epoch` is stamped into batches as `PartitionLog` does."""

    def __init__(self, topic: str = "readings", index: int = 0) -> None:
        self.topic = topic
        self.index = index
        self.leader_epoch = 0
        self.batches: list[bytes] = []
        self.aborted: list[tuple[int, int, int]] = []
        self.log_start_offset = 0
        self.log_end_offset = 0
        self.synced_offset = 0
        self._subscribers: list[Callable[[], None]] = []

    @property
    def last_stable_offset(self) -> int:
        return self.synced_offset

    @property
    def size_bytes(self) -> int:
        return sum(len(batch) for batch in self.batches)

    def add(self, records: Sequence[Record], **options: object) -> int:
        """Append one batch; returns its first offset."""
        return self._append(encode_batch(records, **options))  # type: ignore[arg-type]

    def add_aborted(self, records: Sequence[Record], producer_id: int) -> None:
        first = self.add(records, producer_id=producer_id, producer_epoch=0, base_sequence=0, transactional=True)
        marker = encode_control(
            commit=False, producer_id=producer_id, producer_epoch=0, coordinator_epoch=0, timestamp_ms=1
        )
        self.aborted.append((producer_id, first, self._append(marker)))

    def _append(self, batch: bytearray) -> int:
        base = self.log_end_offset
        patch(batch, 0, base, self.leader_epoch)
        self.batches.append(bytes(batch))
        self.log_end_offset = read_header(batch).next_offset
        return base

    def sync(self) -> None:
        self.synced_offset = self.log_end_offset

    def power_cut(self) -> None:
        self.batches = [batch for batch in self.batches if read_header(batch).base_offset < self.synced_offset]
        self.aborted = [entry for entry in self.aborted if entry[2] < self.synced_offset]
        self.log_end_offset = self.synced_offset

    def expire(self, offset: int) -> None:
        self.batches = [batch for batch in self.batches if read_header(batch).next_offset > offset]
        self.log_start_offset = offset

    def begin_epoch(self) -> int:
        self.leader_epoch += 1
        return self.leader_epoch

    def read(self, offset: int, max_bytes: int, *, committed: bool = False) -> Answer:
        if not self.log_start_offset <= offset <= self.log_end_offset:
            raise OffsetOutOfRange(f"{offset}")
        data, upper = b"", offset
        for batch in self.batches:
            header = read_header(batch)
            if offset < header.next_offset <= self.synced_offset:
                if data and len(data) + len(batch) > max_bytes:
                    break
                data += batch
                upper = header.next_offset
        return Answer(data, [(p, first) for p, first, last in self.aborted if last >= offset and first < upper])

    def chain_at(self, offset: int) -> int | None:
        value = 0
        for batch in self.batches:
            header = read_header(batch)
            if header.base_offset >= offset:
                break
            value = chain_next(value, batch[:HEADER_BYTES])
        boundaries = {0, *(read_header(batch).next_offset for batch in self.batches)}
        return value if offset in boundaries and self.log_start_offset == 0 else None


def reading(number: int, headers: bytes = NO_HEADERS) -> Record:
    """A record that is unlike any other."""
    return (1_700_000_000_000 + number, b"edge-1/pump%d" % (number % 3), b'{"n":%d}' % number, headers)
