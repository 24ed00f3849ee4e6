"""What a partition derives from its batches: producers, transactions. The same fold serves appending and recovery."""

from __future__ import annotations

from gateway.log.errors import CorruptBatch, InvalidTransactionState
from gateway.log.layout import ATTRIBUTE_CONTROL, ATTRIBUTE_TRANSACTIONAL
from gateway.log.producers import Producers, SequencedBatch, last_sequence
from gateway.log.transactions import AbortedTransaction, OpenTransaction, Transactions

NO_PRODUCER = -1
NO_SEQUENCE = -1


class PartitionState:
    """Producers and transactions up to the written end."""

    __slots__ = ("producers", "transactions")

    def __init__(self) -> None:
        self.producers = Producers()
        self.transactions = Transactions()
        self.producers.pinned = self.transactions

    def check(
        self, fields: tuple[int, ...], coordinator_epoch: int | None, *, coordinator: bool = False
    ) -> SequencedBatch | None:
        """Whether a batch may be appended; returns the earlier batch that it repeats.

        `coordinator_epoch` is None for what is no marker of a coordinator. A `coordinator` may also write, for a
        producer, data that has no sequence: offsets within a transaction. Raises the classes of `gateway.log.errors`.
        """
        attributes, producer_id, epoch, sequence = fields[5], fields[9], fields[10], fields[11]
        if attributes & ATTRIBUTE_CONTROL:
            if coordinator_epoch is None:
                raise InvalidTransactionState("A client sent a control batch; only the coordinator writes markers")
            self.producers.check_marker(producer_id, epoch, coordinator_epoch)
            return None
        if producer_id == NO_PRODUCER:
            if attributes & ATTRIBUTE_TRANSACTIONAL:
                raise InvalidTransactionState("A transactional batch without a producer id")
            return None
        if coordinator and sequence == NO_SEQUENCE and producer_id >= 0 and epoch >= 0:
            self.producers.check_epoch(producer_id, epoch)
            return None
        if producer_id < 0 or epoch < 0 or sequence < 0:
            raise CorruptBatch(f"Record batch of producer {producer_id} epoch {epoch} with base sequence {sequence}")
        repeated = self.producers.check(producer_id, epoch, sequence, last_sequence(sequence, fields[12]))
        if (
            repeated is None
            and not attributes & ATTRIBUTE_TRANSACTIONAL
            and self.transactions.first_offset(producer_id) is not None
        ):
            raise InvalidTransactionState(f"Producer {producer_id} has a transaction open and wrote a batch outside it")
        return repeated

    def apply(
        self, fields: tuple[int, ...], base_offset: int, now_ms: int, marker: tuple[bool, int] | None
    ) -> AbortedTransaction | None:
        """Fold in a batch with a producer id, appended at `base_offset`.

        `marker` is (commit, coordinator epoch) of a control batch. Returns the index entry of a transaction it aborts.
        """
        attributes, producer_id, epoch = fields[5], fields[9], fields[10]
        if marker is not None:
            commit, coordinator_epoch = marker
            self.producers.note_marker(producer_id, epoch, coordinator_epoch, fields[8])
            return self.transactions.end(producer_id, base_offset, commit=commit)
        if fields[11] == NO_SEQUENCE:
            self.producers.note_epoch(producer_id, epoch, fields[8])
        else:
            last = base_offset + fields[6]
            # By offsets, not by records: compaction takes records out of a batch and leaves its sequences as they were.
            batch = SequencedBatch(fields[11], last_sequence(fields[11], fields[6] + 1), base_offset, last)
            self.producers.note(producer_id, epoch, batch, fields[8])
        if attributes & ATTRIBUTE_TRANSACTIONAL:
            self.transactions.begin(OpenTransaction(producer_id, epoch, base_offset, now_ms))
        return None

    def snapshot(self) -> bytes:
        return self.producers.encode({each.producer_id: each.first_offset for each in self.transactions.open()})

    @classmethod
    def restore(cls, snapshot: bytes) -> PartitionState:
        """Raises `ValueError` when the snapshot is damaged."""
        state = cls()
        state.producers, transactions = Producers.decode(snapshot)
        state.producers.pinned = state.transactions
        for producer_id, (epoch, first_offset, timestamp) in transactions.items():
            state.transactions.begin(OpenTransaction(producer_id, epoch, first_offset, timestamp))
        return state
