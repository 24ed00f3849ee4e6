"""What a partition remembers of idempotent producers: sequence numbers, epochs, five last batches (KIP-98, KIP-360).

A producer that is unknown is accepted at any sequence, for its state may have expired or lain in a quarantined range; a
known one with a gap is refused, and a repeated batch is recognised by its sequence numbers and answered with its
offsets. A repeat needs proof: older batches of a producer met in the middle may never have come, and are taken.
Behind a range that is gone, what is remembered on both sides of it still tells repeats; what lay between is taken when
its producer sends it again.
The snapshot is Kafka's (`<offset>.snapshot`, ProducerSnapshot.json version 1).
"""

from __future__ import annotations

import struct
from collections.abc import Container, Mapping
from typing import NamedTuple

from crc32c import crc32c

from gateway.log.errors import DuplicateSequence, InvalidProducerEpoch, OutOfOrderSequence

BATCHES_KEPT = 5
PRODUCERS_MAX = 5_000
_SEQUENCES = 1 << 31
_HEADER = struct.Struct(">hIi")
_ENTRY = struct.Struct(">qhiqiqiq")
_VERSION = 1
_CRC_START = 6


class SequencedBatch(NamedTuple):
    """A batch that a repeat would be recognised by."""

    first_sequence: int
    last_sequence: int
    first_offset: int
    last_offset: int


class _Producer:
    __slots__ = ("any_sequence", "batches", "begin", "coordinator_epoch", "doubtful", "epoch", "rooted", "timestamp")

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.batches: list[SequencedBatch] = []
        self.begin = 0  # the first sequence of this epoch that was met, or must come first
        self.timestamp = -1
        self.coordinator_epoch = -1
        self.any_sequence = False
        # After a range that is gone: so many batches in a row end the doubt.
        self.doubtful = 0
        # Whatever is older than `batches` was in the log, or has long been answered: it can only be a repeat.
        self.rooted = False

    @property
    def in_log(self) -> bool:
        """Whether the log holds anything of it; else it is here because its first batch was refused."""
        return bool(self.batches) or self.any_sequence or self.timestamp >= 0 or self.coordinator_epoch >= 0

    def keep(self, batch: SequencedBatch) -> None:
        """Remember a batch in the order of sequences: in doubt, one that is sent again may belong before others."""
        batches = self.batches
        slot = len(batches)
        if self.doubtful or not self.rooted:
            while slot and _is_before(batch.last_sequence, batches[slot - 1].first_sequence):
                slot -= 1
            in_a_row = slot and (batches[slot - 1].last_sequence + 1) % _SEQUENCES == batch.first_sequence
            if self.doubtful and in_a_row and slot == len(batches):
                self.doubtful -= 1
        if not batches:
            self.begin = batch.first_sequence
        batches.insert(slot, batch)
        if slot == 0 and batch.first_sequence == 0:
            self.rooted = True
        if len(batches) > BATCHES_KEPT:  # as many as may be under way at once
            del batches[0]
            self.rooted = True


def _is_before(last: int, first: int) -> bool:
    """Whether a batch that ends at `last` comes before one that begins at `first`: half the ring counts as older."""
    return (first - 1 - last) % _SEQUENCES < _SEQUENCES // 2


def last_sequence(first: int, count: int) -> int:
    """Sequence numbers wrap to 0 after 2^31 - 1."""
    return (first + count - 1) % _SEQUENCES


class Producers:
    """Known producers by id, the longest silent first; bounded, but none in `pinned` is forgotten.

    `pinned` are the ids with an open transaction: a snapshot without them would show what may yet be taken back.
    """

    __slots__ = ("_gap", "_known", "pinned")

    def __init__(self) -> None:
        self.pinned: Container[int] = ()
        self._known: dict[int, _Producer] = {}
        self._gap = False  # before whatever comes from now on a range is gone

    def __len__(self) -> int:
        return len(self._known)

    @property
    def in_doubt(self) -> bool:
        """Whether more is known of a producer's batches than a snapshot can say."""
        return any(each.batches and (each.doubtful or not each.rooted) for each in self._known.values())

    def epoch(self, producer_id: int) -> int | None:
        producer = self._known.get(producer_id)
        return None if producer is None else producer.epoch

    def last_offsets(self) -> dict[int, int | None]:
        """Per known producer the offset of its last record, None where only its epoch is known."""
        return {
            producer_id: producer.batches[-1].last_offset if producer.batches else None
            for producer_id, producer in self._known.items()
        }

    def check(self, producer_id: int, epoch: int, first: int, last: int) -> SequencedBatch | None:
        """The earlier batch that this one repeats, or None when it may be appended.

        Raises `InvalidProducerEpoch`, `OutOfOrderSequence`, `DuplicateSequence`.
        """
        producer = self._known.get(producer_id)
        if producer is None:
            return None
        if epoch < producer.epoch:
            raise InvalidProducerEpoch(f"Producer {producer_id} writes with epoch {epoch} after epoch {producer.epoch}")
        if epoch > producer.epoch:
            if first != 0 and not producer.any_sequence and not producer.doubtful:
                raise OutOfOrderSequence(f"Producer {producer_id} begins epoch {epoch} at sequence {first}, not at 0")
            return None
        for batch in producer.batches:
            if batch.first_sequence == first and batch.last_sequence == last:
                return batch
        batches = producer.batches
        expected = (batches[-1].last_sequence + 1) % _SEQUENCES if batches else producer.begin
        if first == expected or (producer.any_sequence and not batches):
            return None
        if batches and producer.rooted and _is_before(last, batches[0].first_sequence):
            raise DuplicateSequence(f"Producer {producer_id} repeats sequences {first} to {last}")
        newest = batches[-1].first_sequence if batches else producer.begin
        behind = not producer.rooted and _is_before(last, newest)
        # What overlaps one of the remembered batches is no repeat.
        if (producer.doubtful or behind) and not any(
            first <= batch.last_sequence and batch.first_sequence <= last for batch in batches
        ):
            return None
        raise OutOfOrderSequence(f"Producer {producer_id} sends sequence {first} where {expected} is next")

    def check_marker(self, producer_id: int, epoch: int, coordinator_epoch: int) -> None:
        """Raises `InvalidProducerEpoch` for a marker of an older epoch or an older coordinator."""
        self.check_epoch(producer_id, epoch)
        producer = self._known.get(producer_id)
        if producer is None:
            return
        if coordinator_epoch < producer.coordinator_epoch:
            raise InvalidProducerEpoch(
                f"Marker of coordinator epoch {coordinator_epoch} after epoch {producer.coordinator_epoch}"
            )

    def check_epoch(self, producer_id: int, epoch: int) -> None:
        """Raises `InvalidProducerEpoch` for what a coordinator writes on behalf of a producer that is fenced."""
        known = self.epoch(producer_id)
        if known is not None and epoch < known:
            raise InvalidProducerEpoch(f"Marker of producer {producer_id} epoch {epoch} after epoch {known}")

    def note(self, producer_id: int, epoch: int, batch: SequencedBatch, timestamp: int) -> None:
        """Remember an appended batch."""
        begins = batch.first_sequence == 0 and producer_id not in self._known
        producer = self._touch(producer_id, epoch)
        if begins:
            producer.doubtful = 0  # nothing of it lay in a range that is gone
        producer.keep(batch)
        producer.timestamp = timestamp
        producer.any_sequence = False

    def note_marker(self, producer_id: int, epoch: int, coordinator_epoch: int, timestamp: int) -> None:
        """Remember an appended marker; one with a newer epoch fences and begins again at sequence 0."""
        producer = self._touch(producer_id, epoch)
        producer.coordinator_epoch = coordinator_epoch
        producer.timestamp = timestamp

    def note_epoch(self, producer_id: int, epoch: int, timestamp: int) -> None:
        """Remember a batch that a coordinator appended for a producer, without a sequence."""
        self._touch(producer_id, epoch).timestamp = timestamp

    def refused(self, producer_id: int, epoch: int, first: int) -> None:
        """The batch at sequence `first` did not get in: what an unknown producer sent after it must not come before."""
        if first >= 0 and producer_id not in self._known:
            self._touch(producer_id, epoch).begin = first

    def took_back(self, before: Producers) -> None:
        """The same for each producer that only `before` knows: all its batches since it was met were taken back."""
        for producer_id, producer in before._known.items():
            if producer.batches or not producer.in_log:
                self.refused(producer_id, producer.epoch, producer.begin)

    def forget_sequences(self) -> None:
        """A range is gone and nobody knows whose batches were in it: epochs still fence, any sequence may follow.

        Repeats of what is remembered are still told, for they are in the log.
        """
        self._gap = True
        for producer in self._known.values():
            producer.any_sequence = not producer.batches
            producer.doubtful = BATCHES_KEPT

    def met_all(self) -> None:
        """The log was read to its end: who comes now was not in a range that is gone."""
        self._gap = False

    def _touch(self, producer_id: int, epoch: int) -> _Producer:
        producer = self._known.pop(producer_id, None)
        if producer is None:
            producer = _Producer(epoch)
            producer.any_sequence = self._gap
            producer.doubtful = BATCHES_KEPT if self._gap else 0
            if len(self._known) >= PRODUCERS_MAX:
                silent = next((each for each in self._known if each not in self.pinned), None)
                if silent is not None:
                    del self._known[silent]
        elif producer.epoch != epoch:
            producer.epoch = epoch
            producer.batches = []
            producer.begin = 0
            producer.rooted = False
        self._known[producer_id] = producer
        return producer

    def encode(self, transactions: Mapping[int, int]) -> bytes:
        """A snapshot; `transactions` gives the first offset of each producer's open transaction."""
        entries = []
        for producer_id, producer in self._known.items():
            if not producer.in_log:
                continue
            # In doubt as if none were known: a start must not refuse what may follow.
            known = producer.batches and not producer.doubtful
            batch = producer.batches[-1] if known else SequencedBatch(-1, -1, -1, -1)
            entries.append(
                _ENTRY.pack(
                    producer_id,
                    producer.epoch,
                    batch.last_sequence,
                    batch.last_offset,
                    batch.last_offset - batch.first_offset,
                    producer.timestamp,
                    producer.coordinator_epoch,
                    transactions.get(producer_id, -1),
                )
            )
        body = struct.pack(">i", len(entries)) + b"".join(entries)
        return struct.pack(">hI", _VERSION, crc32c(body)) + body

    @classmethod
    def decode(cls, data: bytes) -> tuple[Producers, dict[int, tuple[int, int, int]]]:
        """The producers and, per producer id with an open transaction, its epoch, first offset and last timestamp.

        Raises `ValueError` when it is no valid snapshot of a known version.
        """
        if len(data) < _HEADER.size:
            raise ValueError("producer snapshot cut short")
        version, crc, count = _HEADER.unpack_from(data)
        if version != _VERSION or crc != crc32c(data[_CRC_START:]) or len(data) != _HEADER.size + count * _ENTRY.size:
            raise ValueError(f"producer snapshot of version {version} is damaged or unknown")
        producers = cls()
        producers.pinned = transactions = dict[int, tuple[int, int, int]]()
        for fields in _ENTRY.iter_unpack(data[_HEADER.size :]):
            producer_id, epoch, last, last_offset, delta, timestamp, coordinator_epoch, first_offset = fields
            producer = producers._touch(producer_id, epoch)
            if last >= 0:
                first = (last - delta) % _SEQUENCES
                producer.batches.append(SequencedBatch(first, last, last_offset - delta, last_offset))
                producer.rooted = True
            else:
                # Kafka's format does not tell forgotten sequences from none.
                producer.any_sequence = True
                producer.doubtful = BATCHES_KEPT
            producer.timestamp = timestamp
            producer.coordinator_epoch = coordinator_epoch
            if first_offset >= 0:
                transactions[producer_id] = (epoch, first_offset, timestamp)
        return producers, transactions
