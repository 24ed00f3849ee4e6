"""A real node in a process of its own, librdkafka's idempotent producer as its load, and another client's reading."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Message, Producer, TopicPartition

from tests.support.tree import ROOT

TOPIC = "load"
PARTITIONS = 2


class Node:
    """`headwater run`, started and killed by its process id."""

    def __init__(self, directory: Path, port: int, log_settings: str = "reserve_bytes = 0\n") -> None:
        self.address = f"127.0.0.1:{port}"
        config = directory / "node.toml"
        config.write_text(
            f'node = "edge-1"\ndata_dir = "{directory / "data"}"\n[kafka]\nlisten = "127.0.0.1:{port}"\n'
            f"[log]\nsegment_bytes = 65536\nfsync_interval_ms = 0\n{log_settings}"
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

    def start(self) -> None:
        """Until it listens, which it does when its log is recovered."""
        assert self.starts(), self.said()[-3_000:]

    def starts(self) -> bool:
        """The same; False when it ended instead."""
        self._tell("start")
        self.pid = int(self._hear())
        begun = time.monotonic()
        host, _, port = self.address.partition(":")
        while True:
            try:
                socket.create_connection((host, int(port)), 1).close()
                break
            except OSError:
                assert time.monotonic() - begun < 30, self.said()[-3_000:]
                if not Path(f"/proc/{self.pid}").exists():
                    assert self._hear() == "gone"
                    self.pid = 0
                    return False
                time.sleep(0.003)
        self.slowest_s = max(self.slowest_s, time.monotonic() - begun)
        return True

    def said(self) -> str:
        """What the node has written to standard error, over all its starts."""
        return self._errors.read_text()

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):  # it ended by itself
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
        assert line, self.said()[-3_000:]
        return line

    def close(self) -> None:
        if self.pid:
            self.kill()
        assert self._zygote.stdin is not None
        self._zygote.stdin.close()
        self._zygote.wait(30)
        assert self._zygote.stdout is not None
        self._zygote.stdout.close()


def number_of(message: Message) -> int:
    """Which record this is; what stands behind the number only takes room."""
    return int((message.value() or b"-1").rstrip(b"\0"))


class Load:
    """A producer in a thread of its own, and what became of every record."""

    def __init__(self, address: str, size: int = 0) -> None:
        self.size = size
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
                    TOPIC,
                    b"%d" % self.sent + bytes(self.size),
                    b"k",
                    self.sent % PARTITIONS,
                    on_delivery=self._delivered,
                )
                self.sent += 1
            except BufferError:
                self._producer.poll(0.01)
            self._producer.poll(0)
            time.sleep(0.0003)

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        number = number_of(message)
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
        consumer.assign([TopicPartition(TOPIC, partition, OFFSET_BEGINNING)])
        rows: list[tuple[int, int]] = []
        while True:
            for message in consumer.consume(2_000, 0.1):  # it waits that long for as many
                error = message.error()
                if error is None:
                    rows.append((message.offset() or 0, number_of(message)))
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
