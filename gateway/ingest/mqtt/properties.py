"""MQTT 5 properties (section 2.2.2): identifiers, types, where each may stand, and bounds on how many.

References like [MQTT-1.5.5-1] are numbered statements of the OASIS standard of 7 March 2019. Reading raises
`MqttError`, and nothing else; its work is bounded by `USER_PROPERTIES_MAX` user properties, for every other
property may stand in a packet once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import IntEnum
from typing import NamedTuple, cast

from gateway.ingest.mqtt.packets import encode_text, read_binary, read_text
from gateway.ingest.mqtt.reasons import MqttError, ReasonCode

USER_PROPERTIES_MAX = 64

Value = int | str | bytes | list[tuple[str, str]]
Properties = dict["Property", Value]


class Property(IntEnum):
    """Table 2-4."""

    PAYLOAD_FORMAT_INDICATOR = 0x01
    MESSAGE_EXPIRY_INTERVAL = 0x02
    CONTENT_TYPE = 0x03
    RESPONSE_TOPIC = 0x08
    CORRELATION_DATA = 0x09
    SUBSCRIPTION_IDENTIFIER = 0x0B
    SESSION_EXPIRY_INTERVAL = 0x11
    ASSIGNED_CLIENT_IDENTIFIER = 0x12
    SERVER_KEEP_ALIVE = 0x13
    AUTHENTICATION_METHOD = 0x15
    AUTHENTICATION_DATA = 0x16
    REQUEST_PROBLEM_INFORMATION = 0x17
    WILL_DELAY_INTERVAL = 0x18
    REQUEST_RESPONSE_INFORMATION = 0x19
    RESPONSE_INFORMATION = 0x1A
    SERVER_REFERENCE = 0x1C
    REASON_STRING = 0x1F
    RECEIVE_MAXIMUM = 0x21
    TOPIC_ALIAS_MAXIMUM = 0x22
    TOPIC_ALIAS = 0x23
    MAXIMUM_QOS = 0x24
    RETAIN_AVAILABLE = 0x25
    USER_PROPERTY = 0x26
    MAXIMUM_PACKET_SIZE = 0x27
    WILDCARD_SUBSCRIPTION_AVAILABLE = 0x28
    SUBSCRIPTION_IDENTIFIER_AVAILABLE = 0x29
    SHARED_SUBSCRIPTION_AVAILABLE = 0x2A


P = Property


class Place(NamedTuple):
    """A kind of packet (or the will inside CONNECT), and the properties that a client may put there."""

    name: str
    allowed: frozenset[Property]


_MESSAGE = {
    P.PAYLOAD_FORMAT_INDICATOR,
    P.MESSAGE_EXPIRY_INTERVAL,
    P.CONTENT_TYPE,
    P.RESPONSE_TOPIC,
    P.CORRELATION_DATA,
    P.USER_PROPERTY,
}
CONNECT = Place(
    "CONNECT",
    frozenset(
        {
            P.SESSION_EXPIRY_INTERVAL,
            P.RECEIVE_MAXIMUM,
            P.MAXIMUM_PACKET_SIZE,
            P.TOPIC_ALIAS_MAXIMUM,
            P.REQUEST_RESPONSE_INFORMATION,
            P.REQUEST_PROBLEM_INFORMATION,
            P.USER_PROPERTY,
            P.AUTHENTICATION_METHOD,
            P.AUTHENTICATION_DATA,
        }
    ),
)
WILL = Place("a will", frozenset(_MESSAGE | {P.WILL_DELAY_INTERVAL}))
PUBLISH = Place("PUBLISH", frozenset(_MESSAGE | {P.TOPIC_ALIAS, P.SUBSCRIPTION_IDENTIFIER}))
ACKNOWLEDGEMENT = Place("an acknowledgement", frozenset({P.REASON_STRING, P.USER_PROPERTY}))
SUBSCRIBE = Place("SUBSCRIBE", frozenset({P.SUBSCRIPTION_IDENTIFIER, P.USER_PROPERTY}))
UNSUBSCRIBE = Place("UNSUBSCRIBE", frozenset({P.USER_PROPERTY}))
DISCONNECT = Place("DISCONNECT", frozenset({P.SESSION_EXPIRY_INTERVAL, P.REASON_STRING, P.USER_PROPERTY}))


def read_varint(data: bytes, position: int, end: int) -> tuple[int, int]:
    """A variable byte integer (1.5.5): at most four bytes, and no more than it needs [MQTT-1.5.5-1]."""
    value = 0
    for shift in (0, 7, 14, 21):
        if position >= end:
            raise MqttError("a packet that ends within a variable byte integer")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if not byte and shift:
                raise MqttError("a variable byte integer longer than it needs to be [MQTT-1.5.5-1]")
            return value, position
    raise MqttError("a variable byte integer of more than four bytes")


def _fixed(size: int) -> Callable[[bytes, int, int], tuple[int, int]]:
    def read(data: bytes, position: int, end: int) -> tuple[int, int]:
        stop = position + size
        if stop > end:
            raise MqttError("a property that is cut off")
        return int.from_bytes(data[position:stop], "big"), stop

    return read


def _read_pair(data: bytes, position: int, end: int) -> tuple[tuple[str, str], int]:
    name, position = read_text(data, position, end)
    value, position = read_text(data, position, end)
    return (name, value), position


_BYTE, _U16, _U32 = _fixed(1), _fixed(2), _fixed(4)
_READERS: dict[Property, Callable[[bytes, int, int], tuple[Value, int]]] = {
    P.PAYLOAD_FORMAT_INDICATOR: _BYTE,
    P.MESSAGE_EXPIRY_INTERVAL: _U32,
    P.CONTENT_TYPE: read_text,
    P.RESPONSE_TOPIC: read_text,
    P.CORRELATION_DATA: read_binary,
    P.SUBSCRIPTION_IDENTIFIER: read_varint,
    P.SESSION_EXPIRY_INTERVAL: _U32,
    P.ASSIGNED_CLIENT_IDENTIFIER: read_text,
    P.SERVER_KEEP_ALIVE: _U16,
    P.AUTHENTICATION_METHOD: read_text,
    P.AUTHENTICATION_DATA: read_binary,
    P.REQUEST_PROBLEM_INFORMATION: _BYTE,
    P.WILL_DELAY_INTERVAL: _U32,
    P.REQUEST_RESPONSE_INFORMATION: _BYTE,
    P.RESPONSE_INFORMATION: read_text,
    P.SERVER_REFERENCE: read_text,
    P.REASON_STRING: read_text,
    P.RECEIVE_MAXIMUM: _U16,
    P.TOPIC_ALIAS_MAXIMUM: _U16,
    P.TOPIC_ALIAS: _U16,
    P.MAXIMUM_QOS: _BYTE,
    P.RETAIN_AVAILABLE: _BYTE,
    P.MAXIMUM_PACKET_SIZE: _U32,
    P.WILDCARD_SUBSCRIPTION_AVAILABLE: _BYTE,
    P.SUBSCRIPTION_IDENTIFIER_AVAILABLE: _BYTE,
    P.SHARED_SUBSCRIPTION_AVAILABLE: _BYTE,
}
_WIDTHS = {_BYTE: 1, _U16: 2, _U32: 4}
_FLAGS = {P.PAYLOAD_FORMAT_INDICATOR, P.REQUEST_PROBLEM_INFORMATION, P.REQUEST_RESPONSE_INFORMATION}
_NOT_ZERO = {
    P.RECEIVE_MAXIMUM: ReasonCode.PROTOCOL_ERROR,
    P.MAXIMUM_PACKET_SIZE: ReasonCode.PROTOCOL_ERROR,
    P.SUBSCRIPTION_IDENTIFIER: ReasonCode.PROTOCOL_ERROR,
    P.TOPIC_ALIAS: ReasonCode.TOPIC_ALIAS_INVALID,  # [MQTT-3.3.2-8]
}


def read_properties(data: bytes, position: int, end: int, place: Place) -> tuple[Properties, int]:
    """The properties at `position`, their length first; user properties in order, in one list."""
    length, position = read_varint(data, position, end)
    stop = position + length
    if stop > end:
        raise MqttError("properties longer than their packet")
    found: Properties = {}
    while position < stop:
        # every identifier that exists fits one byte, so a longer one is unknown
        identifier = data[position]
        if identifier not in place.allowed:
            raise MqttError(f"property 0x{identifier:02x} in {place.name}, where it cannot stand (2.2.2.2)")
        key = Property(identifier)
        position += 1
        if key is P.USER_PROPERTY:
            position = _read_user_property(data, position, stop, found)
            continue
        if key in found:
            raise MqttError(f"{key.name} twice in {place.name}", ReasonCode.PROTOCOL_ERROR)
        value, position = _READERS[key](data, position, stop)
        _check(key, value)
        found[key] = value
    return found, position


def _read_user_property(data: bytes, position: int, end: int, found: Properties) -> int:
    pairs = cast("list[tuple[str, str]]", found.setdefault(P.USER_PROPERTY, []))
    if len(pairs) >= USER_PROPERTIES_MAX:
        raise MqttError(f"more than {USER_PROPERTIES_MAX} user properties", ReasonCode.QUOTA_EXCEEDED)
    pair, position = _read_pair(data, position, end)
    pairs.append(pair)
    return position


def _check(key: Property, value: Value) -> None:
    if key in _FLAGS and value not in (0, 1):
        raise MqttError(f"{key.name} is {value!r}, neither 0 nor 1", ReasonCode.PROTOCOL_ERROR)
    if not value and (reason := _NOT_ZERO.get(key)) is not None:
        raise MqttError(f"{key.name} is 0", reason)
    if key is P.RESPONSE_TOPIC and isinstance(value, str) and ("+" in value or "#" in value or not value):
        raise MqttError("a response topic that is no topic name [MQTT-3.3.2-14]", ReasonCode.PROTOCOL_ERROR)


def integer(properties: Mapping[Property, Value], key: Property, default: int) -> int:
    """A number among properties that were read, or what its absence means."""
    value = properties.get(key, default)
    return value if isinstance(value, int) else default


def encode_varint(value: int) -> bytes:
    """A variable byte integer."""
    out = bytearray()
    while True:
        value, byte = value >> 7, value & 0x7F
        if not value:
            out.append(byte)
            return bytes(out)
        out.append(byte | 0x80)


def encode_properties(properties: Mapping[Property, Value]) -> bytes:
    """Length and properties, in the mapping's order."""
    body = bytearray()
    for key, value in properties.items():
        if isinstance(value, list):
            for name, text in value:
                body.append(key)
                body += encode_text(name) + encode_text(text)
            continue
        body.append(key)
        if isinstance(value, int):
            width = _WIDTHS.get(cast("Callable[[bytes, int, int], tuple[int, int]]", _READERS[key]))
            body += encode_varint(value) if width is None else value.to_bytes(width, "big")
        else:
            body += encode_text(value)
    return encode_varint(len(body)) + body
