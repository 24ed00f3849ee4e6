"""A transactional id's state, its table of transitions, and Kafka's records of it in `__transaction_state`.

Sources: KIP-98, KIP-360 (producer ids and epochs handed back), TransactionLogKey.json and TransactionLogValue.json.
Value version 0 is written, 0 and 1 are read (a real Kafka with `transaction.version` 2 writes 1).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum

from gateway.wire.peer import Peer
from gateway.wire.primitives import MalformedError
from gateway.wire.timers import Timer
from gateway.wire.versioned import decode_versioned, encode_versioned

EPOCH_MAX = 32767
NO_EPOCH = -1
Partition = tuple[str, int]


class State(IntEnum):
    """The states, with the numbers that the records carry."""

    EMPTY = 0
    ONGOING = 1
    PREPARE_COMMIT = 2
    PREPARE_ABORT = 3
    COMPLETE_COMMIT = 4
    COMPLETE_ABORT = 5
    DEAD = 6
    PREPARE_EPOCH_FENCE = 7


# From which states each state may be entered (TransactionMetadata.validPreviousStates).
ENTERED_FROM: dict[State, frozenset[State]] = {
    State.EMPTY: frozenset({State.EMPTY, State.COMPLETE_COMMIT, State.COMPLETE_ABORT}),
    State.ONGOING: frozenset({State.ONGOING, State.EMPTY, State.COMPLETE_COMMIT, State.COMPLETE_ABORT}),
    State.PREPARE_COMMIT: frozenset({State.ONGOING}),
    State.PREPARE_ABORT: frozenset({State.ONGOING}),
    State.COMPLETE_COMMIT: frozenset({State.PREPARE_COMMIT}),
    State.COMPLETE_ABORT: frozenset({State.PREPARE_ABORT}),
}


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One durable value of a transactional id: what a record holds."""

    producer_id: int
    epoch: int
    timeout_ms: int
    state: State
    partitions: frozenset[Partition] = frozenset()
    updated_ms: int = -1
    started_ms: int = -1

    def to(self, state: State, now_ms: int, **changes: object) -> Snapshot:
        """The next value. Raises `ValueError` for a transition that the table does not have."""
        if self.state not in ENTERED_FROM[state]:
            raise ValueError(f"no transition from {self.state.name} to {state.name}")
        return replace(self, state=state, updated_ms=now_ms, **changes)  # type: ignore[arg-type]  # members of its own, by name


@dataclass(slots=True)
class Transaction:
    """A transactional id: its durable value, and what only memory knows."""

    transactional_id: str
    now: Snapshot
    last_epoch: int = NO_EPOCH  # the epoch before a bump that the producer may not have heard of (KIP-360)
    pending: Snapshot | None = None  # written, not durable yet
    peer: Peer | None = None  # the connection that spoke for it last
    timer: Timer | None = None


def encode_key(transactional_id: str) -> bytes:
    """A record's key: int16 version 0 and the id."""
    return encode_versioned("TransactionLogKey", 0, {"transactional_id": transactional_id})


def encode_value(snapshot: Snapshot) -> bytes:
    """A record's value, version 0. Kafka wants no partition list (null) in the state Empty."""
    by_topic: dict[str, list[int]] = {}
    for topic, partition in sorted(snapshot.partitions):
        by_topic.setdefault(topic, []).append(partition)
    partitions = [{"topic": topic, "partition_ids": ids} for topic, ids in by_topic.items()]
    body = {
        "producer_id": snapshot.producer_id,
        "producer_epoch": snapshot.epoch,
        "transaction_timeout_ms": snapshot.timeout_ms,
        "transaction_status": snapshot.state,
        "transaction_partitions": None if snapshot.state is State.EMPTY else partitions,
        "transaction_last_update_timestamp_ms": snapshot.updated_ms,
        "transaction_start_timestamp_ms": snapshot.started_ms,
    }
    return encode_versioned("TransactionLogValue", 0, body)


def decode_key(key: bytes) -> str:
    """The transactional id. Raises `PeerError`."""
    return str(decode_versioned("TransactionLogKey", key)["transactional_id"])


def decode_value(value: bytes) -> Snapshot:
    """Raises `PeerError` for a version or a state that is unknown."""
    body = decode_versioned("TransactionLogValue", value)
    try:
        state = State(body["transaction_status"])
    except ValueError:
        raise MalformedError(f"transaction state {body['transaction_status']} is unknown") from None
    partitions = frozenset(
        (topic["topic"], index) for topic in body["transaction_partitions"] or () for index in topic["partition_ids"]
    )
    return Snapshot(
        body["producer_id"],
        body["producer_epoch"],
        body["transaction_timeout_ms"],
        state,
        partitions,
        body["transaction_last_update_timestamp_ms"],
        body["transaction_start_timestamp_ms"],
    )
