"""A node with a user's own processor: killed and hung again and again, each output is there once, no PUBACK waits."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import paho.mqtt.client as mqtt
import pytest

from gateway.consume.reader import Reader
from headwater.app.control import read_status
from headwater.net import RealNet, free_port
from tests.compat.test_user_processors import children
from tests.support.processes import HEADWATER

CODE = """\
from __future__ import annotations
from headwater.api import Device, Processor, StoredReading

class Sums(Processor[dict[str, int]]):
    out = "sums"
    deterministic = True

    def on_reading(self, reading: StoredReading, device: Device[dict[str, int]]) -> None:
        if "loop" in reading:
            while True:
                pass
        device.state["sum"] = device.state.get("sum", 0) + reading["n"]
        device.emit({"n": reading["n"], "sum": device.state["sum"]})
"""
WINDOW = '[[window]]\nname = "w"\nsize_s = 1\n'


class Shed:
    """One node with a window rule and a processor; folders in its own that shadow Headwater's packages."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = str(folder / "data")
        self.mqtt, self.kafka = free_port(), free_port()
        (folder / "sums.py").write_text(CODE)
        (folder / "rules.toml").write_text(
            WINDOW + '[[processor]]\nname = "sums"\nfile = "sums.py"\ndevices = ["c1"]\n'
        )
        (folder / "devices").mkdir()
        (folder / "devices" / "__init__.py").write_text("")
        self.config = folder / "headwater.toml"
        self.config.write_text(
            'node = "shed-1"\ndata_dir = "data"\nrules = ["rules.toml"]\n'
            f'[mqtt]\nlisten = "127.0.0.1:{self.mqtt}"\n[kafka]\nlisten = "127.0.0.1:{self.kafka}"\n'
            "[processors]\ncheckpoint_every_ms = 700\n[processors.user]\ntime_max_ms = 1500\nfailures_max = 11\n"
            "pause_min_ms = 3600000\npause_max_ms = 3600000\n"
        )
        self.core: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with open(self.folder / "log", "ab") as log:
            command = [*HEADWATER[:1], "-P", *HEADWATER[1:], "run", "--config", str(self.config)]
            self.core = subprocess.Popen(command, cwd=self.folder, stderr=log, start_new_session=True)
        pid = self.core.pid
        self.until(lambda status: status["pid"] == pid and self.state(status) == "running")

    def state(self, status: dict[str, Any]) -> str:
        work = status["work"] or {}
        return str((work.get("report", {}).get("user_processors") or {}).get("sums", {}).get("state"))

    def until(self, wanted: Callable[[dict[str, Any]], Any], within_s: float = 60.0) -> dict[str, Any]:
        deadline = time.monotonic() + within_s
        while not ((status := read_status(self.data)) and wanted(status)):
            assert time.monotonic() < deadline, (status, (self.folder / "log").read_text()[-3000:])
            time.sleep(0.05)
        return status

    def kill_core(self) -> None:
        assert self.core is not None
        self.core.kill()
        self.core.wait(20)

    def stop(self) -> None:
        assert self.core is not None
        self.core.terminate()
        assert self.core.wait(30) == 0, (self.folder / "log").read_text()[-3000:]

    def publish(self, *payloads: dict[str, int]) -> list[float]:
        """How long each PUBACK took, in seconds."""
        client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="c")
        client.connect("127.0.0.1", self.mqtt)
        client.loop_start()
        took = []
        for payload in payloads:
            began = time.monotonic()
            message = client.publish("c1", msgspec.json.encode(payload), qos=1)
            message.wait_for_publish(10)
            assert message.is_published()
            took.append(time.monotonic() - began)
        client.disconnect()
        client.loop_stop()
        return took

    async def _values(self, topic: str) -> list[dict[str, int]]:
        reader = await Reader.connect(RealNet(), "127.0.0.1", self.kafka, client_id="test")
        try:
            if not await reader.partitions(topic):
                return []
            end, found = await reader.offset(topic, 0, "latest"), []
            reader.assign({(topic, 0): 0})
            while reader.position(topic, 0) < end:
                for block in await reader.poll():
                    found += [msgspec.json.decode(value or b"{}") for value in block.values]
            return found
        finally:
            await reader.close()

    def values(self, topic: str) -> list[dict[str, int]]:
        return asyncio.run(self._values(topic))

    def settles(self, topic: str, count: int) -> list[dict[str, int]]:
        deadline = time.monotonic() + 60
        while len(found := self.values(topic)) < count:
            assert time.monotonic() < deadline, (len(found), count, (self.folder / "log").read_text()[-3000:])
            time.sleep(0.1)
        return found


@pytest.fixture
def shed(tmp_path: Path) -> Iterator[Shed]:
    shed = Shed(tmp_path)
    yield shed
    if shed.core is not None and shed.core.poll() is None:
        shed.core.kill()
        shed.core.wait()


@pytest.mark.long("user-processor", count=8)
@pytest.mark.timeout(400)
def test_killed_again_and_again_each_output_is_there_once(shed: Shed, count: int) -> None:
    shed.start()
    random = Random(count)
    said = kills = 0
    for turn in range(count):
        numbers = range(said, said + random.randrange(1, 40))
        shed.publish(*({"n": number} for number in numbers))
        said = numbers.stop
        time.sleep(random.uniform(0.0, 1.2))  # chance decides what a kill meets
        if turn % 4 == 3:
            shed.kill_core()
            shed.start()
        else:
            status = shed.until(lambda status: status["work"]["pid"])
            for pid in children(f"{shed.config}"):
                os.kill(pid, signal.SIGKILL)
                kills += 1
            if random.random() < 0.3:
                os.kill(status["work"]["pid"], signal.SIGKILL)
    assert kills > 0
    shed.settles("sums", said)
    shed.stop()
    shed.start()
    total, wanted = 0, []
    for number in range(said):
        total += number
        wanted.append({"n": number, "sum": total})
    assert shed.settles("sums", said) == wanted
    shed.stop()


@pytest.mark.long("user-processor")
@pytest.mark.timeout(200)
def test_a_loop_and_an_exception_touch_no_puback_and_no_rule_and_a_paused_one_goes_on_when_it_is_mended(
    shed: Shed,
) -> None:
    shed.start()
    took = shed.publish({"n": 1}, {"loop": 1}, *({"n": 2} for _ in range(60)))
    windows = len(shed.values("aggregates"))
    took += shed.publish(*({"n": 3} for _ in range(40)))
    assert max(took) < 1.0, max(took)  # the loop is killed after 1.5 s, twice
    assert shed.settles("sums", 101)[-1] == {"n": 3, "sum": 1 + 2 * 60 + 3 * 40}
    shed.settles("aggregates", windows + 1)  # rules go on
    assert shed.settles("deadletter", 1) == [{"loop": 1}]
    shed.publish(*({"bad": 1} for _ in range(15)))
    status = shed.until(lambda status: self_paused(shed, status))
    assert status["state"] == "degraded"
    [problem] = [one for one in status["problems"] if "sums" in one]
    assert "paused, its readings wait: sums.py, line 12: KeyError: 'n'" in problem
    assert f"mend {shed.folder / 'sums.py'} and it goes on" in problem
    (shed.folder / "sums.py").write_text(
        CODE.replace('if "loop" in', 'if "n" not in reading:\n            return\n        if "loop" in')
    )
    shed.until(lambda status: shed.state(status) == "running" and status["state"] == "good")
    shed.publish({"n": 5})
    assert shed.settles("sums", 102)[-1] == {"n": 5, "sum": 246}
    shed.stop()


def self_paused(shed: Shed, status: dict[str, Any]) -> bool:
    return shed.state(status) == "paused"
