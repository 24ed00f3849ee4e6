"""Waits between connections, which MQTT version is tried, and what the node remembers of a session."""

from __future__ import annotations

from random import Random

from gateway.ingest.mqtt.sessions import Use
from gateway.ingest.mqtt_client.driver import recovered_memory
from gateway.ingest.mqtt_client.memo import SessionMemo
from gateway.ingest.mqtt_client.retry import STABLE_MS, Backoff, Versions
from headwater.disk import ForgetfulDisk


def test_waits_double_and_are_spread_and_only_a_stable_connection_makes_them_short_again() -> None:
    backoff = Backoff(Random(1), max_ms=8_000, first_ms=500)
    waits = [backoff.wait_ms(lasted_ms=STABLE_MS - 1) for _ in range(7)]
    for wait, whole in zip(waits, [500, 1_000, 2_000, 4_000, 8_000, 8_000, 8_000], strict=True):
        assert whole / 2 <= wait <= whole
    assert backoff.wait_ms(lasted_ms=STABLE_MS) <= 500
    assert 500 <= backoff.wait_ms(lasted_ms=0) <= 1_000
    many = {round(Backoff(Random(seed), max_ms=8_000).wait_ms(lasted_ms=0)) for seed in range(50)}
    assert len(many) > 30


def test_5_is_tried_first_and_3_1_1_where_the_broker_says_that_it_knows_no_other() -> None:
    versions = Versions("auto")
    assert versions.level == 5
    assert versions.refused()
    assert versions.level == 4
    assert not versions.refused()  # it names the version again: no other is left
    versions.closed_unanswered()
    assert versions.level == 4


def test_a_broker_that_hangs_up_without_a_word_is_tried_with_both() -> None:
    versions = Versions("auto")
    versions.closed_unanswered()
    assert versions.level == 4
    versions.closed_unanswered()
    assert versions.level == 5
    versions.accepted()
    versions.closed_unanswered()  # it restarts: what it speaks is known
    assert versions.level == 5


def test_a_version_that_was_chosen_is_kept() -> None:
    for name, level in (("5", 5), ("3.1.1", 4)):
        versions = Versions(name)
        assert not versions.refused()
        versions.closed_unanswered()
        assert versions.level == level


def test_a_session_is_remembered_across_a_power_cut_and_another_broker_has_another() -> None:
    disk = ForgetfulDisk()
    memo = SessionMemo(disk, "/data")
    assert memo.recall("hall", "a:1883", "edge") is None
    assert memo.keep("hall", "a:1883", "edge", ["x/#"])
    memo.write()
    assert not memo.keep("hall", "a:1883", "edge", ["x/#"])
    disk.power_cut()
    memo = SessionMemo(disk, "/data")
    known = memo.recall("hall", "a:1883", "edge")
    assert known is not None
    assert known.filters == ("x/#",)
    assert memo.recall("hall", "b:1883", "edge") is None
    assert memo.recall("hall", "a:1883", "other") is None
    disk.replace_file("/data/node/brokers.json", b"{torn")
    assert SessionMemo(disk, "/data").recall("hall", "a:1883", "edge") is None


def test_what_the_log_remembers_of_packet_identifiers_is_recent_or_nothing() -> None:
    uses = {1: Use(11, "readings", 0, 1_000), 2: Use(22, "readings", 1, 60_000)}
    memory = recovered_memory(uses, horizon_ms=5_000, slack_ms=2_000)
    assert memory.is_repeat(2, 22)
    assert not memory.is_repeat(1, 11)
    assert not memory.is_repeat(2, 23)
