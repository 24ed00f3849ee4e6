"""The least that a server can do, to know how much of a figure is not the server's: `python -m benchmarks.null_server`.

It has one thread, blocks in `recv`, and answers every Produce at once with success. By default it stores nothing. With
`--sync FILE` it appends what it has received and calls `fdatasync` before it answers, without looking at it: frames
are then told apart by their number of bytes, which must be the same for all.
"""

from __future__ import annotations

import argparse
import os
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.kafka_raw import Shape, request
from benchmarks.kafka_servers import Server
from benchmarks.processes import accepts, running, wait_for
from gateway.wire.cluster import api_versions_body
from gateway.wire.schema import ApiKey
from gateway.wire.session import Request, ServerSession, encode_response
from headwater.net import free_port

_RECEIVE_BYTES = 1 << 20
_HEAD = struct.Struct(">ihhi")  # of a request: its length, API key, version, correlation id


def body_of(asked: Request, port: int) -> dict[str, Any]:
    """The answer to a client that wants one partition of any topic."""
    if asked.api is ApiKey.API_VERSIONS:
        return api_versions_body(asked)
    wanted: dict[str, Any] = asked.body or {}
    if asked.api is ApiKey.PRODUCE:
        return {
            "responses": [
                {
                    "name": topic["name"],
                    "partition_responses": [
                        {"index": part["index"], "error_code": 0, "base_offset": 0} for part in topic["partition_data"]
                    ],
                }
                for topic in wanted["topic_data"]
            ]
        }
    if asked.api is not ApiKey.METADATA:
        raise SystemExit(f"the null server does not know {asked.api.name}")
    partition = {"error_code": 0, "partition_index": 0, "leader_id": 1, "replica_nodes": [1], "isr_nodes": [1]}
    topics = [{"error_code": 0, "name": each["name"], "partitions": [partition]} for each in wanted["topics"] or []]
    return {"brokers": [{"node_id": 1, "host": "127.0.0.1", "port": port}], "controller_id": 1, "topics": topics}


def answer(client: socket.socket, port: int) -> None:
    """Answer what one client asks; of a Produce the kernel throws away all but the header (MSG_TRUNC, tcp(7))."""
    session, nowhere = ServerSession(), memoryview(bytearray(_RECEIVE_BYTES))
    answers: dict[int, tuple[bytes, bytes]] = {}
    while head := client.recv(_HEAD.size, socket.MSG_WAITALL):
        size, key, version, correlation_id = _HEAD.unpack(head)
        left = size + 4 - _HEAD.size
        if key == ApiKey.PRODUCE and version in answers:
            while left:
                left -= client.recv_into(nowhere, min(left, _RECEIVE_BYTES), socket.MSG_TRUNC)
            before, after = answers[version]
            client.sendall(before + head[-4:] + after)
            continue
        session.feed(head + client.recv(left, socket.MSG_WAITALL))
        if (asked := session.next_request()) is None:
            return
        served = 0 if asked.body is None else asked.version
        answered = encode_response(asked.api, served, correlation_id, body_of(asked, port))
        session.keep()
        if asked.api is ApiKey.PRODUCE:  # the client has one topic: all answers are like the first
            answers[version] = answered[:4], answered[8:]
        client.sendall(answered)


def sync(client: socket.socket, path: str, topic: str, shape: Shape) -> None:
    """Append, sync and acknowledge what the client of `kafka_raw` sends."""
    frame_bytes = len(request(topic, shape))
    part = {"index": 0, "error_code": 0, "base_offset": 0}
    body = {"responses": [{"name": topic, "partition_responses": [part]}]}
    acknowledged = encode_response(ApiKey.PRODUCE, 7, 1, body)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    pending = 0
    while data := client.recv(_RECEIVE_BYTES):
        pending += len(data)
        frames, pending = divmod(pending, frame_bytes)
        os.write(handle, data)
        if frames:
            os.fdatasync(handle)
            client.sendall(acknowledged * frames)
    os.close(handle)


@contextmanager
def null_server(directory: Path, *options: str) -> Iterator[Server]:
    """The server in a process of its own."""
    directory.mkdir(parents=True, exist_ok=True)
    port = free_port()
    with running(
        [sys.executable, "-m", "benchmarks.null_server", str(port), *options], directory / "null.log"
    ) as process:
        wait_for(lambda: process.poll() is not None or accepts(port), "the null server listens")
        yield Server("null", port, process.pid, directory)


def store_cpu_us(directory: Path, *, records: int, record_bytes: int, batch_bytes: int = 1_000_000) -> float:
    """The CPU that `write` and `fdatasync` alone cost for these records, µs each; the kernel's threads not counted."""
    path = directory / "store"
    data = bytes(batch_bytes)
    before_s = time.process_time()
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        for _ in range(max(1, records * record_bytes // batch_bytes)):
            os.write(handle, data)
            os.fdatasync(handle)
        return (time.process_time() - before_s) / records * 1e6
    finally:
        os.close(handle)
        path.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(prog="null_server")
    parser.add_argument("port", type=int)
    parser.add_argument("--sync", metavar="FILE")
    parser.add_argument("--topic", default="null")
    parser.add_argument("--inflight", type=int, default=1)
    given = parser.parse_args()
    shape = Shape(1, 1, given.inflight)
    with socket.create_server(("127.0.0.1", given.port)) as door:
        while True:
            client, _ = door.accept()
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            serve = (client, given.sync, given.topic, shape) if given.sync else (client, given.port)
            threading.Thread(target=sync if given.sync else answer, args=serve, daemon=True).start()


if __name__ == "__main__":
    main()
