from __future__ import annotations

from typing import Any

import pytest

from gateway.log.recovery import Outcome, Recovery
from gateway.log.topic import findings
from headwater.app.status import clock_trusted, judge, notes, recovery_line

NOW = 1_800_000_000_000


def document(**parts: Any) -> dict[str, Any]:
    disk = {"free_bytes": 10 << 30, "total_bytes": 20 << 30}
    return {"now_ms": NOW, "log": {}, "disk": disk, "clock": {"wall_ms": NOW}, **parts}


def central(state: str, since_s: int, error: str | None = None) -> dict[str, Any]:
    return {"state": state, "since_ms": NOW - since_s * 1000, "bootstrap": "c:9092", "error": error}


def upkeep(**parts: Any) -> dict[str, Any]:
    return {"owed": [], "disk": "ok", "failures": {}, **parts}


def owed(hours: int) -> dict[str, Any]:
    at_ms = NOW - hours * 3_600_000
    return {"topic": "readings", "partition": 0, "owed_from": 5, "end": 10, "cause": "disk full", "at_ms": at_ms}


HOLDER = {
    "topic": "t",
    "partition": 0,
    "last_stable_offset": 3,
    "end": 8,
    "transactional_id": "pay-7",
    "producer_id": 12,
    "age_ms": 61_000,
}


def test_what_degrades_only_when_it_is_lasting_or_lately() -> None:
    torn = findings([Recovery("t", 1, Outcome.TORN_TAIL, 5, 9, 100, "")])
    lost = findings([Recovery("t", 1, Outcome.QUARANTINED, 5, 9, 100, "")])
    assert judge(document(log={"recovered": torn}, started_ms=NOW))[0] == "good"
    assert judge(document(log={"recovered": lost}, started_ms=NOW - 25 * 3_600_000))[0] == "good"
    assert judge(document(kafka={"transactions": {"held_back": [HOLDER | {"age_ms": 59_000}]}}))[0] == "good"


def test_kafka_clients_with_something_to_look_at_are_named() -> None:
    aborted = {"id": "pay-7", "at_ms": NOW, "why": "aborted by time-out after 900 ms"}
    past = {"group": "g", "topic": "t", "partition": 2, "offset": 9, "end": 5}
    kafka = {
        "transactions": {"last_aborted": aborted, "timed_out": 3, "orphans": 1},
        "groups": {"past_the_end": [past]},
    }
    found = notes(document(kafka=kafka))
    assert found[0] == "transactional id pay-7: aborted by time-out after 900 ms (3 since the start)"
    assert found[1].startswith("1 transactions were aborted at the start")
    assert found[2].startswith("group g: committed offset 9 of t/2 lies past the log's end 5")


def test_what_went_more_than_a_day_ago_is_history() -> None:
    assert judge(document(upkeep=upkeep(owed=[owed(hours=25)])))[0] == "good"


def test_nothing_wrong_is_good() -> None:
    assert judge(document(central=central("up", 1), work={"state": "running"})) == ("good", [])


def test_a_link_just_being_made_is_no_problem_yet() -> None:
    assert judge(document(central=central("connecting", 3)))[0] == "good"
    assert judge(document(central=central("connecting", 60)))[0] == "degraded"


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"central": central("down", 60, "timed out")}, "no link to the central c:9092 for 60 s: timed out"),
        ({"central": central("stopped", 1, "twin")}, "replication to the central c:9092 has stopped: twin"),
        ({"ingest": {"sources": [{"id": "serial:x", "problem": "no such port"}]}}, "serial:x: no such port"),
        ({"work": {"state": "running", "silent_ms": 7_200}}, "the work process has said nothing for 7 s"),
        ({"work": {"state": "waiting", "last_end": "ended with status 1"}}, "the work process ended with status 1"),
        ({"nodes": [{"node": "edge-01", "silent_ms": 45_000}]}, "node edge-01: no mark for 45 s"),
        ({"disk": {"free_bytes": 1 << 20, "total_bytes": 1 << 30}}, "nearly full: 1 MiB of 1024 MiB"),
        ({"clock": {"wall_ms": 5}}, "the wall clock stands before"),
        ({"upkeep": upkeep(disk="full")}, "the disk is full: the oldest readings go"),
        ({"upkeep": upkeep(failures={"removal": "Input/output error"})}, "removal: Input/output error"),
        (
            {"upkeep": upkeep(owed=[owed(hours=23)])},
            "readings/0: records 5 to 9 went before anybody else had them (disk",
        ),
        (
            {"log": {"recovered": findings([Recovery("t", 1, Outcome.QUARANTINED, 5, 9, 100, "")])}, "started_ms": NOW},
            "t/1: damaged range quarantined at the start, offsets 5 to 8",
        ),
        (
            {"log": {"recovered": findings([Recovery("t", 1, Outcome.QUARANTINED, 5, 5, 100, "")])}, "started_ms": NOW},
            "quarantined at the start, before offset 5, and no offset is missing; docs",
        ),
        ({"kafka": {"transactions": {"held_back": [HOLDER]}}}, "transaction pay-7 of producer 12, open for 61 s"),
        ({"listeners": {"mqtt": "port 1883 is held by mosquitto (pid 5)"}}, "mqtt: port 1883 is held"),
    ],
)
def test_each_trouble_degrades_and_is_named(parts: dict[str, Any], words: str) -> None:
    state, problems = judge(document(**parts))
    assert state == "degraded"
    assert len(problems) == 1
    assert words in problems[0]


def test_a_log_that_cannot_be_written_is_down() -> None:
    state, problems = judge(document(ingest={"problem": "Input/output error"}, central=central("down", 60)))
    assert state == "down"
    assert "nothing is acknowledged" in problems[0]
    assert len(problems) == 2


def test_a_tiny_disk_is_judged_by_its_share() -> None:
    assert judge(document(disk={"free_bytes": 40 << 20, "total_bytes": 100 << 20}))[0] == "good"


def test_the_kernel_can_be_asked_about_its_clock() -> None:
    assert clock_trusted() in (True, False, None)


def test_a_node_that_was_heard_lately_is_no_problem() -> None:
    assert judge(document(nodes=[{"node": "edge-01", "silent_ms": 29_000}])) == ("good", [])


def test_notes_name_what_degrades_nothing() -> None:
    sources = [
        {"id": "mqtt:a", "note": "its clock is off", "last_error": None},
        {"id": "mqtt:b", "note": None, "last_error": "a large packet", "last_error_ms": NOW - 180_000},
        {"id": "mqtt:c", "note": None, "last_error": "a large packet", "last_error_ms": NOW, "problem": "again"},
    ]
    found = document(ingest={"sources": sources[:2]})
    assert judge(found) == ("good", [])
    assert notes(document(ingest={"sources": sources})) == [
        "mqtt:a: its clock is off",
        "mqtt:b: last error 3 min ago: a large packet",
    ]
    lately = {"id": "mqtt:b", "last_error": "a large packet", "last_error_ms": NOW - 9_000}
    assert notes(document(ingest={"sources": [lately]})) == ["mqtt:b: last error 9 s ago: a large packet"]
    assert notes(document()) == []


def test_the_start_says_how_the_last_run_ended() -> None:
    found = Recovery("readings", 0, Outcome.TORN_TAIL, 77, 77, 120, "/data/log/readings-0/0.log")
    [torn] = findings([found])
    assert recovery_line([], clean=True) == ""
    assert recovery_line([], clean=False).endswith("the log is whole, nothing had to be mended")
    assert "cut short" in recovery_line([torn], clean=False)
    assert "readings/0: torn tail cut at offset 77, 120 B" in recovery_line([torn], clean=True)
    assert recovery_line([torn] * 9, clean=False).endswith("and 6 more, in topic events")


def test_what_strangers_can_make_many_of_stands_behind_the_node_s_own_notes() -> None:
    refusal = {"client": "x", "does": "subscribes", "what": "#", "count": 1, "last_ms": NOW}
    found = notes(document(ingest={"refusals": [refusal] * 200}, kafka={"security_notes": ["anybody may write"]}))
    assert found.index("anybody may write") == 0
    assert len(found) == 201
