"""Sources as `status` tells them: errors that age, clients without an id, what a restart knows."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from devices.profile_files import read_profiles
from gateway.ingest.marks import MarkSettings
from gateway.ingest.sources import ANONYMOUS, ERROR_KEPT_MS, RECURS_MS
from tests.support.ingest import Edge

QOS0 = 0


def sources(edge: Edge) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in edge.ingest.status()["sources"]}


def break_off(edge: Edge, client: str, problem: str = "a packet of 400009 bytes") -> None:
    edge.ingest.detach(edge.attach(client), clean=False, problem=problem)


def test_one_bad_packet_is_remembered_and_degrades_nothing() -> None:
    edge = Edge()
    break_off(edge, "bigguy")
    row = sources(edge)["mqtt:bigguy"]
    assert row["problem"] is None
    assert row["last_error"] == "a packet of 400009 bytes"
    assert row["last_error_ms"] == edge.clock.wall_ms()
    assert row["errors"] == 1


def test_an_error_that_recurs_is_a_problem_for_as_long_as_it_does() -> None:
    edge = Edge()
    for _ in range(3):
        edge.clock.advance(1_000)
        break_off(edge, "bigguy")
    assert (
        sources(edge)["mqtt:bigguy"]["problem"] == "again and again (3 times, last 0 s ago): a packet of 400009 bytes"
    )
    edge.clock.advance(RECURS_MS + 1)
    row = sources(edge)["mqtt:bigguy"]
    assert (row["problem"], row["last_error"]) == (None, "a packet of 400009 bytes")
    edge.clock.advance(ERROR_KEPT_MS)
    assert sources(edge)["mqtt:bigguy"]["last_error"] is None


def test_a_client_that_never_gave_a_reading_is_forgotten_with_its_error() -> None:
    edge = Edge()
    break_off(edge, "stranger")
    known = edge.attach("known")
    edge.take(known, ("pump", b"1", 0, QOS0))
    edge.sync()
    edge.ingest.detach(known, clean=True)
    edge.clock.advance(ERROR_KEPT_MS + 60_001)
    edge.ingest.tick()
    assert sorted(sources(edge)) == ["mqtt:known"]


def test_a_serial_port_s_problem_stands_until_it_is_mended() -> None:
    edge = Edge()
    port = edge.ingest.attach("serial:mast", kind="serial")
    edge.ingest.detach(port, clean=False, problem="/dev/mast does not exist")
    edge.clock.advance(10 * ERROR_KEPT_MS)
    edge.ingest.tick()
    assert sources(edge)["serial:mast"]["problem"] == "/dev/mast does not exist"


def test_clients_without_an_id_are_one_source() -> None:
    edge = Edge()
    for number in range(1, 21):
        source = edge.attach(f"anonymous-{number}")
        edge.take(source, (f"pump{number}", b"1", 0, QOS0))
        edge.ingest.detach(source, clean=True)
    staying = edge.attach("anonymous-0123456789abcdef")
    edge.take(staying, ("pump", b"2", 0, QOS0), ("pump", b"{not json", 0, QOS0))
    edge.sync()
    [row] = edge.ingest.status()["sources"]
    assert (row["id"], row["connected"], row["readings"], row["dead_letters"]) == (ANONYMOUS, True, 21, 1)
    assert row["last_ms"] == edge.clock.wall_ms()
    assert list(edge.ingest.marks.sources) == [ANONYMOUS]
    assert not edge.ingest.marks.sources[ANONYMOUS].gone
    edge.ingest.detach(staying, clean=True)
    assert edge.ingest.marks.sources[ANONYMOUS].gone
    assert not sources(edge)[ANONYMOUS]["connected"]
    assert edge.dead_letters()[0].key == f"edge/{ANONYMOUS}"


def test_a_restart_still_lists_who_spoke_before() -> None:
    edge = Edge(marks=MarkSettings(every_ms=100))
    for client in ("pump", "anonymous-7"):
        edge.take(edge.attach(client), ("t", b"1", 0, QOS0))
    edge.take(edge.attach("odd"), ("t", b"<html>", 0, QOS0))
    spoke_ms = edge.clock.wall_ms()
    edge.clock.advance(1_000)
    edge.sync()
    edge.ingest.tick()
    edge.store.flush_now()
    edge.clock.advance(3_600_000)
    edge.power_cut()
    rows = sources(edge)
    assert sorted(rows) == [ANONYMOUS, "mqtt:odd", "mqtt:pump"]
    assert rows["mqtt:odd"]["last_ms"] == spoke_ms
    assert (rows["mqtt:pump"]["connected"], rows["mqtt:pump"]["last_ms"]) == (False, spoke_ms)
    assert edge.attach("pump").row is edge.ingest.sources["mqtt:pump"]


def test_a_clock_that_is_off_is_a_note_and_no_problem() -> None:
    edge = Edge(read_profiles(["wind-turbine"]))
    fast = edge.attach("t3")
    edge.take(fast, ("farm/t3/telemetry", b'{"ts":%d,"seq":1}' % (edge.clock.wall_ms() + 3_600_000), 0, QOS0))
    edge.sync()
    row = sources(edge)["mqtt:t3"]
    assert row["problem"] is None
    assert "clock is off" in row["note"]


def test_dead_letters_are_said_at_the_first_and_then_by_powers_of_ten(caplog: pytest.LogCaptureFixture) -> None:
    edge = Edge()
    source = edge.attach("odd")
    with caplog.at_level(logging.WARNING, "headwater.ingest"):
        for number in range(12):
            edge.take(source, ("pump", b"<html>%d" % number, 0, QOS0))
            edge.sync()
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert said[0].startswith("mqtt:odd: a message that cannot be decoded, kept in topic deadletter:")
    assert "JSON" in said[0]
    assert said[1].startswith("mqtt:odd: 10 messages that cannot be decoded")
    assert sources(edge)["mqtt:odd"]["dead_letters"] == 12
