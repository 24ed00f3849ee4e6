"""The packets that only a client sends or only a client reads, MQTT 3.1.1 and 5: bytes to tuples and back.

`level` is the protocol level, 4 or 5. The rest is the listener's own codec. References like [MQTT-3.2.2-7] are numbered
statements of the OASIS standard of 7 March 2019. Reading raises `MqttError`, and nothing else. No state, no I/O.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from gateway.ingest.messages import Messages, Packed, numbered
from gateway.ingest.mqtt import packets, packets5
from gateway.ingest.mqtt.packets import Connect, PacketType, encode_packet, encode_text, read_packet_id
from gateway.ingest.mqtt.properties import Place, Properties, Property, Value, encode_properties, read_properties
from gateway.ingest.mqtt.reasons import MqttError, ReasonCode
from gateway.ingest.mqtt.state import QOS_2

PINGREQ = b"\xc0\x00"
DISCONNECT = b"\xe0\x00"

_RETAINED_ONCE, _NEVER_RETAINED = 1 << 4, 2 << 4  # retain handling (3.8.3.1)

P = Property
_CONNACK = Place(
    "CONNACK",
    frozenset(
        {
            P.SESSION_EXPIRY_INTERVAL,
            P.RECEIVE_MAXIMUM,
            P.MAXIMUM_QOS,
            P.RETAIN_AVAILABLE,
            P.MAXIMUM_PACKET_SIZE,
            P.ASSIGNED_CLIENT_IDENTIFIER,
            P.TOPIC_ALIAS_MAXIMUM,
            P.REASON_STRING,
            P.USER_PROPERTY,
            P.WILDCARD_SUBSCRIPTION_AVAILABLE,
            P.SUBSCRIPTION_IDENTIFIER_AVAILABLE,
            P.SHARED_SUBSCRIPTION_AVAILABLE,
            P.SERVER_KEEP_ALIVE,
            P.RESPONSE_INFORMATION,
            P.SERVER_REFERENCE,
            P.AUTHENTICATION_METHOD,
            P.AUTHENTICATION_DATA,
        }
    ),
)
_ANSWER = Place("SUBACK or UNSUBACK", frozenset({P.REASON_STRING, P.USER_PROPERTY}))
_END = Place("DISCONNECT", frozenset({P.REASON_STRING, P.USER_PROPERTY, P.SERVER_REFERENCE}))


class Connack(NamedTuple):
    """CONNACK: `code` is a return code of 3.1.1 (below 0x80) or a reason code of MQTT 5."""

    present: bool
    code: int
    properties: Properties


class Farewell(NamedTuple):
    """DISCONNECT from a broker (MQTT 5): why, in its own words too if it has any, and another broker it names."""

    reason: int
    text: str
    elsewhere: str


def encode_connect(connect: Connect, *, receive_maximum: int) -> bytes:
    """CONNECT at the level that `connect` names."""
    if connect.level != 5:
        return packets.encode_connect(connect)
    found: dict[Property, Value] = {
        P.SESSION_EXPIRY_INTERVAL: connect.session_expiry_s,
        P.RECEIVE_MAXIMUM: receive_maximum,
    }
    return packets5.encode_connect(connect, found)


def encode_subscribe(level: int, packet_id: int, filters: Sequence[tuple[str, int]], *, retained: bool) -> bytes:
    """SUBSCRIBE (3.8): filters with the QoS asked for.

    An MQTT 5 broker is told to send retained copies only for a subscription that is new, or not at all.
    """
    body = packet_id.to_bytes(2, "big")
    if level == 5:
        body += encode_properties({})
    options = (_RETAINED_ONCE if retained else _NEVER_RETAINED) if level == 5 else 0
    body += b"".join([encode_text(name) + bytes((qos | options,)) for name, qos in filters])
    return encode_packet(PacketType.SUBSCRIBE, 2, body)


def encode_unsubscribe(level: int, packet_id: int, filters: Sequence[str]) -> bytes:
    """UNSUBSCRIBE (3.10)."""
    body = packet_id.to_bytes(2, "big") + (encode_properties({}) if level == 5 else b"")
    return encode_packet(PacketType.UNSUBSCRIBE, 2, body + b"".join([encode_text(name) for name in filters]))


def encode_disconnect(level: int, reason: int) -> bytes:
    """DISCONNECT; 3.1.1 has no reasons. The session goes on as CONNECT said."""
    return DISCONNECT if level != 5 or not reason else b"\xe0\x02" + bytes((reason, 0))


def read_connack(level: int, data: bytes, position: int, end: int) -> Connack:
    """The body of CONNACK (3.2). A broker that knows only 3.1.1 answers an MQTT 5 client in its own way."""
    if position + 2 > end:
        raise MqttError("CONNACK ends within its header")
    flags, code = data[position], data[position + 1]
    if flags & 0xFE:
        raise MqttError("CONNACK with reserved flags set [MQTT-3.2.2-1]")
    position += 2
    found: Properties = {}
    if level == 5 and position < end:
        found, position = read_properties(data, position, end, _CONNACK)
    if position != end:
        raise MqttError("CONNACK with bytes after its last field")
    return Connack(flags == 1, code, found)


def read_suback(level: int, data: bytes, position: int, end: int) -> tuple[int, list[int]]:
    """The body of SUBACK: packet identifier, a code for each filter (granted QoS, or 0x80 and above)."""
    packet_id, position = read_packet_id(data, position, end)
    if level == 5:
        _, position = read_properties(data, position, end, _ANSWER)
    return packet_id, list(data[position:end])


def read_unsuback(level: int, data: bytes, position: int, end: int) -> int:
    """The body of UNSUBACK: its packet identifier; that a filter was not there is as good as gone."""
    packet_id, position = read_packet_id(data, position, end)
    if level == 5:
        _, position = read_properties(data, position, end, _ANSWER)
    elif position != end:
        raise MqttError("UNSUBACK with bytes after its packet identifier")
    return packet_id


def read_disconnect(data: bytes, position: int, end: int) -> Farewell:
    """The body of DISCONNECT from a broker (3.14)."""
    if position == end:
        return Farewell(ReasonCode.SUCCESS, "", "")
    reason = data[position]
    found: Properties = {}
    position += 1
    if position < end:
        found, position = read_properties(data, position, end, _END)
    if position != end:
        raise MqttError("DISCONNECT with bytes after its properties")
    return Farewell(reason, text_of(found, P.REASON_STRING), text_of(found, P.SERVER_REFERENCE))


def text_of(properties: Properties, key: Property) -> str:
    """A text among properties that were read; "" without."""
    value = properties.get(key)
    return value if isinstance(value, str) else ""


def acknowledge(messages: Messages) -> tuple[Packed, Packed]:
    """The PUBACKs and PUBRECs of messages that are settled, in the order in which they came, and their identifiers.

    Always success: what will never be stored must not come again and again.
    """
    ids = numbered(messages)
    if not messages.any_flags & QOS_2:
        return packets.encode_pubacks(ids), ids
    parts = [
        (b"\x50\x02" if flags & QOS_2 else b"\x40\x02") + packet_id.to_bytes(2, "big")
        for _, _, packet_id, flags in messages
        if packet_id
    ]
    return b"".join(parts), ids
