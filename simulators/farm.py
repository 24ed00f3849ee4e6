"""The simulated wind farm as a process of its own.

Run: `headwater simulate farm --mqtt HOST:PORT`. It reports its counters as JSON lines once a second and obeys (see
`simulators.control`): `garbage`, `overheat on|off`, `pause` (no new readings; waits for the acknowledgements of what
was sent, reports `drained`), `resume`, `stop` (the same, then a clean DISCONNECT).
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys

from headwater.clock import Clock, SystemClock
from headwater.net import parse_address
from simulators.control import Console
from simulators.fleet import Fleet, FleetSettings
from simulators.ledger import Ledger

DRAIN_MS_MAX = 15_000.0


class Farm:
    """Steers a fleet by commands and reports about it."""

    def __init__(self, fleet: Fleet, console: Console, clock: Clock, *, report_every_ms: float) -> None:
        self._report_every_ms = report_every_ms
        self._fleet, self._console, self._clock = fleet, console, clock
        self._measuring = True
        self._draining = False
        self._stopping = False
        self._drain_until_ms = 0.0
        self._report_ms = 0.0

    def obey(self, command: list[str]) -> None:
        match command:
            case ["garbage"]:
                self._fleet.send_garbage()
            case ["overheat", ("on" | "off") as word]:
                self._fleet.overheat(on=word == "on")
            case ["resume"]:
                self._measuring, self._draining = True, False
            case ["pause"] | ["stop"]:
                self.drain(stopping=command == ["stop"])
            case _:
                self._console.say("unknown", {"command": " ".join(command)})

    def drain(self, *, stopping: bool) -> None:
        """Take no more readings; wait for acknowledgements, `DRAIN_MS_MAX` at most."""
        self._measuring, self._draining = False, True
        self._stopping |= stopping
        self._drain_until_ms = self._clock.monotonic_ms() + DRAIN_MS_MAX

    def run(self) -> None:
        """Until told to stop."""
        while True:
            if self._fleet.step(self._console.inputs, measuring=self._measuring):
                for command in self._console.commands():
                    self.obey(command)
            now_ms = self._clock.monotonic_ms()
            if now_ms >= self._report_ms:
                self._report_ms = now_ms + self._report_every_ms
                self._console.say("counters", self._fleet.counters())
            if self._draining and (not self._fleet.unacknowledged or now_ms >= self._drain_until_ms):
                self._draining = False
                self._fleet.commit()
                self._console.say("drained", self._fleet.counters())
            if self._stopping and not self._draining:
                return


def run(
    settings: FleetSettings, mqtt: tuple[str, int], ledger_path: str | None, console: Console, report_every_ms: float
) -> None:
    """Simulate until told to stop, by a command, the end of the input, SIGINT or SIGTERM."""
    clock = SystemClock()
    with Ledger(ledger_path) if ledger_path else contextlib.nullcontext() as ledger:
        fleet = Fleet(settings, *mqtt, ledger, clock)
        farm = Farm(fleet, console, clock, report_every_ms=report_every_ms)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: farm.drain(stopping=True))
        console.say("ready", {"turbines": settings.turbines, "rate_hz": settings.rate_hz})
        farm.run()
        fleet.close()
        console.say("stopped", fleet.counters())


def main(arguments: list[str]) -> int:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(prog="headwater simulate farm", description="a simulated wind farm over MQTT")
    parser.add_argument("--mqtt", default="127.0.0.1:1883", help="the gateway's MQTT address")
    parser.add_argument("--ledger", help="file that keeps what was sent and acknowledged")
    parser.add_argument("--report-every", type=float, default=1.0, help="seconds between two lines of counters")
    parser.add_argument("--turbines", type=int, default=12)
    parser.add_argument("--rate", type=float, default=10.0, help="readings per turbine and second")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--overheating", type=int, default=7, help="number of the turbine that can overheat, 0: none")
    parser.add_argument("--fast-clock", type=int, default=3, help="the turbine whose clock is 1 h fast, 0: none")
    parser.add_argument("--garbage", type=int, default=11, help="the turbine that sends garbage, 0: none")
    parser.add_argument("--garbage-every", type=float, default=7.0, help="seconds; 0: only on command")
    options = parser.parse_args(arguments)
    settings = FleetSettings(
        turbines=options.turbines,
        rate_hz=options.rate,
        seed=options.seed,
        overheating=options.overheating,
        fast_clock=options.fast_clock,
        garbage=options.garbage,
        garbage_every_ms=options.garbage_every * 1000.0,
    )
    mqtt = parse_address(options.mqtt, default_port=1883)
    run(settings, mqtt, options.ledger, Console(), options.report_every * 1000.0)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
