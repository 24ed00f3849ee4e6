"""A met mast on a real serial line: a pseudo-terminal pair that speaks NMEA 0183.

Five sentences a second: four `WIMWV` (relative and true wind by turns) and one `WIXDR` (air temperature in °C,
barometric pressure in bar), each with its checksum (NMEA 0183, sections 5.3.1 and 6.2). A symbolic link names the
line for as long as the mast lives, so that a gateway can open it again after its own death. As on real wire, what
is said while nobody listens is lost: unread sentences are thrown away whole, so a reader never starts inside one
that was said long ago.

Run: `headwater simulate mast --link PATH`; steered as in `simulators.control` (`silence on|off`, `stop`).
"""

from __future__ import annotations

import select
import sys
from random import Random

from headwater.clock import Clock, SystemClock
from simulators.control import Console
from simulators.options import make_parser
from simulators.serial_line import SerialLine
from simulators.signals import Wave, Wind

SENTENCES_PER_S = 5
REPORT_EVERY_MS = 1000.0


def sentence(body: str) -> bytes:
    """`$body*hh\\r\\n`; hh is the exclusive or of every character between `$` and `*` (NMEA 0183, section 5.3.1)."""
    checksum = 0
    for byte in body.encode("ascii"):
        checksum ^= byte
    return f"${body}*{checksum:02X}\r\n".encode("ascii")


class MastSignal:
    """The mast's measurements as sentences; sans-IO, deterministic by seed."""

    def __init__(self, seed: int) -> None:
        self._wind = Wind(seed)
        random = Random(f"mast {seed}")  # noqa: S311 - a simulation
        self._temperature = Wave(random, 900_000.0)
        self._pressure = Wave(random, 1_800_000.0)
        self._count = 0

    def next(self, ms: float) -> bytes:
        """The next sentence, as measured at `ms`."""
        turn = self._count % SENTENCES_PER_S
        self._count += 1
        if turn == SENTENCES_PER_S - 1:
            temperature = 11.0 + 2.5 * self._temperature.at(ms)
            pressure = 1.0133 + 0.004 * self._pressure.at(ms)
            return sentence(f"WIXDR,C,{temperature:.2f},C,AIRTEMP,P,{pressure:.5f},B,AIRPRES")
        speed, direction = self._wind.at(ms)
        reference = "R" if turn % 2 else "T"
        return sentence(f"WIMWV,{round(direction % 360.0, 1) % 360.0:05.1f},{reference},{max(0.0, speed):.2f},M,A")


def run(link: str, *, seed: int, console: Console, clock: Clock | None = None) -> None:
    """Speak until told to stop."""
    clock = clock or SystemClock()
    signal, line = MastSignal(seed), SerialLine(link)
    console.say("ready", {"path": line.path, "link": line.link})
    silent, said, unheard = False, 0, 0
    step_ms = 1000.0 / SENTENCES_PER_S
    next_ms = report_ms = clock.monotonic_ms()
    try:
        while True:
            now_ms = clock.monotonic_ms()
            if now_ms >= next_ms:
                next_ms = max(next_ms + step_ms, now_ms - 1000.0)  # after a stall catch up at most a second
                if not silent:
                    said += 1
                    unheard += not line.write(signal.next(now_ms))
            if now_ms >= report_ms:
                report_ms = now_ms + REPORT_EVERY_MS
                console.say("counters", {"said": said, "unheard": unheard})
            if select.select(console.inputs, [], [], max(0.0, next_ms - clock.monotonic_ms()) / 1000.0)[0]:
                for command in console.commands():
                    if command[0] == "stop":
                        return
                    if command[0] == "silence":
                        silent = command[1:] == ["on"]
    finally:
        line.close()
        console.say("stopped", {"said": said, "unheard": unheard})


def main(arguments: list[str]) -> int:
    """The command line; see the module's docstring."""
    parser = make_parser(
        "headwater simulate mast",
        "A met mast on a serial line (a pseudo-terminal): five NMEA 0183 sentences a second. Ctrl-C ends it.",
        [
            "headwater simulate mast --link /tmp/mast",
            "headwater simulate mast --link /tmp/mast --seed 7",
            "",
            "The gateway reads it with, in its file:",
            "  [[serial]]",
            '  port = "/tmp/mast"',
            '  profile = "met-mast"',
        ],
    )
    parser.add_argument("--link", required=True, metavar="PATH", help="the symbolic link that names the serial line")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of the simulated weather")
    options = parser.parse_args(arguments)
    run(options.link, seed=options.seed, console=Console())
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
