"""A load of MQTT 3.1.1 publishers, QoS 1, that is not the bottleneck: raw sockets and packets encoded beforehand.

Each connection is a turbine of profile `wind-turbine` with a persistent session. It keeps a window of messages in
flight and sends as many new ones as it reads PUBACKs, so what a message costs here is its share of one `recv` and one
`send`. With a rate it sends blocks of messages on time instead, whatever the server does, as long as its window has
room. Run as a process of its own; it prints one JSON line:

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

PACKET_IDS = 65_535
TICK_S = 0.001
WAIT_S = 30.0
CONNACK_ACCEPTED = b"\x20\x02\x00\x00"


def payload(connection: int, index: int, size: int, time_ms: int) -> bytes:
    """A JSON object of exactly `size` bytes; no two of a connection have the same `seq`."""
    head = (
        f'{{"ts":{time_ms},"seq":{100_000_000 + index},"wind_speed":{7 + index % 30 / 10:.1f},'
        f'"power":{1000 + connection % 9000}.5,"rotor_rpm":{10 + index % 90 / 10:.1f}'
    )
    note = size - len(head) - len(',"note":""}')
    if note < 0:
        raise SystemExit(f"a payload has at least {size - note} bytes")
    return f'{head},"note":"{"x" * note}"}}'.encode()


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
    return packet(0x10, text("MQTT") + b"\x04\x00\x00\x3c" + text(client_id))  # level 4, a session that stays, 60 s


class Publisher:
    """One connection: its encoded packets, its window, and when each block of it was sent."""

    def __init__(self, number: int, port: int, *, size: int, messages: int, every_ms: float) -> None:
        topic, began_ms = text(f"farm/turbine-{number:03d}/telemetry"), time.time() * 1000
        packets = [
            packet(
                0x32,
                topic
                + struct.pack(">H", index % PACKET_IDS + 1)
                + payload(number, index, size, int(began_ms + index * every_ms)),
            )
            for index in range(messages)
        ]
        self._packet_bytes = len(packets[0]) if packets else 0
        self._packets = memoryview(b"".join(packets))
        self._at = 0
        self.left = messages
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
        count = min(count, self.left)
        if not count:
            return
        self.left -= count
        self.unacknowledged += count
        self._sent.append((now, count))
        block = self._packets[self._at : self._at + count * self._packet_bytes]
        if self.socket.send(block) != len(block):
            raise SystemExit("a window did not fit into the socket's buffer: choose a smaller one")
        self._at += len(block)

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


def run(
    port: int, *, connections: int, inflight: int, messages: int, size: int, rate: float = 0.0, block: int = 1
) -> dict[str, float]:
    """Publish `messages` in all, `rate` a second or as fast as they are acknowledged, and wait for every PUBACK."""
    share, more = divmod(messages, connections)
    every_ms = 1000 * connections / rate if rate else 1.0
    publishers = [
        Publisher(n, port, size=size, messages=share + (n < more), every_ms=every_ms) for n in range(connections)
    ]
    by_fd = {publisher.socket.fileno(): publisher for publisher in publishers}
    poll = select.epoll()
    for fd in by_fd:
        poll.register(fd, select.EPOLLIN)
    latencies: list[tuple[float, int]] = []
    left = messages
    cpu_began, started = time.process_time(), time.monotonic()
    schedule = Schedule(publishers, rate, min(block, inflight), inflight, started)
    if not rate:
        for publisher in publishers:
            publisher.send(inflight, time.monotonic())
    while left:
        events = poll.poll(schedule.wait_s(time.monotonic()) if rate else WAIT_S)
        now = time.monotonic()
        if not events and not (rate and now - schedule.heard < WAIT_S):
            raise SystemExit(f"no PUBACK for {WAIT_S:g} s; {left} messages are left")
        for fd, _ in events:
            publisher = by_fd[fd]
            count = publisher.receive(now, latencies)
            left -= count
            schedule.heard = now
            if not rate:
                publisher.send(count, now)
        if rate:
            schedule.send(now)
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


class Schedule:
    """Which connection sends its next block when, at a rate over all of them."""

    def __init__(self, publishers: list[Publisher], rate: float, block: int, inflight: int, started: float) -> None:
        self._turn = deque(publishers)
        self._block = block
        self._inflight = inflight
        self._every_s = self._block / rate if rate else 0.0
        self._next = started
        self.heard = started

    def wait_s(self, now: float) -> float:
        """Until the next block, but no shorter than a tick: at a high rate several go together."""
        return max(TICK_S, self._next - now)

    def send(self, now: float) -> None:
        """Send what is due; a connection whose window is full lets its turn pass, and it is made up for."""
        full = 0
        while self._next <= now and full < len(self._turn):
            publisher = self._turn[0]
            self._turn.rotate(-1)
            if publisher.unacknowledged + self._block > self._inflight or not publisher.left:
                full += 1
                continue
            full = 0
            publisher.send(self._block, now)
            self._next += self._every_s


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
    parser.add_argument("--rate", type=float, default=0.0, help="messages a second; 0: as many as are acknowledged")
    parser.add_argument("--block", type=int, default=1, help="messages of a connection that go together, at a rate")
    given = parser.parse_args()
    result = run(
        given.port,
        connections=given.connections,
        inflight=given.inflight,
        messages=given.messages,
        size=given.size,
        rate=given.rate,
        block=given.block,
    )
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
