"""librdkafka's `produce_batch`, the client of `node-produce`: here, or in processes that begin together."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import NamedTuple

from confluent_kafka import KafkaError, Producer

from benchmarks.processes import thread_cpu_s

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


READY, GO = "ready\n", "go\n"


class Sent(NamedTuple):
    """How long it took, and what CPU the clients had: in all, and the busiest of their threads."""

    elapsed_s: float
    cpu_s: float
    busiest_s: float


def send(bootstrap: str, topic: str, records: int, size: int, *, at_a_word: bool = False) -> Sent:
    """Produce into partition 0 and wait for every acknowledgement; with `at_a_word` only when told to on stdin."""
    refused: list[KafkaError] = []
    producer = Producer({"bootstrap.servers": bootstrap, **CLIENT})
    producer.list_topics(topic, timeout=30)  # the connection is there and the leader known
    value = (b"headwater-" * (size // 10 + 1))[:size]
    messages = [{"value": value} for _ in range(BATCH)]
    if at_a_word:
        print(READY, end="", flush=True)
        if sys.stdin.readline() != GO:
            raise SystemExit("not told to begin")
    began_s, cpu_before_s, threads_before_s = time.perf_counter(), time.process_time(), thread_cpu_s()
    left = records
    while left:
        chunk = messages if left >= BATCH else messages[:left]
        taken = producer.produce_batch(topic, chunk, partition=0, on_delivery=lambda error, _: refused.append(error))
        left -= taken
        if taken < len(chunk):
            producer.poll(0.002)  # the queue is full: the failed ones, which are all alike, go again
    if producer.flush(60):
        raise SystemExit(f"{bootstrap}: records without an acknowledgement after 60 s")
    elapsed_s = time.perf_counter() - began_s
    if refused:
        raise SystemExit(f"{bootstrap}: {len(refused)} records refused, the first with {refused[0]}")
    busiest_s = max(spent_s - threads_before_s.get(thread, 0.0) for thread, spent_s in thread_cpu_s().items())
    return Sent(elapsed_s, time.process_time() - cpu_before_s, busiest_s)


def send_together(bootstrap: str, topics: Sequence[str], records: int, size: int) -> Sent:
    """The same records by as many processes as there are topics, one each; the time is that of the slowest."""
    if len(topics) == 1:
        return send(bootstrap, topics[0], records, size)
    with ExitStack() as stack:
        clients = []
        for topic in topics:
            command = [sys.executable, "-m", "benchmarks.producers", bootstrap, topic, str(records // len(topics))]
            pipes = subprocess.Popen([*command, str(size)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            clients.append(stack.enter_context(pipes))
        for client in clients:
            assert client.stdout is not None
            if client.stdout.readline() != READY:
                raise SystemExit(f"{bootstrap}: a producer did not get ready")
        for client in clients:
            assert client.stdin is not None
            client.stdin.write(GO)
            client.stdin.flush()
        said = [client.stdout.read() for client in clients if client.stdout is not None]
    if any(client.returncode for client in clients):
        raise SystemExit(f"{bootstrap}: a producer failed")
    sent = [Sent(*json.loads(each)) for each in said]
    return Sent(
        max(each.elapsed_s for each in sent), sum(each.cpu_s for each in sent), max(each.busiest_s for each in sent)
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="producers")
    parser.add_argument("bootstrap")
    parser.add_argument("topic")
    parser.add_argument("records", type=int)
    parser.add_argument("size", type=int)
    given = parser.parse_args()
    print(json.dumps(send(given.bootstrap, given.topic, given.records, given.size, at_a_word=True)))


if __name__ == "__main__":
    main()
