"""node-latency: how long one Produce of one record waits for its acknowledgement, p50 in µs; beside Apache Kafka.

One request in flight (`node-latency-1`) and twenty on one connection (`node-latency-20`). Ours waits for the disk, so
the disk's own `fdatasync` after an append of as many bytes is timed in every run, right before; the median of those is
`fdatasync_us`. Kafka waits for nothing.
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
from benchmarks.kafka_servers import OURS, Server, Servers, both, create_topic, kafka_version, settle

NAME = "node-latency"
SHAPES = (Shape(1, 1, 1), Shape(1, 1, 20))
SECONDS = 3.0
_PROBE_BYTES = 172  # a batch of one record of 100 bytes
_topics = count(1)


def fdatasync_us(directory: Path, seconds: float) -> float:
    """The median time of an append and its `fdatasync` on the disk of `directory`."""
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
    return statistics.median(times_us)


def run(server: Server, shape: Shape, seconds: float) -> Run:
    """One run into a topic of its own."""
    topic = f"latency-{next(_topics)}"
    create_topic(server, topic)
    settle()
    probe_us = fdatasync_us(server.data, seconds / 2)
    cpu_before_s = server.cpu_s()
    sent = produce(server.port, topic, shape, seconds=seconds)
    cpu_us = (server.cpu_s() - cpu_before_s) / sent.requests * 1e6
    p50_us = statistics.median(sent.latencies_ms) * 1000
    details = {
        "p99_us": statistics.quantiles(sent.latencies_ms, n=100)[98] * 1000,
        "fdatasync_us": probe_us,
        "per_fdatasync": p50_us / probe_us,
        "requests_s": sent.requests / sent.elapsed_s,
        "cpu_us": cpu_us,
    }
    return Run(p50_us, details)


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
                peers={"kafka": partial(run, kafka, shape, seconds)},
                parameters={
                    **asdict(shape), "seconds": seconds, "rounds": rounds, "ours": OURS, "kafka": kafka_version()
                },
                rounds=rounds,
                results=results,
            )  # fmt: skip
    return reports
