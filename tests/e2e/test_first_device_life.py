"""A node's two processes through kills and stops: the core never waits, nothing is left behind, the log knows."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest

from headwater.app.control import read_status
from headwater.net import free_port
from tests.support.processes import HEADWATER, headwater, running_with


class Shed:
    """One node with a page, hence with two processes, started and killed as a test likes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = str(folder / "data")
        self.config = folder / "headwater.toml"
        self.mqtt = free_port()
        self.config.write_text(
            f'node = "shed-1"\ndata_dir = "data"\n[mqtt]\nlisten = "127.0.0.1:{self.mqtt}"\n'
            f'[kafka]\nlisten = "127.0.0.1:{free_port()}"\n[page]\nlisten = "127.0.0.1:{free_port()}"\n'
        )
        self.core: subprocess.Popen[bytes] | None = None

    def start(self) -> dict[str, Any]:
        """Until core and work both run; returns the status."""
        with open(self.folder / "log", "ab") as log:
            command = [*HEADWATER, "run", "--config", str(self.config), "--log-format", "json"]
            self.core = subprocess.Popen(command, stderr=log, start_new_session=True)
        pid = self.core.pid
        return self.until(lambda status: status["pid"] == pid and status["work"]["pid"] and not status["problems"])

    def until(self, wanted: Callable[[dict[str, Any]], Any], within_s: float = 30.0) -> dict[str, Any]:
        deadline = time.monotonic() + within_s
        while not ((status := read_status(self.data)) and wanted(status)):
            assert time.monotonic() < deadline, (status, self.log())
            time.sleep(0.05)
        return status

    def end(self, number: int) -> int:
        assert self.core is not None
        self.core.send_signal(number)
        return self.core.wait(20)

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def publish(self, value: int) -> None:
        """Returns when the node has acknowledged."""
        client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="pump1")
        client.connect("127.0.0.1", self.mqtt)
        client.loop_start()
        message = client.publish("pump1", str(value), qos=1)
        message.wait_for_publish(10)
        assert message.is_published()
        client.disconnect()
        client.loop_stop()

    def tail(self, topic: str, number: int) -> list[dict[str, Any]]:
        command = ["tail", topic, "--from", "start", "-n", str(number), "--json", "--config", str(self.config)]
        ended = headwater(command, timeout_s=20)
        assert ended.returncode == 0, ended.stderr
        return [json.loads(line) for line in ended.stdout.splitlines()]


@pytest.fixture
def shed(tmp_path: Path) -> Iterator[Shed]:
    shed = Shed(tmp_path)
    yield shed
    if shed.core is not None:
        shed.core.kill()
        shed.core.wait()


def gone(shed: Shed) -> bool:
    deadline = time.monotonic() + 10
    while running_with(str(shed.config)):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_a_work_process_that_dies_is_replaced_and_readings_do_not_notice(shed: Shed) -> None:
    before = shed.start()
    os.kill(before["work"]["pid"], signal.SIGKILL)
    shed.publish(1)
    after = shed.until(lambda status: status["work"]["state"] == "running" and status["work"]["restarts"] == 1)
    assert after["pid"] == before["pid"]
    assert after["work"]["last_end"] == "was ended by signal 9"
    assert after["ingest"]["stored"] == 1


def test_a_killed_core_takes_its_work_process_along_and_starts_again(shed: Shed) -> None:
    shed.start()
    shed.publish(1)
    assert shed.end(signal.SIGKILL) == -9
    assert gone(shed)
    status = shed.start()
    assert status["log"]["stopped_cleanly"] is False
    shed.publish(2)
    assert shed.end(signal.SIGTERM) == 0
    assert gone(shed)
    assert shed.start()["log"]["stopped_cleanly"] is True
    assert [record["value"] for record in shed.tail("readings", 2)] == [{"value": 1}, {"value": 2}]
    told = [(record["value"]["kind"], record["value"].get("clean")) for record in shed.tail("events", 4)]
    assert told == [("start", True), ("start", False), ("stop", None), ("start", True)]


def test_every_line_of_a_json_log_is_an_object(shed: Shed) -> None:
    shed.start()
    assert shed.end(signal.SIGINT) == 0
    lines = [json.loads(line) for line in shed.log().splitlines()]
    assert {line["node"] for line in lines} == {"shed-1"}
    assert [line["message"] for line in lines][-1] == "stopped, everything taken is on disk"
