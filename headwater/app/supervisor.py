"""Runs the work process beside the core and starts it again when it ends; the core never waits for it.

The work process holds processors, users' code and the page: it may hang, burn CPU, run out of memory or crash, and no
PUBACK is later for it. It ends with the core: its stdin is a pipe that closes, and it asks the kernel for the rest
(`headwater.app.work`). What it says of itself it writes to its stdout, one JSON object a line, the newest counts; an
empty line says "nothing new". It writes one every second: a process that has begun to and falls silent hangs, and is
killed and started again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from headwater.clock import Clock

log = logging.getLogger(__name__)

STEADY_MS = 30_000
"""A process that lived this long starts again at once; a shorter life doubles the wait."""
STOP_S = 6.0
REPORT_BYTES_MAX = 1 << 20
SILENCE_MS = 30_000.0
"""A work process that says nothing for so long hangs."""
LOOK_EVERY_MS = 1_000.0
USER_ERROR = 2
"""The exit status of a mistake that waiting may mend (a taken port) and trying ten times a second will not."""


class Backoff:
    """How long to wait before the next start, from how long the last one lived."""

    def __init__(self, *, first_ms: float = 200, most_ms: float = 10_000) -> None:
        self._first_ms = first_ms
        self._most_ms = most_ms
        self._next_ms = first_ms

    def after(self, lived_ms: float, *, hopeless: bool = False) -> float:
        """Milliseconds to wait; `hopeless` for an end that a quick restart would only repeat."""
        if lived_ms >= STEADY_MS:
            self._next_ms = self._first_ms
        wait_ms = max(self._next_ms, 2_000 if hopeless else 0)
        self._next_ms = min(wait_ms * 2, self._most_ms)
        return wait_ms


class Silence:
    """How long a process has said nothing, by looks at a steady pace; sans-IO.

    It counts from the first line: a start on a slow card takes as long as it takes. A look that comes late counts as
    two at most: the machine slept, or this process was stopped or busy, and the other could not be heard.
    """

    def __init__(self, limit_ms: float, every_ms: float) -> None:
        self._limit_ms = limit_ms
        self._most_ms = 2 * every_ms
        self._silent_ms: float | None = None
        self._looked_ms = 0.0

    @property
    def silent_ms(self) -> float:
        """How long it has said nothing, by the latest look."""
        return self._silent_ms or 0.0

    def heard(self) -> None:
        """It said something."""
        self._silent_ms = 0.0

    def too_long(self, now_ms: float) -> bool:
        """One look, at `now_ms` of the monotonic clock."""
        passed_ms = min(now_ms - self._looked_ms, self._most_ms)
        self._looked_ms = now_ms
        if self._silent_ms is None:
            return False
        self._silent_ms += passed_ms
        return self._silent_ms > self._limit_ms


class Supervisor:
    """Keeps one child process running until stopped."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        clock: Clock,
        event: Callable[..., Any] | None = None,
        silence_ms: float = SILENCE_MS,
    ) -> None:
        self._command = list(command)
        self._clock = clock
        self._event = event
        self._silence_ms = silence_ms
        self._hung = False
        self._silence: Silence | None = None  # while a process runs
        self._process: asyncio.subprocess.Process | None = None
        self.state = "starting"
        self.restarts = 0
        self.last_end: str | None = None
        self.report: dict[str, Any] = {}

    @property
    def pid(self) -> int | None:
        """The child's process id while it runs."""
        return self._process.pid if self._process and self._process.returncode is None else None

    def status(self) -> dict[str, Any]:
        """`state`: starting, running, waiting (for the next start), stopped; `report`: the child's own newest line.

        `silent_ms`: how long it has said nothing, so how old the report is; it says something every second.
        """
        own = {"state": self.state, "restarts": self.restarts, "pid": self.pid, "last_end": self.last_end}
        own["silent_ms"] = 0 if self._silence is None else round(self._silence.silent_ms)
        return own | {"report": self.report}

    async def run(self) -> None:
        """Start, watch, start again; cancel to stop, which ends the child cleanly, then by force."""
        backoff = Backoff()
        try:
            while True:
                started_ms = self._clock.monotonic_ms()
                code = await self._live()
                wait_ms = backoff.after(self._clock.monotonic_ms() - started_ms, hopeless=code == USER_ERROR)
                self.state = "waiting"
                self.last_end = self._ending(code)
                log.warning("the work process %s; it starts again in %.1f s", self.last_end, wait_ms / 1000)
                if self._event is not None:
                    self._event("work stopped", cause=self.last_end)
                await asyncio.sleep(wait_ms / 1000)
                self.restarts += 1
        finally:
            self.state = "stopped"
            await asyncio.shield(self._end())

    async def _live(self) -> int:
        self.report = {}
        self._hung = False
        try:
            self._process = await self._start()
        except OSError as error:  # no memory, no more processes: the core goes on and tries again
            log.error("the work process cannot be started: %s", error)
            return 1
        self.state = "running"
        log.info("the work process runs (pid %d)", self._process.pid)
        every_ms = min(LOOK_EVERY_MS, self._silence_ms / 4)
        silence = self._silence = Silence(self._silence_ms, every_ms)
        watch = asyncio.create_task(self._watch(self._process, silence, every_ms))
        try:
            await self._read_reports(self._process, silence)
            return await self._process.wait()
        finally:
            watch.cancel()

    async def _watch(self, process: asyncio.subprocess.Process, silence: Silence, every_ms: float) -> None:
        """Kill a process that hangs: SIGTERM is for those that listen."""
        while not silence.too_long(self._clock.monotonic_ms()):  # noqa: ASYNC110 - it is the absence that counts
            await asyncio.sleep(every_ms / 1000)
        self._hung = True
        with contextlib.suppress(ProcessLookupError):
            process.kill()

    async def _start(self) -> asyncio.subprocess.Process:
        pipe = asyncio.subprocess.PIPE
        starting = asyncio.ensure_future(
            asyncio.create_subprocess_exec(*self._command, stdin=pipe, stdout=pipe, limit=REPORT_BYTES_MAX)
        )
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            # asyncio can hang, or lose the child, when a start is cancelled half-way: let it finish, then end the child
            with contextlib.suppress(OSError):
                self._process = await starting
            raise

    async def _read_reports(self, process: asyncio.subprocess.Process, silence: Silence) -> None:
        assert process.stdout is not None  # noqa: S101 - it was asked for
        while True:
            try:
                line = await process.stdout.readline()
            except ValueError:  # longer than any report: not ours, skipped
                silence.heard()
                continue
            if not line:
                return
            silence.heard()
            if line == b"\n":
                continue
            with contextlib.suppress(msgspec.DecodeError):  # somebody's print() in a processor
                self.report = msgspec.json.decode(line, type=dict[str, Any])

    def _ending(self, code: int) -> str:
        if self._hung:
            return f"hung (said nothing for {self._silence_ms / 1000:g} s) and was killed"
        return f"was ended by signal {-code}" if code < 0 else f"ended with status {code}"

    async def _end(self) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), STOP_S)
        except TimeoutError:
            log.warning("the work process did not end within %.0f s and was killed", STOP_S)
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def work_command(config: str, *, level: str, form: str) -> list[str]:
    """The command line of a node's work process."""
    options = ["--config", config, "--log-level", level, "--log-format", form, "--parent", str(os.getpid())]
    return [sys.executable, "-P", "-m", "headwater.app.work", *options]  # -P: no folder of the user's shadows ours
