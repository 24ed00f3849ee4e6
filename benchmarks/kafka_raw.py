"""A Produce client that costs next to nothing: pre-encoded requests, pipelined over several connections, one thread.

Every request is the same bytes (Produce v7, acks all, one batch), so every answer has one length; the answers' error
codes are looked at, nothing else is decoded.
"""

from __future__ import annotations

import selectors
import socket
import time
from collections import deque
from dataclasses import dataclass, field

from gateway.log.records import NO_HEADERS, encode_batch
from gateway.wire.schema import ApiKey
from gateway.wire.session import encode_request

_VERSION = 7
_SILENT_S = 30.0
_RECEIVE_BYTES = 1 << 16


@dataclass(frozen=True)
class Shape:
    """How requests are sent: so many records in a batch, so many requests unanswered on each connection."""

    batch: int
    connections: int
    inflight: int
    size: int = 100


@dataclass
class Sent:
    """What came of it; latencies are those of single requests, in ms, and unsorted."""

    requests: int = 0
    elapsed_s: float = 0.0
    latencies_ms: list[float] = field(default_factory=list)


class _Connection:
    """One socket, the times of its unanswered requests (time, how many), and part of an answer."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=_SILENT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sent: deque[tuple[float, int]] = deque()
        self.rest = b""


class Answers:
    """Cuts a stream of answers, all alike, and refuses those with an error code."""

    def __init__(self, topic: str) -> None:
        # size, correlation id, one topic, its name, one partition, its index: then the error code; see Produce v7
        self._code_at = 4 + 4 + 4 + 2 + len(topic) + 4 + 4
        self._bytes = self._code_at + 2 + 8 + 8 + 8 + 4

    def count(self, connection: _Connection) -> int:
        """Receive what is there; how many answers are whole with it."""
        data = connection.rest + connection.socket.recv(_RECEIVE_BYTES)
        if len(data) == len(connection.rest):
            raise SystemExit("the server closed the connection")
        whole = len(data) // self._bytes
        end = whole * self._bytes
        if any(data[self._code_at : end : self._bytes]) or any(data[self._code_at + 1 : end : self._bytes]):
            raise SystemExit(f"the server refused a batch: {data[: self._bytes]!r}")
        connection.rest = data[end:]
        return whole


def request(topic: str, shape: Shape) -> bytes:
    """The frame that is sent again and again."""
    value = (b"headwater-" * (shape.size // 10 + 1))[: shape.size]
    now_ms = int(time.time() * 1000)
    batch = encode_batch([(now_ms, None, value, NO_HEADERS)] * shape.batch)
    body = {
        "transactional_id": None,
        "acks": -1,
        "timeout_ms": 30_000,
        "topic_data": [{"name": topic, "partition_data": [{"index": 0, "records": batch}]}],
    }
    return encode_request(ApiKey.PRODUCE, _VERSION, 1, "bench", body)


def produce(port: int, topic: str, shape: Shape, *, seconds: float, every_s: float = 0.0) -> Sent:
    """Keep `inflight` requests unanswered on each connection for that long, then wait for the last answers.

    With `every_s` a connection's next request does not follow an answer but the clock: one every so many seconds in
    all, on the connections in turn.
    """
    frame = request(topic, shape)
    answers = Answers(topic)
    done = Sent()
    connections = [_Connection(port) for _ in range(shape.connections)]
    with selectors.DefaultSelector() as selector:
        for connection in connections:
            selector.register(connection.socket, selectors.EVENT_READ, connection)
        began_s = time.perf_counter()
        if every_s:
            _paced(selector, connections, frame, answers, done, seconds=seconds, every_s=every_s)
        else:
            for connection in connections:
                _send(connection, frame, shape.inflight)
            _pipelined(selector, frame, answers, done, began_s + seconds)
        _drain(selector, connections, answers, done)
        done.elapsed_s = time.perf_counter() - began_s
    for connection in connections:
        connection.socket.close()
    return done


def _send(connection: _Connection, frame: bytes, count: int) -> None:
    connection.sent.append((time.perf_counter(), count))
    connection.socket.sendall(frame if count == 1 else frame * count)


def _pipelined(selector: selectors.BaseSelector, frame: bytes, answers: Answers, done: Sent, until_s: float) -> None:
    while time.perf_counter() < until_s:
        for key, _ in selector.select(_SILENT_S):
            if got := _receive(key.data, answers, done):
                _send(key.data, frame, got)


def _paced(
    selector: selectors.BaseSelector,
    connections: list[_Connection],
    frame: bytes,
    answers: Answers,
    done: Sent,
    *,
    seconds: float,
    every_s: float,
) -> None:
    began_s = time.perf_counter()
    for number in range(round(seconds / every_s)):
        due_s = began_s + number * every_s
        while (wait_s := due_s - time.perf_counter()) > 0:
            for key, _ in selector.select(wait_s):
                _receive(key.data, answers, done)
        _send(connections[number % len(connections)], frame, 1)


def _drain(selector: selectors.BaseSelector, connections: list[_Connection], answers: Answers, done: Sent) -> None:
    while any(connection.sent for connection in connections):
        ready = selector.select(_SILENT_S)
        if not ready:
            raise SystemExit(f"no answer within {_SILENT_S:g} s")
        for key, _ in ready:
            _receive(key.data, answers, done)


def _receive(connection: _Connection, answers: Answers, done: Sent) -> int:
    got = left = answers.count(connection)
    now_s = time.perf_counter()
    sent = connection.sent
    while left:
        sent_s, count = sent.popleft()
        if count > left:
            sent.appendleft((sent_s, count - left))
            count = left
        done.latencies_ms += [(now_s - sent_s) * 1000] * count
        left -= count
    done.requests += got
    return got
