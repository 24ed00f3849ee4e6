"""One scenario in several processes: starts them, adds up what they count, passes commands on."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from simulators.control import Console

END_S_MAX = 40.0


def total(counters: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Sums; of `behind_ms` the largest, of `problem` the first."""
    found: dict[str, Any] = {}
    for each in counters:
        for name, value in each.items():
            if name == "behind_ms":
                found[name] = max(found.get(name, 0), value)
            elif name == "problem":
                found[name] = found.get(name) or value
            elif isinstance(value, list):
                found[name] = [*found.get(name, []), *value]
            elif name != "event":
                found[name] = found.get(name, 0) + value
    return found


class _Part:
    def __init__(self, arguments: list[str]) -> None:
        command = [sys.executable, "-m", "simulators.fleet", *arguments]
        # A Ctrl-C of the terminal is for the parent, who tells the parts.
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True, bufsize=0
        )
        assert self.process.stdout is not None  # noqa: S101 - a pipe was asked for
        self.fd = self.process.stdout.fileno()
        self.said: dict[str, dict[str, Any]] = {}
        self._rest = b""
        self.ended = False

    def hear(self) -> list[str]:
        """The events that have come in; `ended` afterwards when that was all."""
        data = os.read(self.fd, 65536)
        self.ended = not data
        *lines, self._rest = (self._rest + data).split(b"\n")
        events = []
        for line in lines:
            event = msgspec.json.decode(line)
            self.said[event["event"]] = event
            events.append(event["event"])
        return events

    def tell(self, words: list[str]) -> None:
        assert self.process.stdin is not None  # noqa: S101 - a pipe was asked for
        try:
            self.process.stdin.write(" ".join(words).encode() + b"\n")
        except BrokenPipeError:
            return


def play_parts(arguments: list[str], count: int, *, report_every_ms: float) -> int:
    """Run `count` processes of `headwater simulate fleet` and speak for them; their worst exit status."""
    console = Console()
    parts = [_Part([*arguments, "--part", f"{index}/{count}"]) for index in range(count)]

    def stop(*_: object) -> None:
        for part in parts:
            part.tell(["stop"])

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    try:
        _relay(parts, console, report_every_ms)
    finally:
        for part in parts:
            _end(part)
    console.say("stopped", total(part.said.get("stopped", {}) for part in parts))
    return max(abs(int(part.process.returncode)) for part in parts)


def _relay(parts: list[_Part], console: Console, report_every_ms: float) -> None:
    """Until every part has ended. `ready` and `drained` are said when all parts have said so."""
    report_s = time.monotonic()
    while alive := [part for part in parts if not part.ended]:
        by_fd = {part.fd: part for part in alive}
        for fd in select.select([*by_fd, *console.inputs], [], [], report_every_ms / 1000.0)[0]:
            if fd not in by_fd:
                for command in console.commands():
                    for part in parts:
                        part.tell(command)
                continue
            for event in by_fd[fd].hear():
                if event in ("ready", "drained") and all(event in part.said for part in parts):
                    console.say(event, total(part.said.pop(event) for part in parts))
        if time.monotonic() >= report_s and all("counters" in part.said for part in parts):
            report_s = time.monotonic() + report_every_ms / 1000.0
            console.say("counters", total(part.said["counters"] for part in parts))


def _end(part: _Part) -> None:
    """A part that does not end by itself is ended."""
    assert part.process.stdin is not None  # noqa: S101 - as above
    part.process.stdin.close()
    try:
        part.process.wait(END_S_MAX)
    except subprocess.TimeoutExpired:
        part.process.kill()
        part.process.wait()
    assert part.process.stdout is not None  # noqa: S101 - as above
    part.process.stdout.close()
