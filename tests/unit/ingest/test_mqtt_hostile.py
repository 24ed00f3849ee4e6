"""Bombs and hostile bytes at the server session: bounded work and memory, and never an error but our own."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.ingest.messages import Messages
from gateway.ingest.mqtt.packets import encode_text
from gateway.ingest.mqtt.properties import USER_PROPERTIES_MAX, Property, encode_varint
from gateway.ingest.mqtt.reasons import ReasonCode as R
from gateway.ingest.mqtt.settings import MqttSettings
from gateway.ingest.mqtt.state import State, retained
from headwater.errors import PeerError
from tests.support.mqtt_packets import connect, machine, packet, props, publish, subscribe, told

# --- bombs: work and memory are bounded by what is accepted, not by what is sent

EMPTY_USER_PROPERTY = b"\x26\0\0\0\0"


def test_a_bomb_of_65_535_properties_ends_at_the_limit() -> None:
    bomb = publish(props(EMPTY_USER_PROPERTY * 65_535))
    session = machine(5, MqttSettings(packet_bytes_max=1 << 20))
    tracemalloc.start()
    try:
        what, reason, _ = told(session, [bomb])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert f"more than {USER_PROPERTIES_MAX} user properties" in what
    assert reason == R.QUOTA_EXCEEDED
    assert peak < len(bomb) + 200_000
    fits = publish(props(EMPTY_USER_PROPERTY * USER_PROPERTIES_MAX))
    session = machine(5)
    session.feed(fits)
    assert len(session.messages) == 1


def test_a_bomb_in_connect_is_refused_by_its_size() -> None:
    what, _, out = told(machine(), [connect(5, properties=props(EMPTY_USER_PROPERTY * 65_535))])
    assert "16384 is the most" in what
    [connack] = out
    assert (connack[0], connack[3]) == (0x20, R.PACKET_TOO_LARGE)


def test_a_packet_beyond_the_limit_is_refused_by_its_first_bytes() -> None:
    for level in (4, 5):
        session = machine(level, MqttSettings(packet_bytes_max=1_000))
        what, _, _ = told(session, [b"\x32\xe6\x07"])  # 998 and its three bytes of header
        assert "1001 bytes; 1000 is the most" in what


@pytest.mark.parametrize("level", [4, 5])
def test_topics_of_10_000_levels(level: int) -> None:
    deep = packet(3, 0, encode_text("/".join("a" * 10_000)) + (b"\0" if level == 5 else b"") + b"1")
    session = machine(level)
    session.feed(deep * 3)
    assert [message[3] & 32 for message in session.messages] == [32] * 3
    assert len(session.topics.names) == 1  # the good one
    at_qos_1 = packet(3, 2, deep[4:20_005] + b"\0\1" + deep[20_005:])
    if level == 4:
        assert "not for it" in told(session, [at_qos_1])[0]
    else:
        session.feed(at_qos_1)
        assert session.messages[-1][3] & 32


def test_nothing_grows_with_what_a_connection_sends() -> None:
    session = machine(5)
    odd = b"".join(
        packet(3, 0, encode_text(f"t/{number}" + "x" * 250) + props(b"\x23\0\1", b"\x26\0\1a\0\1b") + b"1")
        for number in range(100)
    )
    sizes = []
    tracemalloc.start()
    try:
        for _ in range(4):
            for _ in range(4):
                session.feed(odd)
                session.messages = Messages()
                session.feed(packet(8, 2, b"\0\5\0\0\1#\0"))
                session.out.clear()
            sizes.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert sizes[-1] - sizes[1] < 10_000
    assert len(session.aliases) == 1


# --- hostile bytes

HEADS = [bytes((first,)) for first in (0x10, 0x20, 0x30, 0x32, 0x34, 0x3D, 0x40, 0x62, 0x82, 0xA2, 0xC0, 0xE0, 0xF0)]


@st.composite
def hostile_packet(draw: st.DrawFn) -> bytes:
    body = draw(st.binary(max_size=60))
    return draw(st.sampled_from(HEADS)) + encode_varint(len(body)) + body


@st.composite
def hostile_properties(draw: st.DrawFn) -> bytes:
    raw = [bytes((draw(st.sampled_from(list(Property))),)) + draw(st.binary(max_size=8)) for _ in range(3)]
    kind = draw(st.sampled_from(["publish", "subscribe", "connect", "disconnect"]))
    if kind == "publish":
        return publish(props(*raw))
    if kind == "subscribe":
        return subscribe(b"\0\1a\0", props(*raw))
    return connect(5, properties=props(*raw)) if kind == "connect" else packet(14, 0, b"\0" + props(*raw))


@given(st.lists(hostile_packet() | hostile_properties(), max_size=6), st.sampled_from([0, 4, 5]), st.booleans())
def test_hostile_packets_raise_nothing_but_a_peer_error(data: list[bytes], level: int, whole: bool) -> None:
    session = machine(level)
    stream = b"".join(data)
    chunks = [stream] if whole else [stream[at : at + 1] for at in range(len(stream))]
    try:
        for chunk in chunks:
            session.feed(chunk)
            if session.state is State.DECIDING:
                session.accept("x", present=False, held=set())
                session.feed(b"")
    except PeerError:
        assert session.state is State.CLOSED


@pytest.mark.parametrize("level", [4, 5])
def test_retained_messages_are_counted_whether_their_topic_is_known_or_not(level: int) -> None:
    session = machine(level)
    properties = b"\0" if level == 5 else b""
    known, new = (publish(properties, topic=topic, flags=3) for topic in (b"a/b", b"new"))
    plain = publish(properties, topic=b"a/b")
    session.feed(plain + known * 2 + plain + new + known + known[:-1])
    assert retained(session.messages) == 4
    session.feed(known[-1:] + plain)
    assert retained(session.messages) == 5
    assert len(session.messages) == 8
