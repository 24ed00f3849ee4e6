from __future__ import annotations

import pytest

from gateway.log import producers, records
from gateway.log.errors import CorruptBatch, DuplicateSequence, InvalidProducerEpoch, OutOfOrderSequence
from gateway.log.partition import PartitionLog
from gateway.log.recovery import Outcome
from gateway.log.settings import LogSettings
from gateway.log.store import LogStore
from headwater.clock import ManualClock
from headwater.disk import ForgetfulDisk
from headwater.errors import UserError
from tests.support.logs import (
    DATA,
    NOW_MS,
    FlakyDisk,
    append,
    batch,
    marker,
    open_log,
    overwrite,
    read_all,
    segment_path,
)

QUARANTINE = f"{DATA}/node/quarantine"


def outcomes(store: LogStore) -> list[Outcome]:
    return [finding.outcome for finding in store.recovered]


def filled(disk: ForgetfulDisk, count: int = 60, *, close: bool = False) -> tuple[LogStore, PartitionLog]:
    store, log = open_log(disk)
    for number in range(count):
        append(log, b"%d" % number + b"x" * 200, b"second")
    store.flush_now()
    if close:
        store.close()
    return store, log


def position_of(disk: ForgetfulDisk, base: int, offset: int) -> tuple[int, int]:
    """Start and end of the batch with `offset` in the segment at `base`."""
    position = 0
    for view in records.split_batches(disk.read_file(segment_path(base))):
        header = records.read_header(view)
        if header.next_offset > offset:
            return position, position + len(view)
        position += len(view)
    raise AssertionError(offset)


def flip(disk: ForgetfulDisk, path: str, position: int) -> None:
    data = bytearray(disk.read_file(path))
    data[position] ^= 0xFF
    overwrite(disk, path, bytes(data))


def bases(disk: ForgetfulDisk) -> list[int]:
    return [int(name[:20]) for name in disk.names(f"{DATA}/log/t-0") if name.endswith(".log")]


def test_clean_after_a_close_and_after_a_power_cut() -> None:
    disk = ForgetfulDisk()
    _, log = filled(disk, close=True)
    expected = read_all(open_log(disk)[1])
    assert len(expected) == 120
    for stopped_cleanly in (False, False):
        disk.power_cut()
        store, log = open_log(disk)
        assert store.stopped_cleanly is stopped_cleanly
        assert outcomes(store) == [Outcome.CLEAN]
        assert read_all(log) == expected
    store.close()
    assert open_log(disk)[0].stopped_cleanly


def test_a_torn_tail_is_cut_wherever_it_was_torn() -> None:
    last = len(batch(b"never acknowledged"))
    for kept in range(last + 1):
        disk = ForgetfulDisk()
        store, log = open_log(disk)
        append(log, b"acknowledged")
        store.flush_now()
        append(log, b"never acknowledged")
        disk.power_cut(keep_tail_bytes=kept)
        store, log = open_log(disk)
        whole = kept == last
        assert outcomes(store) == [Outcome.CLEAN if kept in (0, last) else Outcome.TORN_TAIL]
        assert read_all(log) == [(0, b"acknowledged"), (1, b"never acknowledged")][: 1 + whole]
        assert append(log, b"goes on") == 1 + whole
        assert log.leader_epoch == 0


def test_zeros_at_the_end_are_a_torn_tail() -> None:
    disk = ForgetfulDisk()
    _, log = filled(disk, 3)
    path = segment_path(0)
    overwrite(disk, path, disk.read_file(path) + bytes(5_000))
    store, log = open_log(disk)
    assert outcomes(store) == [Outcome.TORN_TAIL]
    assert store.recovered[0].size_bytes == 5_000
    assert log.log_end_offset == 6


@pytest.mark.parametrize("at", ["header", "body", "length"])
def test_a_damaged_middle_of_the_last_segment_is_quarantined_and_the_rest_is_kept(at: str) -> None:
    disk = ForgetfulDisk()
    _, log = filled(disk)
    expected = read_all(log)
    base = bases(disk)[-1]
    start, end = position_of(disk, base, base + 4)
    flip(disk, segment_path(base), start + {"header": 20, "body": 90, "length": 9}[at])
    bad = disk.read_file(segment_path(base))[start:end]

    store, log = open_log(disk)
    (finding,) = store.recovered
    assert finding.outcome is Outcome.QUARANTINED
    assert (finding.first_offset, finding.end_offset, finding.size_bytes) == (base + 4, base + 6, end - start)
    assert disk.read_file(f"{QUARANTINE}/t-0-{base + 4}-{base + 6}.bin") == bad
    assert finding.detail == f"{QUARANTINE}/t-0-{base + 4}-{base + 6}.bin"
    kept = [row for row in expected if row[0] not in (base + 4, base + 5)]
    assert read_all(log) == kept
    assert log.read(base + 4, 1).data == log.read(base + 6, 1).data  # a reader goes on behind the gap
    assert log.leader_epoch == 1
    assert append(log, b"new") == 120
    store.flush_now()
    disk.power_cut()
    store, log = open_log(disk)
    assert outcomes(store) == [Outcome.CLEAN]
    assert read_all(log) == [*kept, (120, b"new")]


def test_a_power_cut_in_the_middle_of_mending_loses_nothing_more() -> None:
    disk = FlakyDisk()
    _, log = filled(disk)
    expected = read_all(log)
    base = bases(disk)[-1]
    flip(disk, segment_path(base), position_of(disk, base, base + 2)[0] + 70)
    disk.refuse_truncate = False
    original = disk.rename

    def rename_then_fail(old: str, new: str) -> None:
        original(old, new)
        disk.refuse_truncate = True

    disk.rename = rename_then_fail  # type: ignore[method-assign]
    with pytest.raises(UserError):
        open_log(disk)
    disk.rename = original  # type: ignore[method-assign]
    disk.refuse_truncate = False
    disk.power_cut()
    store, log = open_log(disk)
    assert outcomes(store) == [Outcome.QUARANTINED]
    assert read_all(log) == [row for row in expected if row[0] not in (base + 2, base + 3)]


@pytest.mark.parametrize("slot", [0, 1, -1])
def test_a_sector_that_cannot_be_read_costs_its_batches_and_no_more(slot: int) -> None:
    disk = FlakyDisk()
    store, log = open_log(disk, settings=LogSettings(segment_bytes=40_000, index_interval_bytes=256))
    for number in range(500):
        append(log, b"%d" % number + b"x" * 200)
    store.flush_now()
    expected = read_all(log, max_bytes=9_000)
    path = segment_path(bases(disk)[slot])
    size = len(disk.read_file(path))
    disk.unreadable[path] = range(size // 4_096 * 4_096, size) if slot == 1 else range(4_096, 8_192)
    with pytest.raises(OSError, match="Input/output error"):
        read_all(log, max_bytes=99_999)
    if slot == 0:
        disk.remove(segment_path(bases(disk)[slot], ".index"))  # else an old segment's middle is not looked at
        disk.sync_directory(f"{DATA}/log/t-0")
    store, log = open_log(disk)
    assert Outcome.QUARANTINED in outcomes(store)
    lost = len(expected) - len(read_all(log, max_bytes=9_000))
    assert 0 < lost <= 4_096 // 270 + 2
    assert set(read_all(log, max_bytes=9_000)) <= set(expected)


def test_damage_in_two_places_of_one_segment() -> None:
    disk = ForgetfulDisk()
    _, log = filled(disk)
    expected = read_all(log)
    base = bases(disk)[-1]
    for offset in (base, base + 4):
        flip(disk, segment_path(base), position_of(disk, base, offset)[0] + 70)
    store, log = open_log(disk)
    assert outcomes(store) == [Outcome.QUARANTINED] * 2
    assert read_all(log) == [row for row in expected if row[0] not in (base, base + 1, base + 4, base + 5)]


def test_damage_in_an_older_segment_is_found_when_its_framing_is_hit() -> None:
    disk = ForgetfulDisk()
    _, log = filled(disk)
    expected = read_all(log)
    assert len(bases(disk)) > 3
    base = bases(disk)[1]
    size = len(disk.read_file(segment_path(base)))
    overwrite(disk, segment_path(base), disk.read_file(segment_path(base))[: size - 40])
    store, log = open_log(disk)
    (finding,) = store.recovered
    assert finding.outcome is Outcome.QUARANTINED
    lost = set(range(finding.first_offset, finding.end_offset))
    assert len(lost) == 2
    assert read_all(log) == [row for row in expected if row[0] not in lost]
    disk.power_cut()
    assert outcomes(open_log(disk)[0]) == [Outcome.CLEAN]  # the gap is known by now


def test_a_damaged_tail_below_the_recovery_point_is_no_torn_tail() -> None:
    disk = ForgetfulDisk()
    filled(disk, 3, close=True)
    start, _ = position_of(disk, 0, 4)
    overwrite(disk, segment_path(0), disk.read_file(segment_path(0))[: start + 30])
    store, log = open_log(disk)
    (finding,) = store.recovered
    assert finding.outcome is Outcome.QUARANTINED
    assert (finding.first_offset, finding.end_offset) == (4, 6)
    assert append(log, b"new") == 6  # an offset that was acknowledged is never given out again
    assert log.leader_epoch == 1
    store.flush_now()
    disk.power_cut()
    store, log = open_log(disk)
    assert [row[0] for row in read_all(log)] == [0, 1, 2, 3, 6]


def test_a_last_segment_that_is_gone_is_reported_and_its_offsets_are_not_reused() -> None:
    disk = ForgetfulDisk()
    filled(disk, close=True)
    gone = bases(disk)[-1]
    disk.remove(segment_path(gone))
    disk.sync_directory(f"{DATA}/log/t-0")
    store, log = open_log(disk)
    (finding,) = store.recovered
    assert (finding.outcome, finding.first_offset, finding.end_offset) == (Outcome.RANGE_MISSING, gone, 120)
    assert append(log, b"new") == 120


@pytest.mark.parametrize("suffix", [".index", ".timeindex"])
@pytest.mark.parametrize("damage", ["missing", "cut", "nonsense"])
def test_an_index_that_is_missing_or_damaged_is_rebuilt_to_the_same_bytes(suffix: str, damage: str) -> None:
    disk = ForgetfulDisk()
    _, log = filled(disk)
    expected = read_all(log)
    path = segment_path(bases(disk)[1], suffix)
    before = disk.read_file(path)
    assert before
    if damage == "missing":
        disk.remove(path)
        disk.sync_directory(f"{DATA}/log/t-0")
    else:
        overwrite(disk, path, before[:-1] if damage == "cut" else before[::-1])
    store, log = open_log(disk)
    assert outcomes(store) == [Outcome.INDEX_REBUILT]
    assert disk.read_file(path) == before
    assert read_all(log) == expected


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


def test_a_new_segment_whose_predecessor_is_torn_was_never_acknowledged_and_goes() -> None:
    disk = ForgetfulDisk()
    store, log = open_log(disk)
    append(log, b"kept")
    store.flush_now()
    while log.segments_count == 1:
        append(log, b"x" * 300)
    disk.sync_directory(f"{DATA}/log/t-0")  # the new name is on disk, the flusher has not run
    disk.power_cut(keep_tail_bytes=500)
    assert len(bases(disk)) == 2
    store, log = open_log(disk)
    assert outcomes(store) == [Outcome.TORN_TAIL, Outcome.UNSYNCED_CUT]
    assert len(bases(disk)) == 1
    assert [row[0] for row in read_all(log)] == list(range(log.log_end_offset))
    append(log, b"new")
    store.flush_now()
    assert read_all(log)[-1][1] == b"new"


def test_the_chain_survives_restarts_rolls_and_a_lost_chain_file() -> None:
    disk = ForgetfulDisk()
    _, log = filled(disk)
    expected = {offset: log.chain_at(offset) for offset in range(0, 121, 2)}
    assert None not in expected.values()
    disk.power_cut()
    _, log = open_log(disk)
    assert {offset: log.chain_at(offset) for offset in expected} == expected
    disk.remove(f"{DATA}/node/chain/t-0")
    disk.sync_directory(f"{DATA}/node/chain")
    _, log = open_log(disk)
    assert log.chain_at(120) == expected[120]


def test_leftovers_of_a_half_done_change_are_removed() -> None:
    disk = ForgetfulDisk()
    filled(disk, 2, close=True)
    for name in ("00000000000000000000.log.deleted", "leader-epoch-checkpoint.tmp", "00000000000000000009.log.swap"):
        overwrite(disk, f"{DATA}/log/t-0/{name}", b"left")
    store, log = open_log(disk)
    assert outcomes(store) == [Outcome.CLEAN]
    assert log.log_end_offset == 4
    assert not [name for name in disk.names(f"{DATA}/log/t-0") if name.endswith((".deleted", ".tmp", ".swap"))]


@pytest.mark.parametrize("text", [b"0\nxx\n0 00\n", b"0\n1\n0 10000000000000000\n", b"0\n1\n0 -1\n", b"0\n1\n-5 1\n"])
def test_a_damaged_chain_file_stops_no_start(text: bytes) -> None:
    disk = ForgetfulDisk()
    filled(disk, 2, close=True)
    overwrite(disk, f"{DATA}/node/chain/t-0", text)
    _, log = open_log(disk)
    append(log, b"goes on")


@pytest.mark.parametrize(
    "name",
    [
        "log/recovery-point-offset-checkpoint",
        "log/log-start-offset-checkpoint",
        "log/meta.properties",
        "log/t-0/leader-epoch-checkpoint",
        "log/t-0/partition.metadata",
        "node/chain/t-0",
        "node/identity.json",
        "node/topics.json",
    ],
)
def test_a_small_file_on_a_bad_sector_stops_no_start(name: str) -> None:
    disk = ForgetfulDisk()
    _, log = filled(disk, close=True)
    expected = read_all(open_log(disk)[1])
    disk.power_cut()
    assert disk.exists(f"{DATA}/{name}")
    disk.bad_files.add(f"{DATA}/{name}")
    store, log = open_log(disk)
    assert read_all(log) == expected
    append(log, b"goes on")
    store.flush_now()
    store.close()


def aborted_transaction(log: PartitionLog) -> None:
    append(log, b"taken back", producer_id=7, producer_epoch=0, base_sequence=0, transactional=True)
    marker(log, 7, commit=False)


class NoRoom(ForgetfulDisk):
    """A disk without room for the files whose names end with `full`."""

    full: tuple[str, ...] = ()

    def replace_file(self, path: str, data: bytes, *, mode: int = 0o640) -> None:
        if path.endswith(self.full):
            raise OSError(28, "No space left on device")
        super().replace_file(path, data)


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


@pytest.mark.parametrize("text", [b"", b"0\n1\n", b"0\n2\n0 0\n0 1\n", b"\xff"])
def test_lost_leader_epochs_are_told_by_the_batches_and_never_go_back(text: bytes) -> None:
    disk = ForgetfulDisk()
    store, log = open_log(disk)
    for epoch in (1, 2):
        append(log, b"old")
        assert log.begin_epoch() == epoch
    append(log, b"new")
    store.flush_now()
    store.close()
    overwrite(disk, f"{DATA}/log/t-0/leader-epoch-checkpoint", text)
    _, log = open_log(disk)
    assert log.epochs == [(0, 0), (1, 1), (2, 2), (3, 3)]


def test_a_batch_that_claims_a_later_offset_is_damaged_where_no_crc_looks() -> None:
    disk = ForgetfulDisk()
    store, log = open_log(disk)
    for number in range(4):
        append(log, b"%d" % number)
    store.flush_now()
    flip(disk, segment_path(0), position_of(disk, 0, 2)[0] + 5)
    store, log = open_log(disk)
    assert outcomes(store) == [Outcome.QUARANTINED]
    assert read_all(log) == [(0, b"0"), (1, b"1"), (3, b"3")]
    append(log, b"4")
    store.flush_now()
    flip(disk, segment_path(3), position_of(disk, 3, 4)[0] + 7)  # the last one: no batch after it bears it out
    store, log = open_log(disk)
    assert store.recovered[-1][2:5] == (Outcome.TORN_TAIL, 4, 4)


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


def test_a_segment_that_had_expired_and_went_before_the_older_ones_is_not_missed() -> None:
    disk = ForgetfulDisk()
    store, log = open_log(disk)
    while log.segments_count < 4:
        append(log, b"x" * 1_500)
    store.flush_now()
    bases = [each.base_offset for each in log.closed_segments()]
    log.start_at(bases[2])
    store.offsets.set_starts({("t", 0): bases[2]})
    disk.power_cut()
    disk.remove(segment_path(bases[1]))
    store, log = open_log(disk)
    assert outcomes(store) == [Outcome.CLEAN]
    assert log.log_start_offset == bases[2]
