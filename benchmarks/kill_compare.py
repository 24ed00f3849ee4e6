"""kill-compare: of what a device had acknowledged, how much is lost when a server gets a SIGKILL.

The same script as `headwater demo --versus mosquitto`: a device publishes QoS 1, the server is killed when half of that
is acknowledged, and is started again on its files. Then whoever reads it is asked for every acknowledged number.

- killed at the door: Headwater (the device speaks to it), Mosquitto as installed, with persistence, saving every second
- killed behind a Mosquitto that lives: Headwater's [[mqtt_client]], Telegraf's mqtt_consumer as it comes and with a
  persistent session (Mosquitto's queue unlimited for all three)

A contestant whose program is missing is reported as that. `build/bench/kill-compare.json` holds the counts by round.
"""

from __future__ import annotations

import contextlib
import json
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.harness import RESULTS, machine
from benchmarks.mqtt_ingest import mosquitto_version, scratch
from headwater.demo.rivals import TOPIC, Gateway, Mosquitto, Process, Rival, wait_until
from headwater.demo.versus import MESSAGES, MOSQUITTO_WAYS, RATE, Outcome, play, table
from headwater.errors import UserError
from tests.support.peers import BUILT, missing, program

NAME = "kill-compare"
TELEGRAF_CONF = """\
[agent]
  flush_interval = "1s"
[[inputs.mqtt_consumer]]
  servers = ["tcp://127.0.0.1:{port}"]
  topics = ["{topic}"]
  qos = 1
  client_id = "telegraf"
  persistent_session = {persistent}
  data_format = "json_v2"
  [[inputs.mqtt_consumer.json_v2]]
    measurement_name = "device"
    [[inputs.mqtt_consumer.json_v2.field]]
      path = "seq"
      type = "int"
[[outputs.file]]
  files = ["{lines}"]
  data_format = "influx"
"""
FLUSHED_S = 8.0
Start = Callable[[Path, str], Rival]


class Behind(Rival):
    """A reader that is killed, behind a Mosquitto that is not."""

    def __init__(self, folder: Path, name: str, reader: Callable[[Path, int], Rival]) -> None:
        super().__init__(folder, name)
        self._broker = Mosquitto(folder / "broker", "Mosquitto", ("max_queued_messages 0",), has_reader=False)
        self.port = self._broker.port
        self._broker.start()
        self._reader = reader(folder / "reader", self.port)

    def start(self) -> None:
        self._reader.start()

    def kill(self) -> None:
        self._reader.kill()

    def found(self, wanted: set[int]) -> Counter[int]:
        return self._reader.found(wanted)

    def close(self) -> None:
        self._reader.close()
        self._broker.close()


class Telegraf(Rival):
    """Telegraf's mqtt_consumer, written to a file."""

    def __init__(self, folder: Path, broker: int, *, persistent: bool) -> None:
        super().__init__(folder, "Telegraf")
        self._lines = folder / "lines"
        config = folder / "telegraf.conf"
        told = {"port": broker, "topic": TOPIC, "lines": self._lines, "persistent": str(persistent).lower()}
        config.write_text(TELEGRAF_CONF.format(**told))
        command = program(str(BUILT / "telegraf"), "telegraf")
        self._process = Process(folder, "telegraf", [command or "telegraf", "--config", str(config)])
        self._starts = 0

    def start(self) -> None:
        self._process.start()
        self._starts += 1
        wait_until(lambda: self._process.log().count("Connected [tcp://") >= self._starts, "Telegraf's connection")

    def kill(self) -> None:
        self._process.kill()

    def found(self, wanted: set[int]) -> Counter[int]:
        def read() -> Counter[int]:
            text = self._lines.read_text() if self._lines.exists() else ""
            return Counter(int(number) for number in re.findall(r"\bseq=(\d+)i", text))

        with contextlib.suppress(UserError):  # what is not there by then is lost
            wait_until(lambda: wanted <= read().keys(), "all of it in Telegraf's file", FLUSHED_S)
        return read()


def _mosquitto(lines: Sequence[str], folder: Path, name: str) -> Rival:
    return Mosquitto(folder, name, lines)


def _gateway_behind(folder: Path, name: str) -> Rival:
    return Behind(folder, name, lambda inner, port: Gateway(inner, name, broker=port))


def _telegraf_behind(session: str, folder: Path, name: str) -> Rival:
    return Behind(folder, name, lambda inner, port: Telegraf(inner, port, persistent=session == "persistent"))


def contestants() -> dict[str, Start | str]:
    """How to start each; a text says why one cannot be."""
    found: dict[str, Start | str] = {"Headwater, its defaults": Gateway}
    found |= {way: partial(_mosquitto, lines) for way, lines in MOSQUITTO_WAYS.items()}
    found["Headwater behind Mosquitto"] = _gateway_behind
    for session in ("default", "persistent"):
        name = f"Telegraf behind Mosquitto, {session} session"
        found[name] = missing("telegraf") or partial(_telegraf_behind, session)
    return found


def main(
    *, rounds: int = 3, messages: int = MESSAGES, rate: int = RATE, only: str = "", results: Path = RESULTS
) -> dict[str, Any]:
    """Run the comparison; what it wrote. `only`: contestants whose name holds this text."""
    if (reason := missing("mosquitto")) is not None:
        raise SystemExit(f"{NAME}: {reason}")
    print(f"{NAME}: {messages:,} messages at {rate}/s, SIGKILL half-way; {mosquitto_version()}")
    outcomes: dict[str, list[Outcome]] = {}
    absent: dict[str, str] = {}
    for turn in range(1, rounds + 1):
        for name, start in contestants().items():
            if only not in name:
                continue
            if isinstance(start, str):
                absent[name] = start
                continue
            with tempfile.TemporaryDirectory(dir=scratch()) as folder:
                outcome = play(start(Path(folder) / "rival", name), messages=messages, rate=rate)
            outcomes.setdefault(name, []).append(outcome)
            print(f"  round {turn}  {name:<46} {outcome.lost:>6} of {outcome.acknowledged} lost", flush=True)
    report = _report(outcomes, absent, {"rounds": rounds, "messages": messages, "rate": rate})
    results.mkdir(parents=True, exist_ok=True)
    (results / f"{NAME}.json").write_text(json.dumps(report, indent=2) + "\n")
    for line in table([Outcome(name, *_sums(found)) for name, found in outcomes.items()]):
        print(line)
    for name, why in absent.items():
        print(f"{name}: {why}")
    return report


def _sums(found: list[Outcome]) -> tuple[int, int, int]:
    return sum(one.acknowledged for one in found), sum(one.lost for one in found), sum(one.twice for one in found)


def _report(
    outcomes: Mapping[str, list[Outcome]], absent: Mapping[str, str], parameters: Mapping[str, Any]
) -> dict[str, Any]:
    return {
        "name": NAME,
        "unit": "messages",
        "better": "lower",
        "contestants": {
            name: {
                "acknowledged": [one.acknowledged for one in found],
                "lost": [one.lost for one in found],
                "twice": [one.twice for one in found],
            }
            for name, found in outcomes.items()
        },
        "absent": dict(absent),
        "parameters": {**parameters, "mosquitto": mosquitto_version()},
        "machine": machine(),
    }
