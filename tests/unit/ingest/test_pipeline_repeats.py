"""The pipeline and what comes again: flagged copies, natural keys, kills between append, fsync and acknowledgement."""

from __future__ import annotations

import errno

import pytest

from gateway.ingest.mqtt.state import HELD
from tests.support.ingest import DUP, QOS1, QOS2, TURBINE, Edge, plain, resumable, turbine


def test_messages_that_came_together_are_each_recognised_after_a_power_cut() -> None:
    edge = Edge()
    sent = [("pump", b'{"power":%d}' % number, number, QOS1) for number in range(1, 8)]
    edge.take(resumable(edge), ("pump", b'{"power":0}', 0, 0), *sent[:6])
    edge.sync()
    kept = edge.readings()
    assert [("hw-m" in record.headers) for record in kept] == [False] * 6 + [True]  # one header speaks of all
    edge.power_cut()
    source = resumable(edge)
    again = [(topic, payload, packet_id, DUP) for topic, payload, packet_id, _ in sent]
    edge.take(source, *again)
    edge.sync()
    assert [record.value["power"] for record in edge.readings()] == list(range(8))
    assert edge.ingest.status()["repeats_dup"] == 6
    assert edge.acks == [("mqtt:c1", list(range(1, 8)))]


def test_a_natural_key_is_stored_once_whoever_sends_it() -> None:
    edge = Edge([TURBINE])
    same = turbine(edge, 7)
    edge.take(edge.attach("c1"), same, turbine(edge, 8))
    edge.sync()
    edge.take(edge.attach("c2"), same)
    edge.sync()
    assert [record.value["seq"] for record in edge.readings()] == [7, 8]
    assert edge.acks[-1] == ("mqtt:c2", [1])
    assert edge.ingest.status()["repeats"] == 1


def test_a_repeat_is_not_acknowledged_before_its_original_is_on_disk() -> None:
    edge = Edge([TURBINE])
    edge.take(edge.attach("c1"), turbine(edge, 7))
    edge.loop.step()
    edge.take(edge.attach("c2"), turbine(edge, 7))
    edge.ingest.commit()
    assert edge.acks == []
    edge.store.flush_now()
    assert edge.acks == [("mqtt:c1", [1]), ("mqtt:c2", [1])]


def test_dup_after_a_lost_connection_is_stored_once() -> None:
    edge = Edge()
    source = resumable(edge)
    edge.take(source, plain(packet_id=5))
    edge.sync()
    assert source.memory is not None
    source.memory.connection_ended(edge.clock.monotonic_ms())
    source.memory.connection_began(resumed=True)
    edge.take(source, plain(packet_id=5, flags=DUP))
    edge.sync()
    assert len(edge.readings()) == 1
    assert len(edge.acks) == 2
    assert edge.ingest.status()["repeats_dup"] == 1


def test_without_dup_the_same_identifier_and_payload_is_a_new_message() -> None:
    edge = Edge()
    source = resumable(edge)
    edge.take(source, plain(packet_id=5))
    edge.loop.step()
    edge.take(source, plain(packet_id=5))
    edge.ingest.commit()
    edge.sync()
    assert len(edge.readings()) == 2


def test_a_qos_2_message_that_waits_for_pubrel_is_not_stored_again() -> None:
    edge = Edge()
    source = edge.attach("c1")
    edge.take(source, plain(packet_id=5, flags=QOS2))
    edge.take(source, plain(packet_id=5, flags=QOS2 | HELD))
    edge.sync()
    assert len(edge.readings()) == 1
    assert edge.acks == [("mqtt:c1", [5])] * 2


def test_dup_of_a_message_that_never_came_is_stored() -> None:
    edge = Edge()
    edge.take(resumable(edge), plain(packet_id=5, flags=DUP))
    edge.sync()
    assert len(edge.readings()) == 1


@pytest.mark.parametrize("payload", [b"21.5", b"no JSON at all"])
def test_a_kill_between_fsync_and_puback_stores_once(payload: bytes) -> None:
    edge = Edge()
    message = ("pump", payload, 5, QOS1)
    source = resumable(edge)
    edge.take(source, message)
    edge.loop.step()
    edge.store.flush_now()  # fsynced; the PUBACK is never written, for this is where the power goes
    edge.power_cut()
    registry = edge.registry()
    session, present, _ = registry.open("c1", clean=False, ends={"readings": 0, "deadletter": 0})
    assert present
    again = edge.attach("c1", session, resumed=True)
    edge.take(again, ("pump", payload, 5, DUP), plain(22.5, packet_id=6))
    edge.sync()
    assert edge.acks == [("mqtt:c1", [5, 6])]
    everything = [record.value for record in edge.readings() + edge.dead_letters()]
    assert len(everything) == 2, everything
    assert edge.ingest.status()["repeats_dup"] == 1


@pytest.mark.parametrize("torn_bytes", [0, 40, 10_000])
def test_a_kill_between_append_and_fsync_stores_the_second_sending(torn_bytes: int) -> None:
    edge = Edge()
    source = resumable(edge)
    edge.take(source, plain(20.5, packet_id=4))
    edge.sync()
    edge.take(source, plain(21.5, packet_id=5))
    edge.loop.step()  # appended, not fsynced, so not acknowledged
    assert edge.acks == [("mqtt:c1", [4])]
    edge.disk.power_cut(keep_tail_bytes=torn_bytes)
    edge.start()
    again = resumable(edge)
    edge.take(again, plain(21.5, packet_id=5, flags=DUP))
    edge.sync()
    assert edge.acks == [("mqtt:c1", [5])]
    assert [record.value["value"] for record in edge.readings()] == [20.5, 21.5]


def test_natural_keys_are_remembered_across_a_restart() -> None:
    edge = Edge([TURBINE])
    messages = [turbine(edge, 7), turbine(edge, 8, ts=edge.clock.wall_ms() + 3_600_000)]
    edge.take(edge.attach("c1"), *messages)
    edge.sync()
    edge.power_cut()
    edge.take(edge.attach("c1"), *messages, turbine(edge, 9))
    edge.sync()
    assert [record.value["seq"] for record in edge.readings()] == [7, 8, 9]


def test_what_the_disk_loses_is_forgotten_and_stored_when_it_comes_again() -> None:
    edge = Edge([TURBINE])
    source = resumable(edge)
    edge.take(source, turbine(edge, 1, packet_id=1))
    edge.sync()
    edge.take(source, turbine(edge, 2, packet_id=2))
    edge.loop.step()
    edge.disk.fail_next["sync"] = OSError(errno.EIO, "Input/output error")
    edge.store.flush_now()
    assert edge.lost == [("mqtt:c1", [2])]
    assert edge.ingest.status()["problem"]
    edge.clock.advance(2_000)
    edge.take(source, turbine(edge, 2, packet_id=2, flags=DUP, ts=edge.clock.wall_ms() - 2_000))
    edge.sync()
    assert [record.value["seq"] for record in edge.readings()] == [1, 2]
    assert edge.acks == [("mqtt:c1", [1]), ("mqtt:c1", [2])]
    assert edge.ingest.status()["problem"] is None
