"""node-produce: records per second through librdkafka's `produce_batch`, acks=all, linger 5 ms; beside Apache Kafka.

A record counts when its acknowledgement has come; the topic's end then says that it is there. Ours has fsynced it by
then, Kafka has not. Two reports: records of 100 bytes (`node-produce`) and of 1 KiB (`node-produce-1k`).

`null` is the same client with a server that has the kernel throw away what comes and acknowledges at once. Its
`server_cores` says how little it is at work, `thread_cores` that one thread of the client is: the rate is the client's.
Its `store_cpu_us` is what `write` and `fdatasync` alone cost for as many records.
"""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaError, Producer

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
from benchmarks.processes import thread_cpu_s

NAME = "node-produce"
BATCH = 10_000
CLIENT = {
    "acks": "all",
    "linger.ms": 5,
    "batch.size": 1_000_000,
    "batch.num.messages": 10_000,
    "queue.buffering.max.messages": 500_000,
    "queue.buffering.max.kbytes": 262_144,
    "delivery.report.only.error": True,
}
_RECORD_BYTES = 8  # of a record beside its value
_topics = count(1)


@dataclass(frozen=True)
class Load:
    """What is sent in one run; the first run of each server, of `warm` records, is not counted."""

    records: int = 4_000_000
    warm: int = 2_000_000
    size: int = 100


LOADS = {NAME: Load(), "node-produce-1k": Load(records=500_000, warm=200_000, size=1024)}


def send(server: Server, topic: str, records: int, size: int) -> float:
    """Produce and wait for every acknowledgement; how long it took, in seconds."""
    refused: list[KafkaError] = []
    producer = Producer({"bootstrap.servers": server.bootstrap, **CLIENT})
    producer.list_topics(topic, timeout=30)  # the connection is there and the leader known
    value = (b"headwater-" * (size // 10 + 1))[:size]
    messages = [{"value": value} for _ in range(BATCH)]
    began_s = time.perf_counter()
    left = records
    while left:
        chunk = messages if left >= BATCH else messages[:left]
        taken = producer.produce_batch(topic, chunk, partition=0, on_delivery=lambda error, _: refused.append(error))
        left -= taken
        if taken < len(chunk):
            producer.poll(0.002)  # the queue is full: the failed ones, which are all alike, go again
    if producer.flush(60):
        raise SystemExit(f"{server.name}: records without an acknowledgement after 60 s")
    elapsed_s = time.perf_counter() - began_s
    if refused:
        raise SystemExit(f"{server.name}: {len(refused)} records refused, the first with {refused[0]}")
    return elapsed_s


def measured(server: Server, topic: str, records: int, size: int) -> tuple[float, dict[str, float]]:
    """How long one sending took, and what it cost; `thread_cores`, the client's busiest thread, cannot pass 1."""
    cpu_before_s, own_before_s, threads_before_s = server.cpu_s(), time.process_time(), thread_cpu_s()
    elapsed_s = send(server, topic, records, size)
    cpu_spent_s, own_spent_s = server.cpu_s() - cpu_before_s, time.process_time() - own_before_s
    busiest_s = max(spent_s - threads_before_s.get(thread, 0.0) for thread, spent_s in thread_cpu_s().items())
    return elapsed_s, {
        "mb_s": records * size / elapsed_s / 1e6,
        "cpu_us": cpu_spent_s / records * 1e6,
        "server_cores": cpu_spent_s / elapsed_s,
        "client_cpu_us": own_spent_s / records * 1e6,
        "client_cores": own_spent_s / elapsed_s,
        "thread_cores": busiest_s / elapsed_s,
    }


def run(server: Server, records: int, size: int) -> Run:
    """One run into a topic of its own."""
    topic = f"produce-{next(_topics)}"
    create_topic(server, topic)
    settle()
    elapsed_s, details = measured(server, topic, records, size)
    if (stored := stored_records(server, topic)) != records:
        raise SystemExit(f"{server.name} acknowledged {records} records and holds {stored}")
    details["rss_mib"] = server.rss_mib()
    return Run(records / elapsed_s, details)


def run_null(server: Server, records: int, size: int) -> Run:
    """The client without a server to speak of; and the disk without a server."""
    settle()
    elapsed_s, details = measured(server, "null", records, size)
    details["store_cpu_us"] = store_cpu_us(server.data, records=records // 4, record_bytes=size + _RECORD_BYTES)
    return Run(records / elapsed_s, details)


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
                run(server, load.warm, load.size)
            reports[name] = compare(
                name,
                unit="records/s",
                better="higher",
                ours=partial(run, ours, load.records, load.size),
                peers={
                    "kafka": partial(run, kafka, load.records, load.size),
                    "null": partial(run_null, null, load.records, load.size),
                },
                parameters={**asdict(load), "rounds": rounds, "client": CLIENT, "ours": OURS, "kafka": kafka_version()},
                rounds=rounds,
                results=results,
            )
    return reports
