"""A silent device, a gateway that is cut off, a pipeline that is behind: told apart by real processes, in one go."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest

from gateway.consume.reader import Reader
from headwater.app.control import read_status
from headwater.net import RealNet, free_port
from tests.support.processes import headwater, node
from tests.support.waiting import until

DEAD_AFTER_S = 8
WINDOW_S = 2
CENTRAL = """
role = "central"
node = "office"
rules = ["rules.toml"]
[kafka]
listen = "127.0.0.1:{kafka}"
advertised = "127.0.0.1:{proxy}"
[processors]
silent_after_s = 4
"""
EDGE = """
node = "shed"
[kafka]
listen = "127.0.0.1:0"
[mqtt]
listen = "127.0.0.1:{mqtt}"
[marks]
idle_ms = 5000
[central]
bootstrap_servers = "127.0.0.1:{proxy}"
request_timeout_ms = 1000
transaction_timeout_ms = 3000
"""
RULES = f"""
[[window]]
name = "w"
size_s = {WINDOW_S}

[[alert]]
name = "quiet"
window = "w"
silent_after_s = {DEAD_AFTER_S}
"""
INTERVALS_S = {"fast": 0.25, "slow": 4.0, "stopping": 0.25}


class Devices:
    """MQTT devices that speak at their own pace; those in `quiet` stay connected and say nothing."""

    def __init__(self, port: int) -> None:
        self.quiet: set[str] = set()
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._live, args=(name, port)) for name in INTERVALS_S]

    def _live(self, name: str, port: int) -> None:
        client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=name)
        client.connect("127.0.0.1", port)
        client.loop_start()
        number = 0
        while not self._over.wait(INTERVALS_S[name]):
            if name not in self.quiet:
                client.publish(name, json.dumps({"n": number}), qos=1).wait_for_publish(20)
                number += 1
        client.disconnect()
        client.loop_stop()

    @contextlib.contextmanager
    def alive(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in self._threads:
                thread.join()


class Link:
    """The link between the two, as a process that can become a black hole."""

    def __init__(self, listen: int, target: int) -> None:
        command = [sys.executable, "-m", "simulators.proxy"]
        command += ["--listen", f"127.0.0.1:{listen}", "--target", f"127.0.0.1:{target}"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert json.loads(self._process.stdout.readline())["event"] == "ready"

    def say(self, command: str, answer: str) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        assert json.loads(self._process.stdout.readline())["event"] == answer

    def close(self) -> None:
        with self._process:
            self.say("stop", "stopped")
            assert self._process.wait(10) == 0


class World:
    """Both nodes, their devices, and what the central's topics have said by now."""

    def __init__(self, folder: Path) -> None:
        self.kafka, self.proxy, self.mqtt = free_port(), free_port(), free_port()
        self.alerts: list[dict[str, Any]] = []
        self.whole_until_ms = 0  # the newest complete window of the device that never stops
        self.configs = {}
        for name, text in {"central": CENTRAL, "edge": EDGE}.items():
            (folder / name).mkdir()
            self.configs[name] = folder / name / "headwater.toml"
            self.configs[name].write_text(text.format(kafka=self.kafka, proxy=self.proxy, mqtt=self.mqtt))
        (folder / "central" / "rules.toml").write_text(RULES)
        self._positions = {("alerts", 0): 0, ("aggregates", 0): 0}

    def status(self, name: str) -> dict[str, Any]:
        return read_status(str(self.configs[name].parent / "data")) or {}

    def read(self) -> None:
        """Past the proxy: a client that follows what the central advertises would be cut off too."""
        asyncio.run(self._read())

    async def _read(self) -> None:
        reader = await Reader.connect(RealNet(), "127.0.0.1", self.kafka, client_id="test", committed=True)
        try:
            if not await reader.partitions("alerts") or not await reader.partitions("aggregates"):
                return
            reader.assign(self._positions)
            while blocks := [block for block in await reader.poll(max_wait_ms=100) if block.values]:
                for block in blocks:
                    self._positions[block.topic, block.partition] = block.next_offset
                    for value in block.values:
                        self._take(block.topic, json.loads(value or b"null"))
        finally:
            await reader.close()

    def _take(self, topic: str, found: dict[str, Any]) -> None:
        if topic == "alerts":
            self.alerts.append(found)
        elif found["group"] == "shed/fast" and found["complete"]:
            self.whole_until_ms = max(self.whole_until_ms, found["end"])

    def states(self) -> list[tuple[str, str]]:
        """Of all alerts so far: who, and what became of it."""
        self.read()
        return [(one["instance"].removeprefix("shed/"), one["state"]) for one in self.alerts]

    def told(self, *expected: tuple[str, str]) -> None:
        """Wait until so many alerts were told; they are these."""
        until(lambda: len(self.states()) >= len(expected), lambda: f"{expected}: {self.alerts}")
        assert self.states() == list(expected)

    def lives_on(self) -> None:
        """Wait until all was judged that happens from now on for longer than any device may be silent."""
        since_ms = time.time() * 1000 + (DEAD_AFTER_S + 4) * 1000

        def judged() -> bool:
            self.read()
            return self.whole_until_ms >= since_ms

        until(judged, lambda: f"windows whole until {self.whole_until_ms}, not {since_ms}", within_s=90)


@contextlib.contextmanager
def world(folder: Path) -> Iterator[tuple[World, Devices, Link]]:
    here = World(folder)
    with contextlib.ExitStack() as stack:
        stack.enter_context(node(here.configs["central"], folder / "central" / "data"))
        link = Link(here.proxy, here.kafka)
        stack.callback(link.close)
        stack.enter_context(node(here.configs["edge"], folder / "edge" / "data"))
        devices = Devices(here.mqtt)
        stack.enter_context(devices.alive())
        yield here, devices, link


@pytest.mark.long("three-silences")
@pytest.mark.timeout(300)
def test_a_silent_device_a_cut_link_and_a_stopped_pipeline_are_three_things(tmp_path: Path) -> None:
    with world(tmp_path) as (here, devices, link):
        here.lives_on()
        assert here.states() == []

        # The device: its gateway lives, and the others with it.
        devices.quiet.add("stopping")
        story = [("stopping", "firing")]
        here.told(*story)
        assert here.alerts[-1]["cause"].startswith("the device is silent")
        here.lives_on()
        devices.quiet.remove("stopping")
        story.append(("stopping", "resolved"))
        here.told(*story)

        # The link: for longer than any device may be silent.
        link.say("hole 600", "hole")
        story.append(("$gateway", "firing"))
        here.told(*story)
        assert "off, or its link is cut" in here.alerts[-1]["cause"]
        held = (DEAD_AFTER_S + 4) * sum(1 / interval for interval in INTERVALS_S.values())
        until(lambda: here.status("edge")["central"]["backlog_records"] > held, "the cut to outlast the dead-man")
        assert here.states() == story
        link.say("restore", "restored")
        story.append(("$gateway", "resolved"))
        here.told(*story)
        here.lives_on()
        assert here.status("edge")["central"]["state"] == "up"
        assert here.states() == story, "a device was paged for its gateway's silence"

        # The pipeline: the central takes readings, and nobody computes.
        for _ in range(2):
            work = here.status("central")["work"]["pid"]
            os.kill(work, signal.SIGSTOP)
            try:
                until(
                    lambda: here.status("central")["work"]["silent_ms"] > (DEAD_AFTER_S + 4) * 1000, "the lag to grow"
                )
                told = headwater(["status", "--config", str(here.configs["central"])])
                assert (told.returncode, "the work process has said nothing" in told.stdout) == (1, True), told.stdout
            finally:
                os.kill(work, signal.SIGCONT)
            here.lives_on()
            assert here.status("central")["work"]["pid"] == work
            assert here.states() == story, "somebody was paged for what the pipeline had not read"
