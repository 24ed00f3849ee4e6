"""Recovery of what batches say of their producers: sequences, epochs, transactions, and what was taken back."""

from __future__ import annotations

import pytest

from gateway.log import producers
from gateway.log.errors import CorruptBatch, DuplicateSequence, InvalidProducerEpoch, OutOfOrderSequence
from gateway.log.recovery import Outcome
from headwater.clock import ManualClock
from headwater.disk import ForgetfulDisk
from tests.support.damaged_logs import NoRoom, aborted_transaction, bases, flip, outcomes, position_of
from tests.support.logs import DATA, NOW_MS, append, batch, marker, open_log, overwrite, read_all, segment_path


@pytest.mark.parametrize("cut", ["power", "snapshot lost", "snapshot damaged"])
def test_producers_and_transactions_are_known_after_a_restart(cut: str) -> None:
    disk = ForgetfulDisk()
    store, log = open_log(disk)
    sequenced = {"producer_id": 7, "producer_epoch": 2}
    append(log, b"a", base_sequence=40, **sequenced)
    append(log, b"open", producer_id=9, producer_epoch=0, base_sequence=0, transactional=True)
    append(log, b"x", producer_id=8, producer_epoch=0, base_sequence=0, transactional=True)
    marker(log, 8, commit=False)
    for _ in range(40):
        append(log, b"x" * 200)
    append(log, b"b", base_sequence=41, **sequenced)
    store.flush_now()
    for name in disk.names(f"{DATA}/log/t-0"):
        if name.endswith(".snapshot") and cut != "power":
            overwrite(disk, f"{DATA}/log/t-0/{name}", b"" if cut == "snapshot lost" else bytes(60))
    disk.power_cut()
    store, log = open_log(disk)
    assert log.segments_count > 1
    assert log.append(batch(b"b", base_sequence=41, **sequenced), now_ms=0).duplicate
    assert not log.append(batch(b"c", base_sequence=42, **sequenced), now_ms=0).duplicate
    assert [each[:3] for each in log.open_transactions()] == [(9, 0, 1)]
    assert log.last_stable_offset == 1
    marker(log, 9, commit=True)
    store.flush_now()
    assert log.read(0, 99_999, committed=True).aborted == [(8, 2)]


def test_after_a_quarantine_a_producer_is_taken_at_any_sequence_but_its_old_epoch_is_not() -> None:
    disk = ForgetfulDisk()
    store, log = open_log(disk)
    for sequence in range(5):
        append(log, b"%d" % sequence, producer_id=7, producer_epoch=3, base_sequence=sequence)
    append(log, b"tail")
    store.flush_now()
    for offset in (3, 4):
        flip(disk, segment_path(0), position_of(disk, 0, offset)[0] + 70)
    store, log = open_log(disk)
    assert outcomes(store) == [Outcome.QUARANTINED]
    with pytest.raises(InvalidProducerEpoch):
        append(log, b"old", producer_id=7, producer_epoch=2, base_sequence=0)
    append(log, b"any", producer_id=7, producer_epoch=3, base_sequence=9)


@pytest.mark.parametrize("rolled", [False, True])
def test_the_start_after_a_quarantine_takes_the_producer_at_any_sequence_too(rolled: bool) -> None:
    disk = ForgetfulDisk()
    store, log = open_log(disk)
    for sequence in range(5):
        append(log, b"%d" % sequence, producer_id=7, producer_epoch=3, base_sequence=sequence)
    append(log, b"tail")
    store.flush_now()
    flip(disk, segment_path(0), position_of(disk, 0, 4)[0] + 70)
    store, log = open_log(disk)
    while rolled and log.segments_count < 5:
        append(log, b"x" * 1_500)
    store.flush_now()
    disk.power_cut()
    _, log = open_log(disk)
    with pytest.raises(InvalidProducerEpoch):
        append(log, b"old", producer_id=7, producer_epoch=2, base_sequence=0)
    append(log, b"goes on", producer_id=7, producer_epoch=3, base_sequence=5)


def test_a_producer_with_an_open_transaction_is_never_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(producers, "PRODUCERS_MAX", 10)
    disk = ForgetfulDisk()
    store, log = open_log(disk)
    append(log, b"open", producer_id=99, producer_epoch=0, base_sequence=0, transactional=True)
    for producer_id in range(15):
        append(log, b"x" * 500, producer_id=producer_id, producer_epoch=0, base_sequence=0)
    while log.segments_count < 5:
        append(log, b"x" * 1_500)
    store.flush_now()
    assert len(log.last_offsets()) == 10
    store.close()
    _, log = open_log(disk)
    assert [each[:3] for each in log.open_transactions()] == [(99, 0, 0)]
    assert log.last_stable_offset == 0


@pytest.mark.parametrize("full", [(".txnindex",), (".index", ".timeindex", ".txnindex", ".snapshot")])
def test_a_segment_whose_aborts_cannot_be_written_down_is_not_finished(full: tuple[str, ...]) -> None:
    disk, clock = NoRoom(), ManualClock()
    store, log = open_log(disk, clock=clock)
    aborted_transaction(log)
    store.flush_now()
    disk.full = full
    while log.segments_count == 1:
        append(log, b"x" * 1_500)
    store.flush_now()
    assert log.synced_offset == 2  # nothing after it is acknowledged
    disk.full = ()
    clock.advance(1_000)
    for _ in range(8):
        append(log, b"y" * 3_000)
        store.flush_now()
    assert log.read(0, 99, committed=True).aborted == [(7, 0)]
    disk.power_cut()
    _, log = open_log(disk)
    assert log.read(0, 99, committed=True).aborted == [(7, 0)]


def test_aborts_of_a_recovered_segment_stay_known_without_room_for_its_index() -> None:
    disk = NoRoom()
    store, log = open_log(disk)
    aborted_transaction(log)
    store.flush_now()
    while log.segments_count == 1:
        append(log, b"x" * 1_500)
    store.flush_now()
    for name in disk.names(f"{DATA}/log/t-0"):
        if name.endswith((".index", ".timeindex", ".txnindex", ".snapshot")):
            disk.remove(f"{DATA}/log/t-0/{name}")
    disk.full = (".index", ".timeindex", ".txnindex")
    _, log = open_log(disk)
    assert log.read(0, 99, committed=True).aborted == [(7, 0)]


def test_a_damaged_transaction_index_is_made_again_from_the_batches() -> None:
    disk = ForgetfulDisk()
    store, log = open_log(disk)
    append(log, b"taken back", producer_id=7, producer_epoch=0, base_sequence=0, transactional=True)
    while log.segments_count == 1:
        append(log, b"x" * 1_500)
    marker(log, 7, commit=False)  # the index entry lies in another segment than the transaction's beginning
    while log.segments_count < 6:
        append(log, b"x" * 1_500)
    store.flush_now()
    path = segment_path(bases(disk)[1], ".txnindex")
    before = disk.read_file(path)
    overwrite(disk, path, b"\xff" * 34)
    log.files.cache.close()
    with pytest.raises(CorruptBatch, match="txnindex"):  # better no answer than records that were taken back
        log.aborted_below(log.synced_offset)
    store, log = open_log(disk)
    assert disk.read_file(path) == before
    assert log.read(0, 99, committed=True).aborted == [(7, 0)]


def test_a_batch_that_was_in_a_hole_is_taken_again_and_its_neighbours_are_not() -> None:
    """Sectors of one write reach the disk in any order: later batches may be there without earlier ones."""
    disk = ForgetfulDisk()
    store, log = open_log(disk)
    for sequence in range(5):
        append(log, b"%d" % sequence, producer_id=7, producer_epoch=0, base_sequence=sequence)
    store.flush_now()
    flip(disk, segment_path(0), position_of(disk, 0, 2)[0] + 70)
    store, log = open_log(disk)
    assert outcomes(store) == [Outcome.QUARANTINED]
    for sequence in range(5):
        append(log, b"%d" % sequence, producer_id=7, producer_epoch=0, base_sequence=sequence)
    with pytest.raises(DuplicateSequence):  # older than the oldest that was remembered when the hole came
        log.append(batch(b"older", producer_id=7, producer_epoch=0, base_sequence=(1 << 31) - 1), now_ms=NOW_MS)
    for sequence in range(5, 11):
        append(log, b"%d" % sequence, producer_id=7, producer_epoch=0, base_sequence=sequence)
    with pytest.raises(OutOfOrderSequence):  # five in a row ended the doubt
        append(log, b"gap", producer_id=7, producer_epoch=0, base_sequence=12)
    store.flush_now()
    assert sorted(value for _, value in read_all(log) if value) == sorted(b"%d" % number for number in range(11))


@pytest.mark.parametrize("damage", ["cut", "gone", "a bit", "bad sector"])
def test_what_was_taken_back_stays_hidden_whatever_happened_to_the_transaction_index(damage: str) -> None:
    disk = ForgetfulDisk()
    store, log = open_log(disk)
    aborted_transaction(log)
    while log.segments_count < 4:
        append(log, b"x" * 1_500)
    store.flush_now()
    path = segment_path(0, ".txnindex")
    before = disk.read_file(path)
    if damage == "gone":
        disk.remove(path)
    elif damage == "bad sector":
        disk.bad_files.add(path)
    else:
        overwrite(disk, path, b"" if damage == "cut" else before.replace(b"\0\x07", b"\0\x06"))
    disk.power_cut()
    _, log = open_log(disk)
    assert log.read(0, 99, committed=True).aborted == [(7, 0)]
    disk.bad_files.clear()
    assert disk.read_file(path) == before


def test_an_unacknowledged_batch_before_one_that_came_through_is_taken_when_it_is_sent_again() -> None:
    disk = ForgetfulDisk()
    store, log = open_log(disk)
    for sequence in range(4):
        append(log, b"%d" % sequence, producer_id=7, producer_epoch=3, base_sequence=sequence)
    append(log, b"tail")
    store.flush_now()
    for offset in (0, 1):  # as a disk that wrote later sectors first leaves it: the producer was never met before these
        flip(disk, segment_path(0), position_of(disk, 0, offset)[0] + 70)
    store, log = open_log(disk)
    assert outcomes(store) == [Outcome.QUARANTINED]
    sequenced = {"producer_id": 7, "producer_epoch": 3}
    assert not log.append(batch(b"0", base_sequence=0, **sequenced), now_ms=0).duplicate
    assert not log.append(batch(b"1", base_sequence=1, **sequenced), now_ms=0).duplicate
    assert log.append(batch(b"2", base_sequence=2, **sequenced), now_ms=0).duplicate
    assert log.append(batch(b"3", base_sequence=3, **sequenced), now_ms=0).duplicate
    assert not log.append(batch(b"4", base_sequence=4, **sequenced), now_ms=0).duplicate


def test_a_producer_that_is_met_in_the_middle_may_still_send_what_came_before() -> None:
    _, log = open_log(ForgetfulDisk())
    sequenced = {"producer_id": 7, "producer_epoch": 3}
    append(log, b"5", base_sequence=5, **sequenced)
    append(log, b"3", base_sequence=3, **sequenced)
    append(log, b"4", base_sequence=4, **sequenced)
    for sequence in (3, 4, 5):
        assert log.append(batch(b"%d" % sequence, base_sequence=sequence, **sequenced), now_ms=0).duplicate
    with pytest.raises(OutOfOrderSequence):
        append(log, b"7", base_sequence=7, **sequenced)
    for sequence in range(6, 10):
        append(log, b"%d" % sequence, base_sequence=sequence, **sequenced)
    with pytest.raises(DuplicateSequence):  # as many came after it as may be under way: it has been answered
        append(log, b"3", base_sequence=3, **sequenced)
