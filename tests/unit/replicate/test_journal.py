from __future__ import annotations

from random import Random

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
    journal = begin(disk, 2)
    assert len(journal.runs) == 1
    assert journal.remembered is None
    assert [line.split(" ")[0] for line in journal.damaged] == ["/d/node/runs", "/d/node/central"]
    assert disk.exists("/d/node/runs.damaged")
    assert not begin(disk, 3).damaged
