"""node-produce: records per second through librdkafka's `produce_batch`, acks=all, linger 5 ms; beside Apache Kafka.

A record counts when its acknowledgement has come; the topic's end then says that it is there. Ours has fsynced it by
then, Kafka has not. Three reports: records of 100 bytes (`node-produce`), of 1 KiB (`node-produce-1k`), and of 100
bytes from two processes at once, each into a partition of its own (`node-produce-2`).

`null` is the same client with a server that has the kernel throw away what comes and acknowledges at once. Its
`server_cores` says how little it is at work, `thread_cores` that one thread of the client is: the rate is the client's.
Its `ceiling` is the rate at which this machine's cores would be busy with the client alone: no server gets past that.
Its `store_cpu_us` is what `write` and `fdatasync` alone cost for as many records.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from benchmarks.harness import RESULTS, Run, compare
from benchmarks.kafka_servers import (
    OURS,
    Server,
    Servers,
    both,
    create_topic,
    kafka_version,
    scratch,
    settle,
    stored_records,
)
from benchmarks.null_server import null_server, store_cpu_us
from benchmarks.producers import CLIENT, send_together

NAME = "node-produce"
_RECORD_BYTES = 8  # of a record beside its value
_topics = count(1)


@dataclass(frozen=True)
class Load:
    """What is sent in one run; the first run of each server, of `warm` records, is not counted."""

    records: int = 4_000_000
    warm: int = 2_000_000
    size: int = 100
    producers: int = 1


LOADS = {
    NAME: Load(),
    "node-produce-1k": Load(records=500_000, warm=200_000, size=1024),
    "node-produce-2": Load(producers=2),
}


def measured(server: Server, topics: Sequence[str], records: int, size: int) -> tuple[float, dict[str, float]]:
    """How long one sending took, and what it cost; `thread_cores`, the client's busiest thread, cannot pass 1."""
    cpu_before_s = server.cpu_s()
    sent = send_together(server.bootstrap, topics, records, size)
    cpu_spent_s = server.cpu_s() - cpu_before_s
    return sent.elapsed_s, {
        "mb_s": records * size / sent.elapsed_s / 1e6,
        "cpu_us": cpu_spent_s / records * 1e6,
        "server_cores": cpu_spent_s / sent.elapsed_s,
        "client_cpu_us": sent.cpu_s / records * 1e6,
        "client_cores": sent.cpu_s / sent.elapsed_s,
        "thread_cores": sent.busiest_s / sent.elapsed_s,
    }


def run(server: Server, load: Load, records: int) -> Run:
    """One run into topics of its own, one for each producer."""
    topics = [f"produce-{next(_topics)}" for _ in range(load.producers)]
    for topic in topics:
        create_topic(server, topic)
    settle()
    elapsed_s, details = measured(server, topics, records, load.size)
    if (stored := sum(stored_records(server, topic) for topic in topics)) != records:
        raise SystemExit(f"{server.name} acknowledged {records} records and holds {stored}")
    details["rss_mib"] = server.rss_mib()
    return Run(records / elapsed_s, details)


def run_null(server: Server, load: Load) -> Run:
    """The client without a server to speak of; and the disk without a server."""
    settle()
    elapsed_s, details = measured(server, ["null"] * load.producers, load.records, load.size)
    details["ceiling"] = (os.cpu_count() or 1) / details["client_cpu_us"] * 1e6
    record_bytes = load.size + _RECORD_BYTES
    details["store_cpu_us"] = store_cpu_us(server.data, records=load.records // 4, record_bytes=record_bytes)
    return Run(load.records / elapsed_s, details)


def main(
    *,
    loads: dict[str, Load] | None = None,
    rounds: int = 3,
    results: Path = RESULTS,
    servers: Servers | None = None,
) -> dict[str, Any]:
    """Run the benchmark; what it wrote, by report."""
    reports = {}
    with both() if servers is None else nullcontext(servers) as running, scratch() as disk, null_server(disk) as null:
        ours, kafka = running["ours"], running["kafka"]
        for name, load in (loads or LOADS).items():
            print(f"{name}: {load.records:,} × {load.size} B a run, acks=all, linger 5 ms, librdkafka's produce_batch")
            for server in (ours, kafka):
                run(server, load, load.warm)
            reports[name] = compare(
                name,
                unit="records/s",
                better="higher",
                ours=partial(run, ours, load, load.records),
                peers={
                    "kafka": partial(run, kafka, load, load.records),
                    "null": partial(run_null, null, load),
                },
                parameters={**asdict(load), "rounds": rounds, "client": CLIENT, "ours": OURS, "kafka": kafka_version()},
                rounds=rounds,
                results=results,
            )
    return reports
