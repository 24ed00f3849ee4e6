"""What clients delete: told once with its range, files removed when whole, and nothing hidden that was not deleted."""

from __future__ import annotations

import pytest

from gateway.log.retention import AGE, BY_CLIENT
from gateway.log.steps import run_steps
from headwater.sealed import copy_of
from tests.support.logs import DATA, NOW_MS, read_all
from tests.support.upkeep import FatefulDisk, PowerCutError, Tended, rows_of

HOUR_MS = 3_600_000
KEY = ("readings", 0)


def logs_of(node: Tended) -> list[str]:
    return [name for name in node.files() if name.endswith(".log")]


def test_a_deletion_is_told_once_and_its_whole_segments_go() -> None:
    node = Tended()
    log = node.log()
    node.fill(log)
    node.store.delete_records({KEY: 4})
    node.turn()
    assert node.expiries() == [("readings", 0, 4, BY_CLIENT, None)]
    assert (node.events[-1]["from_ms"], node.events[-1]["to_ms"]) == (NOW_MS, NOW_MS + 3)
    for _ in range(2):
        node.turn()
    assert logs_of(node)[0] == "00000000000000000003.log", "the segment that holds record 4 stays"
    assert [offset for offset, _, _ in rows_of(log)] == [4, 5, 6, 7, 8, 9]
    node.store.delete_records({KEY: 5})
    node.turn()
    assert node.expiries()[1:] == [("readings", 4, 5, BY_CLIENT, None)]
    assert node.upkeep.status()["expired"]["readings/0"] == {"records": 5, "bytes": 3 * 1_071, "owed_records": 0}


def test_a_log_that_is_deleted_whole_gives_its_room_back() -> None:
    node = Tended()
    log = node.log()
    node.fill(log)
    node.store.delete_records({KEY: 10})
    for _ in range(4):
        node.turn()
    assert (log.log_start_offset, log.log_end_offset, log.size_bytes) == (10, 10, 0)
    assert node.expiries() == [("readings", 0, 10, BY_CLIENT, None)]
    assert node.upkeep.status()["expired"]["readings/0"]["bytes"] == 10 * 1_071
    node.fill(log, 1)
    assert len(read_all(log)) == 1


def test_age_takes_what_deletions_have_left_and_counts_nothing_twice() -> None:
    node = Tended()
    log = node.log(retention_ms=str(HOUR_MS))
    node.fill(log)
    node.turn()
    node.store.delete_records({KEY: 4})
    node.turn(0)
    node.turn(HOUR_MS)
    node.fill(log, 1)
    node.turn()
    assert node.expiries() == [("readings", 0, 4, BY_CLIENT, None), ("readings", 4, 9, AGE, None)]
    assert node.upkeep.status()["expired"]["readings/0"]["records"] == 9


def test_what_is_deleted_in_the_middle_of_a_turn_that_expires_it_is_told_all_the_same() -> None:
    node = Tended()
    log = node.log(retention_ms=str(HOUR_MS))
    node.fill(log)
    node.turn()
    node.clock.advance(HOUR_MS + 1)
    steps = node.upkeep.turn()
    assert next(steps) is None, "it has looked for deletions, and not yet for what is old"
    node.store.delete_records({KEY: 4})
    run_steps(steps)
    node.store.flush_now()
    node.turn(0)
    told = node.expiries()
    assert [first for _, first, *_ in told] == [0, *(end for _, _, end, *_ in told[:-1])], "without a gap"
    assert node.upkeep.status()["expired"]["readings/0"]["records"] == log.log_start_offset > 4


def test_what_the_central_never_had_is_owed() -> None:
    node = Tended()
    log = node.log()
    node.fill(log)
    node.settled["readings"] = 2
    node.store.delete_records({KEY: 5})
    node.turn()
    assert node.expiries() == [("readings", 0, 5, BY_CLIENT, 2)]
    assert node.upkeep.status()["owed"][-1]["end"] == 5


def test_a_power_cut_anywhere_leaves_the_old_start_or_the_new_one_and_the_word_of_it() -> None:
    ends: set[int] = set()
    for at in range(1, 60):
        disk = FatefulDisk()
        node = Tended(disk)
        node.fill(node.log())
        node.turn()
        disk.cut_at = disk.changes + at
        acknowledged = False
        try:
            node.store.delete_records({KEY: 5})
            acknowledged = True
            for _ in range(3):
                node.turn()
        except PowerCutError:
            disk.cut_at = None
            disk.power_cut()
            node.open()
        start = node.log().log_start_offset
        ends.add(start)
        assert start == 5 or (start == 0 and not acknowledged)
        disk.cut_at = None
        for _ in range(3):
            node.turn()
        told = {(first, end) for _, first, end, cause, _ in node.expiries() if cause == BY_CLIENT}
        assert told == ({(0, 5)} if start else set())
        assert [offset for offset, _, _ in rows_of(node.log())] == list(range(start, 10))
    assert ends == {0, 5}


def test_a_disk_that_lost_the_end_of_a_log_hides_nothing_that_comes_later() -> None:
    node = Tended()
    node.fill(node.log(), 2)
    node.store.delete_records({KEY: 2})
    node.disk.truncate(node.disk.open(f"{DATA}/log/readings-0/{0:020d}.log"), 0)
    node.open()
    assert node.log().log_end_offset < 2
    node.fill(node.log(), 3)
    node.store.close()
    node.open()
    assert len(read_all(node.log())) == 3


@pytest.mark.parametrize("number", [3, 7])
def test_a_flipped_number_among_the_log_starts_hides_nothing(number: int) -> None:
    node = Tended()
    node.fill(node.log(), 3)
    node.store.delete_records({KEY: 1})
    node.store.close()
    path = f"{DATA}/log/log-start-offset-checkpoint"
    node.disk.replace_file(path, b"0\n1\nreadings 0 %d\n" % number)
    node.open()
    assert node.log().log_start_offset == 1


def test_with_the_list_of_topics_damaged_everything_in_the_files_is_served_again() -> None:
    node = Tended()
    node.fill(node.log(), 3)
    node.store.delete_records({KEY: 2})
    node.store.close()
    for path in (f"{DATA}/node/topics.json", copy_of(f"{DATA}/node/topics.json")):
        node.disk.replace_file(path, b"{")
    node.open()
    assert node.alarms
    assert len(read_all(node.log())) == 3
