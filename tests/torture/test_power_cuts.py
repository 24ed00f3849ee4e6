"""Power cuts at the write-side calls of a reference workload, on a disk that forgets, tears and reorders.

The workload appends, rolls, retains, compacts, ends transactions, writes checkpoints, makes and deletes topics, meets a
sync that fails, stops cleanly and starts again. After each cut a start finds nothing but what a crash may leave,
clients send again, the power goes once more: 0 acknowledged lost, 0 twice, every journal knows what it knew.
"""

from __future__ import annotations

import pytest

from tests.torture.crashes import cuts_while_going_on, power_cuts
from tests.torture.simulated_os import Crash
from tests.torture.swaps import cut_while_swapping, each_order

LOSING = [Crash.FORGET, Crash.NAMES, Crash.TORN, Crash.SHUFFLED]


def test_a_sample_of_power_cuts() -> None:
    points, states, _ = power_cuts(list(Crash), every=360, first=7)
    assert points >= 3
    assert states == points * len(Crash)


def test_a_sample_of_power_cuts_in_the_middle_of_the_next_start() -> None:
    assert power_cuts(LOSING, every=600, first=11, nested=True)[0] >= 2


def test_a_sample_of_power_cuts_in_compaction_leaves_nothing_that_a_check_finds() -> None:
    assert cut_while_swapping(every=11) > 10


def test_power_cuts_that_keep_any_of_a_swaps_renames_leave_the_whole_log() -> None:
    assert each_order() >= 32


def test_a_sample_of_power_cuts_while_a_log_goes_on_after_a_failed_sync() -> None:
    assert cuts_while_going_on(["fdatasync"], [Crash.KEEP]) > 100


@pytest.mark.long("power-cuts", count=2)
def test_power_cuts_while_a_log_goes_on_after_a_failed_call() -> None:
    assert cuts_while_going_on(["fdatasync", "fsync", "create", "replace", "write"], list(Crash)) > 20_000


@pytest.mark.long("power-cuts", count=2)
def test_power_cuts_in_compaction_leave_nothing_that_a_check_finds() -> None:
    assert cut_while_swapping(every=1) > 100


@pytest.mark.long("power-cuts", count=2)
def test_power_cuts_before_every_call(count: int) -> None:
    points, states, starts = power_cuts(list(Crash), every=1, seeds=count)
    print(f"{points} crash points, {states} crash states, {starts} starts: 0 acknowledged lost, 0 twice")
    assert points > 1_000


@pytest.mark.long("power-cuts-at-start", count=2)
def test_power_cuts_before_every_call_and_once_in_the_start_after_it(count: int) -> None:
    points, states, starts = power_cuts(LOSING, every=1, seeds=count, nested=True)
    print(f"{points} crash points, {states} crash states, {starts} starts: 0 acknowledged lost, 0 twice")
    assert points > 1_000
