"""`headwater process` as processes on a cluster, and what they wrote."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from gateway.consume.reader import Block
from gateway.log.headers import decode_headers
from tests.support.processes import HEADWATER

Said = tuple[bytes, bytes, int]  # key, value, timestamp
ANSWER_S = 20.0
UNTIL_S = 60.0
SETTLED_S = 240.0
"""After hundreds of kills members that a busy machine gives little time to have a lot to read."""


class Process(Protocol):
    """What a member's process has to be able to do, as `subprocess.Popen` does it."""

    def kill(self) -> None: ...
    def terminate(self) -> None: ...
    def wait(self, timeout: float | None = None) -> int: ...


class Forked:
    """A command in a fork of a process that has imported it already: it is at its work in some milliseconds.

    Members that are killed hundreds of times would otherwise die most often while Python imports.
    """

    def __init__(self, command: Sequence[str], log: Path) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["headwater.cli.entry", "headwater.cli.main", "headwater.cli.process_member"])
        self._process = context.Process(target=_run, args=(list(command), str(log)))
        self._process.start()

    def kill(self) -> None:
        self._process.kill()

    def terminate(self) -> None:
        self._process.terminate()

    def wait(self, timeout: float | None = None) -> int:
        """Its exit status. Raises `TimeoutError`."""
        self._process.join(timeout)
        if (status := self._process.exitcode) is None:
            raise TimeoutError(f"still there after {timeout} s")
        return status


def _run(command: list[str], log: str) -> None:
    """In the fork."""
    from headwater.cli.entry import main

    with open(log, "ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.argv = ["headwater", *command]
    main()


class Group:
    """Members of one group, each a process; `kill` is SIGKILL."""

    def __init__(self, folder: Path, bootstrap: str, settings: str) -> None:
        self.folder, self.bootstrap = folder, bootstrap
        self.file = folder / "process.toml"
        self.file.write_text(f'name = "farm"\nbootstrap_servers = "{bootstrap}"\n{settings}')
        self.forked = False
        """Whether members start by a fork; for tests that kill them by the hundred."""
        self._members: dict[str, Process] = {}
        self._begun: dict[str, int] = {}

    def start(self, instance: str, *more: str, program: Sequence[str] = HEADWATER) -> None:
        command = ["process", "--config", str(self.file), "--instance", instance, *more]
        with open(self.log_of(instance), "ab") as log:
            self._begun[instance] = log.tell()
            if self.forked:
                self._members[instance] = Forked(command, self.log_of(instance))
                return
            self._members[instance] = subprocess.Popen(
                [*program, *command], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def log_of(self, instance: str) -> Path:
        return self.folder / f"{instance}.log"

    def kill(self, instance: str) -> None:
        process = self._members.pop(instance)
        process.kill()
        process.wait()

    def stop(self, instance: str) -> int:
        until(lambda: self._ready(instance), f"{instance} has come up", {instance: self.log_of(instance)})
        process = self._members.pop(instance)
        process.terminate()
        return process.wait(30)

    def _ready(self, instance: str) -> bool:
        """Whether it can be asked to stop: the others may have done all that a test waits for before it is up."""
        return b"process: member" in self.log_of(instance).read_bytes()[self._begun[instance] :]

    def wait(self, instance: str) -> int:
        return self._members.pop(instance).wait(30)

    def close(self) -> None:
        for instance in list(self._members):
            self.kill(instance)


def make_topic(bootstrap: str, topic: str, partitions: int, **config: str) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    new = NewTopic(topic, num_partitions=partitions, replication_factor=-1, config=config)
    admin.create_topics([new])[topic].result(ANSWER_S)


def feed(bootstrap: str, blocks: Sequence[Block]) -> None:
    """Write blocks to their partitions, and have them acknowledged."""
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 5, "enable.idempotence": True})
    for block in blocks:
        for row in range(len(block.keys)):
            producer.produce(
                block.topic,
                block.values[row],
                block.keys[row],
                block.partition,
                timestamp=block.timestamps[row],
                headers=decode_headers(block.headers[row]),
            )
        assert producer.flush(UNTIL_S) == 0


def said(bootstrap: str, topic: str, *, committed: bool = True) -> list[list[Said]]:
    """What a topic holds, partition by partition."""
    settings = {
        "bootstrap.servers": bootstrap,
        "group.id": "judge",
        "isolation.level": "read_committed" if committed else "read_uncommitted",
        "enable.partition.eof": True,
        "enable.auto.commit": False,
        "fetch.queue.backoff.ms": 10,
        "log_level": 3,
    }
    consumer = Consumer(settings)
    try:
        listed = consumer.list_topics(topic, ANSWER_S).topics[topic].partitions
        found: list[list[Said]] = [[] for _ in listed]
        consumer.assign([TopicPartition(topic, partition, 0) for partition in listed])
        unread = set(listed)
        while unread:
            for message in consumer.consume(1000, 0.02):
                if message.error() is None:
                    found[message.partition()].append((message.key(), message.value(), message.timestamp()[1]))
                elif message.error().code() == KafkaError._PARTITION_EOF:
                    unread.discard(message.partition())
        return found
    finally:
        consumer.close()


def until(
    done: Callable[[], bool], what: str, logs: Mapping[str, Path] | None = None, *, within_s: float = UNTIL_S
) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + within_s
    while not done():
        if time.monotonic() > deadline:
            told = "\n".join(f"{name}:\n{path.read_text()[-3000:]}" for name, path in (logs or {}).items())
            raise AssertionError(f"{what}\n{told}")
        time.sleep(0.2)


def by_group(records: Sequence[Said]) -> dict[bytes, list[Any]]:
    """Records in order, per the node that their key names."""
    found: dict[bytes, list[Any]] = {}
    for record in records:
        found.setdefault(record[0].split(b"/")[0], []).append(record)
    return found
