"""The two servers of the `node-*` benchmarks, side by side on one disk: a Headwater node and an Apache Kafka.

Both run for all rounds of a benchmark, so that Kafka's virtual machine is warm; while one is measured the other idles.
Ours is `headwater run` as a central with a Kafka listener and nothing else, at its defaults: every acknowledgement is
fsynced. Kafka is one node with a heap of 512 MB at its defaults: it fsyncs nothing, the system writes when it likes.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from benchmarks.harness import RESULTS
from benchmarks.processes import accepts, cpu_s, peak_rss_bytes, running, wait_for
from headwater.net import free_port
from tests.support.peers import Kafka, kafka_kit, missing
from tests.support.ports import neighbouring_ports

HEADWATER_TOML = """\
role = "central"
node = "bench"
data_dir = "{data}"

[topics]
readings_partitions = 1

[kafka]
listen = "127.0.0.1:{port}"

{more}
"""
OURS = "headwater run, role central, defaults: every acknowledgement fsynced"


@dataclass(frozen=True)
class Server:
    """A running server and where its files are."""

    name: str
    port: int
    pid: int
    data: Path

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self.port}"

    def cpu_s(self) -> float:
        return cpu_s([self.pid])

    def rss_mib(self) -> float:
        """The most it ever held."""
        return peak_rss_bytes([self.pid]) / 2**20


Servers = Mapping[str, Server]


@contextmanager
def both() -> Iterator[Servers]:
    """`ours` and `kafka`, on empty directories under build/, on the disk that the checkout is on."""
    if (reason := missing("kafka")) is not None:
        raise SystemExit(reason)
    with scratch() as directory, ExitStack() as stack:
        yield {
            "ours": stack.enter_context(headwater(directory / "ours")),
            "kafka": stack.enter_context(kafka(directory / "kafka")),
        }


@contextmanager
def scratch() -> Iterator[Path]:
    """A directory under build/ for as long as it is needed."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=RESULTS) as folder:
        yield Path(folder)


@contextmanager
def headwater(directory: Path, more: str = "") -> Iterator[Server]:
    """A node on `directory`, which may hold its data already; `more` is further configuration."""
    directory.mkdir(parents=True, exist_ok=True)
    port = free_port()
    config, log, data = directory / "node.toml", directory / "headwater.log", directory / "data"
    config.write_text(HEADWATER_TOML.format(data=data, port=port, more=more))
    command = [str(Path(sys.executable).with_name("headwater")), "run", "--config", str(config)]
    with running(command, log) as process:
        wait_serving(process, port, log)
        yield Server("ours", port, process.pid, data)


def wait_serving(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Until it listens; what it said, when it ends instead."""
    wait_for(lambda: process.poll() is not None or accepts(port), "Headwater listens")
    if process.poll() is not None:
        raise SystemExit(f"it ended with {process.returncode}:\n{log.read_text(errors='replace')}")


@contextmanager
def kafka(directory: Path) -> Iterator[Server]:
    node = Kafka(directory, neighbouring_ports(2))
    try:
        Kafka.start(directory, node.port)  # ended halfway, its broker may run already
        yield Server("kafka", node.port, int(kafka_kit("status", str(directory))), directory / "data")
    finally:
        node.stop()


def create_topic(server: Server, topic: str, partitions: int = 1) -> None:
    """Make a topic; a first record is in its partition 0 then, so its leader, which may take its time, serves."""
    admin = AdminClient({"bootstrap.servers": server.bootstrap})
    for done in admin.create_topics([NewTopic(topic, num_partitions=partitions, replication_factor=1)]).values():
        done.result(30)
    producer = Producer({"bootstrap.servers": server.bootstrap, "acks": "all"})
    producer.produce(topic, b"first", partition=0)
    if producer.flush(30):
        raise SystemExit(f"{server.name}: the new topic {topic} takes nothing")


def stored_records(server: Server, topic: str) -> int:
    """How many records the topic's only partition has been given since `create_topic`."""
    consumer = Consumer({"bootstrap.servers": server.bootstrap, "group.id": "none"})
    try:
        end: int = consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=30)[1]
        return end - 1
    finally:
        consumer.close()


def settle() -> None:
    """Before a run: what earlier ones left unwritten goes to disk now, not in the middle of the next."""
    os.sync()


def kafka_version() -> str:
    """As its jars say."""
    home = Path(kafka_kit("install").strip())
    name = next(iter(sorted(home.glob("**/kafka-clients-*.jar"))), None)
    version = "" if name is None else name.stem.removeprefix("kafka-clients-")
    return f"Apache Kafka {version}, one node, 512 MB heap, defaults: nothing fsynced"
