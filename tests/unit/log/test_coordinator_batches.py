"""What a coordinator appends on behalf of a producer: transactional data without a sequence (offsets, KIP-98)."""

from __future__ import annotations

import pytest

from gateway.log.errors import CorruptBatch, InvalidProducerEpoch
from headwater.disk import ForgetfulDisk
from tests.support.logs import NOW_MS, batch, marker, open_log, read_all


def test_only_a_coordinator_may_leave_the_sequence_out() -> None:
    _, log = open_log(ForgetfulDisk())
    data = batch(b"offset", producer_id=7, producer_epoch=1, transactional=True)
    with pytest.raises(CorruptBatch, match="base sequence -1"):
        log.append(bytes(data), now_ms=NOW_MS)
    for _ in range(2):
        assert not log.append(bytes(data), now_ms=NOW_MS, control=True).duplicate  # no repeat: both are appended
    assert [each[:3] for each in log.open_transactions()] == [(7, 1, 0)]


def test_a_fenced_producers_offsets_are_refused_also_after_a_restart() -> None:
    disk = ForgetfulDisk()
    store, log = open_log(disk)
    log.append(batch(b"a", producer_id=7, producer_epoch=1, transactional=True), now_ms=NOW_MS, control=True)
    marker(log, 7, commit=True, epoch=2)
    late = batch(b"b", producer_id=7, producer_epoch=1, transactional=True)
    with pytest.raises(InvalidProducerEpoch):
        log.append(bytes(late), now_ms=NOW_MS, control=True)
    store.close()
    store, log = open_log(disk)
    with pytest.raises(InvalidProducerEpoch):
        log.append(bytes(late), now_ms=NOW_MS, control=True)
    log.append(batch(b"c", producer_id=7, producer_epoch=2, transactional=True), now_ms=NOW_MS, control=True)
    store.flush_now()
    disk.power_cut()
    _, log = open_log(disk)
    assert [each[:3] for each in log.open_transactions()] == [(7, 2, 2)]
    assert len(read_all(log)) > 0
