"""The MQTT client's core on an imaginary wire: whole, byte by byte, refused, silent, hostile."""

from __future__ import annotations

from random import Random

import pytest

from gateway.ingest.messages import numbers
from gateway.ingest.mqtt import packets as codec
from gateway.ingest.mqtt import packets5
from gateway.ingest.mqtt.packets import Connect, PacketType, Publish
from gateway.ingest.mqtt.properties import Property, Value, encode_properties
from gateway.ingest.mqtt.reasons import ConnectCode, MqttError, ReasonCode
from gateway.ingest.mqtt.state import HELD, REFUSED, TopicCache
from gateway.ingest.mqtt_client.core import ASK_AGAIN_MS, ClientSession, Lost, Phase, Plan
from gateway.ingest.mqtt_client.packets import PINGREQ, acknowledge, encode_subscribe
from headwater.errors import PeerError

FILTERS = (("site/#", 1), ("alarm/#", 2))


def make(
    level: int = 5, *, now_ms: float = 0.0, held: set[int] | None = None, former: tuple[str, ...] = ()
) -> ClientSession:
    connect = Connect(level, "edge", clean=False, keep_alive_s=20, session_expiry_s=3_600)
    plan = Plan(connect, FILTERS, former, 100, 1_000, 5_000.0)
    return ClientSession(plan, held=held if held is not None else set(), topics=TopicCache(), now_ms=now_ms)


def sent(x: ClientSession) -> bytes:
    out = b"".join(x.out)
    x.out.clear()
    return out


def connack(
    level: int, *, present: bool = False, code: int = 0, properties: dict[Property, Value] | None = None
) -> bytes:
    if level == 5:
        return packets5.encode_connack(ReasonCode(code), properties or {}, session_present=present)
    return codec.encode_connack(ConnectCode(code), session_present=present)


def suback(level: int, *codes: int, packet_id: int = 2) -> bytes:
    if level == 5:
        return codec.encode_packet(PacketType.SUBACK, 0, packet_id.to_bytes(2, "big") + b"\0" + bytes(codes))
    return codec.encode_suback(packet_id, list(codes))


def publish(level: int, topic: str, payload: bytes, packet_id: int = 0, qos: int = 0, *, retain: bool = False) -> bytes:
    message = Publish(topic, payload, qos, packet_id, False, retain)
    return packets5.encode_publish(message) if level == 5 else codec.encode_publish(message)


def up(level: int = 5, **options: object) -> ClientSession:
    x = make(level, **options)  # type: ignore[arg-type]
    x.feed(connack(level) + suback(level, 1, 2), 1.0)
    sent(x)
    assert x.phase is Phase.UP
    return x


@pytest.mark.parametrize("level", [4, 5])
def test_the_first_packets_ask_for_a_session_and_the_filters(level: int) -> None:
    x = make(level)
    first = sent(x)
    header = codec.read_header(first, 0, 1_000, level=level)
    assert header is not None
    if level == 5:
        asked = packets5.read_connect(first, header.body + 7, len(first))
        assert asked.session_expiry_s == 3_600
        assert encode_properties({Property.RECEIVE_MAXIMUM: 100})[1:] in first
    else:
        asked = codec.read_connect(first, header.body, len(first))
    assert (asked.client_id, asked.clean, asked.keep_alive_s) == ("edge", False, 20)
    x.feed(connack(level), 1.0)
    subscribe = sent(x)
    header = codec.read_header(subscribe, 0, 1_000, level=level)
    assert header is not None
    if level == 5:
        assert packets5.read_subscribe(subscribe, header.body, len(subscribe)) == (2, ["site/#", "alarm/#"], False)
        assert subscribe[-1] == 0x22  # QoS 2, and retained copies are not to be sent
    else:
        assert codec.read_filters(subscribe, header.body, len(subscribe), with_qos=True) == (2, ["site/#", "alarm/#"])
        assert subscribe[-1] == 2
    x.feed(suback(level, 1, 2), 2.0)
    assert x.phase is Phase.UP
    assert x.granted == {"site/#": 1, "alarm/#": 2}


@pytest.mark.parametrize("level", [4, 5])
@pytest.mark.parametrize("size", [1, 2, 7, 10_000])
def test_messages_come_out_the_same_however_they_are_cut(level: int, size: int) -> None:
    wire = connack(level, present=True) + publish(level, "site/a", b"early", 9, 1) + suback(level, 1, 2)
    wire += b"".join(publish(level, "site/a", b"%d" % each, each + 1, 1) for each in range(20))
    wire += (
        publish(level, "alarm/b", b"x", 7, 2) + publish(level, "alarm/b", b"x", 7, 2) + publish(level, "site/a", b"q")
    )
    wire += codec.encode_acknowledgement(PacketType.PUBREL, 7) + b"\xd0\x00" + publish(level, "alarm/b", b"y", 7, 2)
    x = make(level)
    for start in range(0, len(wire), size):
        x.feed(wire[start : start + size], 1.0)
    found = [(topic, payload, packet_id) for topic, payload, packet_id, _ in x.messages]
    assert found == [
        ("site/a", b"early", 9),
        *(("site/a", b"%d" % each, each + 1) for each in range(20)),
        ("alarm/b", b"x", 7),
        ("alarm/b", b"x", 7),
        ("site/a", b"q", 0),
        ("alarm/b", b"y", 7),
    ]
    assert [bool(flags & HELD) for *_, flags in x.messages][-4:] == [False, True, False, False]
    assert b"\x70\x02\x00\x07" in sent(x)
    assert x.present
    acks, ids = acknowledge(x.messages)
    assert acks.startswith(b"\x40\x02\x00\x09\x40\x02\x00\x01")
    assert acks.endswith(b"\x50\x02\x00\x07" * 3)
    assert list(numbers(ids)) == [9, *range(1, 21), 7, 7, 7]


def test_a_broker_may_change_keep_alive_and_expiry() -> None:
    x = make()
    x.feed(connack(5, properties={Property.SERVER_KEEP_ALIVE: 4, Property.SESSION_EXPIRY_INTERVAL: 60}), 1.0)
    assert (x.keep_alive_s, x.session_expiry_s) == (4, 60)


@pytest.mark.parametrize(
    ("level", "answer", "words", "bad_version"),
    [
        (5, b"\x20\x02\x00\x01", "version of MQTT", True),  # what a 3.1.1 broker says to CONNECT of MQTT 5
        (5, connack(5, code=0x84), "version of MQTT", True),
        (5, connack(5, code=0x86), "user and password: set user and password_file", False),
        (5, connack(5, code=0x87, properties={Property.REASON_STRING: "not you"}), "“not you”", False),
        (4, connack(4, code=4), "user and password", False),
        (4, connack(4, code=5), "does not let this client in", False),
    ],
)
def test_a_refused_connection_says_why_and_what_next(level: int, answer: bytes, words: str, bad_version: bool) -> None:
    x = make(level)
    with pytest.raises(Lost) as caught:
        x.feed(answer, 1.0)
    assert words in caught.value.what
    assert caught.value.bad_version == bad_version
    assert x.phase is Phase.CLOSED
    assert x.answered


@pytest.mark.parametrize("level", [4, 5])
def test_a_refused_filter_is_named_and_asked_for_again(level: int) -> None:
    x = make(level)
    x.feed(connack(level) + suback(level, 1, 0x80 if level == 4 else 0x87), 1.0)
    assert list(x.refused) == ["alarm/#"]
    assert "access list" in str(x.refused["alarm/#"])
    assert x.phase is Phase.UP
    sent(x)
    x.heard(ASK_AGAIN_MS)
    x.sent(ASK_AGAIN_MS)
    x.tick(ASK_AGAIN_MS, reading=True)
    assert sent(x) == b""
    x.tick(ASK_AGAIN_MS + 2, reading=True)
    again = sent(x)
    assert b"alarm/#" in again
    assert b"site/#" not in again
    x.feed(suback(level, 2, packet_id=3), ASK_AGAIN_MS + 3)
    assert not x.refused
    assert x.granted["alarm/#"] == 2


@pytest.mark.parametrize("level", [4, 5])
def test_filters_that_are_wanted_no_more_are_given_back(level: int) -> None:
    x = make(level, former=("old/#",))
    sent(x)
    x.feed(connack(level, present=True), 1.0)
    first = sent(x)
    assert first[0] == 0xA2
    assert b"old/#" in first
    unsuback = codec.encode_packet(PacketType.UNSUBACK, 0, b"\0\x02" + (b"\0\x11" if level == 5 else b""))
    x.feed(unsuback + suback(level, 1, 2, packet_id=3), 2.0)
    assert x.phase is Phase.UP
    fresh = make(level, former=("old/#",))
    sent(fresh)
    fresh.feed(connack(level), 1.0)
    assert b"old/#" not in sent(fresh)  # a new session never had it


def test_silence_is_noticed_and_a_ping_asked_for_first() -> None:
    x = up(now_ms=0.0)
    x.tick(9_000, reading=True)
    assert sent(x) == b""
    x.tick(10_500, reading=True)
    assert sent(x) == PINGREQ
    x.feed(b"\xd0", 10_600)  # any byte is life
    x.tick(30_000, reading=True)
    assert sent(x) == PINGREQ
    with pytest.raises(Lost, match="not a byte"):
        x.tick(30_700, reading=True)


def test_no_silence_is_held_against_a_broker_while_our_reads_pause() -> None:
    x = up(now_ms=0.0)
    pings = 0
    for now_ms in range(0, 120_000, 500):
        x.tick(now_ms, reading=False)
        pings += sent(x) == PINGREQ
    assert pings >= 11  # the broker hears us all the while
    x.heard(120_000)
    x.tick(121_000, reading=True)


def test_a_broker_that_never_answers_is_given_up() -> None:
    x = make(now_ms=100.0)
    x.tick(5_000, reading=True)
    with pytest.raises(Lost, match="no CONNACK"):
        x.tick(5_200, reading=True)


@pytest.mark.parametrize("level", [4, 5])
@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("size", [1, 100, 5_000])
def test_an_oversize_message_is_settled_and_what_follows_it_is_read(level: int, qos: int, size: int) -> None:
    x = up(level)
    wire = publish(level, "site/big", b"z" * 2_000, 5 if qos else 0, qos) + publish(level, "site/a", b"1", 6, 1)
    for start in range(0, len(wire), size):
        x.feed(wire[start : start + size], 1.0)
    [big, small] = x.messages
    assert (big[0], big[1], big[2]) == ("site/big", b"", 5 if qos else 0)
    assert big[3] & REFUSED
    assert (small[0], small[1]) == ("site/a", b"1")
    assert x.oversize is not None
    assert x.oversize[0] == "site/big"
    assert len(numbers(acknowledge(x.messages)[1])) == (2 if qos else 1)


@pytest.mark.parametrize("level", [4, 5])
@pytest.mark.parametrize("topic", ["$gateway", "a/" * 300, "bad\0name"])
def test_a_topic_that_is_none_is_refused_and_still_acknowledged(level: int, topic: str) -> None:
    x = up(level)
    x.feed(publish(level, topic, b"1", 5, 1), 1.0)
    [message] = x.messages
    assert message[3] & REFUSED
    assert x.unreadable == topic
    assert acknowledge(x.messages)[0] == b"\x40\x02\x00\x05"


def test_properties_are_passed_over_however_many_they_are() -> None:
    x = up(5)
    message = Publish("site/a", b"1", 1, 5, False, False)
    many: dict[Property, Value] = {
        Property.USER_PROPERTY: [(f"{each}", "x") for each in range(90)],
        Property.CONTENT_TYPE: "text",
    }
    x.feed(packets5.encode_publish(message, many), 1.0)
    assert [(topic, payload) for topic, payload, _, _ in x.messages] == [("site/a", b"1")]


def test_a_brokers_good_bye_is_told_with_its_reason() -> None:
    x = up(5)
    with pytest.raises(Lost, match="same client id"):
        x.feed(b"\xe0\x02\x8e\x00", 1.0)
    with pytest.raises(MqttError):
        up(4).feed(b"\xe0\x00", 1.0)


def test_a_new_session_has_no_identifiers_of_the_old_one() -> None:
    held = {7}
    x = make(5, held=held)
    x.feed(connack(5, present=True) + suback(5, 1, 2) + publish(5, "alarm/x", b"1", 7, 2), 1.0)
    assert x.messages[0][3] & HELD
    x = make(5, held=held)
    x.feed(connack(5, present=False) + suback(5, 1, 2) + publish(5, "alarm/x", b"1", 7, 2), 1.0)
    assert not x.messages[0][3] & HELD


@pytest.mark.parametrize(
    "wire",
    [
        connack(5),  # a second CONNACK
        suback(5, 1, 2, packet_id=9),  # nobody asked
        suback(5, 1, packet_id=2),
        b"\x10\x02\x00\x00",  # CONNECT
        b"\xc0\x00",  # PINGREQ
        b"\x36\x05\x00\x01a\x00\x01",  # QoS 3
        b"\x32\x05\x00\x01a\x00\x00",  # identifier 0
        b"\x32\x03\x00\x09a",  # a topic longer than its packet
        b"\x32\x06\x00\x01a\x00\x01\x7f",  # properties longer than their packet
        b"\xff\xff\xff\xff\xff",
    ],
)
def test_bytes_that_break_the_protocol_close_the_connection(wire: bytes) -> None:
    x = up(5)
    with pytest.raises(MqttError):
        x.feed(wire, 1.0)
    assert x.phase is Phase.CLOSED
    x.feed(b"anything", 2.0)  # and nothing more is read


def test_hostile_bytes_raise_nothing_but_our_own_error() -> None:
    random = Random(7)
    for round_ in range(3_000):
        level = 4 + round_ % 2
        x = up(level) if round_ % 3 else make(level)
        wire = bytearray(publish(level, "site/a", b"12345", 3, 1) * 3 + suback(level, 1, 2) + connack(level))
        for _ in range(random.randint(1, 6)):
            wire[random.randrange(len(wire))] = random.randrange(256)
        try:
            x.feed(bytes(wire), 1.0)
        except PeerError:
            continue


@pytest.mark.parametrize(("wanted", "option"), [(False, 0x22), (True, 0x12)])
def test_an_mqtt_5_broker_is_told_whether_retained_copies_are_wanted(wanted: bool, option: int) -> None:
    assert encode_subscribe(5, 1, [("site/#", 2)], retained=wanted)[-1] == option
    assert encode_subscribe(4, 1, [("site/#", 2)], retained=wanted)[-1] == 2
