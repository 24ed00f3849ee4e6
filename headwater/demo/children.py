"""Processes that the demo starts: each in a group of its own, with a log file, and none of them left behind.

A group of its own keeps the terminal's Ctrl-C from the children, and lets a node's work process be ended with its
core. Children that are simulators are steered by lines on their stdin and answer with JSON lines (see
`simulators.control`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

import msgspec

from headwater.errors import UserError

LINE_BYTES_MAX = 1 << 20
LOG_LINES_SHOWN = 8
_LAUNCH = str(Path(__file__).with_name("launch.py"))
_decode = msgspec.json.Decoder(dict[str, Any]).decode

OnEvent = Callable[[dict[str, Any]], None]


def _appended(path: Path) -> IO[bytes]:
    return path.open("ab")


class Child:
    """One process, from start to end; `returncode` is None while it runs."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name, self.log = name, log
        self._process = process
        self._reading: asyncio.Task[None] | None = None

    @classmethod
    async def start(cls, name: str, command: Sequence[str], directory: Path, on_event: OnEvent | None = None) -> Child:
        """Start `python ARGUMENT…`; its stderr (and stdout, when nobody listens for events) goes to `<name>.log`."""
        log = directory / f"{name}.log"
        with _appended(log) as file:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-I",
                "-S",
                _LAUNCH,
                str(os.getpid()),
                sys.executable,
                *command,
                stdin=asyncio.subprocess.PIPE if on_event else asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE if on_event else file,
                stderr=file,
                start_new_session=True,
                limit=LINE_BYTES_MAX,
            )
        child = cls(name, process, log)
        if on_event is not None:
            child._reading = asyncio.create_task(child._read(on_event))
        return child

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.returncode

    def say(self, line: str) -> None:
        """Give a simulator an order."""
        if self._process.stdin is not None and self.returncode is None:
            self._process.stdin.write(line.encode() + b"\n")

    async def _read(self, on_event: OnEvent) -> None:
        assert self._process.stdout is not None  # noqa: S101 - started with a pipe
        async for line in self._process.stdout:
            with contextlib.suppress(msgspec.DecodeError):
                on_event(_decode(line))

    def kill(self) -> None:
        """SIGKILL to the process and to everything in its group."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    async def ended(self) -> int:
        """Wait for its end, and for the last that it said."""
        code = await self._process.wait()
        if self._reading is not None:
            await self._reading
        return code

    async def stop(self, patience_s: float = 10.0) -> None:
        """Ask it to end (the end of its stdin, SIGTERM), then force it, and clear its group."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        elif self.returncode is None:
            self._process.terminate()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._process.wait(), patience_s)
        self.kill()
        await self.ended()

    def last_words(self) -> str:
        """The end of its log, for an error message."""
        lines = self.log.read_text(errors="replace").splitlines()[-LOG_LINES_SHOWN:]
        return "\n".join(f"  {line}" for line in lines) or "  (it wrote nothing)"

    def complaint(self) -> UserError:
        """What to say when it has ended and should not have."""
        ending = f"status {self.returncode}" if (self.returncode or 0) >= 0 else f"signal {-(self.returncode or 0)}"
        return UserError(f"the {self.name} ended with {ending}; the end of its log:", hint=self.last_words().lstrip())
