"""Producers of one partition: repeats, gaps and fences by sequence and epoch; transactions and who may read them."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.log import records
from gateway.log.errors import (
    CorruptBatch,
    DuplicateSequence,
    InvalidProducerEpoch,
    InvalidTransactionState,
    OutOfOrderSequence,
)
from gateway.log.partition import PartitionLog
from gateway.log.recovery import Outcome
from gateway.log.store import LogStore
from headwater.disk import ForgetfulDisk
from tests.support.logs import NOW_MS, append, batch, marker, open_log, values


def numbered(sequence: int, *payload: bytes, epoch: int = 0, **more: Any) -> bytearray:
    return batch(*(payload or (b"p",)), producer_id=7, producer_epoch=epoch, base_sequence=sequence, **more)


def put(log: PartitionLog, data: bytearray) -> tuple[int, int, bool]:
    base_offset, next_offset, duplicate = log.append(data, now_ms=NOW_MS)
    return base_offset, next_offset, duplicate


def test_a_repeated_batch_is_answered_with_its_first_offsets(store: LogStore, log: PartitionLog) -> None:
    for sequence in range(0, 12, 2):
        put(log, numbered(sequence, b"a", b"b"))
    assert put(log, numbered(10, b"a", b"b")) == (10, 12, True)
    assert put(log, numbered(2, b"a", b"b")) == (2, 4, True)
    with pytest.raises(DuplicateSequence):  # older than the five that are remembered
        put(log, numbered(0, b"a", b"b"))
    assert log.log_end_offset == 12


def test_a_gap_is_refused_and_an_unknown_producer_is_not(log: PartitionLog) -> None:
    put(log, numbered(500))
    with pytest.raises(OutOfOrderSequence, match="501 is next"):
        put(log, numbered(502))
    assert put(log, numbered(501)) == (1, 2, False)


def test_epochs_fence_and_begin_at_sequence_zero(log: PartitionLog) -> None:
    put(log, numbered(0, epoch=3))
    with pytest.raises(InvalidProducerEpoch):
        put(log, numbered(1, epoch=2))
    with pytest.raises(OutOfOrderSequence):
        put(log, numbered(1, epoch=4))
    put(log, numbered(0, epoch=4))
    with pytest.raises(InvalidProducerEpoch):
        put(log, numbered(1, epoch=3))


def test_sequences_wrap(log: PartitionLog) -> None:
    put(log, numbered((1 << 31) - 2, b"a", b"b", b"c"))
    assert put(log, numbered((1 << 31) - 2, b"a", b"b", b"c")) == (0, 3, True)
    assert put(log, numbered(1)) == (3, 4, False)


def test_wrapped_sequences_survive_a_restart(disk: ForgetfulDisk, store: LogStore, log: PartitionLog) -> None:
    put(log, numbered((1 << 31) - 2, b"a", b"b", b"c"))
    for _ in range(40):
        append(log, b"x" * 200)
    store.close()
    _, log = open_log(disk)
    assert put(log, numbered((1 << 31) - 2, b"a", b"b", b"c")) == (0, 3, True)


def test_a_roll_for_a_batch_that_is_then_refused_is_finished_too(
    disk: ForgetfulDisk, store: LogStore, log: PartitionLog
) -> None:
    append(log, b"x" * 3_900)
    put(log, numbered(0))
    store.flush_now()
    assert put(log, numbered(0)) == (1, 2, True)
    damaged = batch(b"y" * 300)
    damaged[-1] ^= 1
    with pytest.raises(CorruptBatch):
        log.append(damaged, now_ms=NOW_MS)
    assert log.segments_count == 2
    store.close()
    store, _ = open_log(disk)
    assert [finding.outcome for finding in store.recovered] == [Outcome.CLEAN]


def test_what_overlaps_a_remembered_batch_is_no_repeat(log: PartitionLog) -> None:
    put(log, numbered(0, b"a", b"b"))
    put(log, numbered(2, b"a", b"b"))
    for first, count in ((0, 3), (1, 2), (1, 1), (2, 1), (2, 3)):
        with pytest.raises(OutOfOrderSequence):
            put(log, numbered(first, *[b"x"] * count))


def test_a_batch_with_a_producer_id_comes_alone_and_complete(log: PartitionLog) -> None:
    for data in (
        numbered(0) + numbered(1),
        batch(b"a") + numbered(0),
        batch(b"a", producer_id=7, producer_epoch=0),
        batch(b"a", producer_id=-2, base_sequence=1),
    ):
        with pytest.raises(CorruptBatch):
            log.append(data, now_ms=NOW_MS)


def test_read_committed_stops_at_the_first_open_transaction_until_its_marker_is_on_disk(
    store: LogStore, log: PartitionLog
) -> None:
    append(log, b"plain")
    put(log, numbered(0, b"t", transactional=True))
    append(log, b"after")
    store.flush_now()
    assert (log.synced_offset, log.last_stable_offset) == (3, 1)
    assert log.open_transactions() == [(7, 0, 1, NOW_MS)]
    assert [row[0] for row in values(log.read(0, 9_999, committed=True).data)] == [0]
    assert log.read(1, 9_999, committed=True).data == b""
    assert marker(log, 7, commit=True) == 3
    assert log.last_stable_offset == 1
    store.flush_now()
    assert log.last_stable_offset == 4
    assert log.open_transactions() == []
    assert log.read(0, 9_999, committed=True).aborted == []


def test_aborted_transactions_are_named_to_readers_of_their_range(store: LogStore, log: PartitionLog) -> None:
    put(log, numbered(0, b"x", b"y", transactional=True))  # 0-1
    append(log, b"plain", producer_id=8, producer_epoch=0, base_sequence=0, transactional=True)  # 2
    marker(log, 7, commit=False)  # 3
    marker(log, 8, commit=True)  # 4
    for _ in range(60):
        append(log, b"z" * 90)
    put(log, numbered(2, b"x", transactional=True))  # 65
    marker(log, 7, commit=False)  # 66
    store.flush_now()
    assert log.segments_count > 1
    assert log.read(0, 500, committed=True).aborted == [(7, 0)]
    assert log.read(3, 100, committed=True).aborted == [(7, 0)]
    assert log.read(4, 100, committed=True).aborted == []
    assert log.read(65, 100, committed=True).aborted == [(7, 65)]
    assert log.read(0, 500).aborted == []


def test_rules_of_transactions(log: PartitionLog) -> None:
    control = records.encode_control(
        commit=True, producer_id=7, producer_epoch=0, coordinator_epoch=0, timestamp_ms=NOW_MS
    )
    with pytest.raises(InvalidTransactionState, match="coordinator"):
        log.append(bytes(control), now_ms=NOW_MS)
    with pytest.raises(InvalidTransactionState, match="without a producer id"):
        append(log, b"a", transactional=True)
    put(log, numbered(0, transactional=True))
    with pytest.raises(InvalidTransactionState, match="outside"):
        put(log, numbered(1))
    marker(log, 7, commit=False, epoch=1)  # the coordinator fences a producer that timed out
    with pytest.raises(InvalidProducerEpoch):
        put(log, numbered(1, transactional=True))
    with pytest.raises(InvalidProducerEpoch):
        marker(log, 7, commit=True, epoch=0)
    put(log, numbered(0, epoch=1, transactional=True))
