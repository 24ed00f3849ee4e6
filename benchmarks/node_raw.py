"""node-raw: Produce requests from a pipelining client that costs next to nothing; beside Apache Kafka.

Batches of 1, 10, 100 and 1,000 records of 100 bytes over several connections, acks all, one partition. Here the
servers are the bottleneck, not the client library. One report for each size: `node-raw-1` and so on.
"""

from __future__ import annotations

import statistics
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from benchmarks.harness import RESULTS, Run, compare
from benchmarks.kafka_raw import Shape, produce
from benchmarks.kafka_servers import OURS, Server, Servers, both, create_topic, kafka_version, settle, stored_records

NAME = "node-raw"
SHAPES = (Shape(1, 10, 5), Shape(10, 4, 5), Shape(100, 4, 5), Shape(1000, 2, 5))
SECONDS = 2.0
_topics = count(1)


def run(server: Server, shape: Shape, seconds: float) -> Run:
    """One run into a topic of its own."""
    topic = f"raw-{next(_topics)}"
    create_topic(server, topic)
    settle()
    cpu_before_s = server.cpu_s()
    sent = produce(server.port, topic, shape, seconds=seconds)
    cpu_spent_s = server.cpu_s() - cpu_before_s
    records = sent.requests * shape.batch
    if (stored := stored_records(server, topic)) != records:
        raise SystemExit(f"{server.name} acknowledged {records} records and holds {stored}")
    details = {
        "requests_s": sent.requests / sent.elapsed_s,
        "p50_ms": statistics.median(sent.latencies_ms),
        "p99_ms": statistics.quantiles(sent.latencies_ms, n=100)[98],
        "cpu_us_request": cpu_spent_s / sent.requests * 1e6,
        "cores": cpu_spent_s / sent.elapsed_s,
    }
    return Run(records / sent.elapsed_s, details)


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
            name = f"{NAME}-{shape.batch}"
            print(f"{name}: {shape.batch} × {shape.size} B a batch, {shape.connections} connections × {shape.inflight}")
            for server in (ours, kafka):
                run(server, shape, seconds)  # warm, and not counted
            reports[name] = compare(
                name,
                unit="records/s",
                better="higher",
                ours=partial(run, ours, shape, seconds),
                peers={"kafka": partial(run, kafka, shape, seconds)},
                parameters={
                    **asdict(shape), "seconds": seconds, "rounds": rounds, "ours": OURS, "kafka": kafka_version()
                },
                rounds=rounds,
                results=results,
            )  # fmt: skip
    return reports
