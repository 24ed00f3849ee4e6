"""Recovery of the batches: torn tails, damaged middles, files that are gone, and what a start gives out next."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from gateway.log.checkpoints import RECOVERY_POINTS
from gateway.log.partition import PartitionLog
from gateway.log.recovery import Outcome
from gateway.log.settings import LogSettings
from gateway.log.verify import DAMAGED, verify_data
from headwater.disk import ForgetfulDisk
from headwater.errors import UserError
from tests.support.damaged_logs import bases, filled, flip, outcomes, position_of
from tests.support.logs import DATA, FlakyDisk, append, batch, open_log, overwrite, read_all, segment_path

LARGE = LogSettings(segment_bytes=40_000, index_interval_bytes=256)
QUARANTINE = f"{DATA}/node/quarantine"


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
        # A reader of a disk that lied may stand beyond the cut: its epoch tells it so (KIP-320).
        assert log.leader_epoch == (0 if kept in (0, last) else 1)


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


def written(count: int, size_bytes: int) -> tuple[FlakyDisk, PartitionLog]:
    """So many records in large segments."""
    disk = FlakyDisk()
    store, log = open_log(disk, settings=LARGE)
    for number in range(count):
        append(log, b"%d" % number + b"x" * size_bytes)
    store.flush_now()
    return disk, log


@pytest.mark.parametrize("slot", [0, 1, -1])
def test_a_sector_that_cannot_be_read_costs_its_batches_and_no_more(slot: int) -> None:
    disk, log = written(500, 200)
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
    assert Outcome.UNREADABLE in outcomes(store)
    lost = len(expected) - len(read_all(log, max_bytes=9_000))
    assert 0 < lost <= 4_096 // 270 + 2
    assert set(read_all(log, max_bytes=9_000)) <= set(expected)


def _open_no_new(original: Callable[..., int], path: str, *, create: bool = False) -> int:
    if create and path.endswith(".log"):
        raise OSError(5, "Input/output error", path)
    return original(path, create=create)


@pytest.mark.parametrize("cut_again", [False, True])
def test_an_end_above_the_checkpoint_that_cannot_be_read_is_no_torn_tail(
    cut_again: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lay there may have been acknowledged: none of its offsets is given again, whatever happens to the start."""
    disk, log = written(30, 300)
    before = read_all(log, max_bytes=99_999)
    size = len(disk.read_file(segment_path(0)))
    disk.unreadable[segment_path(0)] = range(8_192, size)
    before = [row for row in before if position_of(disk, 0, row[0])[1] <= 8_192]
    start = position_of(disk, 0, len(before))[0]
    (one,) = verify_data(disk, DATA)
    assert [fault.kind for fault in one.faults] == [DAMAGED]
    assert "cannot read" in one.faults[0].detail
    if cut_again:
        with monkeypatch.context() as refusing:
            refusing.setattr(disk, "open", partial(_open_no_new, disk.open))
            with pytest.raises(UserError):
                open_log(disk)
        assert len(disk.read_file(segment_path(0))) == start
    disk.power_cut()
    store, log = open_log(disk)
    finding = store.recovered[0]
    if not cut_again:
        assert finding[2:4] == (Outcome.UNREADABLE, len(before))
        assert finding.size_bytes == size - start
    assert finding.end_offset == len(before) + -(-(size - start) // 7)  # no record takes less than 7 bytes
    assert append(log, b"new") == finding.end_offset
    assert log.leader_epoch == 1
    store.flush_now()
    disk.unreadable.clear()
    disk.power_cut()
    store, log = open_log(disk)
    assert outcomes(store) == [Outcome.CLEAN]
    assert read_all(log, max_bytes=99_999) == [*before, (finding.end_offset, b"new")]


def test_an_end_that_cannot_be_read_before_a_segment_that_nothing_proves_is_that_range_and_no_more() -> None:
    disk = FlakyDisk()
    store, log = open_log(disk, settings=LogSettings(segment_bytes=16_000))
    append(log, b"kept")
    store.flush_now()
    while log.segments_count == 1:
        append(log, b"x" * 300)
    following, size = bases(disk)[1], len(disk.read_file(segment_path(0)))
    disk.sync_directory(f"{DATA}/log/t-0")  # the new name is on disk, the checkpoint is not
    disk.unreadable[segment_path(0)] = range(12_288, size)
    first = next(each for each in range(following) if position_of(disk, 0, each)[1] > 12_288)
    disk.power_cut(keep_tail_bytes=1 << 20)
    store, log = open_log(disk)
    assert [each[2:5] for each in store.recovered] == [(Outcome.UNREADABLE, first, following)]
    shown = [(0, b"kept"), *((each, b"x" * 300) for each in range(1, following + 1) if not first <= each < following)]
    assert read_all(log, max_bytes=99_999) == shown


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


@pytest.mark.parametrize("stop", ["clean", "killed"])
@pytest.mark.parametrize("lost", ["segment", "its end"])
@pytest.mark.parametrize("points", [b"0\n", None], ids=["damaged", "missing"])
def test_a_hole_is_no_end_where_the_recovery_points_are_lost_too(stop: str, lost: str, points: bytes | None) -> None:
    disk = ForgetfulDisk()
    _, log = filled(disk, close=stop == "clean")
    expected = read_all(log)
    hole, following = bases(disk)[-3:-1]
    if lost == "segment":
        disk.remove(segment_path(hole))
        disk.sync_directory(f"{DATA}/log/t-0")
        first = hole
    else:
        first = following - 4
        start, _ = position_of(disk, hole, first)
        flip(disk, segment_path(hole), start + 90)
        overwrite(disk, segment_path(hole), disk.read_file(segment_path(hole))[: start + 200])
    if points is None:
        disk.remove(f"{DATA}/log/{RECOVERY_POINTS}")
    else:
        overwrite(disk, f"{DATA}/log/{RECOVERY_POINTS}", points)
    store, log = open_log(disk)
    (finding,) = store.recovered
    assert (finding.first_offset, finding.end_offset) == (first, following)
    assert finding.outcome is (Outcome.RANGE_MISSING if lost == "segment" else Outcome.QUARANTINED)
    assert read_all(log) == [row for row in expected if not first <= row[0] < following]
    assert append(log, b"new") == 120


def test_leftovers_of_a_half_done_change_are_removed() -> None:
    disk = ForgetfulDisk()
    filled(disk, 2, close=True)
    for name in ("00000000000000000000.log.deleted", "leader-epoch-checkpoint.tmp", "00000000000000000009.log.swap"):
        overwrite(disk, f"{DATA}/log/t-0/{name}", b"left")
    store, log = open_log(disk)
    assert outcomes(store) == [Outcome.CLEAN]
    assert log.log_end_offset == 4
    assert not [name for name in disk.names(f"{DATA}/log/t-0") if name.endswith((".deleted", ".tmp", ".swap"))]


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
