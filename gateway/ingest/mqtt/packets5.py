"""MQTT 5 packets (OASIS standard, 7 March 2019), where they differ from 3.1.1: bytes to tuples and back.

References like [MQTT-3.1.2-3] are that document's numbered statements. Reading raises `MqttError`, and nothing else,
with the reason code that the standard names. No state, no I/O.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from gateway.ingest.mqtt import properties as props
from gateway.ingest.mqtt.packets import (
    Connect,
    PacketType,
    Publish,
    Will,
    check_filter,
    check_topic,
    encode_packet,
    encode_text,
    read_binary,
    read_packet_id,
    read_text,
)
from gateway.ingest.mqtt.properties import Properties, Property, Value, encode_properties, integer, read_properties
from gateway.ingest.mqtt.reasons import MqttError, ReasonCode

NEVER_EXPIRES = 0xFFFF_FFFF

# What a client may give as the reason of its DISCONNECT (3.14.2.1).
_DISCONNECT_REASONS = frozenset({0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x99})


class Disconnect(NamedTuple):
    """DISCONNECT from a client; `session_expiry_s` None: as CONNECT said."""

    reason: int
    session_expiry_s: int | None
    text: str


def read_connect(data: bytes, position: int, end: int) -> Connect:
    """The body of CONNECT behind protocol name and level (3.1.2.3 and on): `position` is at the connect flags."""
    if position + 3 > end:
        raise MqttError("CONNECT ends within its header")
    flags = data[position]
    keep_alive_s = data[position + 1] << 8 | data[position + 2]
    if flags & 1:
        raise MqttError("CONNECT with its reserved flag set [MQTT-3.1.2-3]")
    has_will, will_qos = bool(flags & 4), flags >> 3 & 3
    if will_qos == 3 or (not has_will and (will_qos or flags & 0x20)):
        raise MqttError("CONNECT with will flags that contradict each other [MQTT-3.1.2-11, 3.1.2-12, 3.1.2-13]")
    found, position = read_properties(data, position + 3, end, props.CONNECT)
    if Property.AUTHENTICATION_DATA in found and Property.AUTHENTICATION_METHOD not in found:
        raise MqttError("authentication data without a method", ReasonCode.PROTOCOL_ERROR)
    client_id, position = read_text(data, position, end)
    will = user = password = None
    if has_will:
        will, position = _read_will(data, position, end, will_qos, retain=bool(flags & 0x20))
    if flags & 0x80:
        user, position = read_text(data, position, end)
    if flags & 0x40:
        password, position = read_binary(data, position, end)
    if position != end:
        raise MqttError("CONNECT with bytes after its last field")
    method = found.get(Property.AUTHENTICATION_METHOD)
    return Connect(
        5,
        client_id,
        bool(flags & 2),
        keep_alive_s,
        will,
        user,
        password,
        session_expiry_s=integer(found, Property.SESSION_EXPIRY_INTERVAL, 0),
        packet_bytes_max=integer(found, Property.MAXIMUM_PACKET_SIZE, 0) or None,
        wants_reasons=integer(found, Property.REQUEST_PROBLEM_INFORMATION, 1) == 1,
        authentication_method=method if isinstance(method, str) else None,
    )


def _read_will(data: bytes, position: int, end: int, qos: int, *, retain: bool) -> tuple[Will, int]:
    found, position = read_properties(data, position, end, props.WILL)
    topic, position = read_binary(data, position, end)
    payload, position = read_binary(data, position, end)
    return Will(check_topic(topic), payload, qos, retain, integer(found, Property.WILL_DELAY_INTERVAL, 0)), position


def read_publish(data: bytes, flags: int, position: int, end: int) -> tuple[Publish, Properties]:
    """The body of PUBLISH (3.3); its topic is "" when an alias stands for it, which is among the properties."""
    qos = flags >> 1 & 3
    if qos == 3:
        raise MqttError("PUBLISH with QoS 3 [MQTT-3.3.1-4]")
    if not qos and flags & 8:
        raise MqttError("PUBLISH with DUP and QoS 0 [MQTT-3.3.1-2]")
    topic, position = read_binary(data, position, end)
    packet_id = 0
    if qos:
        packet_id, position = read_packet_id(data, position, end)
    found: Properties = {}
    if position < end and not data[position]:
        position += 1
    else:
        found, position = read_properties(data, position, end, props.PUBLISH)
        if Property.SUBSCRIPTION_IDENTIFIER in found:
            raise MqttError("a subscription identifier from a client [MQTT-3.3.4-6]", ReasonCode.PROTOCOL_ERROR)
    if not topic and Property.TOPIC_ALIAS not in found:
        raise MqttError("neither a topic name nor an alias", ReasonCode.PROTOCOL_ERROR)
    name = check_topic(topic) if topic else ""
    return Publish(name, bytes(data[position:end]), qos, packet_id, bool(flags & 8), bool(flags & 1)), found


def read_pubrel(data: bytes, position: int, end: int) -> int:
    """The body of PUBREL (3.6): its packet identifier; the reason is success or 0x92 and changes nothing here."""
    packet_id, position = read_packet_id(data, position, end)
    if position < end:
        if data[position] not in (ReasonCode.SUCCESS, ReasonCode.PACKET_IDENTIFIER_NOT_FOUND):
            raise MqttError(f"PUBREL with reason code 0x{data[position]:02x}", ReasonCode.PROTOCOL_ERROR)
        position += 1
    if position < end:
        _, position = read_properties(data, position, end, props.ACKNOWLEDGEMENT)
    if position != end:
        raise MqttError("PUBREL with bytes after its properties")
    return packet_id


def read_subscribe(data: bytes, position: int, end: int) -> tuple[int, list[str], bool]:
    """The body of SUBSCRIBE (3.8): packet identifier, topic filters, whether it brings a subscription identifier."""
    packet_id, position = read_packet_id(data, position, end)
    found, position = read_properties(data, position, end, props.SUBSCRIBE)
    filters = []
    while position < end:
        raw, position = read_binary(data, position, end)
        name = check_filter(raw)
        shared = name.startswith("$share/")
        if shared:
            _check_share(name)
        if position >= end or data[position] & 0xC0:
            raise MqttError("SUBSCRIBE with bad subscription options [MQTT-3.8.3-5]")
        options = data[position]
        if options & 3 == 3 or options & 0x30 == 0x30:
            raise MqttError("SUBSCRIBE with QoS 3 or retain handling 3", ReasonCode.PROTOCOL_ERROR)
        if shared and options & 4:
            raise MqttError("“no local” on a shared subscription [MQTT-3.8.3-4]", ReasonCode.PROTOCOL_ERROR)
        filters.append(name)
        position += 1
    if not filters:
        raise MqttError("no topic filter [MQTT-3.8.3-2]", ReasonCode.PROTOCOL_ERROR)
    return packet_id, filters, Property.SUBSCRIPTION_IDENTIFIER in found


def _check_share(name: str) -> None:
    _, group, *rest = name.split("/", 2)
    if not group or "+" in group or "#" in group or not rest or not rest[0]:
        raise MqttError("a shared subscription without a name or filter [MQTT-4.8.2-1, 4.8.2-2]")


def read_unsubscribe(data: bytes, position: int, end: int) -> tuple[int, list[str]]:
    """The body of UNSUBSCRIBE (3.10)."""
    packet_id, position = read_packet_id(data, position, end)
    _, position = read_properties(data, position, end, props.UNSUBSCRIBE)
    filters = []
    while position < end:
        raw, position = read_binary(data, position, end)
        filters.append(check_filter(raw))
    if not filters:
        raise MqttError("no topic filter [MQTT-3.10.3-2]", ReasonCode.PROTOCOL_ERROR)
    return packet_id, filters


def read_disconnect(data: bytes, position: int, end: int) -> Disconnect:
    """The body of DISCONNECT (3.14); an empty one is a normal end."""
    if position == end:
        return Disconnect(ReasonCode.SUCCESS, None, "")
    reason = data[position]
    if reason not in _DISCONNECT_REASONS:
        raise MqttError(f"DISCONNECT with reason code 0x{reason:02x} [MQTT-3.14.2-1]")
    found: Properties = {}
    position += 1
    if position < end:
        found, position = read_properties(data, position, end, props.DISCONNECT)
    if position != end:
        raise MqttError("DISCONNECT with bytes after its properties")
    expiry = found.get(Property.SESSION_EXPIRY_INTERVAL)
    text = found.get(Property.REASON_STRING)
    return Disconnect(reason, expiry if isinstance(expiry, int) else None, text if isinstance(text, str) else "")


def encode_connack(reason: ReasonCode, properties: Mapping[Property, Value], *, session_present: bool = False) -> bytes:
    """CONNACK (3.2); session present is 0 with any refusal [MQTT-3.2.2-6]."""
    head = bytes((session_present and not reason, reason))
    return encode_packet(PacketType.CONNACK, 0, head + encode_properties(properties))


def encode_pubcomp(packet_id: int, reason: ReasonCode) -> bytes:
    """PUBCOMP; without its reason when that is success (3.7.2.1)."""
    if not reason:
        return b"\x70\x02" + packet_id.to_bytes(2, "big")
    return b"\x70\x03" + packet_id.to_bytes(2, "big") + bytes((reason,))


def encode_reasons(kind: PacketType, packet_id: int, reasons: list[ReasonCode]) -> bytes:
    """SUBACK or UNSUBACK: one reason per filter [MQTT-3.8.4-6, -3.11.3-1]."""
    return encode_packet(kind, 0, packet_id.to_bytes(2, "big") + b"\0" + bytes(reasons))


def encode_disconnect(reason: ReasonCode, text: str = "") -> bytes:
    """DISCONNECT from the server (3.14), with the reason in words if there are any."""
    found: dict[Property, Value] = {Property.REASON_STRING: text} if text else {}
    return encode_packet(PacketType.DISCONNECT, 0, bytes((reason,)) + encode_properties(found))


def encode_connect(
    connect: Connect, properties: Mapping[Property, Value] | None = None, will: Mapping[Property, Value] | None = None
) -> bytes:
    """CONNECT, as a client sends it; the properties are given apart."""
    flags = connect.clean << 1 | (connect.user is not None) << 7 | (connect.password is not None) << 6
    tail = b""
    if connect.will is not None:
        flags |= 4 | connect.will.qos << 3 | connect.will.retain << 5
        tail += encode_properties(will or {}) + encode_text(connect.will.topic) + encode_text(connect.will.payload)
    tail += encode_text(connect.user) if connect.user is not None else b""
    tail += encode_text(connect.password) if connect.password is not None else b""
    head = encode_text("MQTT") + bytes((5, flags)) + connect.keep_alive_s.to_bytes(2, "big")
    body = head + encode_properties(properties or {}) + encode_text(connect.client_id) + tail
    return encode_packet(PacketType.CONNECT, 0, body)


def encode_publish(publish: Publish, properties: Mapping[Property, Value] | None = None) -> bytes:
    """PUBLISH, as a client sends it."""
    body = encode_text(publish.topic)
    if publish.qos:
        body += publish.packet_id.to_bytes(2, "big")
    flags = publish.dup << 3 | publish.qos << 1 | publish.retain
    return encode_packet(PacketType.PUBLISH, flags, body + encode_properties(properties or {}) + publish.payload)
