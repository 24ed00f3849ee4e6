"""Hostile bytes at a real node's Kafka listener: random and mutated requests of every API, promised gigabytes, bombs.

The node lives, says nothing but its own errors, and its memory stays bounded.
"""

from __future__ import annotations

import contextlib
import re
import select
import socket
import struct
from pathlib import Path
from random import Random
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from gateway.log import records
from gateway.log.compression import Compression
from gateway.wire.compiler import encoder
from gateway.wire.schema import BY_KEY, ApiKey, Message
from tests.support.ports import reserved_port
from tests.support.wire_bodies import random_body
from tests.torture.node import PARTITIONS, TOPIC, Node

GROWTH_BYTES_MAX = 30 << 20
FRAMES_PER_CONNECTION = 5  # a bad one ends the connection
BOMB_BYTES, SMALL_BOMB_BYTES = 256 << 20, 48 << 20  # both above what the node may grow by


def framed(message: Message, version: int, body: dict[str, Any], random: Random) -> bytearray:
    parts: list[bytes] = []
    encoder(message.name, version, response=False)(body, parts.append)
    head = struct.pack(">hhi", message.key or 0, version, random.getrandbits(31)) + struct.pack(">h", 1) + b"h"
    head += b"\0" if message.is_flexible(version) else b""
    inner = head + b"".join(parts)
    return bytearray(struct.pack(">i", len(inner)) + inner)


def aimed(value: Any, random: Random, batch: bytes) -> Any:
    """Random values, but now and then a name or a batch that means something to the node."""
    if isinstance(value, dict):
        return {name: aimed(each, random, batch) for name, each in value.items()}
    if isinstance(value, list):
        return [aimed(each, random, batch) for each in value]
    if isinstance(value, str) and random.random() < 0.6:
        return random.choice((TOPIC, "events", "group", "retention.ms", "0", ""))
    if isinstance(value, bytes | memoryview) and len(value) != 16 and random.random() < 0.6:
        return mutated(bytearray(batch), random) if random.random() < 0.7 else batch
    if isinstance(value, int) and not isinstance(value, bool) and random.random() < 0.3:
        return random.choice((0, 1, -1))
    return value


def mutated(data: bytearray, random: Random) -> bytes:
    for _ in range(random.randint(1, 4)):
        at = random.randrange(len(data))
        data[at] = random.choice((0, 0x7F, 0x80, 0xFF, data[at] ^ 1 << random.randrange(8)))
    return bytes(data[: random.randint(1, len(data))] if random.random() < 0.1 else data)


def hostile(random: Random, batch: bytes) -> bytes:
    """One frame: random bytes, or a request of any API and version, as it should be or damaged behind its length."""
    if random.random() < 0.04:
        return struct.pack(">i", size := random.randint(0, 400)) + random.randbytes(size)
    message = BY_KEY[random.choice(list(ApiKey))]
    version = random.randint(*message.versions)
    frame = framed(message, version, aimed(random_body(message.request, version, random), random, batch), random)
    if random.random() < 0.35:
        behind = mutated(frame[random.choice((4, 12)) :], random) if len(frame) > 16 else bytes(frame[4:])
        behind = bytes(frame[4 : len(frame) - len(behind)]) + behind if random.random() < 0.5 else behind
        return struct.pack(">i", len(behind)) + behind
    return bytes(frame)


def send(node: Node, data: bytes, wait_s: float = 0.02, *, enough: int = 1 << 30) -> int:
    """On a connection of its own, which the node may close whenever it likes. Returns how many answers came.

    It waits for `enough` answers, or until none comes for `wait_s`.
    """
    host, _, port = node.address.partition(":")
    got = bytearray()
    with contextlib.suppress(ConnectionError, TimeoutError), socket.create_connection((host, int(port)), 5) as peer:
        peer.settimeout(5)
        peer.sendall(data)
        while counted(got) < enough and select.select([peer], [], [], wait_s)[0] and (part := peer.recv(1 << 16)):
            got += part
    return counted(got)


def counted(got: bytes | bytearray) -> int:
    """How many answers have begun."""
    answers = at = 0
    while at + 4 <= len(got):
        at += 4 + int.from_bytes(got[at : at + 4], "big")
        answers += 1
    return answers


def answers(node: Node) -> bool:
    """Whether it serves ApiVersions to a peer that means well."""
    host, _, port = node.address.partition(":")
    with socket.create_connection((host, int(port)), 5) as peer:
        peer.settimeout(60)  # it may be kept from running, and must not be kept from answering
        peer.sendall(struct.pack(">ihhih", 10, ApiKey.API_VERSIONS, 0, 77, -1))
        return peer.recv(8)[4:8] == struct.pack(">i", 77)


def memory_bytes(node: Node, *, peak: bool = False) -> int:
    """VmRSS of the node's processes, or the most since `forget_peaks`."""
    name = "VmHWM" if peak else "VmRSS"
    found = [re.search(rf"{name}:\s+(\d+) kB", Path(f"/proc/{each}/status").read_text()) for each in processes(node)]
    return sum(int(each[1]) << 10 for each in found if each)


def forget_peaks(node: Node) -> None:
    for each in processes(node):
        Path(f"/proc/{each}/clear_refs").write_text("5")


def processes(node: Node) -> list[int]:
    of = [node.pid]
    for each in of:
        of += map(int, Path(f"/proc/{each}/task/{each}/children").read_text().split())
    return of


def held_bytes(node: Node) -> int:
    """What the node takes for a hundred peers that promise as much as they may, or more, and send nothing."""
    host, _, port = node.address.partition(":")
    with contextlib.ExitStack() as held:
        for number in range(100):
            peer = held.enter_context(socket.create_connection((host, int(port)), 5))
            peer.sendall(struct.pack(">i", 0x7FFFFFFF if number % 2 else (32 << 20) - 1) + b"\0\0\0\x09abc")
        assert answers(node)
        return memory_bytes(node, peak=True)


def bombs(size: int) -> list[bytes]:
    """Produce requests whose batch is small and unpacks to that many bytes."""
    produce = BY_KEY[ApiKey.PRODUCE]
    rows = [(1_700_000_000_000, b"k", bytes(size), records.NO_HEADERS)]
    found = []
    for compression in (Compression.GZIP, Compression.LZ4, Compression.ZSTD):
        batch = bytes(records.encode_batch(rows, compression=compression))
        for acks, topic in ((1, TOPIC), (-1, "readings")):
            data = {"name": topic, "partition_data": [{"index": 0, "records": batch}]}
            body = {"transactional_id": None, "acks": acks, "timeout_ms": 1_000, "topic_data": [data]}
            found.append(bytes(framed(produce, 7, body, Random(0))))
    return found


def attacked(node: Node, count: int, bomb_bytes: int) -> str:
    random = Random(count)
    node.start()
    admin = AdminClient({"bootstrap.servers": node.address})
    topics = [NewTopic(TOPIC, PARTITIONS), NewTopic("readings", 1)]
    for future in admin.create_topics(topics).values():
        with contextlib.suppress(Exception):  # the node may have made it
            future.result(30)
    batch = bytes(records.encode_batch([(1_700_000_000_000, b"k", b"v" * 50, records.NO_HEADERS)] * 3))
    for _ in range(20):  # what is made once is made
        send(node, b"".join(hostile(random, batch) for _ in range(FRAMES_PER_CONNECTION)))
    before = memory_bytes(node)
    forget_peaks(node)
    answered = sent = 0
    while sent < count or answered < count // 10:  # a busy node's answers come when nobody waits for them any more
        assert sent < 20 * count, f"only {answered} of {sent} frames were understood"
        answered += send(node, b"".join(hostile(random, batch) for _ in range(FRAMES_PER_CONNECTION)), 0.002)
        sent += FRAMES_PER_CONNECTION
        if sent % 250 == 0:
            assert answers(node)
    after_frames = memory_bytes(node, peak=True) - before
    promised = held_bytes(node) - before
    for bomb in bombs(bomb_bytes):
        send(node, bomb, 1.0, enough=1)
        assert answers(node)
    after_bombs = memory_bytes(node, peak=True) - before
    for what, grown in (("frames", after_frames), ("promises", promised), ("bombs", after_bombs)):
        assert grown < GROWTH_BYTES_MAX, f"{grown >> 20} MB more after {what}"
    assert "Traceback" not in node.said(), node.said()[-5_000:]
    return (
        f"{sent} frames, {answered} answers: 0 tracebacks, it lives; "
        f"memory {before >> 20} MB, {after_frames >> 10:+} KB after them, "
        f"{promised >> 10:+} KB under 100 promises of up to 2 GB, {after_bombs >> 10:+} KB after bombs of "
        f"{bomb_bytes >> 20} MB"
    )


def attack(directory: Path, count: int, bomb_bytes: int) -> None:
    with reserved_port() as port:
        node = Node(directory, port)
        try:
            print(attacked(node, count, bomb_bytes))
        finally:
            node.close()


def test_a_sample_of_hostile_bytes_on_the_wire(tmp_path: Path) -> None:
    attack(tmp_path, 600, SMALL_BOMB_BYTES)


@pytest.mark.long("hostile-wire", count=20_000)
def test_hostile_bytes_on_the_wire(tmp_path: Path, count: int) -> None:
    """`count` frames."""
    attack(tmp_path, count, BOMB_BYTES)
