"""mqtt-ingest: MQTT QoS 1 to disk, messages per second; beside Mosquitto and Telegraf, which write a file.

Ours: `headwater run` with an MQTT listener, the turbines' profile and nothing else, all settings at their defaults; a
message counts when its PUBACK has come, that is, when it is decoded, recognisable as a repeat after a crash, and
fsynced. The run is good when the log holds every message. `interval 0`: the same with `fsync_interval_ms = 0`.
Peers: Mosquitto hands on to `mosquitto_sub -q 1`, whose output goes to a file, and Mosquitto hands on to Telegraf,
whose decoded output goes to a file; a message counts when its line is in the file, which nothing fsyncs. All get the
same load from the same generator (benchmarks/mqtt_load.py), which says how busy it was (`generator_busy`, of one core).
`floor` is the least that one Python process needs (benchmarks/mqtt_floor.py): no product, but where the way ends.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic
from typing import IO, Any

from benchmarks.harness import RESULTS, ROOT, Contestant, Run, Void, compare
from benchmarks.processes import accepts, cpu_s, peak_rss_bytes, running, wait_for
from headwater.net import free_port
from tests.support.peers import BUILT, missing, program

NAME = "mqtt-ingest"
MOSQUITTO_CONF = """\
listener {port} 127.0.0.1
allow_anonymous true
max_queued_messages 0
max_inflight_messages 1000
persistence false
log_type error
"""
HEADWATER_TOML = """\
node = "bench"
data_dir = "{data}"
profiles = ["wind-turbine"]

[mqtt]
listen = "127.0.0.1:{mqtt}"

[kafka]
listen = "127.0.0.1:{kafka}"
"""
TELEGRAF_CONF = """\
[agent]
flush_interval = "100ms"
metric_batch_size = 5000
metric_buffer_limit = 1000000
omit_hostname = true
quiet = true

[[inputs.mqtt_consumer]]
servers = ["tcp://127.0.0.1:{port}"]
topics = ["farm/#"]
qos = 1
client_id = "telegraf"
persistent_session = true
max_undelivered_messages = 100000
data_format = "json_v2"
[[inputs.mqtt_consumer.json_v2]]
timestamp_path = "ts"
timestamp_format = "unix_ms"
[[inputs.mqtt_consumer.json_v2.object]]
path = "@this"
excluded_keys = ["ts", "note"]

[[outputs.file]]
files = ["{lines}"]
data_format = "influx"
"""
TELEGRAF_WITHIN_S = 120.0


@dataclass(frozen=True)
class Load:
    """What the generator sends."""

    connections: int = 100
    inflight: int = 20
    messages: int = 300_000
    size: int = 100
    rate: float = 0.0
    block: int = 20  # at a rate: as many together as a window at full speed


def publish(port: int, load: Load) -> dict[str, float]:
    """Run the generator to its end; what it measured."""
    command = [sys.executable, "-m", "benchmarks.mqtt_load", "--port", str(port)]
    for key, value in asdict(load).items():
        command += [f"--{key}", str(value)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def measured(load: Load, sent: dict[str, float], ended_s: float, pids: list[int], cpu_before_s: float) -> Run:
    elapsed_s = ended_s - sent["started_s"]
    return Run(
        load.messages / elapsed_s,
        {
            "puback_p50_ms": sent["p50_ms"],
            "puback_p99_ms": sent["p99_ms"],
            "cpu_us": (cpu_s(pids) - cpu_before_s) / load.messages * 1e6,
            "rss_mib": peak_rss_bytes(pids) / 2**20,
            "generator_busy": sent["cpu_s"] / (sent["ended_s"] - sent["started_s"]),
        },
    )


def ours(load: Load, *, log: str = "") -> Run:
    """One run of Headwater on an empty data directory under build/, on the disk that the checkout is on.

    `log`: the settings of its section of that name.
    """
    with tempfile.TemporaryDirectory(dir=scratch()) as folder:
        directory = Path(folder)
        mqtt, kafka = free_port(), free_port()
        config = directory / "edge.toml"
        config.write_text(HEADWATER_TOML.format(data=directory / "data", mqtt=mqtt, kafka=kafka) + f"\n[log]\n{log}\n")
        headwater = str(Path(sys.executable).with_name("headwater"))
        said = directory / "headwater.log"
        with running([headwater, "run", "--config", str(config)], said) as node:
            wait_ready(node, mqtt, "Headwater listens", said)
            before_s = cpu_s([node.pid])
            sent = publish(mqtt, load)
            run = measured(load, sent, sent["ended_s"], [node.pid], before_s)
            status = [headwater, "status", "--config", str(config), "--json"]
            told = subprocess.run(status, stdout=subprocess.PIPE, text=True, check=False).stdout
            stored = json.loads(told)["ingest"]["stored"]
        if stored != load.messages:
            raise SystemExit(f"Headwater acknowledged {load.messages} messages and stored {stored}")
        return run


def floor(load: Load) -> Run:
    """One run of the least that a Python process can do."""
    with tempfile.TemporaryDirectory(dir=scratch()) as folder:
        directory, port = Path(folder), free_port()
        said = directory / "floor.log"
        command = [sys.executable, "-m", "benchmarks.mqtt_floor", str(port), str(directory / "batches")]
        with running(command, said) as server:
            wait_ready(server, port, "the floor listens", said)
            before_s = cpu_s([server.pid])
            sent = publish(port, load)
            return measured(load, sent, sent["ended_s"], [server.pid], before_s)


def mosquitto(load: Load) -> Run:
    """One run of Mosquitto and its subscriber. Raises `Void` when a message is lost."""
    with tempfile.TemporaryDirectory(dir=scratch()) as folder:
        directory = Path(folder)
        port = free_port()
        config, log, lines = directory / "mosquitto.conf", directory / "mosquitto.log", directory / "messages"
        config.write_text(MOSQUITTO_CONF.format(port=port))
        broker_command = [peer_program("mosquitto"), "-c", str(config)]
        subscribe = [peer_program("mosquitto_sub"), "-p", str(port), "-q", "1", "-i", "file", "-t", "farm/#"]
        with running(broker_command, log) as broker:
            wait_ready(broker, port, "Mosquitto listens", log)
            with lines.open("ab") as file, running(subscribe, log, output=file) as subscriber:
                wait_subscribed(port, lines)
                pids = [broker.pid, subscriber.pid]
                before_s = cpu_s(pids)
                sent = publish(port, load)
                wanted = load.messages * (load.size + 1)  # each payload and its line feed
                try:
                    wait_for(lambda: lines.stat().st_size >= wanted, "every message is in the file")
                except TimeoutError as error:
                    raise Void(f"{(wanted - lines.stat().st_size) / (load.size + 1):.0f} messages lost") from error
                return measured(load, sent, max(monotonic(), sent["ended_s"]), pids, before_s)


def telegraf(load: Load) -> Run:
    """One run of Mosquitto and Telegraf behind it. Raises `Void` when a message is lost."""
    with tempfile.TemporaryDirectory(dir=scratch()) as folder:
        directory = Path(folder)
        port = free_port()
        config, log, lines = directory / "mosquitto.conf", directory / "log", directory / "messages"
        config.write_text(MOSQUITTO_CONF.format(port=port))
        settings = directory / "telegraf.conf"
        settings.write_text(TELEGRAF_CONF.format(port=port, lines=lines))
        lines.touch()
        with running([peer_program("mosquitto"), "-c", str(config)], log) as broker:
            wait_ready(broker, port, "Mosquitto listens", log)
            command = [peer_program(str(BUILT / "telegraf")), "--config", str(settings)]
            with running(command, log) as reader, lines.open("rb") as file:
                probes = Lines(file)
                wait_for(lambda: heard(port, probes), "Telegraf writes something")
                pids = [broker.pid, reader.pid]
                before_s = cpu_s(pids)
                sent = publish(port, load)
                payloads = Lines(file, having=b"seq=")
                try:
                    wait_for(lambda: payloads.count >= load.messages, "all in the file", within_s=TELEGRAF_WITHIN_S)
                except TimeoutError as error:
                    raise Void(f"{load.messages - payloads.count} messages lost") from error
                return measured(load, sent, max(monotonic(), sent["ended_s"]), pids, before_s)


def heard(port: int, lines: Lines) -> bool:
    """Publish a message; whether one has come through."""
    command = [peer_program("mosquitto_pub"), "-p", str(port), "-t", "farm/probe", "-m", '{"ts":1,"a":1}', "-q", "1"]
    subprocess.run(command, check=True)
    return lines.count > 0


class Lines:
    """How many lines a growing file holds that have some text in them."""

    def __init__(self, file: IO[bytes], *, having: bytes = b"\n") -> None:
        self._file = file
        self._having = having
        self._seen = 0
        self._rest = b""

    @property
    def count(self) -> int:
        data = self._rest + self._file.read()
        whole = data.rfind(b"\n") + 1
        self._rest = data[whole:]
        self._seen += data[:whole].count(self._having)
        return self._seen


def wait_ready(process: subprocess.Popen[bytes], port: int, what: str, log: Path) -> None:
    wait_for(lambda: process.poll() is not None or accepts(port), what)
    if process.poll() is not None:
        raise SystemExit(f"it ended with {process.returncode}:\n{log.read_text(errors='replace')}")


def wait_subscribed(port: int, lines: Path) -> None:
    """Publish until the first line comes through, wait for the last of these probes, then empty the file again."""

    def probe(text: str) -> None:
        command = [peer_program("mosquitto_pub"), "-p", str(port), "-t", "farm/probe", "-m", text, "-q", "1"]
        subprocess.run(command, check=True)

    def through() -> bool:
        probe("begin")
        return lines.stat().st_size > 0

    wait_for(through, "the subscriber hears something")
    probe("end")
    wait_for(lambda: lines.read_bytes().endswith(b"end\n"), "the subscriber hears the last probe")
    lines.open("wb").close()


def peer_program(name: str) -> str:
    path = program(name)
    if path is None:
        raise SystemExit(f"{name} is not installed: run `make peers`")
    return path


def scratch() -> Path:
    RESULTS.mkdir(parents=True, exist_ok=True)
    return RESULTS


def mosquitto_version() -> str:
    said = subprocess.run([peer_program("mosquitto"), "-h"], capture_output=True, text=True, check=False)
    return said.stdout.splitlines()[0] if said.stdout else "unknown"


def main(
    *, load: Load | None = None, rounds: int = 3, results: Path = RESULTS, only_mosquitto: bool = False
) -> dict[str, Any]:
    """Run the benchmark; what it wrote. `only_mosquitto`: ours by its defaults, beside Mosquitto alone."""
    load = load or Load()
    if (reason := missing("mosquitto")) is not None:
        raise SystemExit(f"{NAME}: {reason}")
    print(f"{NAME}: {load.messages:,} × {load.size} B, {load.connections} connections, {load.inflight} in flight")
    print(f"{mosquitto_version()}, mosquitto_sub -q 1 to a file, configured as")
    print("".join(f"    {line}\n" for line in MOSQUITTO_CONF.splitlines()), end="")
    peers: dict[str, Contestant] = {"mosquitto": lambda: mosquitto(load), "floor": lambda: floor(load)}
    if not only_mosquitto:
        peers["interval 0"] = lambda: ours(load, log="fsync_interval_ms = 0")
        if (reason := missing("telegraf")) is None:
            peers["telegraf"] = lambda: telegraf(load)
        else:
            print(f"without Telegraf: {reason}")
    return compare(
        NAME,
        unit="messages/s",
        better="higher",
        ours=lambda: ours(load),
        peers=peers,
        parameters={
            **asdict(load),
            "rounds": rounds,
            "ours": "headwater run, defaults: decoded, fsynced, then PUBACK",
            "floor": "benchmarks/mqtt_floor.py: decodes, stores, syncs, then PUBACK; nothing else",
            "interval 0": "the same with fsync_interval_ms = 0",
            "mosquitto": f"{mosquitto_version()}; " + "; ".join(MOSQUITTO_CONF.splitlines()[1:]),
            "telegraf": "the same Mosquitto, mqtt_consumer to file; " + "; ".join(TELEGRAF_CONF.split("\n")[1:5]),
        },
        rounds=rounds,
        results=results,
    )
