"""Readings that a profile marks (limits) or does not store (deadband, rate cap), in the pipeline."""

from __future__ import annotations

import errno

from devices.profile_text import parse_profile
from gateway.ingest.messages import Message
from tests.support.ingest import Edge

TANK = parse_profile(
    """
name = "tank"
topics = ["tank/{device}"]
heartbeat_ms = 5000
[timestamp]
path = "t"
[fields.level]
min = 0
max = 100
deadband = 1.0
""",
    "tank.toml",
)


def tank(edge: Edge, level: float, packet_id: int = 1) -> Message:
    return ("tank/a", b'{"t":%d,"level":%.1f}' % (edge.clock.wall_ms(), level), packet_id, 2)


def test_a_number_out_of_range_is_kept_and_marked() -> None:
    edge = Edge([TANK])
    registry = edge.registry()
    session, present, _ = registry.open("c1", clean=False, ends={"readings": 0, "deadletter": 0})
    registry.prepare_sync()()
    source = edge.attach("c1", session, resumed=present)
    edge.take(source, tank(edge, 50), tank(edge, 150, 2), tank(edge, -5, 3))
    edge.sync()
    stored = edge.readings()
    assert [record.value for record in stored] == [{"level": 50.0}, {"level": 150.0}, {"level": -5.0}]
    qualities = [record.headers.get("hw-q") for record in stored]
    assert qualities == [None, b"out-of-range:level", b"out-of-range:level"]
    assert all("hw-m" in record.headers for record in stored)


def test_what_says_nothing_new_is_counted_acknowledged_and_not_stored() -> None:
    edge = Edge([TANK])
    source = edge.attach("c1")
    edge.take(source, tank(edge, 50), tank(edge, 50.5, 2), tank(edge, 52, 3), ("tank/a", b"junk", 4, 2))
    edge.sync()
    assert [record.value["level"] for record in edge.readings()] == [50.0, 52.0]
    assert edge.acks == [("mqtt:c1", [1, 2, 3, 4])]
    status = edge.ingest.status()
    books = [status[key] for key in ("received", "stored", "suppressed", "dead_letters")]
    assert books == [4, 2, 1, 1]


def test_a_source_that_only_says_the_same_is_heard() -> None:
    edge = Edge([TANK])
    source = edge.attach("c1")
    edge.take(source, tank(edge, 50))
    edge.sync()
    edge.clock.advance(3_000)
    edge.take(source, tank(edge, 50, 2))
    edge.sync()
    assert len(edge.readings()) == 1
    assert source.mark.newest_ms == edge.clock.wall_ms()
    edge.clock.advance(2_000)
    edge.take(source, tank(edge, 50, 3))
    edge.sync()
    assert len(edge.readings()) == 2  # the heartbeat


def test_what_the_disk_lost_is_stored_when_it_comes_again() -> None:
    edge = Edge([TANK])
    source = edge.attach("c1")
    edge.take(source, tank(edge, 50))
    edge.loop.step()
    edge.disk.fail_next["sync"] = OSError(errno.EIO, "Input/output error")
    edge.store.flush_now()
    assert edge.lost == [("mqtt:c1", [1])]
    edge.take(source, tank(edge, 50))
    edge.sync()
    assert [record.value["level"] for record in edge.readings()] == [50.0]
