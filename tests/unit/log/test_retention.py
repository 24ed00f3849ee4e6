from __future__ import annotations

import msgspec
import pytest

from gateway.log import checkpoints
from gateway.log.errors import LogFailed, OffsetOutOfRange
from gateway.log.reserve import RELEASE_BELOW_BYTES, make_reserve, release_when_full
from gateway.log.retention import AGE, BYTES, DISK, Held, Rule, choose_for_disk, expired
from tests.support.logs import DATA, NOW_MS, SMALL, FlakyDisk, read_all
from tests.support.upkeep import FatefulDisk, PowerCutError, SmallDisk, Tended, put, rows_of

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
RESERVE = f"{DATA}/node/reserve"
NO_RULE = Rule(None, None, None, 1 << 62)


def held(*arrivals: int | None, size: int = 10) -> list[Held]:
    return [Held(at * 10, at * 10 + 10, size, arrived) for at, arrived in enumerate(arrivals)]


# -- decisions


def test_by_age_the_oldest_go_up_to_the_first_that_is_young_or_unknown() -> None:
    rule = NO_RULE._replace(age_ms=100)
    assert expired(held(0, 50, 200), rule, 0, 151) == (2, AGE)
    assert expired(held(0, None, 0), rule, 0, 1_000) == (1, AGE)
    assert expired(held(0, 50), rule, 0, 100)[0] == 0
    assert expired(held(0, 0), rule, 0, None)[0] == 0


def test_by_age_nothing_goes_that_the_central_does_not_have() -> None:
    rule = NO_RULE._replace(age_ms=100, settled=20)
    assert expired(held(0, 0, 0), rule, 0, 1_000)[0] == 2
    assert expired(held(0, 0, 0), rule._replace(settled=19), 0, 1_000)[0] == 1


def test_by_bytes_at_least_so_much_is_kept_and_what_is_owed_goes_too() -> None:
    rule = NO_RULE._replace(bytes_max=25, settled=0)
    assert expired(held(0, 0, 0, 0), rule, 5, None) == (2, BYTES)
    assert expired(held(0, 0, 0), rule._replace(bytes_max=34), 5, None)[0] == 0
    assert expired(held(0, 0, 0, 0), rule._replace(bytes_max=0), 0, None)[0] == 4


def test_nothing_goes_from_under_an_open_transaction() -> None:
    rule = Rule(0, 0, None, 15)
    assert expired(held(0, 0, 0), rule, 0, 1_000)[0] == 1
    assert choose_for_disk({("r", 0): held(0, 0)}, {("r", 0): rule}, 1_000) == {("r", 0): 1}


def test_on_a_full_disk_readings_go_first_and_events_and_alerts_last() -> None:
    topics = {(name, 0): held(1, 2) for name in ("alerts", "events", "deadletter", "readings", "raw")}
    rules = dict.fromkeys(topics, NO_RULE)
    order = []
    for need in range(10, 101, 10):
        chosen = choose_for_disk(topics, rules, need)
        order.append({name for (name, _), count in chosen.items() if count == 2})
    assert order[3] == {"readings", "raw"}
    assert order[5] == {"readings", "raw", "deadletter"}
    assert sum(choose_for_disk(topics, rules, 45).values()) == 5
    assert choose_for_disk(topics, rules, 10_000) == dict.fromkeys(topics, 2)


def test_what_the_central_has_goes_before_what_it_has_not() -> None:
    topics = {("readings", 0): held(5, 6, 7), ("raw", 0): held(1, 2)}
    rules = {("readings", 0): NO_RULE._replace(settled=20), ("raw", 0): NO_RULE._replace(settled=0)}
    assert choose_for_disk(topics, rules, 20) == {("readings", 0): 2}
    assert choose_for_disk(topics, rules, 30) == {("readings", 0): 2, ("raw", 0): 1}


# -- a store


def test_old_segments_expire_by_their_arrival_and_are_named() -> None:
    node = Tended()
    log = node.log(retention_ms=str(HOUR_MS))
    node.fill(log)
    assert len([name for name in node.files() if name.endswith(".log")]) == 4
    node.turn()
    node.turn(HOUR_MS)
    assert log.log_start_offset == 0
    node.fill(log, 1)  # the active segment is young again
    node.turn()
    assert log.log_start_offset == 9
    assert node.expiries() == [("readings", 0, 9, AGE, None)]
    assert (node.events[-1]["from_ms"], node.events[-1]["to_ms"]) == (NOW_MS, NOW_MS + 8)
    assert len(read_all(log)) == 2
    with pytest.raises(OffsetOutOfRange):
        log.read(8, 100)
    starts = checkpoints.decode_offsets(node.disk.read_file(f"{DATA}/log/{checkpoints.LOG_STARTS}"))
    assert starts == {("readings", 0): 9}
    assert "00000000000000000000.log" in node.files()  # until the next turn, when the event is on disk
    node.turn()
    assert [name for name in node.files() if name.endswith(".log")] == ["00000000000000000009.log"]
    assert not [name for name in node.files() if name.startswith("00000000000000000000.")]
    assert node.upkeep.status()["expired"]["readings/0"] == {"records": 9, "bytes": 9 * 1_071, "owed_records": 0}


def test_a_topic_that_nobody_writes_to_any_more_expires_whole() -> None:
    node = Tended()
    log = node.log(retention_ms=str(HOUR_MS))
    node.fill(log, 2)
    node.turn()
    for _ in range(3):
        node.turn(HOUR_MS)
    assert (log.log_start_offset, log.log_end_offset, log.size_bytes) == (2, 2, 0)


def test_nothing_expires_by_a_clock_that_is_not_trusted_and_ages_begin_with_trust() -> None:
    node = Tended()
    node.trusted = False
    log = node.log(retention_ms=str(HOUR_MS))
    node.fill(log)
    node.turn()
    node.turn(100 * DAY_MS)
    assert log.log_start_offset == 0
    node.trusted = True
    node.turn()
    assert log.log_start_offset == 0
    node.trusted = False
    node.turn(2 * HOUR_MS)
    assert log.log_start_offset == 0
    node.trusted = True
    node.turn()
    assert log.log_start_offset == 9


def test_a_clock_that_stepped_back_begins_the_age_again() -> None:
    node = Tended()
    log = node.log(retention_ms=str(HOUR_MS))
    node.fill(log)
    node.turn()
    node.clock.step_wall(-10 * DAY_MS)
    node.turn()
    node.turn(2 * HOUR_MS)
    assert log.log_start_offset == 9


def test_ages_survive_a_restart_and_where_they_are_lost_they_begin_anew() -> None:
    node = Tended()
    node.fill(node.log(retention_ms=str(HOUR_MS)))
    node.turn()
    node.disk.power_cut()
    node.open()
    node.turn(HOUR_MS + 1)
    assert node.log().log_start_offset == 9
    node = Tended()
    node.fill(node.log(retention_ms=str(HOUR_MS)))
    node.turn()
    node.disk.replace_file(f"{DATA}/node/arrivals", b"0\n7\nnonsense")
    node.disk.power_cut()
    node.open()
    node.turn(HOUR_MS + 1)
    assert node.log().log_start_offset == 0
    node.turn(HOUR_MS + 1)
    assert node.log().log_start_offset == 9


def test_record_timestamps_decide_nothing() -> None:
    node = Tended()
    log = node.log(retention_ms=str(HOUR_MS))
    node.clock.step_wall(400 * DAY_MS)  # the records say that they are that old
    node.fill(log)
    node.turn()
    node.turn(HOUR_MS // 2)
    assert log.log_start_offset == 0


def test_on_an_edge_replicated_data_stays_for_a_day_and_the_rest_until_it_is_replicated() -> None:
    node = Tended()
    node.settled["readings"] = 0
    log = node.log()
    node.fill(log)
    node.turn()
    for _ in range(10):
        node.turn(10 * DAY_MS)
    assert log.log_start_offset == 0
    node.settled["readings"] = 6
    node.turn()
    assert log.log_start_offset == 6
    assert node.expiries() == [("readings", 0, 6, AGE, None)]
    node = Tended()
    log = node.log()
    node.settled["readings"] = 10
    node.fill(log)
    node.turn()
    node.turn(23 * HOUR_MS)
    assert log.log_start_offset == 0
    node.turn(HOUR_MS + 1)
    assert log.log_start_offset == 9


def test_by_bytes_what_the_central_lacks_goes_too_and_is_named() -> None:
    node = Tended()
    node.settled["readings"] = 5
    log = node.log(retention_bytes="4000")
    node.fill(log)
    node.turn()
    assert node.expiries() == [("readings", 0, 6, BYTES, 5)]
    status = node.upkeep.status()
    assert status["expired"]["readings/0"]["owed_records"] == 1
    assert [(each["first"], each["end"]) for each in status["owed"]] == [(0, 6)]
    node.turn()
    assert len(node.expiries()) == 1


def test_a_compacted_topic_does_not_expire_and_one_with_both_policies_does_both() -> None:
    node = Tended(settings=msgspec.structs.replace(SMALL, retention_ms=HOUR_MS))
    state = node.log("state", cleanup_policy="compact", segment_bytes="1024")
    both = node.log("aggregates", cleanup_policy="compact,delete", segment_bytes="1024")
    for turn in range(12):
        for log in (state, both):
            for number in range(30):
                put(log, [(b"%d" % number, bytes(60 + turn))])
        node.store.flush_now()
        node.turn(20_000)
    node.turn(20_000)
    assert node.upkeep.status()["compactions"] >= 2
    assert state.size_bytes < 30 * 160 * 2
    assert {key for _, key, _ in rows_of(state)} == {b"%d" % number for number in range(30)}
    for _ in range(4):
        node.turn(HOUR_MS)
    assert len({key for _, key, _ in rows_of(state)}) == 30
    assert rows_of(both) == []


def test_a_compacted_segment_is_as_young_as_the_youngest_that_went_into_it() -> None:
    node = Tended()
    log = node.log("aggregates", cleanup_policy="compact,delete", segment_bytes="8192", retention_ms=str(10 * HOUR_MS))
    put(log, [(b"a", bytes(3_000))])
    log.roll_now()
    node.store.flush_now()
    node.turn()
    node.clock.advance(6 * HOUR_MS)
    put(log, [(b"b", bytes(3_000)), (b"a", b"")])
    log.roll_now()
    node.store.flush_now()
    node.turn(20_000)
    node.turn(20_000)
    assert log.segments_count == 2
    node.turn(5 * HOUR_MS)
    assert len(rows_of(log)) == 2
    node.turn(6 * HOUR_MS)
    assert rows_of(log) == []


# -- the full disk


def small_node(size_bytes: int = 40 << 20) -> tuple[Tended, SmallDisk]:
    disk = SmallDisk(size_bytes)
    settings = msgspec.structs.replace(SMALL, segment_bytes=1 << 20, free_floor_bytes=1 << 40, reserve_bytes=4 << 20)
    return Tended(disk, settings), disk


def big(node: Tended, topic: str, count: int) -> None:
    for _ in range(count):
        put(node.log(topic), [(b"k", bytes(500_000))])
    node.store.flush_now()


def test_below_the_floor_the_oldest_readings_go_even_those_that_the_central_lacks() -> None:
    node, disk = small_node()
    node.settled |= {"readings": 6, "events": 0}
    for topic in ("events", "readings", "alerts"):
        big(node, topic, 20)
    node.turn()
    assert disk.exists(RESERVE)
    assert not node.expiries()
    disk.size_bytes = disk.used_bytes() + (1 << 20)  # somebody else wrote a lot
    floor = disk.size_bytes // 20
    for _ in range(3):
        node.turn()
    assert disk.free_bytes("") >= floor
    (topic, first, end, cause, owed_from), *others = node.expiries()
    assert (topic, first, cause, owed_from) == ("readings", 0, DISK, None if end <= 6 else 6)
    assert not others
    assert end < 20
    big(node, "readings", 2)
    for _ in range(3):
        node.turn()
    assert {each[0] for each in node.expiries()} == {"readings"}
    assert disk.free_bytes("") >= floor


def test_when_the_readings_are_gone_dead_letters_follow_and_alerts_and_events_at_the_very_end() -> None:
    node, disk = small_node()
    for topic in ("events", "readings", "deadletter", "alerts"):
        big(node, topic, 6)
    node.turn()
    disk.size_bytes = disk.used_bytes()
    expelled: list[str] = []
    for _ in range(30):
        disk.size_bytes -= 300_000
        node.turn()
        expelled += [each[0] for each in node.expiries() if each[0] not in expelled]
    assert expelled[:2] == ["readings", "deadletter"]
    assert set(expelled[2:]) <= {"alerts", "events"}


def test_at_zero_bytes_the_reserve_goes_and_appends_work_again_with_the_expiry_told() -> None:
    node, disk = small_node(20 << 20)
    node.settled["readings"] = 2
    big(node, "readings", 3)
    node.turn()
    assert disk.exists(RESERVE)
    with pytest.raises(LogFailed, match="No space left"):
        big(node, "readings", 100)
    node.store.flush_now()
    end = node.log().log_end_offset
    disk.size_bytes = disk.used_bytes()
    node.events_fail = True
    node.turn()
    assert not disk.exists(RESERVE)
    assert node.upkeep.status()["disk"] == "full"
    node.turn()
    node.events_fail = False
    node.turn()
    assert disk.free_bytes("") > 0
    topic, first, upto, cause, owed_from = node.expiries()[0]
    assert (topic, first, cause, owed_from) == ("readings", 0, DISK, 2)
    assert upto <= end
    big(node, "readings", 1)
    assert node.log().log_end_offset == end + 1
    assert sum(each[2] - each[1] for each in node.expiries()) == node.log().log_start_offset
    assert node.upkeep.status()["expired"]["readings/0"]["records"] == node.log().log_start_offset


def test_a_start_at_zero_bytes_free_releases_the_reserve_first() -> None:
    node, disk = small_node(20 << 20)
    big(node, "readings", 3)
    node.turn()
    node.disk.power_cut()
    disk.size_bytes = disk.used_bytes()
    node.open()
    assert not disk.exists(RESERVE)
    assert node.log().log_end_offset == 3
    assert not node.alarms


def test_a_single_big_active_segment_is_closed_to_give_room_when_the_disk_is_full() -> None:
    node, disk = small_node(20 << 20)
    put(node.log(), [(b"k", bytes(900_000))])
    node.store.flush_now()
    disk.size_bytes = disk.used_bytes() + 1_000
    for _ in range(4):
        node.turn()
    assert (node.log().log_start_offset, node.log().size_bytes) == (1, 0)


def test_when_there_is_room_again_the_reserve_is_made_again() -> None:
    node, disk = small_node()
    node.turn()
    disk.size_bytes = disk.used_bytes() + 1_000
    node.turn()
    assert not disk.exists(RESERVE)
    disk.size_bytes = 40 << 20
    node.turn()
    assert disk.exists(RESERVE)
    assert node.events[-1] == {"kind": "disk", "state": "ok", "free_bytes": node.events[-1]["free_bytes"]}
    assert [each["state"] for each in node.events] == ["full", "ok"]


def test_a_reserve_that_does_not_fit_is_not_left_half_made() -> None:
    disk = SmallDisk(4 << 20)
    disk.make_directory("/n")
    with pytest.raises(OSError, match="No space"):
        make_reserve(disk, "/n", 6 << 20)
    assert not disk.exists("/n/reserve")
    make_reserve(disk, "/n", 3 << 20)
    assert len(disk.read_file("/n/reserve")) == 3 << 20
    disk.size_bytes = (3 << 20) + RELEASE_BELOW_BYTES
    assert not release_when_full(disk, "/n")
    disk.size_bytes -= 1
    assert release_when_full(disk, "/n")
    assert not release_when_full(disk, "/n")


# -- crashes


def test_a_power_cut_before_any_change_of_the_disk_never_hides_an_expiry() -> None:
    def expire(node: Tended) -> None:
        node.turn(2 * HOUR_MS)
        node.turn()

    def prepared() -> Tended:
        node = Tended()
        node.fill(node.log(retention_ms=str(HOUR_MS)))
        node.turn()
        node.fill(node.log(), 1)
        return node

    node = prepared()
    before = node.disk.changes
    expire(node)
    changes = node.disk.changes - before
    assert changes > 8
    for number in range(1, changes + 1):
        node = prepared()
        node.disk.cut_at = node.disk.changes + number
        with pytest.raises(PowerCutError):
            expire(node)
        node.disk.cut_at = None
        node.disk.power_cut()
        node.open()
        start = node.log().log_start_offset
        assert start in {0, 9}
        assert [row[0] for row in read_all(node.log())] == list(range(start, 11))
        expire(node)
        node.turn()
        for _ in range(3):
            node.turn(2 * HOUR_MS)
        start = node.log().log_start_offset
        told = {offset for _, first, end, _, _ in node.expiries() for offset in range(first, end)}
        assert told == set(range(start))
        assert len([name for name in node.files() if name.endswith(".log")]) == 1


def test_a_disk_that_fails_is_said_once_and_tried_again() -> None:
    node = Tended()
    node.fill(node.log(retention_ms=str(HOUR_MS)))
    node.turn()
    node.turn(2 * HOUR_MS)
    node.disk.fail_next["sync_directory"] = OSError(5, "Input/output error")
    node.turn()
    assert node.upkeep.status()["failures"] == {"removal": "Input/output error"}
    assert node.log().log_start_offset >= 9


def test_a_topic_deleted_meanwhile_is_no_trouble() -> None:
    node = Tended()
    node.fill(node.log(retention_ms=str(HOUR_MS)))
    node.turn()
    node.clock.advance(2 * HOUR_MS)
    steps = node.upkeep.turn()
    for step in steps:
        if step is not None:
            node.store.delete_topic("readings")
            step()
            break
    for step in steps:
        if step is not None:
            step()
    node.turn()
    assert node.expiries() == []


def test_flaky_and_fateful_disks_are_forgetful() -> None:
    assert issubclass(FatefulDisk, FlakyDisk)
