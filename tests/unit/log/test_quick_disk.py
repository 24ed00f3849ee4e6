"""When the loop syncs by itself: what a disk must have shown, and what a slow sync costs at most."""

from __future__ import annotations

from random import Random

from gateway.log.quick_disk import HELD_MAX_MS, QUICK_MS, QuickDisk


def proven(sync_ms: float = 0.2) -> QuickDisk:
    disk = QuickDisk()
    for _ in range(100):
        disk.synced(1, sync_ms, 0.0)
    return disk


def held_ms(disk: QuickDisk, sync_ms: list[float], *, for_ms: float, from_ms: float = 0.0) -> tuple[float, int]:
    """How long the loop was held beyond quick, and how often it synced, when something waits to be synced all the time.

    Syncs take `sync_ms` in turn; those that the loop leaves to the thread take as long.
    """
    now_ms, lost_ms, here, turn = from_ms, 0.0, 0, 0
    while now_ms < from_ms + for_ms:
        took_ms = sync_ms[turn % len(sync_ms)]
        turn += 1
        here_now = disk.may_sync(1, now_ms)
        now_ms += took_ms
        if here_now:
            disk.synced(1, took_ms, now_ms)
            lost_ms += max(0.0, took_ms - QUICK_MS)
            here += 1
    return lost_ms, here


def test_a_quick_disk_is_synced_by_the_loop_all_the_time() -> None:
    assert held_ms(QuickDisk(), [0.2], for_ms=1_000.0) == (0.0, 5_000)


def test_a_slow_disk_is_tried_and_left_to_the_thread() -> None:
    lost_ms, here = held_ms(QuickDisk(), [8.0], for_ms=60_000.0)
    assert lost_ms <= 60_000 / 200 + 8.0
    assert here > 10  # it is tried again: nothing else would tell that it has become quick


def test_one_stall_ends_it_at_once_and_for_long() -> None:
    disk = proven()
    disk.synced(1, 1_000.0, 5_000.0)
    assert not disk.may_sync(1, 5_000.0)
    assert not disk.may_sync(1, 7_996.0)
    assert disk.may_sync(1, 7_997.1)


def test_a_quick_disk_with_outliers_loses_a_quarter_of_the_time_at_most() -> None:
    random = Random(1)
    times = [4.0 if random.random() < 0.01 else 0.2 for _ in range(50_000)]
    lost_ms, here = held_ms(proven(), times, for_ms=10_000.0)
    assert 300 < lost_ms <= 10_000 / 4 + 4.0
    assert here > 10_000_000 / 238 / 2  # and yet it is the loop that syncs most of the time


def test_a_disk_that_turns_slow_is_known_after_ten() -> None:
    disk = proven()
    now_ms, rests_ms = 0.0, []
    for _ in range(12):
        now_ms = max(now_ms, disk.rests_until_ms) + 4.0
        disk.synced(1, 4.0, now_ms)
        rests_ms.append(round(disk.rests_until_ms - now_ms))
    assert rests_ms == [9] * 9 + [600] * 3


def test_a_slow_disk_that_turns_quick_is_synced_by_the_loop_again() -> None:
    disk = QuickDisk()
    held_ms(disk, [8.0], for_ms=10_000.0)
    lost_ms, here = held_ms(disk, [0.2], for_ms=10_000.0, from_ms=10_000.0)
    assert lost_ms == 0.0
    assert here > 40_000


def test_what_the_thread_finds_quick_the_loop_syncs_soon_again() -> None:
    disk = QuickDisk()
    disk.synced(1, 1_000.0, 1_000.0)
    assert disk.rests_until_ms == 1_000.0 + 999.0 * 200
    heard = 0
    while disk.rests_until_ms > 10_000.0:
        disk.heard(1, 0.2)
        heard += 1
    assert heard == 13  # so many of the last are quick that most are
    assert disk.rests_until_ms == 1_000.0 + 999.0 * 3  # a stall costs its quarter all the same
    disk.heard(1, 8.0)
    assert disk.rests_until_ms == 1_000.0 + 999.0 * 200


def test_many_files_are_synced_by_the_loop_only_when_that_is_short() -> None:
    assert proven(0.2).may_sync(4, 1.0)
    assert not proven(0.2).may_sync(int(HELD_MAX_MS / 0.2) + 1, 1.0)
    assert not QuickDisk().may_sync(2, 1.0)  # unproved: one file is the trial
    disk = proven()
    disk.synced(4, 3.6, 10.0)  # 0.9 ms each
    assert disk.may_sync(1, 10.0)
    disk.synced(4, 6.0, 20.0)  # 1.5 ms each: 2 ms too long
    assert not disk.may_sync(1, 25.9)
    assert disk.may_sync(1, 26.0)
