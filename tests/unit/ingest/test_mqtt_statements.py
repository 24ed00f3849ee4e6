"""Every numbered statement of both MQTT standards has rows of broken packets, a test, or the reason why it has none."""

from __future__ import annotations

import ast
import re

import pytest

from gateway.ingest.mqtt.settings import MqttSettings
from gateway.ingest.mqtt.state import State
from headwater.errors import PeerError
from tests.support.mqtt_packets import GOOD, connect, machine, packet, props, publish, subscribe, told
from tests.support.mqtt_statements import NUMBERS, numbers, proofs
from tests.support.tree import ROOT
from tests.unit.ingest.test_mqtt_musts import FIRST, LATER, R

ROWS = FIRST.keys() | LATER.keys()
INGEST = "unit/ingest/"


@pytest.mark.parametrize("level", [4, 5])
def test_every_number_has_one_line(level: int) -> None:
    assert sorted(proof.number for proof in proofs(level)) == sorted(numbers(NUMBERS[level]))


def test_as_many_as_the_standards_count() -> None:
    """Appendix B of MQTT 5 has 251: 5, 7, 175 and 60 of the first four chapters, and 4 of WebSocket."""
    chapters = [number.partition(".")[0] for number in numbers(NUMBERS[5])]
    assert [chapters.count(chapter) for chapter in "1234567"] == [5, 7, 175, 60, 0, 4, 0]


@pytest.mark.parametrize("level", [4, 5])
def test_what_is_named_is_there(level: int) -> None:
    functions: dict[str, set[str]] = {}
    for number, how, what in proofs(level):
        if how == "row":
            missing = {f"{level}. {name}" for name in what.split("; ")} - ROWS
            assert not missing, number
        elif how == "test":
            path, _, name = what.partition("::")
            path = path if "/" in path else INGEST + path
            if path not in functions:
                tree = ast.parse((ROOT / "tests" / f"{path}.py").read_text(encoding="utf-8"))
                functions[path] = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
            assert name in functions[path], number
        else:
            assert how in ("client", "none"), number
            assert len(what) > 10, number


def test_an_error_names_statements_of_its_client_s_version() -> None:
    """`[MQTT-1.5.3-1; 5: 1.5.4-1]`: the first of 3.1.1; without the second it is so in both."""
    named = 0
    broken = [(int(name[0]), machine(), row[0]) for name, row in FIRST.items()]
    broken += [(level, machine(level), data) for level, data, _, _ in LATER.values()]
    for level, session, data in broken:
        what = told(session, [data])[0]
        if (found := re.search(r"\[MQTT-([^];]+)(?:; 5: ([^]]+))?\]", what)) is None:
            assert "MQTT-" not in what, what
            continue
        listed = numbers(found[2] if level == 5 and found[2] else found[1])
        assert listed, what
        assert set(listed) <= set(numbers(NUMBERS[level])), what
        named += 1
    assert named > 80


# --- what is more than to refuse


@pytest.mark.parametrize("level", [4, 5])
def test_a_byte_order_mark_is_a_character(level: int) -> None:
    session = machine(level)
    session.feed(publish(b"\0" if level == 5 else b"", topic=b"\xef\xbb\xbfa"))
    assert [message[0] for message in session.messages] == ["\ufeffa"]


@pytest.mark.parametrize("level", [4, 5])
def test_client_ids_that_every_server_takes(level: int) -> None:
    for name in (b"0", b"abcdefghijklmnopqrstuvw", b"xyzABCDEFGHIJKLMNOPQRST", b"UVWXYZ0123456789"):
        session = machine()
        session.feed(connect(level, rest=bytes((0, len(name))) + name))
        assert (session.state, session.client_id) == (State.DECIDING, name.decode())


@pytest.mark.parametrize("level", [4, 5])
def test_behind_a_connect_that_is_refused_nothing_counts(level: int) -> None:
    session = machine()
    refused = {4: connect(4, 0, b"\0\0"), 5: connect(5, properties=props(b"\x15\0\1x"))}[level]
    session.feed(refused + GOOD[level])
    session.feed(GOOD[level])
    [connack] = session.out
    assert connack[3] == (2 if level == 4 else R.BAD_AUTHENTICATION_METHOD)
    assert not list(session.messages)


@pytest.mark.parametrize("level", [4, 5])
def test_each_filter_has_its_answer(level: int) -> None:
    """In the order of the filters, under the packet's own identifier, though nothing is granted."""
    session = machine(level)
    properties = b"\0" if level == 5 else b""
    session.feed(packet(8, 2, b"\1\2" + properties + b"\0\1a\0" + b"\0\1#\1" + b"\0\1a\2"))
    session.feed(packet(10, 2, b"\3\4" + properties + b"\0\1a" + b"\0\1#"))
    suback, unsuback = session.out
    if level == 4:
        assert (suback, unsuback) == (b"\x90\5\1\2\x80\x80\x80", b"\xb0\2\3\4")
    else:
        assert (suback, unsuback) == (b"\x90\6\1\2\0\x87\x87\x87", b"\xb0\5\3\4\0\x11\x11")


def test_no_alias_where_none_was_offered() -> None:
    session = machine(5, MqttSettings(topic_aliases_max=0))
    assert told(session, [publish(props(b"\x23\0\1"))])[1] == R.TOPIC_ALIAS_INVALID


def test_a_message_that_expires_at_once_is_stored_and_acknowledged() -> None:
    session = machine(5)
    session.feed(publish(props(b"\2\0\0\0\0"), flags=4) + b"\x62\2\0\1")
    assert len(session.messages) == 1
    assert session.out == [b"\x70\2\0\1"]


def test_other_packets_are_answered_while_the_window_is_full() -> None:
    session = machine(5, MqttSettings(inflight_max=2))  # the two that `machine` sent fill it
    session.feed(b"\xc0\0" + subscribe(b"\0\1a\0") + publish(flags=0, packet_id=b""))
    assert [answer[0] for answer in session.out] == [0xD0, 0x90]
    assert told(session, [publish()])[1] == R.RECEIVE_MAXIMUM_EXCEEDED


@pytest.mark.parametrize("level", [4, 5])
def test_the_longest_topic_is_taken(level: int) -> None:
    """65,535 bytes are the most that a string can have; one more has no encoding."""
    session = machine(level)
    session.feed(publish(b"\0" if level == 5 else b"", topic=b"t" * 65_535))
    [message] = session.messages
    assert len(message[0]) == 65_535


# --- frames that are cut, or stand together


@pytest.mark.parametrize("level", [4, 5])
def test_frames_that_stand_together_are_cut_at_every_byte(level: int) -> None:
    """Every row behind good packets, cut once at each place: the same messages, the same answers, the same error."""
    rows = [(name, row[1], row[3]) for name, row in LATER.items() if row[0] == level and len(row[1]) < 60]
    assert len(rows) > 30
    for name, data, reason in rows:
        stream = GOOD[level] + b"\xc0\0" + GOOD[level] + data + GOOD[level]
        seen = set()
        for cut in range(len(stream) + 1):
            session = machine(level)
            what, carried, out = told(session, [stream[:cut], stream[cut:]])
            assert carried == reason, (name, cut)
            seen.add((what, b"".join(out), len(session.messages)))
        assert len(seen) == 1, name
        assert seen.pop()[2] == 2, name


@pytest.mark.parametrize("level", [4, 5])
def test_a_body_that_is_cut_inside_its_frame_is_malformed_at_every_byte(level: int) -> None:
    """The frame is whole and says how long it is, but each of its fields may end early."""
    properties = props(b"\1\1", b"\x23\0\1", b"\x26\0\1a\0\1b") if level == 5 else b""
    bodies = {
        (3, 2): b"\0\3a/b\0\1" + properties,
        (6, 2): b"\0\1",
        (8, 2): b"\0\5" + (b"\0" if level == 5 else b"") + b"\0\3a/b\1",
        (10, 2): b"\0\5" + (b"\0" if level == 5 else b"") + b"\0\3a/b",
    }
    for (kind, flags), body in bodies.items():
        machine(level).feed(packet(kind, flags, body))
        for end in range(len(body)):
            session = machine(level)
            if (kind, level) == (3, 4) and end >= 7:
                continue  # its payload is all that is left
            with pytest.raises(PeerError):
                session.feed(packet(kind, flags, body[:end]))
            assert not list(session.messages), (kind, end)
