"""MQTT 3.1.1 packets (OASIS standard, 29 October 2014): bytes to tuples and back. No state, no I/O.

References like [MQTT-2.2.2-2; 5: 2.1.3-1] are that document's numbered statements, then those of MQTT 5 where they have
other numbers. Every function raises `MqttError`, and nothing else, on bytes that break one. What MQTT 5 does
differently is in `packets5`.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from gateway.ingest.mqtt.reasons import ConnectCode, MqttError, ReasonCode

REMAINING_LENGTH_MAX = 268_435_455


class PacketType(IntEnum):
    """Table 2.1: the high nibble of a packet's first byte."""

    CONNECT = 1
    CONNACK = 2
    PUBLISH = 3
    PUBACK = 4
    PUBREC = 5
    PUBREL = 6
    PUBCOMP = 7
    SUBSCRIBE = 8
    SUBACK = 9
    UNSUBSCRIBE = 10
    UNSUBACK = 11
    PINGREQ = 12
    PINGRESP = 13
    DISCONNECT = 14
    AUTH = 15  # MQTT 5 only


class Header(NamedTuple):
    """A fixed header: the whole packet is `size` bytes, its body begins at `body`."""

    kind: PacketType
    flags: int
    body: int
    size: int


class Will(NamedTuple):
    """What is taken for published if the client dies; `delay_s` after its death (MQTT 5)."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    delay_s: int = 0


class Connect(NamedTuple):
    """CONNECT. `level` is 4 for 3.1.1 and 5 for MQTT 5; for another level only `level` is meaningful.

    What stands below `password` is MQTT 5's: `session_expiry_s` after the connection's end (`NEVER_EXPIRES` is for
    good), the largest packet that the client takes, whether it wants reasons in words.
    """

    level: int
    client_id: str = ""
    clean: bool = True
    keep_alive_s: int = 0
    will: Will | None = None
    user: str | None = None
    password: bytes | None = None
    session_expiry_s: int = 0
    packet_bytes_max: int | None = None
    wants_reasons: bool = True
    authentication_method: str | None = None


class Publish(NamedTuple):
    """PUBLISH; `packet_id` is 0 with QoS 0."""

    topic: str
    payload: bytes
    qos: int
    packet_id: int
    dup: bool
    retain: bool


# The flags that each packet must carry [MQTT-2.2.2-1; 5: 2.1.3-1]; PUBLISH has its own.
_FLAGS = {
    PacketType.CONNECT: 0,
    PacketType.CONNACK: 0,
    PacketType.PUBACK: 0,
    PacketType.PUBREC: 0,
    PacketType.PUBREL: 2,
    PacketType.PUBCOMP: 0,
    PacketType.SUBSCRIBE: 2,
    PacketType.SUBACK: 0,
    PacketType.UNSUBSCRIBE: 2,
    PacketType.UNSUBACK: 0,
    PacketType.PINGREQ: 0,
    PacketType.PINGRESP: 0,
    PacketType.DISCONNECT: 0,
    PacketType.AUTH: 0,
}
_FROM_SERVER = frozenset({PacketType.CONNACK, PacketType.SUBACK, PacketType.UNSUBACK, PacketType.PINGRESP})


def read_header(
    data: bytes | bytearray, position: int, size_max: int, *, level: int = 4, limit: str = "packet_bytes_max"
) -> Header | None:
    """The fixed header at `position`; None while its bytes are not all there.

    The limit is checked on the length that the header claims, before any of the body is kept. `level` is the
    connection's protocol level: 5 knows one packet more, and no length in more bytes than it needs.
    """
    end = len(data)
    if position + 2 > end:
        return None
    first = data[position]
    length = 0
    at = position + 1
    for shift in (0, 7, 14, 21):
        if at >= end:
            return None
        byte = data[at]
        at += 1
        length |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
    else:
        raise MqttError("a remaining length of more than four bytes")
    kind, flags = first >> 4, first & 0x0F
    if level == 5 and not byte and at - position > 2:
        raise MqttError("a remaining length longer than it needs to be [MQTT-1.5.5-1]")
    if not 1 <= kind <= (15 if level == 5 else 14):
        raise MqttError(f"packet type {kind} is reserved")
    if kind != PacketType.PUBLISH and flags != _FLAGS[PacketType(kind)]:
        raise MqttError(f"{PacketType(kind).name} with flags {flags:#06b} [MQTT-2.2.2-2; 5: 2.1.3-1]")
    size = at - position + length
    if size > size_max:
        what = f"a packet of {size} bytes; {size_max} is the most here: {limit} in [mqtt]"
        raise MqttError(what, ReasonCode.PACKET_TOO_LARGE)
    return Header(PacketType(kind), flags, at, size)


def begins_connect_5(data: bytes | bytearray, position: int) -> bool:
    """Whether a CONNECT of MQTT 5 begins there, as far as it has come."""
    return data[position] == PacketType.CONNECT << 4 and data.find(b"\0\4MQTT\5", position + 2, position + 12) > 0


def read_text(data: bytes, position: int, end: int) -> tuple[str, int]:
    """A UTF-8 string with its two-byte length; no NUL, no surrogates [MQTT-1.5.3-1, 1.5.3-2; 5: 1.5.4-1, 1.5.4-2]."""
    raw, position = read_binary(data, position, end)
    return check_text(raw), position


def check_text(raw: bytes) -> str:
    """UTF-8 as the standard wants it: Python's strict decoder refuses surrogates, NUL is refused here."""
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise MqttError(f"a string that is not UTF-8 (byte {error.start}) [MQTT-1.5.3-1; 5: 1.5.4-1]") from None
    if "\0" in text:
        raise MqttError("a string with NUL [MQTT-1.5.3-2; 5: 1.5.4-2]")
    return text


def read_binary(data: bytes, position: int, end: int) -> tuple[bytes, int]:
    """Bytes with their two-byte length."""
    start = position + 2
    if start > end:
        raise MqttError("a packet shorter than its own fields")
    stop = start + (data[position] << 8 | data[position + 1])
    if stop > end:
        raise MqttError("a string longer than its packet")
    return bytes(data[start:stop]), stop


def check_topic(raw: bytes) -> str:
    """A topic name: not empty, no wildcard [MQTT-3.3.2-2, 4.7.3-1]."""
    if not raw:
        raise MqttError("an empty topic name [MQTT-4.7.3-1]")
    if b"+" in raw or b"#" in raw:
        raise MqttError("a topic name with a wildcard [MQTT-3.3.2-2]", ReasonCode.TOPIC_NAME_INVALID)
    return check_text(raw)


def check_filter(raw: bytes) -> str:
    """A topic filter: not empty; `+` fills a level, `#` is the last one [MQTT-4.7.1-2, 4.7.1-3, 4.7.3-1]."""
    if not raw:
        raise MqttError("an empty topic filter [MQTT-4.7.3-1]")
    text = check_text(raw)
    if "+" in text or "#" in text:
        levels = text.split("/")
        for number, level in enumerate(levels, 1):
            if "#" in level and (level != "#" or number != len(levels)):
                raise MqttError("a topic filter with “#” elsewhere than as its last level [MQTT-4.7.1-2; 5: 4.7.1-1]")
            if "+" in level and level != "+":
                raise MqttError("a topic filter with “+” beside other characters [MQTT-4.7.1-3; 5: 4.7.1-2]")
    return text


def read_connect(data: bytes, position: int, end: int) -> Connect:
    """The body of CONNECT (3.1). Another protocol level is returned with nothing else read."""
    name, position = read_binary(data, position, end)
    if name not in (b"MQTT", b"MQIsdp"):
        raise MqttError("no MQTT: another protocol name [MQTT-3.1.2-1]")
    if position + 4 > end:
        raise MqttError("CONNECT ends within its header")
    level, flags = data[position], data[position + 1]
    keep_alive_s = data[position + 2] << 8 | data[position + 3]
    if level != 4 or name != b"MQTT":
        return Connect(level if name == b"MQTT" else 3)
    position += 4
    if flags & 1:
        raise MqttError("CONNECT with its reserved flag set [MQTT-3.1.2-3]")
    has_will, will_qos = bool(flags & 4), flags >> 3 & 3
    if will_qos == 3 or (not has_will and (will_qos or flags & 0x20)):
        raise MqttError("CONNECT with will flags that contradict each other [MQTT-3.1.2-13, 3.1.2-14, 3.1.2-15]")
    if flags & 0x40 and not flags & 0x80:
        raise MqttError("CONNECT with a password and no user name [MQTT-3.1.2-22]")
    client_id, position = read_text(data, position, end)
    will = user = password = None
    if has_will:
        raw_topic, position = read_binary(data, position, end)
        payload, position = read_binary(data, position, end)
        will = Will(check_topic(raw_topic), payload, will_qos, bool(flags & 0x20))
    if flags & 0x80:
        user, position = read_text(data, position, end)
    if flags & 0x40:
        password, position = read_binary(data, position, end)
    if position != end:
        raise MqttError("CONNECT with bytes after its last field")
    return Connect(level, client_id, bool(flags & 2), keep_alive_s, will, user, password)


def read_publish(data: bytes, flags: int, position: int, end: int) -> Publish:
    """The body of PUBLISH (3.3)."""
    qos = flags >> 1 & 3
    if qos == 3:
        raise MqttError("PUBLISH with QoS 3 [MQTT-3.3.1-4]")
    if not qos and flags & 8:
        raise MqttError("PUBLISH with DUP and QoS 0 [MQTT-3.3.1-2]")
    topic, position = read_binary(data, position, end)
    packet_id = 0
    if qos:
        packet_id, position = read_packet_id(data, position, end)
    return Publish(check_topic(topic), bytes(data[position:end]), qos, packet_id, bool(flags & 8), bool(flags & 1))


def read_packet_id(data: bytes, position: int, end: int) -> tuple[int, int]:
    """A packet identifier, never 0 [MQTT-2.3.1-1; 5: 2.2.1-3]."""
    if position + 2 > end:
        raise MqttError("a packet without its packet identifier")
    packet_id = data[position] << 8 | data[position + 1]
    if not packet_id:
        raise MqttError("packet identifier 0 [MQTT-2.3.1-1; 5: 2.2.1-3]")
    return packet_id, position + 2


def read_acknowledgement(data: bytes, position: int, end: int) -> int:
    """The body of PUBACK, PUBREC, PUBREL or PUBCOMP: a packet identifier and nothing after it."""
    packet_id, position = read_packet_id(data, position, end)
    if position != end:
        raise MqttError("an acknowledgement with bytes after its packet identifier")
    return packet_id


def read_filters(data: bytes, position: int, end: int, *, with_qos: bool) -> tuple[int, list[str]]:
    """The body of SUBSCRIBE (`with_qos`) or UNSUBSCRIBE: packet identifier, topic filters [MQTT-3.8.3-3, 3.10.3-2]."""
    packet_id, position = read_packet_id(data, position, end)
    filters = []
    while position < end:
        raw, position = read_binary(data, position, end)
        filters.append(check_filter(raw))
        if with_qos:
            if position >= end or data[position] > 2:
                raise MqttError("SUBSCRIBE with a bad requested QoS [MQTT-3.8.3-4]")
            position += 1
    if not filters:
        raise MqttError("no topic filter [MQTT-3.8.3-3, 3.10.3-2]", ReasonCode.PROTOCOL_ERROR)
    return packet_id, filters


def encode_length(length: int) -> bytes:
    """A remaining length (2.2.3)."""
    if not 0 <= length <= REMAINING_LENGTH_MAX:
        raise ValueError(f"remaining length {length}")
    out = bytearray()
    while True:
        length, byte = length >> 7, length & 0x7F
        if not length:
            out.append(byte)
            return bytes(out)
        out.append(byte | 0x80)


def encode_packet(kind: PacketType, flags: int, body: bytes) -> bytes:
    """Fixed header and body."""
    return bytes((kind << 4 | flags,)) + encode_length(len(body)) + body


def encode_text(value: str | bytes) -> bytes:
    """A string or bytes with a two-byte length."""
    raw = value.encode() if isinstance(value, str) else value
    return len(raw).to_bytes(2, "big") + raw


def encode_connack(code: ConnectCode, *, session_present: bool = False) -> bytes:
    """CONNACK (3.2); session present is 0 with any refusal [MQTT-3.2.2-4]."""
    return bytes((0x20, 2, int(session_present and code == ConnectCode.ACCEPTED), code))


def encode_acknowledgement(kind: PacketType, packet_id: int) -> bytes:
    """PUBACK, PUBREC, PUBREL, PUBCOMP or UNSUBACK."""
    return bytes((kind << 4 | (2 if kind == PacketType.PUBREL else 0), 2)) + packet_id.to_bytes(2, "big")


def encode_pubacks(packet_ids: bytes | bytearray) -> bytearray:
    """A PUBACK for each identifier (two bytes), as 3.1.1 has it and MQTT 5 for success."""
    pubacks = bytearray(b"\x40\x02\0\0") * (len(packet_ids) // 2)
    pubacks[2::4], pubacks[3::4] = packet_ids[::2], packet_ids[1::2]
    return pubacks


def encode_suback(packet_id: int, codes: list[int]) -> bytes:
    """SUBACK: one return code per filter [MQTT-3.8.4-5]."""
    return encode_packet(PacketType.SUBACK, 0, packet_id.to_bytes(2, "big") + bytes(codes))


def encode_connect(connect: Connect) -> bytes:
    """CONNECT, as a client sends it."""
    will, user, password = connect.will, connect.user, connect.password
    flags = connect.clean << 1 | (user is not None) << 7 | (password is not None) << 6
    tail = b""
    if will is not None:
        flags |= 4 | will.qos << 3 | will.retain << 5
        tail += encode_text(will.topic) + encode_text(will.payload)
    tail += encode_text(user) if user is not None else b""
    tail += encode_text(password) if password is not None else b""
    head = encode_text("MQTT") + bytes((connect.level, flags)) + connect.keep_alive_s.to_bytes(2, "big")
    return encode_packet(PacketType.CONNECT, 0, head + encode_text(connect.client_id) + tail)


def encode_publish(publish: Publish) -> bytes:
    """PUBLISH, as a client sends it."""
    body = encode_text(publish.topic)
    if publish.qos:
        body += publish.packet_id.to_bytes(2, "big")
    flags = publish.dup << 3 | publish.qos << 1 | publish.retain
    return encode_packet(PacketType.PUBLISH, flags, body + publish.payload)


def is_from_server(kind: PacketType) -> bool:
    """Packets that only a server sends: from a client they are an error."""
    return kind in _FROM_SERVER
