from __future__ import annotations

from random import Random

import pytest

from gateway.replicate.journal import RUNS_KEPT_MAX, Remembered, RunJournal
from gateway.replicate.known import LastKnown
from headwater.disk import ForgetfulDisk

HINT = Remembered(cluster="c", topic_id="t", partition=3, offset=40, txn=7, done={"readings/0": 12})


def begin(disk: ForgetfulDisk, seed: int, first: int = 0) -> RunJournal:
    return RunJournal.begin(
        disk, "/d", first={"readings/0": first}, random=Random(seed), boot_id="b", wall_ms=1, monotonic_ms=2.0
    )


def test_a_run_is_on_disk_before_it_is_used() -> None:
    disk = ForgetfulDisk()
    run = begin(disk, 1).run
    disk.power_cut()
    journal = begin(disk, 2, first=50)
    assert [entry.run for entry in journal.runs] == [run, journal.run]
    assert journal.newest() == [(journal.run, {"readings/0": 50}), (run, {"readings/0": 0})]


def test_runs_are_bounded() -> None:
    disk = ForgetfulDisk()
    for seed in range(RUNS_KEPT_MAX + 5):
        journal = begin(disk, seed)
    assert len(journal.runs) == RUNS_KEPT_MAX
    assert len(journal.newest()) == 8


def test_starts_that_wrote_nothing_go_first() -> None:
    """A node whose start fails at a busy port, hundreds of times, still knows its own record."""
    disk = ForgetfulDisk()
    run = begin(disk, 1).run
    for seed in range(2, RUNS_KEPT_MAX + 50):
        journal = begin(disk, seed, first=100)
    assert len(journal.runs) == RUNS_KEPT_MAX
    assert [journal.runs[0].run, journal.runs[1].first, journal.runs[-1].run] == [run, {"readings/0": 100}, journal.run]


def test_the_run_that_the_centrals_record_names_stays_and_so_does_the_one_after_it() -> None:
    disk = ForgetfulDisk()
    begin(disk, 0)
    named = begin(disk, 1, first=10)
    LastKnown(named).committed(HINT, 0.0)
    for seed in range(2, RUNS_KEPT_MAX + 50):
        journal = begin(disk, seed, first=10 * seed)
    assert len(journal.runs) == RUNS_KEPT_MAX
    assert [entry.first["readings/0"] for entry in journal.runs[:2]] == [10, 20]
    assert journal.runs[0].run == named.run
    assert journal.runs[-1].run == journal.run


def test_what_is_remembered_survives_and_can_be_forgotten() -> None:
    disk = ForgetfulDisk()
    begin(disk, 1).remember(HINT)
    disk.power_cut()
    journal = begin(disk, 2)
    assert journal.remembered == HINT
    journal.remember(None)
    disk.power_cut()
    assert begin(disk, 3).remembered is None


def test_a_raised_epoch_survives() -> None:
    disk = ForgetfulDisk()
    begin(disk, 1).raise_epoch({"readings/0": 100}, 4)
    disk.power_cut()
    assert dict(begin(disk, 2).raised) == {"readings/0": [(100, 4)]}


def test_a_damaged_file_is_moved_aside_and_named() -> None:
    disk = ForgetfulDisk()
    begin(disk, 1).remember(HINT)
    disk.replace_file("/d/node/runs", b'{"runs": 5')
    disk.replace_file("/d/node/central", b"\x00\x00")
    for copy in ("runs", "central"):
        disk.replace_file(f"/d/node/{copy}.copy.json", b"{}" if copy == "central" else b"")
    journal = begin(disk, 2)
    assert len(journal.runs) == 1
    assert journal.remembered is None
    names = [f"/d/node/{name}" for name in ("runs", "runs.copy.json", "central", "central.copy.json")]
    assert [line.split(" ")[0] for line in journal.damaged] == names
    assert disk.exists("/d/node/runs.damaged")
    assert not begin(disk, 3).damaged


@pytest.mark.parametrize("bad", ["runs", "runs.copy.json", "central", "central.copy.json"])
@pytest.mark.parametrize("how", ["bad sector", "flipped bit", "gone"])
def test_one_damaged_file_of_two_costs_nothing_and_is_written_again(bad: str, how: str) -> None:
    disk = ForgetfulDisk()
    run = begin(disk, 1).run
    begin(disk, 2, first=7).remember(HINT)
    path = f"/d/node/{bad}"
    if how == "bad sector":
        disk.bad_files.add(path)
    elif how == "gone":
        disk.remove(path)
    else:  # in a place that is still JSON, as a different run or offset
        data = disk.read_file(path)
        disk.replace_file(path, data.replace(b"40", b"41") if "central" in bad else data.replace(b": 7", b": 3"))
        assert disk.read_file(path) != data
    journal = begin(disk, 3)
    assert [journal.runs[0].run, journal.runs[1].first] == [run, {"readings/0": 7}]
    assert journal.remembered == HINT
    assert not journal.damaged
    assert disk.read_file("/d/node/runs") == disk.read_file("/d/node/runs.copy.json")
    assert disk.read_file("/d/node/central") == disk.read_file("/d/node/central.copy.json")


def test_two_bad_sectors_do_not_refuse_the_start() -> None:
    disk = ForgetfulDisk()
    begin(disk, 1).remember(HINT)
    disk.bad_files |= {f"/d/node/{name}" for name in ("runs", "runs.copy.json", "central", "central.copy.json")}
    journal = begin(disk, 2)
    assert len(journal.runs) == 1
    assert len(journal.damaged) == 4
    assert not begin(disk, 3).damaged


def test_a_journal_from_before_there_was_a_checksum_is_read() -> None:
    disk = ForgetfulDisk()
    runs = b'[{"run":"00ff","first":{},"boot":"b","wall_ms":1,"monotonic_ms":2.0}]'
    old = b'{"v":1,"runs":%s,"raised":{"readings/0":[[5,4]]}}' % runs
    disk.make_directory("/d/node")
    disk.replace_file("/d/node/runs", old)
    journal = begin(disk, 2)
    assert journal.runs[0].run == "00ff"
    assert dict(journal.raised) == {"readings/0": [(5, 4)]}
