"""A load of MQTT 3.1.1 publishers, QoS 1, that is not the bottleneck: raw sockets and packets encoded beforehand.

Every connection keeps a window of messages in flight and sends as many new ones as it reads PUBACKs, so what a message
costs here is its share of one `recv` and one `send`. Run as a process of its own; it prints one JSON line:

    {"messages", "started_s", "ended_s", "cpu_s", "p50_ms", "p99_ms"}      times of CLOCK_MONOTONIC
"""

from __future__ import annotations

import argparse
import json
import select
import socket
import struct
import sys
import time
from collections import deque

RING = 500  # messages encoded for each connection; then from the beginning
WAIT_S = 30.0
CONNACK_ACCEPTED = b"\x20\x02\x00\x00"


def payload(connection: int, index: int, size: int) -> bytes:
    """A JSON object of exactly `size` bytes."""
    head = (
        f'{{"seq":{100_000_000 + index},"wind_speed":{7 + index % 90 / 10:.1f},"power":{1000 + connection}.5,"note":"'
    )
    return (head + "x" * (size - len(head) - 2) + '"}').encode()


def packet(kind: int, body: bytes) -> bytes:
    """A control packet: type and flags, remaining length (MQTT 3.1.1, section 2.2.3), body."""
    length, encoded = len(body), bytearray()
    while True:
        length, digit = divmod(length, 128)
        encoded.append(digit | (0x80 if length else 0))
        if not length:
            return bytes((kind,)) + bytes(encoded) + body


def text(value: str) -> bytes:
    return struct.pack(">H", len(value)) + value.encode()


def connect_packet(client_id: str) -> bytes:
    return packet(0x10, text("MQTT") + b"\x04\x02\x00\x3c" + text(client_id))  # level 4, clean session, 60 s


class Publisher:
    """One connection: its ring of encoded packets, its window, and when each block of it was sent."""

    def __init__(self, number: int, port: int, *, size: int, messages: int) -> None:
        packets = [
            packet(
                0x32, text(f"farm/turbine-{number:03d}") + struct.pack(">H", index + 1) + payload(number, index, size)
            )
            for index in range(RING)
        ]
        self._packet_bytes = len(packets[0])
        self._ring = memoryview(b"".join(packets))
        self._at = 0
        self._left = messages
        self._sent: deque[tuple[float, int]] = deque()
        self._acks = bytearray()
        self.unacknowledged = 0
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(connect_packet(f"load-{number}"))
        if (answer := self.socket.recv(4)) != CONNACK_ACCEPTED:
            raise SystemExit(f"the server refused connection {number}: {answer.hex()}")
        self.socket.settimeout(0)

    def send(self, count: int, now: float) -> None:
        """Send the next `count` messages, or what is left."""
        count = min(count, self._left)
        if not count:
            return
        self._left -= count
        self.unacknowledged += count
        self._sent.append((now, count))
        while count:
            run = min(count, RING - self._at)
            begin = self._at * self._packet_bytes
            block = self._ring[begin : begin + run * self._packet_bytes]
            if self.socket.send(block) != len(block):
                raise SystemExit("a window did not fit into the socket's buffer: choose a smaller one")
            self._at = (self._at + run) % RING
            count -= run

    def receive(self, now: float, latencies: list[tuple[float, int]]) -> int:
        """Read PUBACKs, note how long each message took; how many they were."""
        data = self.socket.recv(65_536)
        if not data:
            raise SystemExit("the server closed a connection")
        self._acks += data
        count, rest = divmod(len(self._acks), 4)
        if self._acks[0 : count * 4 : 4] != b"\x40" * count:
            raise SystemExit(f"not only PUBACKs came: {bytes(self._acks[:16]).hex()}")
        del self._acks[: len(self._acks) - rest]
        self.unacknowledged -= count
        left = count
        while left:
            sent_at, block = self._sent[0]
            done = min(block, left)
            latencies.append((now - sent_at, done))
            left -= done
            if done == block:
                self._sent.popleft()
            else:
                self._sent[0] = (sent_at, block - done)
        return count


def run(port: int, *, connections: int, inflight: int, messages: int, size: int) -> dict[str, float]:
    """Publish `messages` in all and wait for every PUBACK."""
    share, more = divmod(messages, connections)
    publishers = [Publisher(n, port, size=size, messages=share + (n < more)) for n in range(connections)]
    by_fd = {publisher.socket.fileno(): publisher for publisher in publishers}
    poll = select.epoll()
    for fd in by_fd:
        poll.register(fd, select.EPOLLIN)
    latencies: list[tuple[float, int]] = []
    left = messages
    cpu_began, started = time.process_time(), time.monotonic()
    for publisher in publishers:
        publisher.send(inflight, time.monotonic())
    while left:
        events = poll.poll(WAIT_S)
        if not events:
            raise SystemExit(f"no PUBACK for {WAIT_S:g} s; {left} messages are left")
        now = time.monotonic()
        for fd, _ in events:
            publisher = by_fd[fd]
            count = publisher.receive(now, latencies)
            left -= count
            publisher.send(count, now)
    ended, cpu = time.monotonic(), time.process_time() - cpu_began
    for publisher in publishers:
        publisher.socket.settimeout(WAIT_S)
        publisher.socket.sendall(b"\xe0\x00")
        publisher.socket.close()
    return {
        "messages": messages,
        "started_s": started,
        "ended_s": ended,
        "cpu_s": cpu,
        "p50_ms": percentile(latencies, 0.50) * 1000,
        "p99_ms": percentile(latencies, 0.99) * 1000,
    }


def percentile(weighted: list[tuple[float, int]], share: float) -> float:
    """The value that `share` of the messages do not exceed."""
    weighted.sort()
    left = share * sum(count for _, count in weighted)
    for value, count in weighted:
        left -= count
        if left <= 0:
            return value
    return weighted[-1][0]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--connections", type=int, default=100)
    parser.add_argument("--inflight", type=int, default=20)
    parser.add_argument("--messages", type=int, default=300_000)
    parser.add_argument("--size", type=int, default=100, help="bytes of a payload")
    given = parser.parse_args()
    result = run(
        given.port, connections=given.connections, inflight=given.inflight, messages=given.messages, size=given.size
    )
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
