"""Every malformed packet that a client can send, of both MQTT versions: one row per MUST, with its reason code.

The rows are the page to read: bytes, the statement of the standard that they break (4.: 3.1.1, OASIS 29 October 2014;
5.: MQTT 5, OASIS 7 March 2019), and what a client of MQTT 5 is told. A 3.1.1 client is told nothing: its connection is
closed [MQTT-4.8.0-1]. Each row is fed whole, byte by byte, behind good packets and with more bytes after it.
Which statement stands behind which rows, and which has none and why, is in `tests.support.mqtt_statements`.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.ingest.mqtt.reasons import MqttError, ReasonCode
from gateway.ingest.mqtt.state import State
from headwater.errors import PeerError
from tests.support.mqtt_packets import CONNECTS, GOOD, connect, machine, packet, props, publish, subscribe, told

R = ReasonCode
MALFORMED, PROTOCOL = R.MALFORMED_PACKET, R.PROTOCOL_ERROR
# --- before and in CONNECT: (bytes, statement, reason, or None where nothing can be said yet)
FIRST: dict[str, tuple[bytes, str, ReasonCode | None]] = {
    "4. PUBLISH first": (GOOD[4], "MQTT-3.1.0-1", None),
    "4. type 0": (b"\0\0", "reserved", None),
    "4. type 15": (b"\xf0\0", "reserved", None),
    "5. AUTH first": (b"\xf0\0", "reserved", None),
    "4. CONNECT with flags": (b"\x11" + CONNECTS[4][1:], "MQTT-2.2.2-2", None),
    "4. protocol name": (connect(4, name=b"MQTx"), "MQTT-3.1.2-1", None),
    "5. protocol name": (connect(5, name=b"mqtt"), "MQTT-3.1.2-1", None),
    "4. nothing behind the name": (packet(1, 0, b"\0\4MQTT"), "ends within its header", None),
    "5. CONNECT with flags": (b"\x11" + CONNECTS[5][1:], "5: 2.1.3-1", None),
    "4. client id missing": (connect(4, rest=b""), "shorter than its own fields", None),
    "5. client id missing": (connect(5, rest=b""), "shorter than its own fields", MALFORMED),
    "4. user missing": (connect(4, 0x82), "shorter than its own fields", None),
    "4. password missing": (connect(4, 0xC2, b"\0\1x\0\1u"), "shorter than its own fields", None),
    "4. user not UTF-8": (connect(4, 0x82, b"\0\1x\0\1\xff"), "MQTT-1.5.3-1", None),
    "5. user not UTF-8": (connect(5, 0x82, b"\0\1x\0\1\xff"), "5: 1.5.4-1", MALFORMED),
    "4. will topic not UTF-8": (connect(4, 6, b"\0\1x\0\1\xff\0\0"), "MQTT-1.5.3-1", None),
    "5. will topic not UTF-8": (connect(5, 6, b"\0\1x\0\0\1\xff\0\0"), "5: 1.5.4-1", MALFORMED),
    "4. reserved connect flag": (connect(4, 3), "MQTT-3.1.2-3", None),
    "5. reserved connect flag": (connect(5, 3), "MQTT-3.1.2-3", MALFORMED),
    "4. will QoS without a will": (connect(4, 0x0A), "MQTT-3.1.2-13", None),
    "5. will QoS without a will": (connect(5, 0x0A), "MQTT-3.1.2-11", MALFORMED),
    "4. will retain without a will": (connect(4, 0x22), "MQTT-3.1.2-13", None),
    "5. will retain without a will": (connect(5, 0x22), "MQTT-3.1.2-11", MALFORMED),
    "4. will QoS 3": (connect(4, 0x1E), "MQTT-3.1.2-13, 3.1.2-14", None),
    "5. will QoS 3": (connect(5, 0x1E), "MQTT-3.1.2-11, 3.1.2-12", MALFORMED),
    "4. password without user": (connect(4, 0x42), "MQTT-3.1.2-22", None),
    "4. will missing": (connect(4, 6), "shorter than its own fields", None),
    "5. will missing": (connect(5, 6), "within a variable byte integer", MALFORMED),
    "5. user missing": (connect(5, 0x82), "shorter than its own fields", MALFORMED),
    "5. password missing": (connect(5, 0xC2, b"\0\1x\0\1u"), "shorter than its own fields", MALFORMED),
    "4. bytes after the last field": (connect(4, rest=b"\0\1xy"), "after its last field", None),
    "5. bytes after the last field": (connect(5, rest=b"\0\1xy"), "after its last field", MALFORMED),
    "4. client id not UTF-8": (connect(4, rest=b"\0\1\xff"), "MQTT-1.5.3-1", None),
    "5. client id not UTF-8": (connect(5, rest=b"\0\1\xff"), "5: 1.5.4-1", MALFORMED),
    "5. client id with a surrogate": (connect(5, rest=b"\0\3\xed\xa0\x80"), "5: 1.5.4-1", MALFORMED),
    "5. client id over-long UTF-8": (connect(5, rest=b"\0\2\xc0\x80"), "5: 1.5.4-1", MALFORMED),
    "4. client id with NUL": (connect(4, rest=b"\0\1\0"), "MQTT-1.5.3-2", None),
    "5. client id with NUL": (connect(5, rest=b"\0\1\0"), "5: 1.5.4-2", MALFORMED),
    "5. user with NUL": (connect(5, 0x82, b"\0\1x\0\1\0"), "5: 1.5.4-2", MALFORMED),
    "4. will topic with a wildcard": (connect(4, 6, b"\0\1x\0\1#\0\0"), "MQTT-3.3.2-2", None),
    "5. will topic with a wildcard": (connect(5, 6, b"\0\1x\0\0\1+\0\0"), "MQTT-3.3.2-2", R.TOPIC_NAME_INVALID),
    "5. will topic empty": (connect(5, 6, b"\0\1x\0\0\0\0\0"), "MQTT-4.7.3-1", MALFORMED),
    "5. properties longer than CONNECT": (connect(5, properties=b"\x7f"), "longer than their packet", MALFORMED),
    "5. property of PUBLISH in CONNECT": (connect(5, properties=props(b"\x23\0\1")), "(2.2.2.2)", MALFORMED),
    "5. property of CONNECT in a will": (
        connect(5, 6, b"\0\1x" + props(b"\x21\0\1") + b"\0\1a\0\0"),
        "(2.2.2.2)",
        MALFORMED,
    ),
    "5. unknown property": (connect(5, properties=props(b"\x7e")), "(2.2.2.2)", MALFORMED),
    "5. property identifier 0x80": (connect(5, properties=props(b"\xa6\0")), "(2.2.2.2)", MALFORMED),
    "5. property cut off": (connect(5, properties=props(b"\x11\0\0")), "cut off", MALFORMED),
    "5. session expiry twice": (connect(5, properties=props(b"\x11\0\0\0\1" * 2)), "twice", PROTOCOL),
    "5. receive maximum 0": (connect(5, properties=props(b"\x21\0\0")), "RECEIVE_MAXIMUM is 0", PROTOCOL),
    "5. maximum packet size 0": (connect(5, properties=props(b"\x27\0\0\0\0")), "PACKET_SIZE is 0", PROTOCOL),
    "5. request problem information 2": (connect(5, properties=props(b"\x17\2")), "neither 0 nor 1", PROTOCOL),
    "5. request response information 2": (connect(5, properties=props(b"\x19\2")), "neither 0 nor 1", PROTOCOL),
    "5. authentication data alone": (connect(5, properties=props(b"\x16\0\1x")), "without a method", PROTOCOL),
    "5. user property without a value": (connect(5, properties=props(b"\x26\0\1a")), "shorter", MALFORMED),
    "5. user property not UTF-8": (connect(5, properties=props(b"\x26\0\1a\0\1\xff")), "5: 1.5.4-1", MALFORMED),
    "5. user property with NUL": (connect(5, properties=props(b"\x26\0\1a\0\1\0")), "5: 1.5.4-2", MALFORMED),
    "5. will delay in CONNECT": (connect(5, properties=props(b"\x18\0\0\0\1")), "(2.2.2.2)", MALFORMED),
    "5. property length over-long": (connect(5, properties=b"\x80\0"), "MQTT-1.5.5-1", MALFORMED),
    "5. property length of five bytes": (connect(5, properties=b"\x80\x80\x80\x80\1"), "four bytes", MALFORMED),
}

# --- once connected: (version, bytes, statement, reason)
LATER: dict[str, tuple[int, bytes, str, ReasonCode]] = {
    "4. a second CONNECT": (4, CONNECTS[4], "MQTT-3.1.0-2", PROTOCOL),
    "5. a second CONNECT": (5, CONNECTS[5], "MQTT-3.1.0-2", PROTOCOL),
    "4. type 0": (4, b"\0\0", "reserved", MALFORMED),
    "5. type 0": (5, b"\0\0", "reserved", MALFORMED),
    "4. type 15": (4, b"\xf0\0", "reserved", MALFORMED),
    "5. AUTH": (5, b"\xf0\0", "AUTH without", PROTOCOL),
    "5. AUTH with a reason": (5, b"\xf0\2\x19\0", "AUTH without", PROTOCOL),
    "5. AUTH with flags": (5, b"\xf1\0", "5: 2.1.3-1", MALFORMED),
    "4. CONNACK from a client": (4, b"\x20\2\0\0", "only a server", PROTOCOL),
    "5. CONNACK from a client": (5, b"\x20\3\0\0\0", "only a server", PROTOCOL),
    "5. SUBACK from a client": (5, b"\x90\4\0\1\0\0", "only a server", PROTOCOL),
    "5. PINGRESP from a client": (5, b"\xd0\0", "only a server", PROTOCOL),
    "5. PUBACK for nothing": (5, b"\x40\2\0\1", "nothing that was sent", PROTOCOL),
    "5. PUBREC for nothing": (5, b"\x50\2\0\1", "nothing that was sent", PROTOCOL),
    "5. PUBCOMP for nothing": (5, b"\x70\2\0\1", "nothing that was sent", PROTOCOL),
    "4. PUBREL without its flag": (4, b"\x60\2\0\1", "MQTT-2.2.2-2", MALFORMED),
    "5. PUBREL without its flag": (5, b"\x60\2\0\1", "5: 2.1.3-1", MALFORMED),
    "4. PUBREL with more": (4, b"\x62\3\0\1\0", "after its packet identifier", MALFORMED),
    "5. PUBREL with a wrong reason": (5, b"\x62\3\0\1\x10", "0x10", PROTOCOL),
    "5. PUBREL with a wrong property": (5, b"\x62\6\0\1\0\2\1\0", "(2.2.2.2)", MALFORMED),
    "5. PUBREL with more": (5, b"\x62\5\0\1\0\0x", "after its properties", MALFORMED),
    "5. PUBREL with identifier 0": (5, b"\x62\2\0\0", "identifier 0", MALFORMED),
    "4. PINGREQ with flags": (4, b"\xc1\0", "MQTT-2.2.2-2", MALFORMED),
    "5. PINGREQ with flags": (5, b"\xc1\0", "5: 2.1.3-1", MALFORMED),
    "4. PINGREQ with a body": (4, b"\xc0\1x", "packet that has none", MALFORMED),
    "5. PINGREQ with a body": (5, b"\xc0\1x", "packet that has none", MALFORMED),
    "4. remaining length of five bytes": (4, b"\x30\x80\x80\x80\x80\1", "four bytes", MALFORMED),
    "5. remaining length of five bytes": (5, b"\x30\x80\x80\x80\x80\1", "four bytes", MALFORMED),
    "5. remaining length over-long": (5, b"\x32\x87\0\0\1a\0\1\0x", "MQTT-1.5.5-1", MALFORMED),
    "5. remaining length over-long, known topic": (5, b"\x32\x89\0\0\3a/b\0\1\0x", "MQTT-1.5.5-1", MALFORMED),
    "5. remaining length 0 over-long": (5, b"\xc0\x80\x80\0", "MQTT-1.5.5-1", MALFORMED),
    "4. too large": (4, b"\x30\xff\xff\xff\x7f", "is the most", R.PACKET_TOO_LARGE),
    "5. too large": (5, b"\x30\xff\xff\xff\x7f", "is the most", R.PACKET_TOO_LARGE),
    # PUBLISH
    "4. QoS 3": (4, publish(b"", flags=6), "MQTT-3.3.1-4", MALFORMED),
    "5. QoS 3": (5, publish(flags=6), "MQTT-3.3.1-4", MALFORMED),
    "4. DUP with QoS 0": (4, publish(b"", flags=8, packet_id=b""), "MQTT-3.3.1-2", MALFORMED),
    "5. DUP with QoS 0": (5, publish(flags=8, packet_id=b""), "MQTT-3.3.1-2", MALFORMED),
    "4. packet identifier 0": (4, publish(b"", packet_id=b"\0\0"), "identifier 0", MALFORMED),
    "5. packet identifier 0": (5, publish(packet_id=b"\0\0"), "identifier 0", MALFORMED),
    "4. no packet identifier": (4, packet(3, 2, b"\0\1a\0"), "without its packet identifier", MALFORMED),
    "5. no packet identifier": (5, packet(3, 2, b"\0\1a\0"), "without its packet identifier", MALFORMED),
    "5. no properties": (5, packet(3, 2, b"\0\1a\0\1"), "within a variable", MALFORMED),
    "4. empty topic": (4, publish(b"", topic=b""), "MQTT-4.7.3-1", MALFORMED),
    "5. neither topic nor alias": (5, publish(topic=b""), "neither a topic name nor an alias", PROTOCOL),
    "4. topic with +": (4, publish(b"", topic=b"a/+"), "MQTT-3.3.2-2", R.TOPIC_NAME_INVALID),
    "5. topic with +": (5, publish(topic=b"a/+"), "MQTT-3.3.2-2", R.TOPIC_NAME_INVALID),
    "5. topic with #": (5, publish(topic=b"#"), "MQTT-3.3.2-2", R.TOPIC_NAME_INVALID),
    "4. topic that is not for it": (4, publish(b"", topic=b"$SYS/x"), "is not for it", R.TOPIC_NAME_INVALID),
    "4. topic with NUL": (4, publish(b"", topic=b"a\0"), "MQTT-1.5.3-2", MALFORMED),
    "5. topic with NUL": (5, publish(topic=b"a\0"), "5: 1.5.4-2", MALFORMED),
    "4. topic not UTF-8": (4, publish(b"", topic=b"\xff"), "MQTT-1.5.3-1", MALFORMED),
    "5. topic not UTF-8": (5, publish(topic=b"\xff"), "5: 1.5.4-1", MALFORMED),
    "4. topic longer than its packet": (4, packet(3, 0, b"\0\x09abc"), "longer than its packet", MALFORMED),
    "5. topic longer than its packet": (5, packet(3, 0, b"\0\x09abc"), "longer than its packet", MALFORMED),
    "5. topic alias 0": (5, publish(props(b"\x23\0\0")), "TOPIC_ALIAS is 0", R.TOPIC_ALIAS_INVALID),
    "5. topic alias too high": (5, publish(props(b"\x23\0\x63")), "MQTT-3.3.2-9", R.TOPIC_ALIAS_INVALID),
    "5. topic alias twice": (5, publish(props(b"\x23\0\1\x23\0\1")), "twice", PROTOCOL),
    "5. topic alias never set": (5, publish(props(b"\x23\0\1"), topic=b""), "stands for", R.TOPIC_ALIAS_INVALID),
    "5. payload format 2": (5, publish(props(b"\1\2")), "neither 0 nor 1", PROTOCOL),
    "5. payload format twice": (5, publish(props(b"\1\1\1\1")), "twice", PROTOCOL),
    "5. message expiry twice": (5, publish(props(b"\2\0\0\0\1\2\0\0\0\1")), "twice", PROTOCOL),
    "5. response topic with a wildcard": (5, publish(props(b"\x08\0\1#")), "MQTT-3.3.2-14", PROTOCOL),
    "5. response topic not UTF-8": (5, publish(props(b"\x08\0\1\xff")), "5: 1.5.4-1", MALFORMED),
    "5. response topic twice": (5, publish(props(b"\x08\0\1a\x08\0\1a")), "twice", PROTOCOL),
    "5. correlation data twice": (5, publish(props(b"\x09\0\1a\x09\0\1a")), "twice", PROTOCOL),
    "5. content type twice": (5, publish(props(b"\x03\0\1a\x03\0\1a")), "twice", PROTOCOL),
    "5. content type not UTF-8": (5, publish(props(b"\x03\0\1\xff")), "5: 1.5.4-1", MALFORMED),
    "5. subscription identifier in PUBLISH": (5, publish(props(b"\x0b\1")), "MQTT-3.3.4-6", PROTOCOL),
    "5. subscription identifier of five bytes": (5, publish(props(b"\x0b\x80\x80\x80\x80\1")), "four", MALFORMED),
    "5. session expiry in PUBLISH": (5, publish(props(b"\x11\0\0\0\1")), "(2.2.2.2)", MALFORMED),
    "5. a property that runs on": (5, publish(b"\2\x03\0" + b"\1a"), "shorter", MALFORMED),
    # SUBSCRIBE, UNSUBSCRIBE
    "4. SUBSCRIBE without its flag": (4, packet(8, 0, b"\0\5\0\1a\0"), "MQTT-2.2.2-2", MALFORMED),
    "5. SUBSCRIBE without its flag": (5, packet(8, 0, b"\0\5\0\0\1a\0"), "5: 2.1.3-1", MALFORMED),
    "4. SUBSCRIBE to nothing": (4, packet(8, 2, b"\0\5"), "MQTT-3.8.3-3", PROTOCOL),
    "5. SUBSCRIBE to nothing": (5, subscribe(b""), "MQTT-3.8.3-2", PROTOCOL),
    "4. SUBSCRIBE with QoS 3": (4, packet(8, 2, b"\0\5\0\1a\3"), "MQTT-3.8.3-4", MALFORMED),
    "5. SUBSCRIBE with QoS 3": (5, subscribe(b"\0\1a\3"), "QoS 3", PROTOCOL),
    "5. SUBSCRIBE with retain handling 3": (5, subscribe(b"\0\1a\x30"), "retain handling 3", PROTOCOL),
    "5. SUBSCRIBE with reserved options": (5, subscribe(b"\0\1a\x40"), "MQTT-3.8.3-5", MALFORMED),
    "5. SUBSCRIBE without options": (5, subscribe(b"\0\1a"), "MQTT-3.8.3-5", MALFORMED),
    "4. SUBSCRIBE with identifier 0": (4, packet(8, 2, b"\0\0\0\1a\0"), "identifier 0", MALFORMED),
    "5. SUBSCRIBE with identifier 0": (5, packet(8, 2, b"\0\0\0\0\1a\0"), "identifier 0", MALFORMED),
    "5. subscription identifier 0": (5, subscribe(b"\0\1a\0", props(b"\x0b\0")), "IDENTIFIER is 0", PROTOCOL),
    "5. subscription identifier twice": (5, subscribe(b"\0\1a\0", props(b"\x0b\1\x0b\1")), "twice", PROTOCOL),
    "4. filter empty": (4, packet(8, 2, b"\0\5\0\0\0"), "MQTT-4.7.3-1", MALFORMED),
    "5. filter empty": (5, subscribe(b"\0\0\0"), "MQTT-4.7.3-1", MALFORMED),
    "4. filter not UTF-8": (4, packet(8, 2, b"\0\5\0\1\xff\0"), "MQTT-1.5.3-1", MALFORMED),
    "5. filter not UTF-8": (5, subscribe(b"\0\1\xff\0"), "5: 1.5.4-1", MALFORMED),
    "4. filter with NUL": (4, packet(8, 2, b"\0\5\0\1\0\0"), "MQTT-1.5.3-2", MALFORMED),
    "5. filter with NUL": (5, subscribe(b"\0\1\0\0"), "5: 1.5.4-2", MALFORMED),
    "4. filter with # in a word": (4, packet(8, 2, b"\0\5\0\2a#\0"), "MQTT-4.7.1-2", MALFORMED),
    "4. filter with + in a word": (4, packet(8, 2, b"\0\5\0\2a+\0"), "MQTT-4.7.1-3", MALFORMED),
    "4. filter with # in the middle": (4, packet(8, 2, b"\0\5\0\3#/a\0"), "MQTT-4.7.1-2", MALFORMED),
    "5. filter with # in a word": (5, subscribe(b"\0\2a#\0"), "5: 4.7.1-1", MALFORMED),
    "5. filter with + in a word": (5, subscribe(b"\0\2a+\0"), "5: 4.7.1-2", MALFORMED),
    "5. share without a name": (5, subscribe(b"\0\x08$share//\0"), "MQTT-4.8.2-1", MALFORMED),
    "5. share without a filter": (5, subscribe(b"\0\x08$share/g\0"), "MQTT-4.8.2-1", MALFORMED),
    "5. share with a wildcard name": (5, subscribe(b"\0\x0a$share/+/a\0"), "MQTT-4.8.2-1", MALFORMED),
    "5. “no local” on a share": (5, subscribe(b"\0\x0a$share/g/a\4"), "MQTT-3.8.3-4", PROTOCOL),
    "4. UNSUBSCRIBE without its flag": (4, packet(10, 0, b"\0\5\0\1a"), "MQTT-2.2.2-2", MALFORMED),
    "5. UNSUBSCRIBE without its flag": (5, packet(10, 0, b"\0\5\0\0\1a"), "5: 2.1.3-1", MALFORMED),
    "4. UNSUBSCRIBE with identifier 0": (4, packet(10, 2, b"\0\0\0\1a"), "identifier 0", MALFORMED),
    "4. UNSUBSCRIBE from what is not UTF-8": (4, packet(10, 2, b"\0\5\0\1\xff"), "MQTT-1.5.3-1", MALFORMED),
    "5. UNSUBSCRIBE from what is not UTF-8": (5, packet(10, 2, b"\0\5\0\0\1\xff"), "5: 1.5.4-1", MALFORMED),
    "4. UNSUBSCRIBE from nothing": (4, packet(10, 2, b"\0\5"), "MQTT-3.8.3-3, 3.10.3-2", PROTOCOL),
    "5. UNSUBSCRIBE from nothing": (5, packet(10, 2, b"\0\5\0"), "MQTT-3.10.3-2", PROTOCOL),
    "5. UNSUBSCRIBE with a wrong property": (5, packet(10, 2, b"\0\5\2\x0b\1\0\1a"), "(2.2.2.2)", MALFORMED),
    # DISCONNECT
    "4. DISCONNECT with a body": (4, b"\xe0\1\0", "packet that has none", MALFORMED),
    "4. DISCONNECT with flags": (4, b"\xe1\0", "MQTT-2.2.2-2", MALFORMED),
    "5. DISCONNECT with flags": (5, b"\xe1\0", "5: 2.1.3-1", MALFORMED),
    "5. DISCONNECT with an unknown reason": (5, b"\xe0\1\1", "MQTT-3.14.2-1", MALFORMED),
    "5. DISCONNECT with a server's reason": (5, b"\xe0\1\x8b", "MQTT-3.14.2-1", MALFORMED),
    "5. DISCONNECT with more": (5, b"\xe0\3\0\0x", "after its properties", MALFORMED),
    "5. DISCONNECT with a server reference": (5, b"\xe0\6\0\4\x1c\0\1a", "(2.2.2.2)", MALFORMED),
    "5. DISCONNECT that gives an end": (5, b"\xe0\7\0\5\x11\0\0\0\1", "CONNECT had none", PROTOCOL),
}


def splits(data: bytes) -> list[list[bytes]]:
    """Whole, byte by byte, with trailing bytes."""
    return [[data], [bytes((byte,)) for byte in data], [data + b"\xc0\0" * 3]]


@pytest.mark.parametrize("row", FIRST)
def test_before_and_in_connect(row: str) -> None:
    data, statement, reason = FIRST[row]
    for chunks in splits(data):
        what, carried, out = told(machine(), chunks)
        assert statement in what
        if reason is None:
            assert out == []
        else:
            [connack] = out
            assert (connack[0], connack[2:4]) == (0x20, bytes((0, reason)))
            assert what.encode() in connack
            assert carried == reason


@pytest.mark.parametrize("row", LATER)
def test_once_connected(row: str) -> None:
    level, data, statement, reason = LATER[row]
    assert row.startswith(f"{level}.")
    for chunks in splits(data):
        what, carried, out = told(machine(level), chunks)
        assert statement in what
        assert carried == reason
        if level == 4:
            assert out == []
        else:
            [disconnect] = out
            assert (disconnect[0], disconnect[2]) == (0xE0, reason)
            assert what.encode() in disconnect


@pytest.mark.parametrize("row", LATER)
def test_what_was_whole_before_counts_and_the_rest_does_not(row: str) -> None:
    level, data, _, _ = LATER[row]
    session = machine(level)
    with pytest.raises(MqttError):
        session.feed(GOOD[level] + data + GOOD[level])
    assert len(session.messages) == 1


@pytest.mark.parametrize("level", [4, 5])
def test_a_frame_that_is_cut_waits_and_takes_nothing(level: int) -> None:
    for data in (CONNECTS[level], GOOD[level]):
        for cut in range(1, len(data)):
            session = machine(level if data is GOOD[level] else 0)
            session.feed(data[:cut])
            assert (list(session.messages), session.out) == ([], [])


@given(st.data(), st.sampled_from([4, 5]))
def test_mutated_rows_raise_nothing_but_a_peer_error(data: st.DataObject, level: int) -> None:
    rows = [row[1] for row in LATER.values() if row[0] == level]
    stream = bytearray(b"".join(data.draw(st.lists(st.sampled_from(rows), min_size=1, max_size=3))))
    for _ in range(data.draw(st.integers(1, 4))):
        stream[data.draw(st.integers(0, len(stream) - 1))] = data.draw(st.integers(0, 255))
    session = machine(level)
    try:
        session.feed(bytes(stream))
    except PeerError:
        assert session.state is State.CLOSED
