"""A node with a user's own decoder: what hangs or raises there is one message's, and nothing is lost or there twice."""

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
from tests.support.processes import HEADWATER

DECODER = """\
import os
from headwater.api import Message, Reading, Reject

def decode(message: Message):
    if message.payload == b"loop":
        while True:
            pass
    if message.payload == b"die":
        os._exit(3)
    if message.payload == b"bad":
        raise Reject("no number")
    yield Reading({"n": int(message.payload)}, time=message.arrival_ms)
"""
PROFILE = """\
name = "counter"
decoder = "./counter.py:decode"
topics = ["count/{device}"]

[fields.n]
unit = "pieces"
max = 1000000
"""


class Shed:
    """One node with a decoder, killed and started as a test likes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = str(folder / "data")
        self.mqtt, self.kafka = free_port(), free_port()
        self.config = folder / "headwater.toml"
        (folder / "counter.py").write_text(DECODER)
        (folder / "counter.toml").write_text(PROFILE)
        self.config.write_text(
            'node = "shed-1"\ndata_dir = "data"\nprofiles = ["counter.toml"]\n'
            f'[mqtt]\nlisten = "127.0.0.1:{self.mqtt}"\n[kafka]\nlisten = "127.0.0.1:{self.kafka}"\n'
            "[decoders]\ntime_max_ms = 1000\npause_min_ms = 300\nfailures_max = 6\n"
        )
        self.core: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with open(self.folder / "log", "ab") as log:
            command = [*HEADWATER, "run", "--config", str(self.config)]
            self.core = subprocess.Popen(command, stderr=log, start_new_session=True)
        pid = self.core.pid
        self.until(lambda status: status["pid"] == pid and self.decoder(status))

    def decoder(self, status: dict[str, Any]) -> dict[str, Any]:
        return (status["work"]["report"].get("decoders") or {}).get("counter") or {}

    def until(self, wanted: Callable[[dict[str, Any]], Any], within_s: float = 30.0) -> dict[str, Any]:
        deadline = time.monotonic() + within_s
        while not ((status := read_status(self.data)) and wanted(status)):
            assert time.monotonic() < deadline, (status, (self.folder / "log").read_text())
            time.sleep(0.02)
        return status

    def settled(self, count: int) -> dict[str, Any]:
        return self.until(lambda status: status["ingest"]["stored"] + status["ingest"]["dead_letters"] >= count)

    def kill_core(self) -> None:
        assert self.core is not None
        self.core.kill()
        self.core.wait(20)

    def publish(self, *payloads: str) -> list[float]:
        """How long each PUBACK took, in seconds."""
        client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="c")
        client.connect("127.0.0.1", self.mqtt)
        client.loop_start()
        took = []
        for payload in payloads:
            began = time.monotonic()
            message = client.publish("count/c1", payload, qos=1)
            message.wait_for_publish(10)
            assert message.is_published()
            took.append(time.monotonic() - began)
        client.disconnect()
        client.loop_stop()
        return took

    async def _read(self, topic: str) -> list[tuple[str, Any, bytes]]:
        reader = await Reader.connect(RealNet(), "127.0.0.1", self.kafka, client_id="test")
        try:
            end, found = await reader.offset(topic, 0, "latest"), []
            reader.assign({(topic, 0): 0})
            while reader.position(topic, 0) < end:
                for block in await reader.poll():
                    found += list(zip(block.keys, block.values, block.headers, strict=True))
            return [((key or b"").decode(), value, headers) for key, value, headers in found]
        finally:
            await reader.close()

    def numbers(self) -> list[int]:
        rows = asyncio.run(self._read("readings"))
        return [msgspec.json.decode(value)["n"] for key, value, _ in rows if key == "shed-1/c1"]

    def dead(self) -> list[tuple[bytes, bytes]]:
        return [(value, headers) for _, value, headers in asyncio.run(self._read("deadletter"))]


@pytest.fixture
def shed(tmp_path: Path) -> Iterator[Shed]:
    shed = Shed(tmp_path)
    shed.start()
    yield shed
    if shed.core is not None and shed.core.poll() is None:
        shed.core.send_signal(signal.SIGTERM)
        shed.core.wait(20)


def test_a_decoder_that_loops_touches_no_puback_and_costs_its_own_message_only(shed: Shed) -> None:
    shed.publish("1", "bad", "loop")
    shed.until(lambda status: status["ingest"]["stored"] == 1)
    took = shed.publish(*map(str, range(2, 12)))  # while it loops: twice a second, or more
    assert max(took) < 0.5, took
    assert shed.decoder(read_status(shed.data) or {})["killed"] < 2
    shed.settled(13)
    assert shed.numbers() == list(range(1, 12))
    dead = shed.dead()
    assert [value for value, _ in dead] == [b"bad", b"loop"]
    assert b"no number" in dead[0][1]
    assert b"counter.py, line 7: still at it after 1 s, so it was killed" in dead[1][1]


@pytest.mark.long("user-decoder", count=20)
def test_killed_again_and_again_each_message_is_there_once(shed: Shed, count: int) -> None:
    random = Random(5)
    for turn in range(count):
        shed.publish(*(str(turn * 40 + n) for n in range(40)))
        time.sleep(random.random() / 5)
        if random.random() < 0.3:
            shed.kill_core()
            shed.start()
        else:
            os.kill(shed.until(lambda status: status["work"]["pid"])["work"]["pid"], signal.SIGKILL)
    shed.until(lambda status: shed.decoder(status).get("lag_records") == 0 and len(set(shed.numbers())) == 40 * count)
    assert sorted(shed.numbers()) == list(range(40 * count))
    assert shed.dead() == []


@pytest.mark.long("user-decoder")
def test_a_decoder_that_always_fails_is_paused_alone_and_goes_on_when_it_is_mended(shed: Shed) -> None:
    (shed.folder / "counter.py").write_text("def decode(message):\n    return {'n': {}['x']}\n")
    shed.kill_core()
    shed.start()
    shed.publish(*map(str, range(20)))
    status = shed.until(lambda status: shed.decoder(status).get("state") == "paused")
    [problem] = [one for one in status["problems"] if "decoder" in one]
    assert "paused" in problem
    assert "counter.py, line 2: KeyError: 'x'" in problem
    assert status["ingest"]["dead_letters"] == 6
    (shed.folder / "counter.py").write_text(DECODER)
    shed.until(lambda status: not status["problems"] and shed.decoder(status)["lag_records"] == 0)
    found = shed.numbers()
    assert found == list(range(20 - len(found), 20))
    assert len(found) + len(shed.dead()) == 20
    assert len(found) >= 12  # a try or two may have gone before it was mended
