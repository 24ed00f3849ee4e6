"""The pipeline on a disk that forgets: what is acknowledged, stored, a repeat, and what a restart knows."""

from __future__ import annotations

import errno

import msgspec
import pytest

from devices.profile_files import read_profiles
from devices.profile_text import parse_profile
from devices.profiles import Profile
from gateway.ingest.events import EVENTS_TOPIC, Events
from gateway.ingest.messages import Message, Messages
from gateway.ingest.mqtt.state import HELD
from gateway.ingest.pipeline import GROUP_BYTES
from gateway.ingest.sources import Source
from gateway.ingest.tail import tail_columns
from headwater.disk import ForgetfulDisk
from tests.support.ingest import Edge, stored

[TURBINE] = read_profiles(["wind-turbine"])
TOPIC = "farm/t1/telemetry"
QOS1, DUP, QOS2 = 2, 10, 4


def plain(value: float = 1.0, packet_id: int = 1, flags: int = QOS1) -> Message:
    return ("pump", b"%.1f" % value, packet_id, flags)


def turbine(edge: Edge, seq: int, *, packet_id: int = 1, flags: int = QOS1, ts: int | None = None) -> Message:
    claim = edge.clock.wall_ms() if ts is None else ts
    return (TOPIC, b'{"ts":%d,"seq":%d,"power":812.5}' % (claim, seq), packet_id, flags)


def resumable(edge: Edge, client: str = "c1") -> Source:
    """The client connects with clean session 0, as the listener would let it."""
    registry = edge.registry()
    session, present, unsynced = registry.open(client, clean=False, ends={"readings": 0, "deadletter": 0})
    if unsynced:
        registry.prepare_sync()()
    return edge.attach(client, session, resumed=present)


def test_nothing_is_acknowledged_before_the_sync() -> None:
    edge = Edge()
    source = edge.attach("c1")
    edge.take(source, plain(21.5))
    edge.loop.step()
    assert (edge.acks, edge.readings()) == ([], [])
    edge.store.flush_now()
    assert edge.acks == [("mqtt:c1", [1])]
    [record] = edge.readings()
    assert (record.key, record.value, record.timestamp) == ("edge/pump", {"value": 21.5}, edge.clock.wall_ms())


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


def test_copies_that_a_broker_kept_are_flagged_and_never_new() -> None:
    edge = Edge(profiles=[TURBINE])
    source = edge.attach("c1")
    now_ms = edge.clock.wall_ms()
    dated = turbine(edge, 1, ts=now_ms - 60_000)
    copies = Messages([dated, turbine(edge, 2, ts=now_ms + 3_600_000), plain(7, packet_id=3)])
    copies.copies = True
    done: list[bool] = []
    edge.ingest.take(source, copies, done.append)
    edge.take(source, turbine(edge, 3, packet_id=4))
    edge.sync()
    kept, live = edge.readings()
    assert (kept.timestamp, kept.value["seq"], kept.headers["hw-q"]) == (now_ms - 60_000, 1, b"retained")
    assert (live.timestamp, live.value["seq"], "hw-q" in live.headers) == (now_ms, 3, False)
    assert done == [True]  # the others are settled too: the broker need not send them again
    status = edge.ingest.status()
    assert (status["stored"], status["undated_copies"], status["dead_letters"]) == (2, 2, 0)
    edge.ingest.take(source, copies, done.append)  # the next connection brings them again
    edge.sync()
    assert (len(edge.readings()), edge.ingest.status()["repeats_natural_key"]) == (2, 1)


def test_no_window_waits_for_a_copy_that_a_broker_kept() -> None:
    edge = Edge(profiles=[TURBINE])
    source = edge.attach("c1")
    copies = Messages([turbine(edge, 1, ts=edge.clock.wall_ms() - 60_000)])
    copies.copies = True
    edge.ingest.take(source, copies, lambda stored: None)
    edge.sync()
    assert source.mark.newest_ms is None
    assert edge.readings()[0].headers["hw-q"] == b"retained"
    edge.take(source, turbine(edge, 2))
    edge.sync()
    assert source.mark.newest_ms == edge.clock.wall_ms()


def test_one_pass_is_one_batch_and_the_next_gathers_while_the_disk_works() -> None:
    edge = Edge()
    first, second = edge.attach("a"), edge.attach("b")
    edge.take(first, plain(1, 1), plain(2, 2))
    edge.take(second, plain(3, 1))
    edge.loop.step()
    edge.take(first, plain(4, 3))
    edge.take(second, plain(5, 2))
    edge.loop.step()
    assert [delay for delay, _ in edge.loop.later] == [0.01]
    assert edge.ingest.readings.log_end_offset == 3
    edge.store.flush_now()  # the sync of the first group lets the second go
    assert edge.acks == [("mqtt:a", [1, 2]), ("mqtt:b", [1]), ("mqtt:a", [3]), ("mqtt:b", [2])]
    assert len(list(tail_columns(edge.ingest.readings, 1 << 20))) == 2


def test_a_full_group_does_not_wait_for_the_pass_to_end() -> None:
    edge = Edge()
    edge.take(edge.attach("a"), ("t", b'"%s"' % (b"x" * GROUP_BYTES), 1, QOS1))
    assert edge.ingest.readings.log_end_offset == 1


def test_the_device_may_claim_its_time_within_reason() -> None:
    edge = Edge([TURBINE])
    now = edge.clock.wall_ms()
    source = edge.attach("c1")
    claims = [now - 5_000, now + 3_600_000, now - 40 * 86_400_000]
    edge.take(source, *[turbine(edge, seq, ts=claim) for seq, claim in enumerate(claims)])
    edge.sync()
    records = edge.readings()
    assert [record.timestamp for record in records] == [now - 5_000, now, now]
    assert [record.headers.get("hw-t") for record in records] == [None, b"%d" % claims[1], b"%d" % claims[2]]
    assert records[0].value == {"seq": 0, "power": 812.5}
    status = edge.ingest.status()
    assert status["untrusted_times"] == 2
    assert "clock is off" in status["sources"][0]["note"]


def test_garbage_goes_to_the_dead_letters_and_is_acknowledged_with_the_rest() -> None:
    edge = Edge([TURBINE])
    source = resumable(edge)
    edge.take(
        source, turbine(edge, 1, packet_id=1), (TOPIC, b"\xff\x00garbage", 2, QOS1), turbine(edge, 2, packet_id=3)
    )
    edge.loop.step()
    assert edge.acks == []
    edge.store.flush_now()
    assert edge.acks == [("mqtt:c1", [1, 2, 3])]
    assert [record.value["seq"] for record in edge.readings()] == [1, 2]
    [letter] = edge.dead_letters()
    assert (letter.key, letter.value) == ("edge/mqtt:c1", b"\xff\x00garbage")
    assert letter.headers["source"] == b"mqtt:c1"
    assert letter.headers["decoder"] == b"json"
    assert letter.headers["topic"] == TOPIC.encode()
    assert letter.headers["time"] == b"%d" % edge.clock.wall_ms()
    assert b"JSON" in letter.headers["reason"]
    assert letter.headers["hw-m"].startswith(b"2:")
    assert edge.ingest.status()["dead_letters"] == 1


def test_a_message_whose_keys_would_swell_is_a_dead_letter() -> None:
    profile = parse_profile('name = "array"\nformat = "json"\ntopics = ["#"]\neach = "m"\n', "array.toml")
    edge = Edge([profile])
    payload = b'{"m":[' + b",".join([b'{"v":1}'] * 2_000) + b"]}"
    edge.take(edge.attach("c1"), ("t/" + "x" * 20_000, payload, 1, QOS1), ("t/array", payload, 2, QOS1))
    edge.sync()
    assert len(edge.readings()) == 2_000
    [letter] = edge.dead_letters()
    assert letter.headers["reason"].startswith(b"2000 readings whose keys weigh more than")
    assert letter.value == payload


def test_a_decoder_that_breaks_takes_only_its_own_message_along(monkeypatch: pytest.MonkeyPatch) -> None:
    edge = Edge([TURBINE])
    lane = edge.ingest._builder._lane(TURBINE)
    good = lane.decode

    def decode(profile: Profile | None, messages: list[tuple[str, bytes]]) -> object:
        if any(b"666" in payload for _, payload in messages):
            raise ZeroDivisionError("a bug")
        return good(profile, messages)

    monkeypatch.setattr(lane, "decode", decode)
    monkeypatch.setattr(lane, "plain", None)
    edge.take(edge.attach("c1"), *[turbine(edge, seq) for seq in (1, 666, 2)])
    edge.sync()
    assert [record.value["seq"] for record in edge.readings()] == [1, 2]
    assert b"ZeroDivisionError" in edge.dead_letters()[0].headers["reason"]


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


def test_repeats_and_clocks_that_are_off_count_for_their_own_source() -> None:
    edge = Edge([TURBINE])
    sources = [edge.attach(f"c{n}") for n in range(4)]
    now = edge.clock.wall_ms()
    edge.take(sources[0], turbine(edge, 1, packet_id=1), turbine(edge, 2, packet_id=2))
    edge.take(sources[1], turbine(edge, 2, packet_id=1), turbine(edge, 3, packet_id=2), turbine(edge, 1, packet_id=3))
    edge.take(sources[2], turbine(edge, 3, packet_id=1))
    edge.take(sources[3], turbine(edge, 4, packet_id=1), turbine(edge, 5, packet_id=2))
    edge.sync()
    assert [record.value["seq"] for record in edge.readings()] == [1, 2, 3, 4, 5]
    assert [source.readings for source in sources] == [2, 1, 0, 2]
    edge.take(sources[0], turbine(edge, 6, ts=now + 10))
    edge.take(sources[1], turbine(edge, 7, ts=now + 3_600_000), turbine(edge, 8, ts=now + 20))
    edge.take(sources[2], turbine(edge, 9, ts=now + 30))
    edge.sync()
    assert [record.timestamp - now for record in edge.readings()][5:] == [10, 0, 20, 30]
    assert [source.mark.newest_ms for source in sources[:3]] == [now + 10, now + 20, now + 30]
    assert edge.ingest.status()["repeats_natural_key"] == 3


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


def test_a_dead_letter_alone_is_acknowledged_after_its_sync_too() -> None:
    edge = Edge()
    edge.take(edge.attach("c1"), ("pump", b"garbage", 1, QOS1))
    edge.loop.step()
    assert edge.acks == []
    edge.store.flush_now()
    assert edge.acks == [("mqtt:c1", [1])]


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


def test_a_write_that_fails_acknowledges_nothing_of_its_group() -> None:
    edge = Edge()
    source = edge.attach("c1")
    edge.disk.fail_next["append"] = OSError(errno.ENOSPC, "No space left on device")
    edge.take(source, plain(1))
    edge.sync()
    assert (edge.acks, edge.lost) == ([], [("mqtt:c1", [1])])
    assert not edge.ingest.full
    edge.take(source, plain(1))
    edge.sync()
    assert len(edge.readings()) == 1


class NoNewDeadLetters(ForgetfulDisk):
    """While `full`, no segment of the dead letters can be begun."""

    full = False

    def open(self, path: str, *, create: bool = False) -> int:
        if self.full and create and "deadletter" in path:
            raise OSError(errno.ENOSPC, "No space left on device", path)
        return super().open(path, create=create)


def test_a_dead_letter_that_the_disk_lost_holds_up_no_reading() -> None:
    disk = NoNewDeadLetters()
    edge = Edge(disk=disk)
    source = edge.attach("c1")
    edge.take(source, ("pump", b"\xff", 1, QOS1))
    edge.loop.step()
    edge.disk.fail_next["sync"] = OSError(errno.EIO, "Input/output error")
    disk.full = True
    edge.store.flush_now()
    assert edge.lost == [("mqtt:c1", [1])]
    disk.full = False
    edge.take(source, plain(2, 2))
    edge.sync()
    assert edge.acks == [("mqtt:c1", [2])]


def test_marks_ride_on_the_first_group_and_on_health_when_nothing_comes() -> None:
    edge = Edge()
    source = edge.attach("c1")
    edge.take(source, plain(1, 1))
    edge.sync()
    edge.clock.advance(1_000)
    edge.take(source, plain(2, 2), plain(3, 3))
    edge.sync()
    edge.ingest.tick()
    edge.clock.advance(1_100)
    edge.ingest.tick()
    edge.clock.advance(100)
    edge.ingest.tick()
    edge.ingest.tick()
    edge.sync()
    records = edge.readings()
    assert [(record.key, "hw-mark" in record.headers) for record in records] == [
        ("edge/pump", False),
        ("edge/pump", False),
        ("edge/pump", True),
        ("edge/$gateway", True),
    ]
    assert records[-1].value == {"temperature": 41.5}
    marks = [msgspec.json.decode(record.headers["hw-mark"]) for record in records[2:]]
    assert [mark["n"] for mark in marks] == [1, 2]
    assert marks[0]["src"] == {"mqtt:c1": ["connected", edge.clock.wall_ms() - 1_200 - 2_000]}


def test_marks_go_on_after_a_power_cut() -> None:
    edge = Edge([TURBINE])
    edge.clock.advance(5_000)
    edge.take(edge.attach("c1"), turbine(edge, 1))
    edge.sync()
    before = msgspec.json.decode(edge.readings()[-1].headers["hw-mark"])
    edge.power_cut()
    edge.clock.advance(1_500)
    edge.ingest.tick()
    edge.sync()
    after = msgspec.json.decode(edge.readings()[-1].headers["hw-mark"])
    assert (after["n"], after["live"]) == (before["n"] + 1, before["live"])


def test_a_reading_below_t_is_kept_and_counted() -> None:
    edge = Edge([TURBINE])
    edge.clock.advance(5_000)
    source = edge.attach("c1")
    edge.take(source, turbine(edge, 1))
    edge.sync()
    edge.take(
        source, turbine(edge, 2, ts=edge.clock.wall_ms() - 2_001), turbine(edge, 3, ts=edge.clock.wall_ms() - 2_000)
    )
    edge.sync()
    assert len(edge.readings()) == 3
    assert edge.ingest.status()["late"] == 1


def test_t_goes_back_with_what_the_disk_lost() -> None:
    edge = Edge([TURBINE])
    source = edge.attach("c1")
    edge.take(source, turbine(edge, 1))
    edge.sync()
    edge.clock.advance(60_000)
    edge.take(source, turbine(edge, 2))
    edge.loop.step()  # its mark says T = now − 2 s, and is lost
    edge.disk.fail_next["sync"] = OSError(errno.EIO, "Input/output error")
    edge.store.flush_now()
    edge.clock.advance(1_000)
    for seq, age_ms in ((2, 30_000), (3, 29_000)):
        edge.take(source, turbine(edge, seq, ts=edge.clock.wall_ms() - age_ms))
        edge.sync()
    assert edge.ingest.status()["late"] == 0


def test_a_serial_source_has_its_profile_and_no_identifiers() -> None:
    edge = Edge()
    profile = Profile(name="scale", device="scale-1")
    source = edge.ingest.attach("serial:usb0", kind="serial", profile=profile)
    edge.take(source, ("usb0", b"71.5", 0, 0))
    edge.sync()
    [record] = edge.readings()
    assert (record.key, record.headers) == ("edge/scale-1", {})
    [row] = edge.ingest.status()["sources"]
    assert {key: row[key] for key in ("id", "kind", "connected", "last_ms", "readings", "problem")} == {
        "id": "serial:usb0",
        "kind": "serial",
        "connected": True,
        "last_ms": edge.clock.wall_ms(),
        "readings": 1,
        "problem": None,
    }


def test_too_much_waiting_is_said_and_room_is_called() -> None:
    edge = Edge()
    edge.ingest._bytes_max = 1_000
    edge.take(edge.attach("c1"), ("t", b'"%s"' % (b"x" * 2_000), 1, QOS1))
    assert edge.ingest.full
    called: list[bool] = []
    edge.ingest.when_room(lambda: called.append(True))
    edge.sync()
    assert called == [True]
    assert not edge.ingest.full


def test_closing_appends_what_waits() -> None:
    edge = Edge()
    edge.take(edge.attach("c1"), plain(1))
    edge.ingest.close()
    edge.store.flush_now()
    assert edge.acks == [("mqtt:c1", [1])]
    edge.take(edge.attach("c1"), plain(2))
    edge.sync()
    assert len(edge.readings()) == 1


def test_events_are_json_and_sync_with_the_rest() -> None:
    edge = Edge()
    events = Events(edge.store, node="edge", clock=edge.clock)
    heard: list[bool] = []
    events.emit("start", version="0.1.0", clean=True)
    events.when_synced(lambda: heard.append(True))
    assert heard == []
    edge.store.flush_now()
    assert heard == [True]
    log = edge.store.partition(EVENTS_TOPIC, 0)
    assert log is not None
    [record] = stored(log)
    assert record.key == "edge"
    assert record.value == {"kind": "start", "at": edge.clock.wall_ms(), "version": "0.1.0", "clean": True}
