"""mqtt-client: what comes out of a Mosquitto that devices publish to, messages per second, QoS 1.

Ours: `headwater run` with an [[mqtt_client]] and nothing else, all settings at their defaults; a message counts when it
is decoded, fsynced and acknowledged to Mosquitto. The run is good when the log holds every message.
Peer: `mosquitto_sub -q 1`, whose output goes to a file; a message counts when its line is in the file, which nothing
fsyncs. Both stand behind the same Mosquitto, which gets the same load from the same generator; `reader_cpu_us` is their
own CPU time for a message, without Mosquitto's.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from pathlib import Path
from time import monotonic
from typing import Any

from benchmarks.harness import RESULTS, Run, Void, compare
from benchmarks.mqtt_ingest import (
    MOSQUITTO_CONF,
    Load,
    measured,
    mosquitto_version,
    peer_program,
    publish,
    scratch,
    wait_ready,
    wait_subscribed,
)
from benchmarks.processes import cpu_s, running, wait_for
from headwater.app.control import read_status
from headwater.net import free_port
from tests.support.peers import missing

NAME = "mqtt-client"
DRAINED_WITHIN_S = 60.0
HEADWATER_TOML = """\
node = "bench"
data_dir = "{data}"
profiles = ["wind-turbine"]

[[mqtt_client]]
name = "mosquitto"
address = "127.0.0.1:{mqtt}"
topics = ["farm/#"]

[kafka]
listen = "127.0.0.1:{kafka}"
"""

# (the reader's process, whether it has everything)
Reader = tuple["subprocess.Popen[bytes]", Callable[[], bool]]


@contextmanager
def headwater(directory: Path, port: int, load: Load) -> Iterator[Reader]:
    """A node that reads the broker, once it is subscribed."""
    config, data = directory / "edge.toml", directory / "data"
    config.write_text(HEADWATER_TOML.format(data=data, mqtt=port, kafka=free_port()))
    command = [str(Path(sys.executable).with_name("headwater")), "run", "--config", str(config)]

    def status() -> dict[str, Any]:
        return read_status(str(data)) or {"ingest": {"stored": 0}, "brokers": [{"connected": False}]}

    with running(command, directory / "headwater.log") as node:
        wait_for(lambda: bool(status()["brokers"][0]["connected"]), "Headwater reads Mosquitto")
        yield node, lambda: status()["ingest"]["stored"] >= load.messages
        told = status()
        if told["ingest"]["stored"] != load.messages:
            raise SystemExit(f"{load.messages} messages were published, {told['ingest']['stored']} stored")


@contextmanager
def mosquitto_sub(directory: Path, port: int, load: Load) -> Iterator[Reader]:
    """Mosquitto's own client that writes each payload and a line feed to a file."""
    lines = directory / "messages"
    command = [peer_program("mosquitto_sub"), "-p", str(port), "-q", "1", "-i", "file", "-t", "farm/#"]
    with lines.open("ab") as file, running(command, directory / "mosquitto_sub.log", output=file) as subscriber:
        wait_subscribed(port, lines)
        wanted = load.messages * (load.size + 1)
        yield subscriber, lambda: lines.stat().st_size >= wanted


def through_mosquitto(load: Load, start: Callable[[Path, int, Load], AbstractContextManager[Reader]]) -> Run:
    """One run on a fresh Mosquitto. Raises `Void` when a message is lost."""
    with tempfile.TemporaryDirectory(dir=scratch()) as folder:
        directory, port = Path(folder), free_port()
        config, log = directory / "mosquitto.conf", directory / "mosquitto.log"
        config.write_text(MOSQUITTO_CONF.format(port=port))
        with running([peer_program("mosquitto"), "-c", str(config)], log) as broker:
            wait_ready(broker, port, "Mosquitto listens", log)
            with start(directory, port, load) as (reader, has_all):
                pids = [broker.pid, reader.pid]
                before_s, reader_before_s = cpu_s(pids), cpu_s([reader.pid])
                sent = publish(port, load)
                try:
                    wait_for(has_all, "every message is out of Mosquitto", DRAINED_WITHIN_S)
                except TimeoutError as error:
                    raise Void(str(error)) from error
                run = measured(load, sent, max(monotonic(), sent["ended_s"]), pids, before_s)
                reader_us = (cpu_s([reader.pid]) - reader_before_s) / load.messages * 1e6
    return Run(run.value, {**run.details, "reader_cpu_us": reader_us})


def main(*, load: Load | None = None, rounds: int = 3, results: Path = RESULTS) -> dict[str, Any]:
    """Run the benchmark; what it wrote."""
    load = load or Load()
    if (reason := missing("mosquitto")) is not None:
        raise SystemExit(f"{NAME}: {reason}")
    print(f"{NAME}: {load.messages:,} × {load.size} B, {load.connections} connections, {load.inflight} in flight")
    print(f"{mosquitto_version()}, read by Headwater and by mosquitto_sub -q 1 to a file, configured as")
    print("".join(f"    {line}\n" for line in MOSQUITTO_CONF.splitlines()), end="")
    return compare(
        NAME,
        unit="messages/s",
        better="higher",
        ours=lambda: through_mosquitto(load, headwater),
        peers={"mosquitto_sub": lambda: through_mosquitto(load, mosquitto_sub)},
        parameters={
            **asdict(load),
            "rounds": rounds,
            "ours": "Mosquitto, headwater run with [[mqtt_client]], defaults: decoded, fsynced, then PUBACK",
            "mosquitto_sub": "Mosquitto, mosquitto_sub -q 1 to a file, nothing synced",
            "mosquitto": json.dumps([mosquitto_version(), *MOSQUITTO_CONF.splitlines()[1:]]),
        },
        rounds=rounds,
        results=results,
    )
