"""Folding batches of a file into state, chain and indexes: recovery and rollback see what append saw."""

from __future__ import annotations

from gateway.log.chain import chain_next
from gateway.log.columns import control_type, decode_batch
from gateway.log.errors import CorruptBatch
from gateway.log.layout import ATTRIBUTE_CONTROL, HEADER_BYTES
from gateway.log.records import Buffer
from gateway.log.segment import Segment
from gateway.log.state import NO_PRODUCER, PartitionState


class Replay:
    """State and chain up to the batch visited last."""

    def __init__(self, state: PartitionState, chain: int | None) -> None:
        self.state = state
        self.chain = chain
        self._segment: Segment | None = None

    def into(self, segment: Segment | None) -> None:
        """Index what is visited from now on in `segment`, and note its aborted transactions; None for state alone."""
        self._segment = segment

    def visit(self, _position: int, fields: tuple[int, ...], batch: memoryview) -> None:
        segment = self._segment
        if segment is not None:
            segment.note(len(batch), fields[0] + fields[6], fields[8], self.chain)
        if self.chain is not None:
            self.chain = chain_next(self.chain, batch[:HEADER_BYTES])
        if fields[9] == NO_PRODUCER:
            return
        marker = None
        if fields[5] & ATTRIBUTE_CONTROL:
            try:
                marker = read_marker(batch)
            except CorruptBatch:
                return  # a control batch of a kind that is no transaction marker (Kafka has others): not ours to apply
        aborted = self.state.apply(fields, fields[0], fields[8], marker)
        if aborted is not None and segment is not None:
            segment.aborted.append(aborted)
            segment.has_aborts = True


def is_abort(batch: Buffer) -> bool | None:
    """Whether a control batch aborts a transaction; None when it is no transaction marker."""
    try:
        return not control_type(batch)
    except CorruptBatch:
        return None


def read_marker(batch: Buffer) -> tuple[bool, int]:
    """Whether a control batch commits, and its coordinator epoch. Raises `CorruptBatch` when it is no marker."""
    commit = control_type(batch)
    values = decode_batch(batch, accelerate=False).values
    if not values:
        raise CorruptBatch("Control batch that compaction has emptied")
    value = values[0] or b""
    return commit, int.from_bytes(value[2:6], "big", signed=True)
