"""Clients that speak something else to the MQTT port are named, and a limit is named by its key."""

from __future__ import annotations

import pytest

from gateway.ingest.mqtt import packets
from gateway.ingest.mqtt.packets import Connect
from gateway.ingest.mqtt.reasons import MqttError
from gateway.ingest.mqtt.session import ServerSession
from gateway.ingest.mqtt.settings import MqttSettings
from gateway.ingest.mqtt.state import TopicCache


@pytest.mark.parametrize(
    ("first", "named"),
    [
        (b"GET / HTTP/1.1\r\nHost: gateway\r\n\r\n", "it speaks HTTP"),
        (b"POST /telemetry HTTP/1.1\r\n\r\n", "it speaks HTTP"),
        (b"OPTIONS * HTTP/1.1\r\n\r\n", "it speaks HTTP"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "it speaks TLS"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "it speaks SSH"),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n", "it speaks the PROXY protocol"),
        (b"\x40\x02\x00\x01", "PUBACK before CONNECT"),
    ],
)
def test_what_is_no_mqtt_is_named(first: bytes, named: str) -> None:
    with pytest.raises(MqttError, match=named):
        ServerSession(MqttSettings(), TopicCache()).feed(first)


def test_after_connect_bytes_are_only_what_they_are() -> None:
    session = ServerSession(MqttSettings(), TopicCache())
    session.feed(packets.encode_connect(Connect(4, "c", True)))
    session.accept("c", present=False, held=set())
    with pytest.raises(MqttError, match="PUBACK with flags"):
        session.feed(b"GET / HTTP/1.1\r\n\r\n")


def test_a_large_packet_names_the_limit_s_key() -> None:
    session = ServerSession(MqttSettings(packet_bytes_max=100, connect_bytes_max=50), TopicCache())
    with pytest.raises(MqttError, match=r"a packet of 127 bytes; 50 is the most here: connect_bytes_max in \[mqtt\]"):
        session.feed(b"\x10\x7d")
    session = ServerSession(MqttSettings(packet_bytes_max=100), TopicCache())
    session.feed(packets.encode_connect(Connect(4, "c", True)))
    session.accept("c", present=False, held=set())
    with pytest.raises(MqttError, match=r"a packet of 127 bytes; 100 is the most here: packet_bytes_max in \[mqtt\]"):
        session.feed(b"\x30\x7d")
