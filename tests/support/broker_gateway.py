"""`headwater run` with an [[mqtt_client]] or several, ended and started again, and read as a Kafka client reads."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition

from headwater.app.control import read_status
from headwater.net import free_port
from tests.support.processes import HEADWATER

PATIENCE_S = 30.0
_READ_ONLY = {"enable.partition.eof": True, "enable.auto.commit": False}


class Gateway:
    """A node that reads topics site/# of the broker at `address`, of `more` (addresses by name), and nothing else."""

    def __init__(self, folder: Path, address: str, more: Mapping[str, str] = MappingProxyType({})) -> None:
        self.config, self.data = folder / "edge.toml", folder / "data"
        self.process: subprocess.Popen[bytes] | None = None
        self.kafka = f"127.0.0.1:{free_port()}"
        self.config.write_text(
            f'node = "edge-1"\ndata_dir = "data"\n[kafka]\nlisten = "{self.kafka}"\n'
            + "".join(
                f'[[mqtt_client]]\nname = "{name}"\naddress = "{where}"\ntopics = ["site/#"]\nretry_max_ms = 500\n'
                for name, where in {"hall": address, **more}.items()
            )
        )

    def start(self) -> dict[str, Any]:
        with open(self.config.with_suffix(".log"), "ab") as log:
            self.process = subprocess.Popen([*HEADWATER, "run", "--config", str(self.config)], stderr=log)
        pid = self.process.pid
        return self.until(lambda status: status["pid"] == pid and all(row["connected"] for row in status["brokers"]))

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
        consumer = Consumer({"bootstrap.servers": self.kafka, "group.id": "ledger", **_READ_ONLY})
        consumer.assign([TopicPartition("readings", 0, OFFSET_BEGINNING)])
        found = []
        while (message := consumer.poll(PATIENCE_S)) is not None and message.error() is None:
            if message.key() == b"edge-1/site/pump":
                found.append(json.loads(message.value())["value"])
        assert message is not None
        assert message.error().code() == KafkaError._PARTITION_EOF
        consumer.close()
        return found

    def close(self) -> None:
        """Whatever has happened to it."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
