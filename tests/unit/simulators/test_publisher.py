"""The publishing side against a gateway made of a plain socket: MQTT 3.1.1, sections 3.1 to 3.4."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from headwater.clock import SystemClock
from simulators.publisher import Publisher, Token, wait_for

CONNACK_NEW, CONNACK_RESUMED, CONNACK_REFUSED = b"\x20\x02\0\0", b"\x20\x02\1\0", b"\x20\x02\0\5"


class Gateway:
    def __init__(self) -> None:
        self.server = socket.create_server(("127.0.0.1", 0))
        self.server.settimeout(5)
        self.socket: socket.socket | None = None

    def accept(self, answer: bytes) -> bytes:
        self.socket, _ = self.server.accept()
        self.socket.settimeout(5)
        connect = self.packet()
        self.socket.sendall(answer)
        return connect

    def packet(self) -> bytes:
        assert self.socket is not None
        head = self.exactly(2)
        return head + self.exactly(head[1])  # all packets here are shorter than 128 bytes

    def exactly(self, size: int) -> bytes:
        assert self.socket is not None
        data = b""
        while len(data) < size:
            part = self.socket.recv(size - len(data))
            assert part, "the publisher closed"
            data += part
        return data

    def publish(self) -> tuple[bool, int, bytes]:
        """(DUP, packet id, payload) of the next packet."""
        packet = self.packet()
        assert packet[0] & 0xF6 == 0x32, packet
        topic_bytes = int.from_bytes(packet[2:4], "big")
        at = 4 + topic_bytes
        return bool(packet[0] & 8), int.from_bytes(packet[at : at + 2], "big"), packet[at + 2 :]

    def acknowledge(self, packet_id: int) -> None:
        assert self.socket is not None
        self.socket.sendall(b"\x40\x02" + packet_id.to_bytes(2, "big"))

    def drop(self) -> None:
        assert self.socket is not None
        self.socket.close()


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    gateway = Gateway()
    yield gateway
    gateway.server.close()
    if gateway.socket is not None:
        gateway.socket.close()


class Device:
    def __init__(self, gateway: Gateway, **options: Any) -> None:
        self.sent: list[Token] = []
        self.acked: list[Token] = []
        host, port = gateway.server.getsockname()
        self.publisher = Publisher("d", host, port, on_sent=self.sent.append, on_acked=self.acked.append, **options)
        self.clock = SystemClock()

    def publish(self, n: int) -> bool:
        return self.publisher.publish("t", b"%d" % n, ("r", "d", n))

    def connect(self) -> None:
        while self.publisher.fd is None:
            self.publisher.tick(self.clock.monotonic_ms())

    def turn(self, until: object = None) -> None:
        """Serve the socket until something has come and been handled."""
        wait_for([self.publisher], [], 2000.0)


@pytest.fixture
def device(gateway: Gateway) -> Iterator[Device]:
    device = Device(gateway, inflight_max=3, queued_max=5)
    yield device
    with contextlib.suppress(OSError):
        device.publisher.disconnect()
    if device.publisher.fd is not None:
        device.publisher._client.loop_write()


def numbers(tokens: list[Token]) -> list[int]:
    return [token[2] for token in tokens]


def test_messages_wait_in_order_until_the_session_stands_and_keep_to_the_window(
    gateway: Gateway, device: Device
) -> None:
    assert all(device.publish(n) for n in range(1, 6))
    assert not device.publish(6), "the queue is bounded and says so"
    device.connect()
    assert device.sent == []
    connect = gateway.accept(CONNACK_NEW)
    assert not connect[9] & 2, "a persistent session"
    device.turn()
    assert numbers(device.sent) == [1, 2, 3]
    published = [gateway.publish() for _ in range(3)]
    assert [(dup, payload) for dup, _, payload in published] == [(False, b"1"), (False, b"2"), (False, b"3")]
    gateway.acknowledge(published[0][1])
    device.turn()
    assert numbers(device.acked) == [1]
    assert gateway.publish()[2] == b"4"
    assert (device.publisher.inflight, device.publisher.queued) == (3, 1)


def test_after_a_broken_connection_what_was_not_acknowledged_comes_again_first_with_dup(
    gateway: Gateway, device: Device
) -> None:
    device.connect()
    gateway.accept(CONNACK_NEW)
    device.turn()
    for n in (1, 2, 3, 4):
        device.publish(n)
    published = [gateway.publish() for _ in range(3)]
    gateway.acknowledge(published[0][1])
    device.turn()
    assert gateway.publish()[2] == b"4"
    device.publish(5)
    gateway.drop()
    while device.publisher.connected:
        device.turn()
    device.connect()
    gateway.accept(CONNACK_RESUMED)
    device.turn()
    again = [gateway.publish() for _ in range(3)]
    assert [(dup, payload) for dup, _, payload in again] == [(True, b"2"), (True, b"3"), (True, b"4")]
    assert device.publisher.resent == 3
    assert (device.publisher.connects, device.publisher.sessions_present) == (2, 1)
    for _, packet_id, _ in again:
        gateway.acknowledge(packet_id)
    while device.publisher.inflight > 1:
        device.turn()
    assert gateway.publish()[0::2] == (False, b"5")
    assert numbers(device.sent) == [1, 2, 3, 4, 5], "a repeat is not a new message"
    assert numbers(device.acked) == [1, 2, 3, 4]


def test_a_refusal_is_told_and_tried_again(gateway: Gateway, device: Device) -> None:
    device.connect()
    gateway.accept(CONNACK_REFUSED)
    while not device.publisher.refused:
        device.turn()
    assert "refused" in device.publisher.problem
    assert not device.publisher.connected


def test_a_gateway_that_is_away_is_asked_again_at_most_a_second_later(gateway: Gateway, device: Device) -> None:
    gateway.server.close()
    tries, now_ms = 0, 0.0
    while now_ms < 10_000.0:
        before = device.publisher._reconnect_at_ms
        device.publisher.tick(now_ms)
        tries += device.publisher._reconnect_at_ms != before
        now_ms += 50.0
    assert 10 <= tries <= 30
    assert device.publisher.problem.startswith("cannot connect")
