"""SIGKILL of a real node under load, again and again; the ledger is this process, the client is librdkafka.

Every record that was acknowledged is there once, in its order, and so is every one that the idempotent producer sent
again until it was.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from random import Random

import pytest
from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from tests.support.ports import reserved_port
from tests.support.tree import ROOT

TOPIC = "load"
PARTITIONS = 2


class Node:
    """`headwater run`, started and killed by its process id."""

    def __init__(self, directory: Path, port: int) -> None:
        config = directory / "node.toml"
        config.write_text(
            f'node = "edge-1"\ndata_dir = "{directory / "data"}"\n[kafka]\nlisten = "127.0.0.1:{port}"\n'
            "[log]\nsegment_bytes = 65536\nfsync_interval_ms = 0\nreserve_bytes = 0\n"
        )
        self._errors = directory / "node.log"
        with self._errors.open("ab") as errors:
            self._zygote = subprocess.Popen(
                [sys.executable, "-m", "tests.torture.zygote", str(config)],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self.pid = 0
        self.slowest_s = 0.0

    def start(self, ready: str) -> None:
        """Until it listens, which it does when its log is recovered."""
        self._tell("start")
        self.pid = int(self._hear())
        begun = time.monotonic()
        host, _, port = ready.partition(":")
        while True:
            try:
                socket.create_connection((host, int(port)), 1).close()
                break
            except OSError:
                assert time.monotonic() - begun < 30, self._errors.read_text()[-3_000:]
                assert Path(f"/proc/{self.pid}").exists(), self._errors.read_text()[-3_000:]
                time.sleep(0.003)
        self.slowest_s = max(self.slowest_s, time.monotonic() - begun)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        assert self._hear() == "gone"
        self.pid = 0

    def _tell(self, line: str) -> None:
        assert self._zygote.stdin is not None
        self._zygote.stdin.write(line + "\n")
        self._zygote.stdin.flush()

    def _hear(self) -> str:
        assert self._zygote.stdout is not None
        line = self._zygote.stdout.readline().strip()
        assert line, self._errors.read_text()[-3_000:]
        return line

    def close(self) -> None:
        if self.pid:
            self.kill()
        assert self._zygote.stdin is not None
        self._zygote.stdin.close()
        self._zygote.wait(30)
        assert self._zygote.stdout is not None
        self._zygote.stdout.close()


class Load:
    """A producer in a thread of its own, and what became of every record."""

    def __init__(self, address: str) -> None:
        self.sent = 0
        self.acked: dict[int, tuple[int, int]] = {}
        self.failed: list[str] = []
        self._going = True
        self._producer = Producer(
            {
                "bootstrap.servers": address,
                "enable.idempotence": True,
                "linger.ms": 1,
                "reconnect.backoff.ms": 5,
                "reconnect.backoff.max.ms": 20,
                "retry.backoff.ms": 5,
                "message.timeout.ms": 300_000,
                "queue.buffering.max.messages": 500,
                "log_level": 0,
                "error_cb": self._error,
            }
        )
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _error(self, error: KafkaError) -> None:
        if error.fatal():
            self.failed.append(str(error))

    def _run(self) -> None:
        while self._going and not self.failed:
            try:
                self._producer.produce(
                    TOPIC, b"%d" % self.sent, b"k", self.sent % PARTITIONS, on_delivery=self._delivered
                )
                self.sent += 1
            except BufferError:
                self._producer.poll(0.01)
            self._producer.poll(0)
            time.sleep(0.0003)

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        number = int(message.value() or b"-1")
        if error is not None:
            self.failed.append(f"{number}: {error}")
        else:
            self.acked[number] = message.partition() or 0, message.offset() or 0

    def stop(self) -> None:
        self._going = False
        self._thread.join()
        left = self._producer.flush(60)
        assert left == 0, f"{left} records are still on their way"


def read_back(address: str) -> list[list[tuple[int, int]]]:
    """Per partition (offset, number) of every record, as another client reads it."""
    found: list[list[tuple[int, int]]] = []
    for partition in range(PARTITIONS):
        consumer = Consumer(
            {
                "bootstrap.servers": address,
                "group.id": "judge",
                "enable.auto.commit": False,
                "check.crcs": True,
                "enable.partition.eof": True,
            }
        )
        consumer.assign([TopicPartition(TOPIC, partition, 0)])
        rows: list[tuple[int, int]] = []
        while True:
            for message in consumer.consume(2_000, 5):
                error = message.error()
                if error is None:
                    rows.append((message.offset() or 0, int(message.value() or b"-1")))
                elif error.code() == KafkaError._PARTITION_EOF:
                    break
                else:
                    raise AssertionError(error)
            else:
                continue
            break
        consumer.close()
        found.append(rows)
    return found


def kill_and_compare(directory: Path, count: int) -> str:
    with reserved_port() as port:
        return _kill_and_compare(Node(directory, port), f"127.0.0.1:{port}", count)


def _kill_and_compare(node: Node, address: str, count: int) -> str:
    random = Random(count)
    try:
        node.start(address)
        admin = AdminClient({"bootstrap.servers": address})
        for future in admin.create_topics([NewTopic(TOPIC, PARTITIONS)]).values():
            future.result(30)
        load = Load(address)
        for _ in range(count):
            time.sleep(random.uniform(0.0, 0.12))
            node.kill()
            node.start(address)
        load.stop()
        assert not load.failed, load.failed[:5]
        rows = read_back(address)
        numbers = [[number for _, number in partition] for partition in rows]
        counted = Counter(number for partition in numbers for number in partition)
        assert not [number for number, times in counted.items() if times > 1], "records twice"
        assert not set(load.acked) - set(counted), "acknowledged records lost"
        assert set(counted) == set(range(load.sent)), "records that nobody sent, or that were sent and never came"
        assert all(partition == sorted(partition) for partition in numbers), "another order"
        where = {number: (p, offset) for p, partition in enumerate(rows) for offset, number in partition}
        known = {number: place for number, place in load.acked.items() if place[1] >= 0}
        assert {number: where[number] for number in known} == known, "at another offset than acknowledged"
    finally:
        node.close()
    return f"{count} SIGKILLs, {load.sent} records: 0 lost, 0 twice; slowest start {node.slowest_s * 1_000:.0f} ms"


@pytest.mark.long("sigkill", count=1_000)
def test_kills_under_load(tmp_path: Path, count: int) -> None:
    print(kill_and_compare(tmp_path, count))
