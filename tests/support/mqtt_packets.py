"""Packets of both MQTT versions, good and bad, and a server session that takes them."""

from __future__ import annotations

from collections.abc import Iterable

from gateway.ingest.messages import Messages
from gateway.ingest.mqtt import packets, packets5
from gateway.ingest.mqtt.packets import Connect, PacketType, Publish, encode_packet, encode_text
from gateway.ingest.mqtt.properties import encode_varint
from gateway.ingest.mqtt.reasons import MqttError, ReasonCode
from gateway.ingest.mqtt.session import ServerSession
from gateway.ingest.mqtt.settings import MqttSettings
from gateway.ingest.mqtt.state import State, TopicCache

CONNECTS = {4: packets.encode_connect(Connect(4, "dev")), 5: packets5.encode_connect(Connect(5, "dev"))}
GOOD = {
    4: packets.encode_publish(Publish("a/b", b"1", 1, 1, dup=False, retain=False)),
    5: packets5.encode_publish(Publish("a/b", b"1", 1, 1, dup=False, retain=False)),
}


def packet(kind: int, flags: int, body: bytes) -> bytes:
    return encode_packet(PacketType(kind), flags, body)


def props(*raw: bytes) -> bytes:
    body = b"".join(raw)
    return encode_varint(len(body)) + body


def connect(
    level: int, flags: int = 2, rest: bytes = b"\0\1x", *, properties: bytes = b"\0", name: bytes = b"MQTT"
) -> bytes:
    body = encode_text(name) + bytes((level, flags)) + b"\0\0" + (properties if level == 5 else b"") + rest
    return packet(1, 0, body)


def publish(properties: bytes = b"\0", *, topic: bytes = b"a", flags: int = 2, packet_id: bytes = b"\0\1") -> bytes:
    return packet(3, flags, encode_text(topic) + packet_id + properties + b"x")


def subscribe(rest: bytes, properties: bytes = b"\0") -> bytes:
    return packet(8, 2, b"\0\5" + properties + rest)


def machine(level: int = 0, settings: MqttSettings | None = None) -> ServerSession:
    """A server session: new, or connected with a client of that level."""
    made = ServerSession(settings or MqttSettings(), TopicCache())
    if level:
        made.feed(CONNECTS[level])
        made.accept("dev", present=False, held=set())
        made.feed(GOOD[level] * 2)
        made.out.clear()
        made.messages = Messages()
    return made


def told(session: ServerSession, chunks: Iterable[bytes]) -> tuple[str, ReasonCode, list[bytes]]:
    """What an error says, its reason, and what the client is sent; there must be an error."""
    try:
        for chunk in chunks:
            session.feed(chunk)
    except MqttError as error:
        assert session.state is State.CLOSED
        session.feed(b"more")
        return error.what, error.reason, session.out
    raise AssertionError("nothing was wrong with it")
