"""An MQTT stream means the same however the network cuts it, its packets read one by one or together."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.ingest.messages import Message
from gateway.ingest.mqtt import packets5, runs
from gateway.ingest.mqtt.packets import Connect, encode_connect, encode_length, encode_text
from gateway.ingest.mqtt.reasons import MqttError
from gateway.ingest.mqtt.session import ServerSession
from gateway.ingest.mqtt.settings import MqttSettings
from gateway.ingest.mqtt.state import State, TopicCache

SETTINGS = MqttSettings(packet_bytes_max=400, inflight_max=24, topic_aliases_max=3)
TOPICS = [b"a", b"farm/turbine-01/telemetry", b"a\0b", b"\xff\xfe", b"a/+", b"", b"$SYS/x", b"\xed\xa0\x80", b"/"]
PAYLOADS = [b"", b"1", b"2", b"\0", b"\0\0", b"x" * 120, b"x" * 121, b"y" * 380, b"z" * 500]
PROPERTIES = [
    b"\0",
    b"\0",
    b"\3\x23\0\1",
    b"\3\x23\0\2",
    b"\3\x23\0\x09",
    b"\2\1\1",
    b"\2\1\2",
    b"\x80\0",
    b"\5",
    b"\2\x0b\1",
]
OTHERS = [
    b"\0\4\0\1a7",
    b"\xc0\0",
    b"\x62\2\0\1",
    b"\x62\2\0\0",
    b"\x82\6\0\1\0\1a\0",
    b"\xa2\5\0\1\0\1a",
    b"\xe0\0",
    b"\xf0\0",
    b"\x10\0",
]


def publish(first: int, topic: bytes, packet_id: int, properties: bytes, payload: bytes, level: int, odd: int) -> bytes:
    numbered = packet_id.to_bytes(2, "big") if first & 6 else b""
    body = encode_text(topic) + numbered + (properties if level == 5 else b"") + payload
    length = encode_length(len(body))
    if odd == 1:  # in more bytes than it needs
        length = length[:-1] + bytes((length[-1] | 0x80, 0))
    elif odd == 2:
        length = b"\xff\xff\xff\xff\x7f"
    return bytes((first,)) + length + body


@st.composite
def streams(draw: st.DrawFn, level: int) -> bytes:
    """Rows of packets that are alike, with now and then anything else between and behind them."""
    parts: list[bytes] = []
    for _ in range(draw(st.integers(1, 6))):
        if draw(st.booleans()):
            first, count = draw(st.sampled_from([0x30, 0x31, 0x32, 0x33, 0x3A])), draw(st.integers(1, 9))
            topic, payload = draw(st.sampled_from(TOPICS[:2])), draw(st.sampled_from(PAYLOADS[:7]))
            parts += [publish(first, topic, number + 1, b"\0", payload, level, 0) for number in range(count)]
        elif draw(st.integers(0, 3)):
            first = draw(st.integers(0x30, 0x3F)) if draw(st.booleans()) else draw(st.sampled_from([0x30, 0x32, 0x34]))
            topic = draw(st.sampled_from(TOPICS if draw(st.booleans()) else TOPICS[:2]))
            number, odd = draw(st.sampled_from([0, 1, 1, 2, 255, 65_535])), draw(st.sampled_from([0, 0, 0, 0, 1, 2]))
            properties, payload = draw(st.sampled_from(PROPERTIES)), draw(st.sampled_from(PAYLOADS))
            parts.append(publish(first, topic, number, properties, payload, level, odd))
        else:
            parts.append(draw(st.one_of(st.sampled_from(OTHERS), st.binary(max_size=6))))
    data = b"".join(parts)
    return data[: len(data) - draw(st.sampled_from([0, 0, 0, 1, 2, 5]))]


def meaning(level: int, chunks: Iterator[bytes]) -> tuple[list[Message], bytes, str | None, object]:
    """What came out: messages, answers, error with its reason, and what the connection knows at the end."""
    session = ServerSession(SETTINGS, TopicCache())
    connect = Connect(level, "c", session_expiry_s=0)
    session.feed(encode_connect(connect) if level == 4 else packets5.encode_connect(connect))
    session.accept("c", present=False, held=set())
    error = None
    for chunk in chunks:
        try:
            session.feed(chunk)
        except MqttError as raised:
            error = f"{raised.reason!r} {raised.what}"
            break
        if session.state is State.CLOSED:
            break
    known = session.state, session.clean_end, session.unacknowledged, session.held, session.aliases
    return list(session.messages), b"".join(session.out), error, (*known, session.topic_refused)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([4, 5]).flatmap(lambda level: st.tuples(st.just(level), streams(level))), st.data())
def test_a_stream_means_the_same_however_it_is_cut(given_stream: tuple[int, bytes], draws: st.DataObject) -> None:
    level, data = given_stream
    whole = meaning(level, iter([data]))
    assert meaning(level, (data[at : at + 1] for at in range(len(data)))) == whole
    cuts = sorted(draws.draw(st.lists(st.integers(0, len(data)), max_size=6)))
    assert meaning(level, (data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True))) == whole
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(runs, "EQUAL_MIN", 1 << 40)
        assert meaning(level, iter([data])) == whole
        patched.setattr(runs, "PLAIN", frozenset())  # the table alone
        assert meaning(level, iter([data])) == whole
