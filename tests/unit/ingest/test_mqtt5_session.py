"""MQTT 5 at the server session: windows, aliases, limits, reasons; whole, byte by byte and in two halves."""

from __future__ import annotations

import pytest

from gateway.ingest.messages import Message, Messages
from gateway.ingest.mqtt import packets, packets5
from gateway.ingest.mqtt.packets import Connect, PacketType, Publish, Will
from gateway.ingest.mqtt.properties import Property, Value
from gateway.ingest.mqtt.reasons import MqttError, ReasonCode
from gateway.ingest.mqtt.session import ServerSession, acknowledge, windows_freed
from gateway.ingest.mqtt.settings import MqttSettings
from gateway.ingest.mqtt.state import HELD, REASON_SHIFT, REFUSED, State, TopicCache

SETTINGS = MqttSettings(packet_bytes_max=10_000, connect_bytes_max=400, inflight_max=4, topic_aliases_max=3)
CONNECT = packets5.encode_connect(Connect(5, "dev", clean=False, keep_alive_s=10))
# CONNACK's properties with SETTINGS: receive maximum 4, packet size 10,000, aliases 3; retain, no identifiers or shares
OFFER = bytes.fromhex("2100042700002710220003250129002a00")


def publish(
    payload: bytes = b"1",
    *,
    qos: int = 1,
    packet_id: int = 1,
    dup: bool = False,
    topic: str = "a/b",
    properties: dict[Property, Value] | None = None,
) -> bytes:
    return packets5.encode_publish(Publish(topic, payload, qos, packet_id if qos else 0, dup, retain=False), properties)


def connected(connect: bytes = CONNECT, *, held: set[int] | None = None) -> ServerSession:
    machine = ServerSession(SETTINGS, TopicCache())
    machine.feed(connect)
    machine.accept(machine.client_id or "given", present=False, held=held if held is not None else set())
    return machine


def run(machine: ServerSession, chunks: list[bytes]) -> tuple[list[Message], bytes]:
    for chunk in chunks:
        machine.feed(chunk)
        if machine.state is State.DECIDING:
            machine.accept(machine.client_id, present=True, held=set())
            machine.feed(b"")
    return list(machine.messages), b"".join(machine.out)


def refused(machine: ServerSession, data: bytes) -> tuple[str, ReasonCode]:
    """What an error says, and the reason in the packet that the client is sent."""
    machine.out.clear()
    with pytest.raises(MqttError) as caught:
        machine.feed(data)
    [answer] = machine.out
    assert machine.state is State.CLOSED
    kind, reason = PacketType(answer[0] >> 4), answer[2 if answer[0] >> 4 == PacketType.DISCONNECT else 3]
    assert kind in (PacketType.CONNACK, PacketType.DISCONNECT)
    assert caught.value.reason == reason
    return caught.value.what, ReasonCode(reason)


STREAM = (
    CONNECT
    + publish(b"1", packet_id=7)
    + publish(b"x" * 300, qos=0, topic="long/" + "t" * 200)
    + publish(b"", qos=0)
    + publish(b"2", packet_id=9, dup=True, properties={Property.USER_PROPERTY: [("site", "a"), ("site", "b")]})
    + packets.encode_packet(PacketType.SUBSCRIBE, 2, b"\0\5\0\0\1#\x2c\0\x0c$share/g/a/b\0")
    + publish(b"3", qos=2, packet_id=10)
    + b"\xc0\x00"
    + packets.encode_packet(PacketType.UNSUBSCRIBE, 2, b"\0\6\0\0\1#")
    + b"\x62\x02\x00\x0a"
    + b"\x62\x03\x00\x0b\x92"
    + publish(b"4", packet_id=11, properties={Property.TOPIC_ALIAS: 3, Property.MESSAGE_EXPIRY_INTERVAL: 0})
    + publish(b"5", qos=0, topic="", properties={Property.TOPIC_ALIAS: 3, Property.CONTENT_TYPE: "text/plain"})
)
MESSAGES = [
    ("a/b", b"1", 7, 2),
    ("long/" + "t" * 200, b"x" * 300, 0, 0),
    ("a/b", b"", 0, 0),
    ("a/b", b"2", 9, 10),
    ("a/b", b"3", 10, 4),
    ("a/b", b"4", 11, 2),
    ("a/b", b"5", 0, 0),
]
CONNACK = b"\x20\x14\x01\x00\x11" + OFFER
ANSWERS = CONNACK + bytes.fromhex("90050005 00 87 9e d000 b0040006 00 11 7002000a 7003000b92")


def test_whole_byte_by_byte_and_in_every_two_halves() -> None:
    def fresh() -> ServerSession:
        return ServerSession(SETTINGS, TopicCache())

    assert run(fresh(), [STREAM]) == (MESSAGES, ANSWERS)
    assert run(fresh(), [bytes((byte,)) for byte in STREAM]) == (MESSAGES, ANSWERS)
    for cut in range(1, len(STREAM)):
        assert run(fresh(), [STREAM[:cut], STREAM[cut:]]) == (MESSAGES, ANSWERS), cut


def test_a_topic_that_is_known_is_parsed_as_one_that_is_not() -> None:
    topics = TopicCache()
    for _ in range(2):
        machine = ServerSession(SETTINGS, topics)
        assert run(machine, [STREAM]) == (MESSAGES, ANSWERS)
        assert machine.unacknowledged == 2  # 7, 9, 10 and 11 came; two PUBRELs freed a place each


def test_connack_names_what_the_client_left_open() -> None:
    machine = connected(packets5.encode_connect(Connect(5, "", clean=True, keep_alive_s=0)))
    [connack] = machine.out
    assert connack[5:] == OFFER + b"\x12\x00\x05given" + b"\x13" + (3600).to_bytes(2, "big")
    assert machine.keep_alive_ms == 5_400_000
    patient = connected(packets5.encode_connect(Connect(5, "dev", clean=True, keep_alive_s=60_000)))
    assert patient.keep_alive_ms == 5_400_000
    assert connected().keep_alive_ms == 15_000


def test_the_receive_window_is_enforced_and_given_back() -> None:
    machine = connected()
    machine.feed(b"".join(publish(packet_id=number) for number in range(1, 5)))
    machine.unacknowledged -= windows_freed(Messages([machine.messages[0]]))
    machine.feed(publish(packet_id=5) + publish(qos=0))
    assert refused(machine, publish(packet_id=6))[1] == ReasonCode.RECEIVE_MAXIMUM_EXCEEDED
    assert [message[2] for message in machine.messages] == [1, 2, 3, 4, 5, 0]


def test_a_qos_2_message_keeps_its_place_in_the_window_until_its_pubcomp() -> None:
    machine = connected()
    machine.feed(b"".join(publish(qos=2, packet_id=number) for number in range(1, 5)))
    assert windows_freed(machine.messages) == 0
    machine.feed(b"\x62\x02\x00\x01" + publish(qos=2, packet_id=5))
    assert refused(machine, publish(qos=2, packet_id=6))[1] == ReasonCode.RECEIVE_MAXIMUM_EXCEEDED


def test_qos_2_is_taken_once_until_its_pubrel_across_connections() -> None:
    held: set[int] = set()
    machine = connected(held=held)
    machine.feed(publish(qos=2, packet_id=5))
    later = connected(held=held)
    later.out.clear()
    later.feed(publish(qos=2, packet_id=5, dup=True) + b"\x62\x02\x00\x05" + publish(b"2", qos=2, packet_id=5))
    assert [message[3] & HELD for message in later.messages] == [HELD, 0]
    assert later.out == [b"\x70\x02\x00\x05"]


@pytest.mark.parametrize(
    ("topic", "alias", "said"),
    [("a", 4, "3 is the most"), ("", 4, "3 is the most"), ("", 2, "stands for nothing"), ("a", 0, "TOPIC_ALIAS is 0")],
)
def test_bad_aliases(topic: str, alias: int, said: str) -> None:
    machine = connected()
    machine.feed(publish(topic="x", qos=0, properties={Property.TOPIC_ALIAS: 1}))
    what, reason = refused(machine, publish(topic=topic, properties={Property.TOPIC_ALIAS: alias}))
    assert said in what
    assert reason == ReasonCode.TOPIC_ALIAS_INVALID


def test_an_alias_is_renamed_and_ends_with_its_connection() -> None:
    machine = connected()
    for topic in ("x", "", "y", ""):
        machine.feed(publish(topic=topic, qos=0, properties={Property.TOPIC_ALIAS: 1}))
    assert [message[0] for message in machine.messages] == ["x", "x", "y", "y"]
    assert connected().aliases == {}


def test_aliased_topics_are_bounded_together() -> None:
    settings = MqttSettings(topic_aliases_max=3)
    machine = ServerSession(settings, TopicCache())
    machine.feed(CONNECT)
    machine.accept("dev", present=False, held=set())
    for alias in (1, 1, 1):
        machine.feed(publish(topic="t" * 40_000, qos=0, properties={Property.TOPIC_ALIAS: alias}))
    assert refused(machine, publish(topic="t" * 40_000, qos=0, properties={Property.TOPIC_ALIAS: 2}))[1] == (
        ReasonCode.QUOTA_EXCEEDED
    )


@pytest.mark.parametrize("topic", ["$SYS/broker", "$gateway", "$share/g/a", "/".join("a" * 10_000)])
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_topics_that_are_nobodys_are_refused_one_by_one(topic: str, qos: int) -> None:
    machine = ServerSession(MqttSettings(), TopicCache())
    machine.feed(CONNECT)
    machine.accept("dev", present=False, held=set())
    machine.feed(publish(topic=topic, qos=qos, packet_id=9) * 2 + publish(packet_id=10))
    assert [message[3] & REFUSED for message in machine.messages] == [REFUSED, REFUSED, 0]
    assert machine.messages[0][3] >> REASON_SHIFT == ReasonCode.TOPIC_NAME_INVALID
    first = {0: b"", 1: b"\x40\x03\x00\x09\x90", 2: b"\x50\x03\x00\x09\x90"}[qos]
    assert acknowledge(machine.messages)[0] == first * 2 + b"\x40\x02\x00\x0a"
    assert windows_freed(machine.messages) == (3 if qos else 1)
    assert not machine.held
    assert machine.topic_refused == topic


def test_goodbyes() -> None:
    for body, keeps_will in ((b"", False), (b"\0", False), (b"\4", True), (b"\x82\0", True)):
        machine = connected()
        machine.feed(packets.encode_packet(PacketType.DISCONNECT, 0, body) + publish())
        assert (machine.state, machine.clean_end, machine.keeps_will) == (State.CLOSED, True, keeps_will)
        assert not machine.messages


@pytest.mark.parametrize("cut", [12, 399, 600])
def test_a_connect_that_is_too_long_is_answered_with_the_reason(cut: int) -> None:
    """As soon as it is seen [MQTT-3.2.2-22, 4.13]; a client of 3.1.1 knows no such code and is only disconnected."""
    for level, reason in ((5, ReasonCode.PACKET_TOO_LARGE), (4, None)):
        long = Connect(level, "dev", clean=False, keep_alive_s=10, user="u" * 500)
        packet = packets5.encode_connect(long) if level == 5 else packets.encode_connect(long)
        machine = ServerSession(SETTINGS, TopicCache())
        with pytest.raises(MqttError, match="connect_bytes_max"):
            machine.feed(packet[:cut])
        out = b"".join(machine.out)
        assert (out[:1], out[3] if out else None) == ((b"\x20", reason) if reason else (b"", None))
        assert machine.state is State.CLOSED


def test_disconnect_may_change_the_sessions_end_but_not_give_it_one() -> None:
    shorter = b"\xe0\x07\x00\x05\x11\x00\x00\x00\x05"
    machine = connected(
        packets5.encode_connect(Connect(5, "dev"), {Property.SESSION_EXPIRY_INTERVAL: 60, Property.RECEIVE_MAXIMUM: 1})
    )
    assert machine.session_expiry_s == 60
    machine.feed(shorter)
    assert machine.session_expiry_s == 5
    assert refused(connected(), shorter)[1] == ReasonCode.PROTOCOL_ERROR
    ends = connected()
    ends.feed(b"\xe0\x07\x00\x05\x11\x00\x00\x00\x00")
    assert ends.session_expiry_s == 0


def test_enhanced_authentication_is_refused() -> None:
    machine = ServerSession(SETTINGS, TopicCache())
    machine.feed(packets5.encode_connect(Connect(5, "dev"), {Property.AUTHENTICATION_METHOD: "SCRAM-SHA-256"}))
    assert machine.out == [b"\x20\x03\x00\x8c\x00"]
    assert machine.state is State.CLOSED


@pytest.mark.parametrize("level", [4, 5])
def test_a_will_for_a_topic_that_is_nobodys_is_refused_with_connect(level: int) -> None:
    machine = ServerSession(SETTINGS, TopicCache())
    connect = Connect(level, "dev", will=Will("$gateway", b"x", 1, retain=False))
    machine.feed(packets5.encode_connect(connect) if level == 5 else packets.encode_connect(connect))
    assert machine.state is State.CLOSED
    assert (machine.out[0][3] if machine.out else None) == (0x90 if level == 5 else None)


def test_nothing_larger_than_the_client_takes_is_sent() -> None:
    connect = packets5.encode_connect(Connect(5, "dev"), {Property.MAXIMUM_PACKET_SIZE: 25})
    machine = connected(connect)
    machine.out.clear()
    machine.feed(packets.encode_packet(PacketType.SUBSCRIBE, 2, b"\0\5\0" + b"\0\1#\0" * 21))
    assert machine.out == []
    assert machine.subscriptions_refused == 21
    what, _ = refused(machine, packets.encode_packet(PacketType.SUBSCRIBE, 2, b"\0\5\0" + b"\0\1#\x03"))
    assert len(what) > 25
    assert machine.out == [b"\xe0\x02\x82\x00"]
    tiny = ServerSession(SETTINGS, TopicCache())
    tiny.feed(packets5.encode_connect(Connect(5, "dev"), {Property.MAXIMUM_PACKET_SIZE: 24}))
    with pytest.raises(MqttError, match="the size of CONNACK"):
        tiny.accept("dev", present=False, held=set())
    assert tiny.out == []


def test_reasons_in_words_unless_the_client_wants_none() -> None:
    machine = connected()
    what, _ = refused(machine, CONNECT)
    assert what.encode() in machine.out[0]
    quiet = connected(packets5.encode_connect(Connect(5, "dev"), {Property.REQUEST_PROBLEM_INFORMATION: 0}))
    refused(quiet, CONNECT)
    assert quiet.out == [b"\xe0\x02\x82\x00"]


def test_the_server_says_why_it_goes() -> None:
    machine = connected()
    machine.out.clear()
    machine.end(ReasonCode.SESSION_TAKEN_OVER)
    assert machine.out == [b"\xe0\x02\x8e\x00"]
    older = ServerSession(SETTINGS, TopicCache())
    older.feed(packets.encode_connect(Connect(4, "dev")))
    older.accept("dev", present=False, held=set())
    older.out.clear()
    older.end(ReasonCode.SESSION_TAKEN_OVER)
    assert older.out == []


def test_a_subscription_identifier_is_refused_per_filter() -> None:
    machine = connected()
    machine.out.clear()
    machine.feed(packets.encode_packet(PacketType.SUBSCRIBE, 2, b"\0\5\2\x0b\1\0\1#\0"))
    assert machine.out == [b"\x90\x04\x00\x05\x00\xa1"]
