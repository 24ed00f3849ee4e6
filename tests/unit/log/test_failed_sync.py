from __future__ import annotations

import pytest

from gateway.log import records
from gateway.log.errors import LogFailed, OutOfOrderSequence
from gateway.log.recovery import Outcome
from headwater.clock import ManualClock
from headwater.disk import ForgetfulDisk
from tests.support.logs import (
    DATA,
    NOW_MS,
    FlakyDisk,
    append,
    batch,
    marker,
    open_log,
    open_store,
    read_all,
    segment_path,
)

EIO = OSError(5, "Input/output error")


def test_after_a_failed_sync_the_log_goes_on_at_its_synced_end_in_a_new_segment_with_the_next_epoch() -> None:
    disk, alarms, heard = ForgetfulDisk(), list[str](), list[str]()
    store, log = open_log(disk, alarm=alarms.append)
    append(log, b"kept", producer_id=7, producer_epoch=0, base_sequence=0)
    store.flush_now()
    append(log, b"lost", producer_id=7, producer_epoch=0, base_sequence=1)
    log.when_synced(2, lambda: heard.append("acknowledged"), lambda: heard.append("failed"))
    disk.fail_next["sync"] = EIO
    store.flush_now()
    assert heard == ["failed"]
    assert len(alarms) == 1
    assert "t-0: the disk failed (Input/output error); going on at offset 1" in alarms[0]
    assert (log.log_end_offset, log.synced_offset, log.leader_epoch) == (1, 1, 1)
    # The producer state is that of the synced end: the lost batch is no repeat, and there is no gap.
    again = log.append(batch(b"again", producer_id=7, producer_epoch=0, base_sequence=1), now_ms=NOW_MS)
    assert tuple(again) == (1, 2, False)
    log.when_synced(2, lambda: heard.append("acknowledged"))
    store.flush_now()
    assert heard == ["failed", "acknowledged"]
    assert read_all(log) == [(0, b"kept"), (1, b"again")]
    assert records.read_header(log.read(1, 1).data).leader_epoch == 1


def test_recovery_cuts_the_failed_file_at_its_successors_base() -> None:
    disk = ForgetfulDisk()
    store, log = open_log(disk)
    append(log, b"kept")
    store.flush_now()
    append(log, b"lost")
    append(log, b"lost too")
    disk.fail_next["sync"] = EIO
    store.flush_now()
    append(log, b"new")
    store.flush_now()
    size = len(disk.read_file(segment_path(0)))
    disk.power_cut(keep_tail_bytes=10_000)  # the device wrote the lost ones after all
    assert len(disk.read_file(segment_path(0))) == size
    store, log = open_log(disk)
    assert read_all(log) == [(0, b"kept"), (1, b"new")]
    assert Outcome.UNSYNCED_CUT in {finding.outcome for finding in store.recovered}
    assert len(disk.read_file(segment_path(0))) < size
    assert log.leader_epoch == 1


@pytest.mark.parametrize("good_syncs", [0, 1, 3])
@pytest.mark.parametrize("synced_batches", [0, 1, 20, 40])
def test_segments_that_were_rolled_but_not_synced_go_too(synced_batches: int, good_syncs: int) -> None:
    disk = FlakyDisk()
    store, log = open_log(disk)
    for number in range(synced_batches):
        append(log, b"%d" % number + b"x" * 150)
    store.flush_now()
    expected = read_all(log)
    chain = log.chain_at(log.log_end_offset)
    for _ in range(60):
        append(log, b"lost" * 40)
    assert log.segments_count > 2
    disk.syncs_until_failure = good_syncs
    store.flush_now()
    assert read_all(log) == expected
    assert log.chain_at(log.log_end_offset) == chain
    append(log, b"new")
    store.flush_now()
    expected.append((synced_batches, b"new"))
    assert read_all(log) == expected
    disk.power_cut(keep_tail_bytes=99_999)
    store, log = open_log(disk)
    assert read_all(log) == expected
    assert {each.outcome for each in store.recovered} <= {Outcome.CLEAN, Outcome.UNSYNCED_CUT}
    assert log.log_end_offset == synced_batches + 1


def test_a_transaction_that_was_open_at_the_synced_end_is_open_again() -> None:
    disk = ForgetfulDisk()
    store, log = open_log(disk)
    append(log, b"t", producer_id=7, producer_epoch=0, base_sequence=0, transactional=True)
    store.flush_now()
    marker(log, 7, commit=False)
    append(log, b"u", producer_id=8, producer_epoch=0, base_sequence=0, transactional=True)
    disk.fail_next["sync"] = EIO
    store.flush_now()
    assert [each[:3] for each in log.open_transactions()] == [(7, 0, 0)]
    assert log.last_stable_offset == 0
    marker(log, 7, commit=True)
    store.flush_now()
    assert log.last_stable_offset == 2
    assert log.read(0, 1_000, committed=True).aborted == []


def test_while_the_disk_refuses_everything_nothing_is_acknowledged_and_later_it_goes_on() -> None:
    disk, clock, alarms = ForgetfulDisk(), ManualClock(), list[str]()
    store, log = open_log(disk, clock=clock, alarm=alarms.append)
    append(log, b"kept")
    store.flush_now()
    append(log, b"lost")
    disk.fail_next |= {"sync": EIO, "open": EIO}
    store.flush_now()
    assert len(alarms) == 2
    # The end is where it will be: whoever waits for all that was appended does not wait for what is gone.
    assert (log.log_end_offset, log.synced_offset, log.chain_at(1)) == (1, 1, None)
    assert not log.roll_now()
    with pytest.raises(LogFailed, match="takes nothing"):
        append(log, b"refused")
    assert read_all(log) == [(0, b"kept")]  # what was acknowledged can still be read
    clock.advance(1_000)
    append(log, b"taken")
    store.flush_now()
    assert read_all(log) == [(0, b"kept"), (1, b"taken")]
    disk.power_cut()
    assert read_all(open_log(disk)[1]) == [(0, b"kept"), (1, b"taken")]


def test_the_other_logs_are_not_touched() -> None:
    disk = ForgetfulDisk()
    store, log = open_log(disk)
    other = store.create_topic("other").partitions[0]
    append(log, b"lost")
    append(other, b"fine")
    disk.fail_next["sync"] = EIO
    store.flush_now()
    assert (log.synced_offset, log.leader_epoch) == (0, 1)
    assert (other.synced_offset, other.leader_epoch) == (1, 0)


def test_a_recovery_point_that_cannot_be_written_holds_back_what_comes_after_the_segment() -> None:
    disk = ForgetfulDisk()
    store, log = open_log(disk)
    append(log, b"kept")
    store.flush_now()
    while log.segments_count == 1:
        append(log, b"x" * 300)
    disk.fail_next["sync_directory"] = EIO
    store.flush_now()
    assert (log.synced_offset, log.log_end_offset) == (1, 1)
    store.close()
    assert read_all(open_store(disk).topics["t"].partitions[0]) == [(0, b"kept")]


@pytest.mark.parametrize("how", ["sync", "append"])
def test_a_producers_second_batch_does_not_come_before_its_first_which_failed(how: str) -> None:
    disk = ForgetfulDisk()
    store, log = open_log(disk)
    if how == "sync":
        append(log, b"0", producer_id=7, producer_epoch=0, base_sequence=0)
        disk.fail_next["sync"] = EIO
        store.flush_now()
    else:
        disk.fail_next["append"] = EIO
        with pytest.raises(LogFailed):
            append(log, b"0", producer_id=7, producer_epoch=0, base_sequence=0)
    with pytest.raises(OutOfOrderSequence):  # it was on its way already
        append(log, b"1", producer_id=7, producer_epoch=0, base_sequence=1)
    append(log, b"0", producer_id=7, producer_epoch=0, base_sequence=0)
    append(log, b"1", producer_id=7, producer_epoch=0, base_sequence=1)


def test_a_producer_that_was_met_in_the_middle_goes_on_there_after_a_failed_sync() -> None:
    disk = ForgetfulDisk()
    store, log = open_log(disk)
    append(log, b"57", producer_id=7, producer_epoch=0, base_sequence=57)
    disk.fail_next["sync"] = EIO
    store.flush_now()
    append(log, b"57", producer_id=7, producer_epoch=0, base_sequence=57)


def test_snapshots_beyond_the_end_go_for_other_batches_will_have_their_offsets() -> None:
    disk = FlakyDisk()
    store, log = open_log(disk)
    append(log, b"kept")
    store.flush_now()
    while log.segments_count == 1:
        append(log, b"x" * 150, producer_id=7, producer_epoch=0, base_sequence=log.log_end_offset - 1)
    disk.syncs_until_failure = 1  # the closed segment is finished, with a snapshot; the active one is not
    store.flush_now()
    assert log.log_end_offset == 1
    assert [name for name in disk.names(f"{DATA}/log/t-0") if name.endswith(".snapshot")] == []


def test_a_start_removes_snapshots_beyond_the_end() -> None:
    disk = ForgetfulDisk()
    store, log = open_log(disk)
    append(log, b"kept")
    store.flush_now()
    disk.replace_file(f"{DATA}/log/t-0/{5:020d}.snapshot", b"of batches that are not there")
    disk.power_cut()
    open_log(disk)
    assert not disk.exists(f"{DATA}/log/t-0/{5:020d}.snapshot")


def test_what_was_refused_is_no_part_of_the_log_when_the_next_sync_fails_too() -> None:
    disk = ForgetfulDisk()
    store, log = open_log(disk)
    for _ in range(2):
        append(log, b"0", producer_id=7, producer_epoch=0, base_sequence=0)
        disk.fail_next["sync"] = EIO
        store.flush_now()
        with pytest.raises(OutOfOrderSequence):
            append(log, b"1", producer_id=7, producer_epoch=0, base_sequence=1)
    append(log, b"of another", producer_id=8, producer_epoch=0, base_sequence=7)
    disk.fail_next["sync"] = EIO
    store.flush_now()
    with pytest.raises(OutOfOrderSequence):
        append(log, b"1", producer_id=7, producer_epoch=0, base_sequence=1)


def test_a_log_that_lost_every_segment_has_an_active_one_for_upkeep() -> None:
    disk = ForgetfulDisk()
    store, log = open_log(disk)
    append(log, b"lost")
    disk.fail_next |= {"sync": EIO, "open": EIO}
    store.flush_now()
    assert log.segment_sizes()
    assert log.active_segment.base_offset == 0
    assert read_all(log) == []


def test_a_segment_that_was_whole_when_the_next_one_failed_is_left_with_its_indexes() -> None:
    disk = FlakyDisk()
    store, log = open_log(disk)
    while log.segments_count == 1:
        store.flush_now()
        disk.power_cut()
        store, log = open_log(disk)
        synced = log.log_end_offset
        append(log, b"x" * 300)
    disk.syncs_until_failure = 0
    store.flush_now()
    assert (log.log_end_offset, log.leader_epoch) == (synced, 1)
    assert {f"{0:020d}{suffix}" for suffix in (".index", ".timeindex")} <= set(disk.names(f"{DATA}/log/t-0"))


@pytest.mark.parametrize("position", [10, 70])
def test_where_the_failed_file_went_bad_the_log_takes_nothing_and_the_others_go_on(position: int) -> None:
    disk, clock, heard = ForgetfulDisk(), ManualClock(), list[str]()
    store, log = open_log(disk, clock=clock, alarm=lambda _: None)
    other = store.create_topic("other").partitions[0]
    append(log, b"kept", producer_id=7, producer_epoch=0, base_sequence=0, transactional=True)
    store.flush_now()
    append(log, b"lost")
    append(other, b"fine")
    log.when_synced(2, lambda: heard.append("acknowledged"), lambda: heard.append("failed"))
    other.when_synced(1, lambda: heard.append("acknowledged"))
    disk._live[segment_path(0)].data[position] ^= 0xFF  # of its length, or of what its CRC covers
    disk.fail_next["sync"] = EIO
    store.flush_now()
    assert heard == ["failed", "acknowledged"]
    clock.advance(1_000)
    with pytest.raises(LogFailed, match="takes nothing"):
        append(log, b"refused")
    assert log.last_stable_offset == 0
