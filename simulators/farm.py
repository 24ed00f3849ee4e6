"""The simulated wind farm as a process of its own.

Run: `headwater simulate farm --mqtt HOST:PORT`. It reports its counters as JSON lines once a second and obeys (see
`simulators.control`): `garbage`, `overheat on|off`, `pause` (no new readings; waits for the acknowledgements of what
was sent, reports `drained`), `resume`, `stop` (the same, then a clean DISCONNECT).
"""

from __future__ import annotations

import contextlib
import signal
import sys

from headwater.clock import SystemClock
from headwater.net import parse_address
from simulators.control import Console
from simulators.director import Director
from simulators.ledger import Ledger, begin_ledger
from simulators.options import make_parser
from simulators.turbines import Fleet, FleetSettings


def run(
    settings: FleetSettings, mqtt: tuple[str, int], ledger_path: str | None, console: Console, report_every_ms: float
) -> None:
    """Simulate until told to stop, by a command, the end of the input, SIGINT or SIGTERM."""
    clock = SystemClock()
    with Ledger(ledger_path) if ledger_path else contextlib.nullcontext() as ledger:
        fleet = Fleet(settings, *mqtt, ledger, clock)
        orders = {
            ("garbage",): fleet.send_garbage,
            ("overheat", "on"): lambda: fleet.overheat(on=True),
            ("overheat", "off"): lambda: fleet.overheat(on=False),
        }
        farm = Director(fleet, console, clock, mqtt, report_every_ms=report_every_ms, orders=orders)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: farm.drain(stopping=True))
        console.say("ready", {"turbines": settings.turbines, "rate_hz": settings.rate_hz})
        farm.run()
        fleet.close()
        console.say("stopped", fleet.counters())


def main(arguments: list[str]) -> int:
    """The command line; see the module's docstring."""
    parser = make_parser(
        "headwater simulate farm",
        "A wind farm that speaks MQTT: QoS 1, persistent sessions, JSON on farm/<turbine>/telemetry (profile"
        " wind-turbine). Says what it does as JSON lines; Ctrl-C waits for the acknowledgements and ends it.",
        [
            "headwater simulate farm",
            "headwater simulate farm --mqtt gateway.example:1883 --turbines 100 --rate 1",
            "headwater simulate farm --fast-clock 0 --garbage 0     # nothing odd",
            "headwater simulate farm --ledger farm.db               # remember what was acknowledged",
        ],
    )
    add = parser.add_argument
    add("--mqtt", default="127.0.0.1:1883", metavar="HOST:PORT", help="the gateway's MQTT address")
    add("--ledger", metavar="FILE", help="SQLite file that keeps what was sent and acknowledged")
    add("--report-every", type=float, default=1.0, metavar="S", help="seconds between two lines of counters")
    add("--turbines", type=int, default=12, metavar="N", help="how many there are")
    add("--rate", type=float, default=10.0, metavar="HZ", help="readings per turbine and second")
    add("--seed", type=int, default=1, metavar="N", help="of the simulated wind")
    add("--overheating", type=int, default=7, metavar="N", help="number of the turbine that can overheat, 0: none")
    add("--fast-clock", type=int, default=3, metavar="N", help="the turbine whose clock is 1 h fast, 0: none")
    add("--garbage", type=int, default=11, metavar="N", help="the turbine that sends garbage, 0: none")
    add("--garbage-every", type=float, default=7.0, metavar="S", help="seconds between garbage; 0: only on command")
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
    if options.ledger:
        begin_ledger(options.ledger)
    run(settings, mqtt, options.ledger, Console(), options.report_every * 1000.0)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
