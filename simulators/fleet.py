"""Fleets of simulated devices from a TOML scenario, as one process or several.

Run: `headwater simulate fleet SCENARIO --mqtt HOST:PORT`. It reports its counters as JSON lines once a second and
obeys (see `simulators.control`): `pause` (no new readings; waits for the acknowledgements of what was sent, reports
`drained`), `resume`, `stop` (the same, then a clean DISCONNECT).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path

from headwater.clock import SystemClock
from headwater.errors import UserError
from headwater.net import parse_address
from simulators.control import Console
from simulators.director import Director
from simulators.ledger import Ledger, begin_ledger
from simulators.options import make_parser, parse_duration, parse_speed
from simulators.parts import play_parts
from simulators.scenario import Scenario, read_scenario, shipped_scenarios
from simulators.stage import Stage, Stakes

MESSAGES_A_PROCESS = 4_000
"""What one process sends a second without falling behind, on a small machine."""


def _play(scenario: Scenario, stakes: Stakes, ledger_path: str | None, report_every_ms: float) -> None:
    console, clock = Console(), SystemClock()
    with Ledger(ledger_path) if ledger_path else contextlib.nullcontext() as ledger:
        stage = Stage(scenario, stakes, ledger, clock)
        director = Director(stage, console, clock, stakes.mqtt, report_every_ms=report_every_ms)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: director.drain(stopping=True))
        members = {"devices": len(stage.herd.devices), "clients": len(stage.publishers)}
        console.say("ready", {**members, "lines": [line.link for line in stage.lines.values()]})
        try:
            director.run()
        finally:
            stage.close()
        console.say("stopped", stage.counters())


def _parser() -> argparse.ArgumentParser:
    parser = make_parser(
        "headwater simulate fleet",
        "Fleets of simulated devices over MQTT and serial lines, from a TOML scenario: what they measure, what goes"
        " missing, comes late, twice or garbled. Says what it does as JSON lines; Ctrl-C waits for the"
        f" acknowledgements and ends it. Scenarios that ship: {', '.join(shipped_scenarios())}.",
        [
            "headwater simulate fleet pump-house",
            "headwater simulate fleet ./site.toml --mqtt gateway.example:1883 --for 10m --ledger site.db",
            "headwater simulate fleet tsbs-heavy --start 2026-01-01T00:00:00Z --speed max --for 1h",
            "headwater simulate verify --ledger site.db --kafka gateway.example:9092",
        ],
    )
    add = parser.add_argument
    add("scenario", help="a shipped scenario, or the path of a TOML file")
    add("--mqtt", default="127.0.0.1:1883", metavar="HOST:PORT", help="the gateway's MQTT address")
    add("--user", default="", metavar="NAME", help="MQTT user, for all clients")
    add("--password-file", default="", metavar="FILE", help="a file whose first line is the user's password")
    add("--ledger", metavar="FILE", help="SQLite file that keeps what was sent and acknowledged")
    add("--for", dest="duration", default="", metavar="TIME", help="how much of it to play: 30s, 10m, 2h")
    add("--seed", type=int, metavar="N", help="another seed than the scenario's")
    add(
        "--start", default="", metavar="TIME", help="the first moment of the devices' clocks, ISO 8601; now if left out"
    )
    add("--speed", default="1", metavar="N", help="simulated seconds a second, or max")
    add("--processes", type=int, default=0, metavar="N", help="how many; 0: as many as the messages need")
    add("--report-every", type=float, default=1.0, metavar="S", help="seconds between two lines of counters")
    add("--part", default="", help=argparse.SUPPRESS)
    return parser


def main(arguments: list[str]) -> int:
    """The command line; see the module's docstring."""
    options = _parser().parse_args(arguments)
    scenario = read_scenario(options.scenario)
    part, _, parts = options.part.partition("/")
    start_ms = _start_ms(options.start)
    stakes = Stakes(
        mqtt=parse_address(options.mqtt, default_port=1883),
        seed=scenario.seed if options.seed is None else options.seed,
        start_ms=start_ms,
        speed=parse_speed(options.speed),
        seconds=parse_duration(options.duration) if options.duration else None,
        part=int(part or 0),
        parts=int(parts or 1),
        credentials=_credentials(options.user, options.password_file),
    )
    if options.ledger and not options.part:
        begin_ledger(options.ledger)
    wanted = min(options.processes or wanted_processes(scenario, stakes.speed), scenario.clients_max)
    if not options.part and wanted > 1:
        moment = [] if options.start else ["--start", datetime.fromtimestamp(start_ms / 1000, UTC).isoformat()]
        return play_parts([*arguments, *moment], wanted, report_every_ms=options.report_every * 1000.0)
    _play(scenario, stakes, options.ledger, options.report_every * 1000.0)
    return 0


def wanted_processes(scenario: Scenario, speed: float | None) -> int:
    """As many as the messages need, one a core at most; `speed` None: as fast as it goes, so one a core."""
    cores = os.cpu_count() or 1
    if speed is None:
        return cores
    return max(1, min(cores, round(scenario.per_second * speed / MESSAGES_A_PROCESS + 0.5)))


def _credentials(user: str, file: str) -> tuple[str, str] | None:
    if not user:
        return None
    try:
        return user, Path(file).read_text(encoding="utf-8").partition("\n")[0]
    except OSError as error:
        hint = "Write the password into a file that only you may read."
        raise UserError(f"--password-file {file}: {error.strerror}", hint=hint) from None


def _start_ms(text: str) -> int:
    if not text:
        return SystemClock().wall_ms()
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UserError(f"--start {text} is no time", hint="Write it as 2026-01-31T08:00:00Z.") from None
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
