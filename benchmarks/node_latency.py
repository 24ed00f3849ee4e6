"""node-latency: how long one Produce of one record waits for its acknowledgement, p50 in µs; beside Apache Kafka.

One request in flight (`node-latency-1`) and twenty on one connection (`node-latency-20`). Ours waits for the disk, so
the disk's own `fdatasync` after an append of as many bytes is timed in every run, right before and right after; the
median of those is `fdatasync_us`. Kafka waits for nothing. `floor` is the least that any server would need with this
client on this disk: it appends what comes, syncs and answers, and looks at nothing (`benchmarks.null_server`).
"""

from __future__ import annotations

import os
import statistics
import time
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from benchmarks.harness import RESULTS, Run, compare
from benchmarks.kafka_raw import Shape, produce
from benchmarks.kafka_servers import OURS, Server, Servers, both, create_topic, kafka_version, scratch, settle
from benchmarks.null_server import null_server

NAME = "node-latency"
SHAPES = (Shape(1, 1, 1), Shape(1, 1, 20))
SECONDS = 3.0
_PROBE_BYTES = 172  # a batch of one record of 100 bytes
_FLOOR_TOPIC = "latency"
_topics = count(1)


def fdatasync_us(directory: Path, seconds: float) -> list[float]:
    """The times of appends, each with its `fdatasync`, on the disk of `directory`."""
    path = directory / "probe"
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    data = bytes(_PROBE_BYTES)
    times_us = []
    try:
        until_s = time.perf_counter() + seconds
        while (began_s := time.perf_counter()) < until_s:
            os.write(handle, data)
            os.fdatasync(handle)
            times_us.append((time.perf_counter() - began_s) * 1e6)
    finally:
        os.close(handle)
        path.unlink()
    return times_us


def run(server: Server, shape: Shape, seconds: float, topic: str = "") -> Run:
    """One run, into a topic of its own when it is not given one."""
    if not topic:
        topic = f"latency-{next(_topics)}"
        create_topic(server, topic)
    settle()
    probed_us = fdatasync_us(server.data, seconds / 4)
    cpu_before_s = server.cpu_s()
    sent = produce(server.port, topic, shape, seconds=seconds)
    cpu_us = (server.cpu_s() - cpu_before_s) / sent.requests * 1e6
    probe_us = statistics.median(probed_us + fdatasync_us(server.data, seconds / 4))
    p50_us = statistics.median(sent.latencies_ms) * 1000
    details = {
        "p99_us": statistics.quantiles(sent.latencies_ms, n=100)[98] * 1000,
        "fdatasync_us": probe_us,
        "per_fdatasync": p50_us / probe_us,
        "requests_s": sent.requests / sent.elapsed_s,
        "cpu_us": cpu_us,
    }
    return Run(p50_us, details)


def floor(shape: Shape, seconds: float) -> Run:
    """The same with a server that does nothing but sync."""
    with scratch() as directory:
        options = ("--sync", str(directory / "log"), "--topic", _FLOOR_TOPIC, "--inflight", str(shape.inflight))
        with null_server(directory, *options) as server:
            return run(server, shape, seconds, _FLOOR_TOPIC)


def main(
    *,
    shapes: tuple[Shape, ...] = SHAPES,
    seconds: float = SECONDS,
    rounds: int = 3,
    results: Path = RESULTS,
    servers: Servers | None = None,
) -> dict[str, Any]:
    """Run the benchmark; what it wrote, by report."""
    reports = {}
    with both() if servers is None else nullcontext(servers) as running:
        ours, kafka = running["ours"], running["kafka"]
        for shape in shapes:
            name = f"{NAME}-{shape.inflight}"
            print(f"{name}: batches of one record of {shape.size} B, {shape.inflight} in flight on one connection")
            for server in (ours, kafka):
                run(server, shape, seconds / 2)  # warm, and not counted
            reports[name] = compare(
                name,
                unit="µs p50",
                better="lower",
                ours=partial(run, ours, shape, seconds),
                peers={"kafka": partial(run, kafka, shape, seconds), "floor": partial(floor, shape, seconds)},
                parameters={
                    **asdict(shape), "seconds": seconds, "rounds": rounds, "ours": OURS, "kafka": kafka_version()
                },
                rounds=rounds,
                results=results,
            )  # fmt: skip
    return reports
