"""node-produce: records per second through librdkafka's `produce_batch`, acks=all, linger 5 ms; beside Apache Kafka.

A record counts when its acknowledgement has come; the topic's end then says that it is there. Ours has fsynced it by
then, Kafka has not. Two reports: records of 100 bytes (`node-produce`) and of 1 KiB (`node-produce-1k`).

`null` is the same client with a server that acknowledges at once and stores nothing: no server can be quicker. Its
`store_cpu_us` is what `write` and `fdatasync` alone cost for as many records: no server that syncs can need less CPU.
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


def run(server: Server, records: int, size: int) -> Run:
    """One run into a topic of its own."""
    topic = f"produce-{next(_topics)}"
    create_topic(server, topic)
    settle()
    cpu_before_s, own_before_s = server.cpu_s(), time.process_time()
    elapsed_s = send(server, topic, records, size)
    cpu_us = (server.cpu_s() - cpu_before_s) / records * 1e6
    busy = (time.process_time() - own_before_s) / elapsed_s
    if (stored := stored_records(server, topic)) != records:
        raise SystemExit(f"{server.name} acknowledged {records} records and holds {stored}")
    details = {
        "mb_s": records * size / elapsed_s / 1e6,
        "cpu_us": cpu_us,
        "rss_mib": server.rss_mib(),
        "client_cores": busy,
    }
    return Run(records / elapsed_s, details)


def run_null(server: Server, records: int, size: int) -> Run:
    """The client without a server to speak of; and the disk without a server."""
    settle()
    cpu_before_s, own_before_s = server.cpu_s(), time.process_time()
    elapsed_s = send(server, "null", records, size)
    details = {
        "mb_s": records * size / elapsed_s / 1e6,
        "cpu_us": (server.cpu_s() - cpu_before_s) / records * 1e6,
        "client_cores": (time.process_time() - own_before_s) / elapsed_s,
        "store_cpu_us": store_cpu_us(server.data, records=records // 4, record_bytes=size + _RECORD_BYTES),
    }
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
