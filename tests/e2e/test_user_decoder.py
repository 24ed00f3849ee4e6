"""A node with a user's own decoder: what hangs or raises there is one message's, and nothing is lost or there twice."""

from __future__ import annotations

import asyncio
import json
import os
import re
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
from gateway.log.records import decode_headers
from headwater.app.control import read_status
from headwater.cli.deadletter import replay, show_list, show_one
from headwater.cli.deadletters import Filter
from headwater.cli.devices import show as show_devices
from headwater.cli.profiles import time_text as iso
from headwater.cli.profiles import try_live
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
            "[decoders]\ntime_max_ms = 2000\ntries = 1\npause_min_ms = 5000\nfailures_max = 6\n"
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

    def arrival_ms(self, dead_letter: int) -> int:
        """When a dead letter's message came."""
        [_, _, headers] = asyncio.run(self._read("deadletter"))[dead_letter]
        return int(dict(decode_headers(headers))["time"] or b"")

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


def test_a_decoder_that_loops_touches_no_puback_and_costs_its_own_message_only(
    shed: Shed, capsys: pytest.CaptureFixture[str]
) -> None:
    shed.publish("1", "bad", "loop")
    shed.until(lambda status: status["ingest"]["stored"] == 1)
    took = shed.publish(*map(str, range(2, 12)))  # while it loops
    assert not shed.decoder(read_status(shed.data) or {}).get("killed", 0)
    assert sorted(took)[5] < 0.5, took
    assert max(took) < 1.5, took
    shed.until(lambda status: len(shed.numbers()) == 11)
    assert shed.numbers() == list(range(1, 12))
    dead = shed.dead()
    assert [value for value, _ in dead] == [b"bad", b"loop"]
    assert b"no number" in dead[0][1]
    assert re.search(rb"counter.py, line [67]: still at it after 2 s, so it was killed", dead[1][1])

    # the decoder learns what "loop" means: what was put aside is decoded, once
    config = str(shed.config)
    (shed.folder / "counter.py").write_text(DECODER.replace("while True:", "while False:").replace("int(", "_n("))
    with open(shed.folder / "counter.py", "a") as file:
        file.write("\n\ndef _n(text):\n    return 77 if text == b'loop' else int(text)\n")
    profile = str(shed.folder / "counter.toml")
    assert asyncio.run(try_live(profile, config, number=5, as_json=False)) == 1
    assert capsys.readouterr().out.splitlines() == [
        "dead letter 0: REJECTED by counter: no number",
        "dead letter 1: c1  " + iso(shed.arrival_ms(1)) + "  n=77 pieces",
        "2 messages: 1 reading, 1 rejected",
    ]
    for dry, said in ((True, "1 dead letter would become 1 reading"), (False, "1 dead letter became 1 reading")):
        assert asyncio.run(replay(config, Filter(), dry=dry, as_json=False)) == 1
        lines = capsys.readouterr().out.splitlines()
        assert lines[:2] == [said, "1 still rejected: no number (offsets 0)"]
    assert asyncio.run(replay(config, Filter(first=1), dry=False, as_json=False)) == 0
    assert capsys.readouterr().out == "0 dead letters became 0 readings\n1 had been replayed before\n"
    assert shed.numbers() == [*range(1, 12), 77]
    asyncio.run(show_list(config, Filter(source="mqtt:*"), number=5, as_json=False))
    listed = capsys.readouterr().out.splitlines()
    assert listed[0].endswith("mqtt:c  3 B  no number")
    assert listed[1].endswith("so it was killed  (replayed)")
    asyncio.run(show_one(config, 1, as_json=False))
    assert capsys.readouterr().out.endswith("6c 6f 6f 70                                      loop\n")
    asyncio.run(show_devices(config, "shed-1/*", stale=False, as_json=True))
    [device] = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (device["device"], device["profile"], device["readings"]) == ("shed-1/c1", "counter", 12)


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
    assert len(found) == 14
