"""Transaction indexes are compared with their noted checksums and with what the batches say."""

from __future__ import annotations

import pytest

from gateway.log.repair import repair
from gateway.log.transactions import AbortedTransaction, decode_aborted, encode_aborted
from gateway.log.verify import INDEX, verify_data
from headwater.clock import ManualClock
from headwater.disk import ForgetfulDisk
from tests.support.logs import DATA, FlakyDisk, append, marker, open_log, overwrite, read_all, segment_path
from tests.support.upkeep import compact, open_compacted, put

NOTE = f"{DATA}/node/aborted/t-0"


def two_aborted(*, close: bool = True) -> tuple[ForgetfulDisk, str]:
    """In a segment that is closed: two transactions were taken back, of which the second began before the first."""
    disk = ForgetfulDisk()
    store, log = open_log(disk)
    sequence = dict.fromkeys((7, 8, 9), 0)

    def data(producer: int) -> None:
        append(
            log,
            bytes(300),
            producer_id=producer,
            producer_epoch=0,
            base_sequence=sequence[producer],
            transactional=True,
        )
        sequence[producer] += 1

    for producer in (8, 7, 9, 7):
        data(producer)
    for producer, commit in ((7, False), (9, True), (8, False)):
        marker(log, producer, commit=commit)
    for _ in range(30):
        append(log, bytes(300))
    store.flush_now()
    if close:
        store.close()
    return disk, segment_path(0, ".txnindex")


def said(disk: ForgetfulDisk) -> list[str]:
    return [f"{fault.kind}: {fault.detail}" for one in verify_data(disk, DATA) for fault in one.faults]


@pytest.mark.parametrize("noted", [True, False])
@pytest.mark.parametrize("close", [True, False])
def test_a_good_one_is_good_and_each_flipped_bit_of_it_is_found(noted: bool, close: bool) -> None:
    disk, path = two_aborted(close=close)
    if not noted:
        disk.remove(NOTE)
    good = disk.read_file(path)
    assert [entry[:3] for entry in decode_aborted(good)] == [(7, 1, 4), (8, 0, 6)]
    assert said(disk) == []
    for bit in range(0, len(good) * 8, 3):
        flipped = bytearray(good)
        flipped[bit // 8] ^= 1 << bit % 8
        overwrite(disk, path, bytes(flipped))
        assert [each[: len(INDEX)] for each in said(disk)] == [INDEX], bit


@pytest.mark.parametrize("noted", [True, False])
def test_an_emptied_one_or_one_that_is_gone_is_found_and_repaired(noted: bool) -> None:
    for lost in (b"", None):
        disk, path = two_aborted()
        good = disk.read_file(path)
        if not noted:
            disk.remove(NOTE)
        if lost is None:
            disk.remove(path)
        else:
            overwrite(disk, path, lost)
        (found,) = said(disk)
        assert "transaction index" in found
        mend(disk)
        assert disk.read_file(path) == good
        assert said(disk) == []


def mend(disk: ForgetfulDisk) -> None:
    repair(disk, DATA, list(verify_data(disk, DATA)), clock=ManualClock())


def test_where_a_log_begins_later_a_transaction_may_have_begun_before_it() -> None:
    disk, _ = two_aborted()
    store, log = open_log(disk)
    append(log, b"a", producer_id=7, producer_epoch=0, base_sequence=2, transactional=True)
    first = log.log_end_offset - 1
    for _ in range(14):
        append(log, bytes(300))
    append(log, b"b", producer_id=7, producer_epoch=0, base_sequence=3, transactional=True)
    end = marker(log, 7, commit=False)
    for _ in range(14):
        append(log, bytes(300))
    store.flush_now()
    store.close()
    bases = [int(name[:20]) for name in disk.names(f"{DATA}/log/t-0") if name.endswith(".log")]
    holding = max(each for each in bases if each <= end)
    for each in bases:
        if each < holding:
            disk.remove(segment_path(each))
    overwrite(disk, f"{DATA}/log/log-start-offset-checkpoint", b"0\n1\nt 0 %d\n" % holding)
    disk.remove(NOTE)
    index = segment_path(holding, ".txnindex")
    (entry,) = decode_aborted(disk.read_file(index))
    assert entry.first_offset == first < holding
    assert said(disk) == []
    for wrong, what in (
        (b"", f"lacks {end - 1} to {end} of producer 7"),
        (encode_aborted([entry._replace(producer_id=6)]), "lacks"),
        (encode_aborted([entry, AbortedTransaction(9, first, end + 1, end + 2)]), "no batch says so"),
    ):
        overwrite(disk, index, wrong)
        assert what in said(disk)[0]


def test_of_a_compacted_log_the_note_decides() -> None:
    disk = FlakyDisk()
    store, log = open_compacted(disk)
    put(log, [(b"a", b"1")], producer_id=7, producer_epoch=0, base_sequence=0, transactional=True)
    marker(log, 7, commit=False)
    put(log, [(b"b", b"1")])
    compact(store, log)
    store.close()
    path = segment_path(0, ".txnindex")
    good = disk.read_file(path)
    assert len(decode_aborted(good)) == 1
    assert said(disk) == []
    overwrite(disk, path, b"")
    assert "has the checksum" in said(disk)[0]
    overwrite(disk, path, good)
    disk.remove(NOTE)
    assert said(disk) == []
    _, log = open_compacted(disk)
    assert [row[0] for row in read_all(log)][-1] == 2


def test_what_a_crash_left_half_closed_is_no_damage() -> None:
    """The checksum is noted first, then the index is written, then the recovery point: the next start goes on there."""
    disk, path = two_aborted(close=False)
    disk.remove(path)
    overwrite(disk, f"{DATA}/log/recovery-point-offset-checkpoint", b"0\n1\nt 0 0\n")
    assert said(disk) == []
    store, _ = open_log(disk)
    store.close()
    assert len(decode_aborted(disk.read_file(path))) == 2
    assert said(disk) == []
