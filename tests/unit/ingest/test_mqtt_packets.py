"""MQTT 3.1.1 packets: the standard's examples, and its MUSTs one by one."""

from __future__ import annotations

import pytest

from gateway.ingest.mqtt import packets
from gateway.ingest.mqtt.packets import Connect, PacketType, Publish, Will
from gateway.ingest.mqtt.reasons import ConnectCode, MqttError


def test_the_standards_connect_example() -> None:
    # 3.1.2, figure 3.6: protocol name MQTT, level 4, flags 0xCE, keep alive 10
    body = bytes.fromhex("00044d51545404ce000a") + b"".join(
        packets.encode_text(each) for each in ("id", "w/t", b"bye", "user", b"secret")
    )
    connect = packets.read_connect(body, 0, len(body))
    assert connect == Connect(4, "id", True, 10, Will("w/t", b"bye", 1, False), "user", b"secret")
    assert packets.encode_connect(connect)[2:] == body


def test_the_standards_topic_example() -> None:
    # 3.3.2, figure 3.11: topic a/b, packet identifier 10
    body = bytes.fromhex("0003612f62000a")
    assert packets.read_publish(body, 2, 0, len(body)) == Publish("a/b", b"", 1, 10, False, False)
    assert packets.encode_publish(Publish("a/b", b"", 1, 10, False, False)) == b"\x32\x07" + body


@pytest.mark.parametrize(
    ("length", "encoded"),
    [(0, "00"), (127, "7f"), (128, "8001"), (16383, "ff7f"), (16384, "808001"), (268435455, "ffffff7f")],
)
def test_remaining_lengths_of_table_2_4(length: int, encoded: str) -> None:
    assert packets.encode_length(length).hex() == encoded
    header = packets.read_header(b"\x30" + bytes.fromhex(encoded), 0, 1 << 30)
    assert header is not None
    assert header.size == length + 1 + len(encoded) // 2


def test_a_header_is_awaited_and_its_size_refused_before_the_body() -> None:
    assert packets.read_header(b"", 0, 100) is None
    assert packets.read_header(b"\x30\x80", 0, 100) is None
    with pytest.raises(MqttError, match="a packet of 268435460 bytes; 100 is the most"):
        packets.read_header(bytes.fromhex("30ffffff7f"), 0, 100)
    with pytest.raises(MqttError, match="more than four bytes"):
        packets.read_header(bytes.fromhex("30ffffffff01"), 0, 1 << 30)


@pytest.mark.parametrize("first", [0x00, 0x0F, 0xF0, 0x11, 0x62 ^ 2, 0x80, 0x83, 0xA0, 0xC1, 0xE2])
def test_reserved_types_and_flags(first: int) -> None:
    with pytest.raises(MqttError):
        packets.read_header(bytes((first, 0)), 0, 100)


def connect_body(*, name: bytes = b"MQTT", level: int = 4, flags: int = 2, rest: bytes = b"\0\0") -> bytes:
    return packets.encode_text(name) + bytes((level, flags)) + b"\0\0" + rest


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (connect_body(name=b"MQTTX"), "another protocol name"),
        (connect_body(flags=3), "reserved flag"),
        (connect_body(flags=0x1A), "will flags"),
        (connect_body(flags=0x22), "will flags"),
        (connect_body(flags=0x0A), "will flags"),
        (connect_body(flags=0x42), "password and no user"),
        (connect_body(rest=b"\0\0x"), "after its last field"),
        (connect_body(rest=b"\0\5ab"), "longer than its packet"),
        (connect_body(rest=b"\0"), "shorter than its own fields"),
        (connect_body(rest=b"\0\2\xff\xfe"), "not UTF-8"),
        (connect_body(rest=b"\0\3\xed\xa0\x80"), "not UTF-8"),
        (connect_body(rest=b"\0\1\0"), "NUL"),
        (connect_body(flags=6, rest=b"\0\0\0\1#\0\0"), "wildcard"),
        (b"\0\4MQTT\4", "ends within its header"),
    ],
)
def test_connects_that_are_none(body: bytes, said: str) -> None:
    with pytest.raises(MqttError, match=said):
        packets.read_connect(body, 0, len(body))


def test_another_level_is_told_apart_and_not_read_further() -> None:
    five = connect_body(level=5, rest=b"whatever MQTT 5 says")
    assert packets.read_connect(five, 0, len(five)).level == 5
    old = connect_body(name=b"MQIsdp", level=3, rest=b"")
    assert packets.read_connect(old, 0, len(old)).level == 3


@pytest.mark.parametrize(
    ("flags", "body", "said"),
    [
        (6, b"\0\1a\0\1", "QoS 3"),
        (8, b"\0\1a", "DUP and QoS 0"),
        (2, b"\0\1a\0\0", "identifier 0"),
        (2, b"\0\1a\0", "without its packet identifier"),
        (0, b"\0\0", "empty topic"),
        (0, b"\0\3a/+", "wildcard"),
        (0, b"\0\1#", "wildcard"),
        (0, b"\0\1\0", "NUL"),
        (0, b"\0\2\xc3", "longer than its packet"),
        (0, b"\0\1\xc3", "not UTF-8"),
        (0, b"\0", "shorter"),
    ],
)
def test_publishes_that_are_none(flags: int, body: bytes, said: str) -> None:
    with pytest.raises(MqttError, match=said):
        packets.read_publish(body, flags, 0, len(body))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"\0\1", "no topic filter"),
        (b"\0\0\0\1a\0", "identifier 0"),
        (b"\0\1\0\0\0", "empty topic filter"),
        (b"\0\1\0\1a\3", "requested QoS"),
        (b"\0\1\0\1a", "requested QoS"),
    ],
)
def test_subscribes_that_are_none(body: bytes, said: str) -> None:
    with pytest.raises(MqttError, match=said):
        packets.read_filters(body, 0, len(body), with_qos=True)


def test_answers_byte_by_byte() -> None:
    assert packets.encode_connack(ConnectCode.ACCEPTED, session_present=True) == b"\x20\x02\x01\x00"
    assert packets.encode_connack(ConnectCode.UNACCEPTABLE_VERSION, session_present=True) == b"\x20\x02\x00\x01"
    assert packets.encode_suback(258, [128, 128]) == b"\x90\x04\x01\x02\x80\x80"
    assert packets.encode_acknowledgement(PacketType.PUBACK, 258) == b"\x40\x02\x01\x02"
    assert packets.encode_acknowledgement(PacketType.PUBREL, 1) == b"\x62\x02\x00\x01"
