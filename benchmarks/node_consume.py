"""node-consume: records per second out of a topic with librdkafka's `consume`, one thread; beside Apache Kafka.

The topic is filled before; both servers read it from the page cache. A record counts when Python has it.
"""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, TopicPartition

from benchmarks.harness import RESULTS, Run, compare
from benchmarks.kafka_servers import OURS, Server, Servers, both, create_topic, kafka_version, settle
from benchmarks.producers import send

NAME = "node-consume"
TOPIC = "consume"
# librdkafka waits a second after its queue was full, unless told: a fast reader then stands still half of the time.
CLIENT = {"enable.auto.commit": False, "fetch.queue.backoff.ms": 10}
SILENT_S = 30.0


@dataclass(frozen=True)
class Load:
    """What lies in the topic."""

    records: int = 2_000_000
    size: int = 100


def run(server: Server, load: Load) -> Run:
    """Read the topic once."""
    settle()
    cpu_before_s, own_before_s = server.cpu_s(), time.process_time()
    began_s = time.perf_counter()
    consumer = Consumer({"bootstrap.servers": server.bootstrap, "group.id": "bench", **CLIENT})
    consumer.assign([TopicPartition(TOPIC, 0, 1)])
    have, last = 0, None
    while have < load.records:
        found = consumer.consume(min(10_000, load.records - have), SILENT_S)
        if not found or (error := found[0].error()) is not None:
            raise SystemExit(f"{server.name}: {have} of {load.records} records, then {error if found else 'nothing'}")
        have += len(found)
        last = found[-1].offset()
    elapsed_s = time.perf_counter() - began_s
    cpu_us = (server.cpu_s() - cpu_before_s) / load.records * 1e6
    busy = (time.process_time() - own_before_s) / elapsed_s
    consumer.close()
    if last != load.records:
        raise SystemExit(f"{server.name}: the last of {load.records} records has the offset {last}")
    details = {"cpu_us": cpu_us, "rss_mib": server.rss_mib(), "client_cores": busy}
    return Run(load.records / elapsed_s, details)


def main(
    *, load: Load | None = None, rounds: int = 3, results: Path = RESULTS, servers: Servers | None = None
) -> dict[str, Any]:
    """Run the benchmark; what it wrote."""
    load = load or Load()
    print(f"{NAME}: {load.records:,} × {load.size} B, librdkafka's consume(10000), one thread")
    with both() if servers is None else nullcontext(servers) as running:
        ours, kafka = running["ours"], running["kafka"]
        for server in (ours, kafka):
            create_topic(server, TOPIC)
            send(server.bootstrap, TOPIC, load.records, load.size)
            run(server, load)  # warm, and not counted
        return compare(
            NAME,
            unit="records/s",
            better="higher",
            ours=lambda: run(ours, load),
            peers={"kafka": lambda: run(kafka, load)},
            parameters={**asdict(load), "rounds": rounds, "client": CLIENT, "ours": OURS, "kafka": kafka_version()},
            rounds=rounds,
            results=results,
        )
