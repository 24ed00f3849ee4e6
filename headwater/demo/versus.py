"""`headwater demo --versus mosquitto`: the same device, the same SIGKILL, and who still has what was acknowledged.

One device publishes numbered messages, QoS 1. In the middle of them the server is killed and started again. What the
device had an acknowledgement for must be there then: the rest is lost, and nobody will send it again.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from headwater.demo.rivals import TOPIC, Gateway, Mosquitto, Rival, need
from headwater.errors import UserError
from simulators.publisher import Publisher, Token, wait_for

MESSAGES = 1_000  # what Mosquitto's default queue holds, so that only the kill can lose any
RATE = 250  # messages a second: so that a broker that saves every second has saved some
INFLIGHT = 50
PUBLISH_S_MAX = 60.0

MOSQUITTO_WAYS: dict[str, tuple[str, ...]] = {
    "Mosquitto, its defaults": (),
    "Mosquitto, persistence true": ("persistence true",),
    "Mosquitto, saving every second": ("persistence true", "autosave_interval 1"),
}


class Outcome(NamedTuple):
    """What became of one contestant's messages."""

    name: str
    acknowledged: int
    lost: int
    twice: int


def play(rival: Rival, *, messages: int = MESSAGES, rate: int = RATE) -> Outcome:
    """Start, publish, kill when half is acknowledged, start again, count."""
    try:
        rival.start()
        acknowledged = publish(rival.port, messages=messages, rate=rate, after=messages // 2, kill=rival.kill)
        rival.start()
        found = rival.found(acknowledged)
    finally:
        rival.close()
    lost = len(acknowledged - found.keys())
    twice = sum(1 for number, times in found.items() if number in acknowledged and times > 1)
    return Outcome(rival.name, len(acknowledged), lost, twice)


def publish(port: int, *, messages: int, rate: int, after: int, kill: Callable[[], None]) -> set[int]:
    """The device: the numbers that were acknowledged to it. It stops when its server is gone, or all are acknowledged.

    Raises `UserError` when neither happens.
    """
    acknowledged: set[int] = set()

    def acked(token: Token) -> None:
        acknowledged.add(token[2])

    publisher = Publisher(
        "device", "127.0.0.1", port, on_sent=lambda token: None, on_acked=acked, inflight_max=INFLIGHT
    )
    started_s = time.monotonic()
    number, killed, deadline = 0, False, started_s + PUBLISH_S_MAX
    while len(acknowledged) < messages and (publisher.connected or not killed):
        if time.monotonic() > deadline:
            raise UserError(f"{len(acknowledged)} of {messages} messages were acknowledged in {PUBLISH_S_MAX:.0f} s")
        publisher.tick(time.monotonic() * 1000)
        while number < min(messages, (time.monotonic() - started_s) * rate) and publisher.queued == 0:
            publisher.publish(TOPIC, b'{"seq":%d}' % number, ("device", TOPIC, number))
            number += 1
        if publisher.fd is not None:
            wait_for([publisher], (), 5.0)
        else:
            time.sleep(0.02)
        if not killed and len(acknowledged) >= after:
            kill()
            killed = True
    publisher.disconnect()
    return acknowledged


def contestants(folder: Path) -> Iterable[Rival]:
    """The gateway, then Mosquitto in its ways."""
    yield Gateway(folder / "headwater", "Headwater, its defaults")
    for number, (name, lines) in enumerate(MOSQUITTO_WAYS.items()):
        yield Mosquitto(folder / f"mosquitto-{number}", name, lines)


def table(outcomes: Sequence[Outcome]) -> list[str]:
    """Lines for a person."""
    width = max(len(one.name) for one in outcomes)
    rows = [f"{'':<{width}}  {'acknowledged':>12}  {'lost':>8}  {'twice':>8}"]
    rows += [f"{one.name:<{width}}  {one.acknowledged:>12,}  {one.lost:>8,}  {one.twice:>8,}" for one in outcomes]
    return rows


def mosquitto_version(program: str) -> str:
    """Its first line of help."""
    said = subprocess.run([program, "-h"], capture_output=True, text=True, check=False).stdout
    return said.splitlines()[0] if said else "Mosquitto"


def run(folder: Path, *, report: Path | None) -> int:
    """Play all; 1 when the gateway lost anything that it had acknowledged. Raises `UserError`."""
    version = mosquitto_version(need("mosquitto", "On Debian: apt install mosquitto"))
    _say(f"{version}; each is sent {MESSAGES:,} messages (QoS 1) while nobody reads it, and gets a SIGKILL half-way …")
    outcomes = []
    for rival in contestants(folder):
        _say(f"  {rival.name} …")
        outcomes.append(play(rival))
    for line in table(outcomes):
        _say(line)
    ours, *theirs = outcomes
    _say(
        f"An acknowledgement of Headwater's means that the reading is on disk: {ours.lost} of {ours.acknowledged} lost."
        f" Mosquitto acknowledges what it holds in memory: up to {max(one.lost for one in theirs)} lost."
    )
    if report is not None:
        told = {"mosquitto": version, "outcomes": [one._asdict() for one in outcomes]}
        report.write_bytes(msgspec.json.format(msgspec.json.encode(told)) + b"\n")
    return int(ours.lost > 0)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
