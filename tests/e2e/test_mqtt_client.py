"""A node that reads Mosquitto: killed while messages stream, away while the broker holds them, and nothing is lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition

from headwater.app.control import read_status
from headwater.net import free_port
from tests.support.brokers import Mosquitto
from tests.support.processes import HEADWATER

PATIENCE_S = 30.0


class Gateway:
    """`headwater run` with one [[mqtt_client]], and nothing else."""

    def __init__(self, folder: Path, broker: Mosquitto) -> None:
        self.config, self.data = folder / "edge.toml", folder / "data"
        self.process: subprocess.Popen[bytes] | None = None
        self.kafka = f"127.0.0.1:{free_port()}"
        self.config.write_text(
            f'node = "edge-1"\ndata_dir = "data"\n[kafka]\nlisten = "{self.kafka}"\n[[mqtt_client]]\n'
            f'name = "hall"\naddress = "{broker.address}"\ntopics = ["site/#"]\nretry_max_ms = 500\n'
        )

    def start(self) -> dict[str, Any]:
        with open(self.config.with_suffix(".log"), "ab") as log:
            self.process = subprocess.Popen([*HEADWATER, "run", "--config", str(self.config)], stderr=log)
        pid = self.process.pid
        return self.until(lambda status: status["pid"] == pid and status["brokers"][0]["connected"])

    def until(self, wanted: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        deadline = time.monotonic() + PATIENCE_S
        while not ((status := read_status(str(self.data))) and wanted(status)):
            assert time.monotonic() < deadline, (status, self.log())
            assert self.process is not None
            assert self.process.poll() is None, self.log()
            time.sleep(0.02)
        return status

    def end(self, number: int) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(20)

    def log(self) -> str:
        return self.config.with_suffix(".log").read_text()

    def values(self) -> list[int]:
        """What a Kafka client finds of the numbers that were published."""
        consumer = Consumer({"bootstrap.servers": self.kafka, "group.id": "ledger", "enable.partition.eof": True})
        consumer.assign([TopicPartition("readings", 0, OFFSET_BEGINNING)])
        found = []
        while (message := consumer.poll(PATIENCE_S)) is not None and message.error() is None:
            if message.key() == b"edge-1/site/pump":
                found.append(json.loads(message.value())["value"])
        assert message is not None
        assert message.error().code() == KafkaError._PARTITION_EOF
        consumer.close()
        return found


@pytest.fixture
def hall(tmp_path: Path) -> Iterator[tuple[Mosquitto, Gateway]]:
    with Mosquitto(tmp_path / "broker") as broker:
        gateway = Gateway(tmp_path, broker)
        try:
            yield broker, gateway
        finally:
            if gateway.process is not None:
                gateway.process.kill()
                gateway.process.wait()


@pytest.mark.peer("mosquitto")
def test_a_killed_gateway_loses_nothing_that_its_broker_holds(hall: tuple[Mosquitto, Gateway]) -> None:
    broker, gateway = hall
    gateway.start()
    # `mosquitto_pub -l` ends when the broker has acknowledged all: those numbers are the ledger
    sending = threading.Thread(target=broker.publish, args=("site/pump", [str(each) for each in range(3_000)]))
    sending.start()
    gateway.until(lambda status: status["ingest"]["stored"] > 500)
    gateway.end(signal.SIGKILL)
    sending.join(PATIENCE_S)
    broker.publish("site/pump", [str(each) for each in range(3_000, 3_500)])
    resumed = gateway.start()
    assert resumed["brokers"][0]["session_present"]
    gateway.until(lambda status: len(gateway.values()) >= 3_500 and not status["brokers"][0]["inflight"])
    # Mosquitto keeps the packet identifiers of what it sends again, so each repeat is recognised
    assert sorted(gateway.values()) == list(range(3_500))
    assert gateway.end(signal.SIGTERM) == 0
    assert os.path.getsize(gateway.data / "node" / "brokers.json") > 0
