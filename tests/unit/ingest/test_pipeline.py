"""The pipeline on a disk that forgets: what is acknowledged and when, groups, dead letters, failures, limits."""

from __future__ import annotations

import errno

import pytest

from devices.profile_text import parse_profile
from devices.profiles import Profile
from gateway.ingest.events import EVENTS_TOPIC, Events
from gateway.ingest.pipeline import GROUP_BYTES
from gateway.ingest.tail import tail_columns
from headwater.disk import ForgetfulDisk
from tests.support.ingest import QOS1, TOPIC, TURBINE, Edge, plain, resumable, stored, turbine


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


def test_a_message_whose_readings_would_repeat_a_long_text_is_a_dead_letter() -> None:
    profile = parse_profile('name = "array"\nformat = "json"\ntopics = ["#"]\neach = "m"\n', "array.toml")
    edge = Edge(profiles=[profile])
    long, own = b"x" * 100_000, b",".join(b'{"note":"%s"}' % (b"y" * n) for n in [100_000] + [1] * 199)
    hidden = b'{"text":""},%s,{"text":""}' % b",".join([b"1"] * 4_998)  # the first and the last one have their own
    payloads = [b'{"m":[%s]}' % own]
    payloads += [b'{"text":"%s","m":[%s]}' % (long, m) for m in (b",".join([b"1"] * 5_000), hidden)]
    edge.take(edge.attach("c1"), *[("t", payload, n, QOS1) for n, payload in enumerate(payloads, start=1)])
    edge.sync()
    letters = edge.dead_letters()
    assert len(letters) == 2
    assert all(b"5000 readings that repeat a text" in dead.headers["reason"] for dead in letters)
    assert len(edge.readings()) == 200


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


def test_a_dead_letter_alone_is_acknowledged_after_its_sync_too() -> None:
    edge = Edge()
    edge.take(edge.attach("c1"), ("pump", b"garbage", 1, QOS1))
    edge.loop.step()
    assert edge.acks == []
    edge.store.flush_now()
    assert edge.acks == [("mqtt:c1", [1])]


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


def test_a_sentence_of_a_kind_that_the_profile_leaves_out_is_counted_and_its_source_heard() -> None:
    edge = Edge()
    profile = Profile(name="gnss", format="nmea0183", device="boat", options={"sentences": ["HDT"]})
    source = edge.ingest.attach("serial:usb0", kind="serial", profile=profile)
    edge.take(source, ("usb0", b"$HEHDT,123.456,T*28", 0, 0), ("usb0", b"$GPGSV,1,1,00*79", 0, 0))
    edge.sync()
    assert [record.value for record in edge.readings()] == [{"HDT.heading": 123.456}]
    edge.take(source, ("usb0", b"$GPGSV,1,1,00*79", 0, 0))
    edge.sync()
    counts = edge.ingest.status()
    assert (counts["suppressed"], counts["dead_letters"], len(edge.dead_letters())) == (2, 0, 0)


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
