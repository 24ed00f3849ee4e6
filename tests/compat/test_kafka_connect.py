"""A standalone worker of Kafka Connect: its file sink reads the topic `readings` that an edge replicates to a node."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from gateway.log.records import encode_batch, encode_headers
from headwater.net import free_port
from tests.compat.test_uplink_kafka import consumed
from tests.support.kafka_node import KafkaNode
from tests.support.peers import KAFKA_KIT
from tests.support.uplink_node import NODE, EdgeNode
from tests.support.waiting import eventually

pytestmark = [pytest.mark.peer("kafka"), pytest.mark.long("kafka-connect"), pytest.mark.timeout(300)]
READINGS = 1_000
BATCH = 25
WORKER = """\
bootstrap.servers={bootstrap}
listeners=HTTP://127.0.0.1:{port}
key.converter=org.apache.kafka.connect.storage.StringConverter
value.converter=org.apache.kafka.connect.storage.StringConverter
offset.storage.file.filename={folder}/offsets
offset.flush.interval.ms=500
# As docs/kafka-clients.md says: without this line the sink also writes what was aborted.
consumer.isolation.level={isolation}
"""
SINK = """\
name={name}
connector.class=org.apache.kafka.connect.file.FileStreamSinkConnector
tasks.max=1
topics=readings
file={folder}/readings.txt
"""


@contextlib.contextmanager
def worker(folder: Path, bootstrap: str, *, isolation: str) -> Iterator[Path]:
    """The worker with its sink; gives the sink's file."""
    port = free_port()
    folder.mkdir()
    (folder / "worker.properties").write_text(
        WORKER.format(bootstrap=bootstrap, port=port, folder=folder, isolation=isolation)
    )
    (folder / "sink.properties").write_text(SINK.format(name=folder.name, folder=folder))
    command = [sys.executable, str(KAFKA_KIT), "tool", "connect", "worker.properties", "sink.properties"]
    with (folder / "worker.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
    try:
        yield folder / "readings.txt"
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/connectors/{folder.name}/status") as answer:
            status = json.load(answer)
        assert [status["connector"]["state"], *(task["state"] for task in status["tasks"])] == ["RUNNING", "RUNNING"]
    finally:
        process.terminate()
        process.wait(30)


def lines_of(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def abort_rubbish(bootstrap: str) -> None:
    """A transaction of somebody else in every partition of `readings`, given up."""
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": bootstrap, "transactional.id": "rubbish"})
    partitions = producer.list_topics("readings", 10).topics["readings"].partitions
    producer.init_transactions(20)
    producer.begin_transaction()
    for partition in partitions:
        producer.produce("readings", b"rubbish", partition=partition)
    assert producer.flush(20) == 0
    producer.abort_transaction(20)


def ingest(edge: EdgeNode) -> None:
    """A batch of readings, a mark on the last of them."""
    now = edge.clock.wall_ms()
    mark = {"v": 1, "node": NODE, "epoch": 0, "partition": 0, "k": 1, "n": edge.number // BATCH + 1, "live": now,
            "src": {"pump": ["connected", now]}, "clock": now, "every_ms": 1_000}  # fmt: skip
    rows = [
        (
            now,
            b"edge-1/pump",
            b'{"n":%d}' % (edge.number + n),
            encode_headers([("hw-mark", json.dumps(mark).encode())] if n == BATCH - 1 else []),
        )
        for n in range(BATCH)
    ]
    edge.number += BATCH
    edge.log.append(encode_batch(rows), now_ms=now)


def test_a_file_sink_writes_each_reading_once(tmp_path: Path) -> None:
    """Marks on readings, transactions that were aborted, connections that die, and a SIGKILL of the node in between."""
    (tmp_path / "node").mkdir()
    node = KafkaNode(tmp_path / "node")
    random = Random(3)

    async def story(sink: Path) -> EdgeNode:
        edge = EdgeNode(tmp_path, node.address, linger_ms=0)
        try:
            ingest(edge)
            await edge.drained()
            edge.net.fault = lambda number: random.random() < 0.05
            while edge.number < READINGS:
                ingest(edge)
                if edge.number in (READINGS // 5, READINGS * 4 // 5):
                    await asyncio.to_thread(abort_rubbish, node.address)
                if edge.number == READINGS // 2:
                    # the sink is in the middle of it
                    await eventually(lambda: len(lines_of(sink)) > READINGS // 10, within_s=90)
                    await asyncio.to_thread(node.kill)
                    await asyncio.to_thread(node.start)
                await asyncio.sleep(0.05)
            edge.net.fault = lambda number: False
            await edge.drained(60)
            await eventually(lambda: len(lines_of(sink)) >= READINGS, within_s=60)
            await asyncio.sleep(2.0)  # for what would come twice
        finally:
            await edge.stop()
        return edge

    expected = [f'{{"n":{number}}}' for number in range(READINGS)]
    try:
        with worker(tmp_path / "connect", node.address, isolation="read_committed") as sink:
            edge = asyncio.run(story(sink))
            assert edge.uplink.status()["aborted"] > 0
            assert lines_of(sink) == expected
        rows = consumed(node.address, "readings")
        assert [value.decode() for *_, value, _ in rows if value] == expected
        assert sum("hw-mark" in headers for *_, headers in rows) == READINGS // BATCH
        # The control: without the setting the worker writes what nobody committed.
        with worker(tmp_path / "uncommitted", node.address, isolation="read_uncommitted") as sink:
            asyncio.run(eventually(lambda: lines_of(sink).count("rubbish") >= 2, within_s=60))
    finally:
        node.stop()
