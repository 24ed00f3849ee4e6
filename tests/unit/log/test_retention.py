"""What expires of a log and when: by age, by bytes, by what the central has; and that every expiry is told."""

from __future__ import annotations

import msgspec
import pytest

from gateway.log import checkpoints
from gateway.log.errors import OffsetOutOfRange
from gateway.log.retention import AGE, BYTES, Held, Rule, choose_for_disk, expired
from tests.support.logs import DATA, NOW_MS, SMALL, FlakyDisk, read_all
from tests.support.upkeep import FatefulDisk, PowerCutError, Tended, put, rows_of

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
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
    node.turn()
    assert node.upkeep.status()["failures"] == {}
    assert len(log_files(node)) == 1


class StuckDisk(FatefulDisk):
    """The next rename or removal of a segment's log fails, once."""

    stuck = ""

    def rename(self, old: str, new: str) -> None:
        self._fail("rename", old)
        super().rename(old, new)

    def remove(self, path: str) -> None:
        self._fail("remove", path)
        super().remove(path)

    def _fail(self, call: str, path: str) -> None:
        if call == self.stuck and path.endswith((".log", ".log.deleted")):
            self.stuck = ""
            raise OSError(5, "Input/output error")


@pytest.mark.parametrize("call", ["rename", "remove"])
def test_one_segment_that_cannot_be_removed_keeps_no_other_and_is_tried_again(call: str) -> None:
    disk = StuckDisk()
    node = Tended(disk)
    node.fill(node.log(retention_ms=str(HOUR_MS)))
    node.turn()
    node.turn(2 * HOUR_MS)
    before = len(log_files(node))
    disk.stuck = call
    node.turn()
    assert node.upkeep.status()["failures"] == {"removal": "Input/output error"}
    assert before == 5
    assert len(log_files(node)) == 3  # it, the one that this turn gave up, the active one
    node.turn()
    assert node.upkeep.status()["failures"] == {}
    assert len(log_files(node)) == 1


def test_what_could_not_be_removed_of_a_deleted_topic_is_not_removed_from_a_new_one_of_its_name() -> None:
    disk = StuckDisk()
    node = Tended(disk)
    node.fill(node.log(retention_ms=str(HOUR_MS)))
    node.turn()
    node.turn(2 * HOUR_MS)
    disk.stuck = "rename"
    node.turn()
    assert node.upkeep.status()["failures"] == {"removal": "Input/output error"}
    node.store.delete_topic("readings")
    node.fill(node.log(), 1)
    node.turn()
    assert node.upkeep.status()["failures"] == {}
    assert f"{0:020d}.log" in log_files(node)


def log_files(node: Tended) -> list[str]:
    return [name for name in node.files() if name.endswith((".log", ".log.deleted"))]


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
