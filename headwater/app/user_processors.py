"""Users' own processors: a process for each, started, watched, paused and started again. The others go on meanwhile.

The process is a whole driver (`headwater.app.processor_child`), so that a kill loses and repeats nothing. What kills
it is found by the records that were at work: tried again alone, then a dead letter. A processor that fails over
many readings in a row stops by itself before the next one; it is tried again now and then, and when its file changes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

import msgspec

from headwater.app.frames import encode_frame
from headwater.app.prints import PRINTS_S, pass_prints
from headwater.app.processor_child import BROKEN, FAILED, PAUSED, Hello
from headwater.app.processor_watch import At, new_trace, read_place, read_trace
from headwater.app.supervisor import Backoff
from headwater.clock import Clock
from headwater.errors import UNREADABLE
from processors.group.settings import GroupSettings
from processors.settings import ProcessorSettings
from processors.user.job import Suspects
from processors.user.rule import ProcessorRule
from processors.user.settings import UserLimits

log = logging.getLogger("headwater.processors")

LOOK_S = 0.5
"""How often a paused processor's file is looked at."""
STOP_S = 10.0
KILLERS_MAX = 1000
_LINE_BYTES_MAX = 1 << 20


class UserProcessor:
    """One processor. `hello` says all but what is learnt here: the suspects."""

    def __init__(self, hello: Hello, *, clock: Clock) -> None:
        self.name = hello.rule.name
        self._hello = hello
        self._clock = clock
        self._limits: UserLimits = hello.limits
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = False
        self._state = "starting"
        self._problem = ""
        self._report: dict[str, Any] = {}
        self._counts = {"restarts": 0, "killed": 0, "pauses": 0}
        self._tries: dict[At, int] = {}
        self._killers: dict[int, dict[int, str]] = {}
        self._careful: dict[int, tuple[int, int]] = {}
        self._wait_ms = float(self._limits.pause_min_ms)

    def status(self) -> dict[str, Any]:
        """What `headwater status` shows of it."""
        keys = ("readings", "outputs", "failed", "refused", "devices", "state_bytes", "lag_records", "error")
        told = {key: self._report.get(key) for key in keys}
        return {"state": self._state, "problem": self._problem or None, **told, **self._counts}

    def problem(self) -> str:
        """A sentence while it is paused or cannot run; "" while it is well."""
        return self._problem

    async def run(self) -> None:
        """Until `stop`."""
        backoff = Backoff()
        while not self._stopping:
            began_ms = self._clock.monotonic_ms()
            try:
                end, reason = await self._live()
            finally:
                await self._kill()
            await self._rest(end, reason, backoff, began_ms)
        self._state = "stopped"

    async def _rest(self, end: str, reason: str, backoff: Backoff, began_ms: float) -> None:
        """Before the next start."""
        if self._stopping:
            return
        if end in (PAUSED, BROKEN):
            await self._pause(reason)
            return
        if reason:
            self._tell(reason)
        self._counts["restarts"] += 1
        wait_ms = backoff.after(self._clock.monotonic_ms() - began_ms, hopeless=end == FAILED)
        self._state = "waiting"
        await asyncio.sleep(wait_ms / 1000)

    def _tell(self, reason: str) -> None:
        problem = f"processor {self.name}: {reason}"
        if problem != self._problem:
            log.error("%s", problem)
        self._problem = problem

    # --- one life

    async def _live(self) -> tuple[str, str]:
        """How it ended and why: what the process said last, or what is found where it was killed."""
        trace = new_trace()
        try:
            process = self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "headwater.app.processor_child"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                pass_fds=(trace,),
                start_new_session=True,  # a group of its own: what it starts ends with it
                limit=_LINE_BYTES_MAX,
            )
            assert process.stdin is not None  # noqa: S101 - it was asked for
            suspects = Suspects(dict(self._killers), dict(self._careful))
            hello = msgspec.structs.replace(self._hello, parent=os.getpid(), trace=trace, suspects=suspects)
            with contextlib.suppress(ConnectionError):
                process.stdin.write(encode_frame(hello))
                await process.stdin.drain()
            self._hello = msgspec.structs.replace(self._hello, rebuild=False)
            prints = asyncio.create_task(pass_prints(process, self._say))
            end, reason = await self._listen(process)
            await asyncio.wait([prints], timeout=PRINTS_S)
            prints.cancel()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), STOP_S)
            if not end and not self._stopping:
                reason = self._killed(process.returncode, trace)
            return end, reason
        finally:
            os.close(trace)

    async def _listen(self, process: asyncio.subprocess.Process) -> tuple[str, str]:
        assert process.stdout is not None  # noqa: S101 - it was asked for
        while line := await process.stdout.readline():
            try:
                told = msgspec.json.decode(line, type=dict[str, Any])
            except UNREADABLE:
                continue
            if "end" in told:
                return told["end"], told["reason"]
            if "log" in told:
                level, text = told["log"]
                log.log(level, "processor %s: %s", self.name, text)
            elif "status" in told:
                self._heard(told["status"])
        return "", ""

    def _heard(self, report: dict[str, Any]) -> None:
        came_on = report.get("positions") != self._report.get("positions")
        self._report = report
        if report.get("state") == "up":
            self._state = "running"
            if self._problem and (came_on or not report.get("lag_records")):
                log.info("processor %s is at work again", self.name)
                self._problem, self._wait_ms = "", float(self._limits.pause_min_ms)

    def _killed(self, code: int | None, trace: int) -> str:
        """What is to be done next time about the records that were at work; why it ended."""
        at, place = read_place(trace), read_trace(trace, self._hello.rule.file)
        seconds = self._limits.time_max_ms / 1000
        code = code or 0
        how = f"ended by signal {-code}" if code < 0 else f"ended itself with status {code}"
        why = f"{place}still at it after {seconds:g} s, so it was killed" if place else f"its process {how}"
        if at.partition < 0:
            return why
        self._counts["killed"] += 1
        if at.last > at.first:
            self._careful[at.partition] = (at.first, at.last)
            return why
        if len(self._tries) >= KILLERS_MAX:
            self._tries.clear()
        tries = self._tries[at] = self._tries.get(at, 0) + 1
        what = f"the reading at offset {at.first}" if at.first >= 0 else "a timer or mark"
        log.warning("processor %s: %s of partition %d killed it: %s", self.name, what, at.partition, why)
        if tries >= self._limits.tries:
            self._killers.setdefault(at.partition, {})[at.first] = why
        return ""

    async def _pause(self, reason: str) -> None:
        """Until it is time for another try, or its file is another one."""
        wait_ms = self._wait_ms
        self._wait_ms = min(wait_ms * 2, float(self._limits.pause_max_ms))
        self._state = "paused"
        self._counts["pauses"] += 1
        self._tell(f"paused, its readings wait: {reason}; mend {self._hello.rule.file} and it goes on")
        until_ms, mended = self._clock.monotonic_ms() + wait_ms, self._stamp()
        while not self._stopping and self._clock.monotonic_ms() < until_ms:
            await asyncio.sleep(min(LOOK_S, wait_ms / 1000))
            if self._stamp() != mended:
                self._killers, self._careful, self._tries = {}, {}, {}
                break

    def _stamp(self) -> tuple[int, int]:
        try:
            told = os.stat(self._hello.rule.file)
        except OSError:
            return 0, 0
        return told.st_mtime_ns, told.st_size

    # --- its end

    def stop(self) -> None:
        """End it cleanly: what it has said is committed, what it remembers is kept. From its own loop."""
        self._stopping = True
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()

    async def _kill(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.returncode is None:  # else its number may be another's by now
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), PRINTS_S)
        process._transport.close()  # type: ignore[attr-defined]  # pipes that others hold open: nothing else closes them

    def _say(self, line: str) -> None:
        log.info("processor %s says: %s", self.name, line)


def inline_processors(
    rules: Sequence[ProcessorRule], settings: ProcessorSettings, kafka: tuple[str, int], data_dir: str, clock: Clock
) -> UserProcessors | None:
    """Those of the node whose Kafka listener is at `kafka`; None when it has none."""
    return _processors(rules, settings.user, clock, inline=settings, kafka=kafka, data_dir=data_dir)


def group_processors(
    rules: Sequence[ProcessorRule], settings: GroupSettings, instance: str, clock: Clock, *, rebuild: bool
) -> UserProcessors | None:
    """Those of one member of a group; each is a group of its own, `<name>.<processor>`. None when there is none."""
    return _processors(rules, settings.user, clock, group=settings, instance=instance, rebuild=rebuild)


def _processors(rules: Sequence[ProcessorRule], limits: UserLimits, clock: Clock, **more: Any) -> UserProcessors | None:
    hellos = [Hello(rule=rule, limits=limits, parent=0, trace=-1, suspects=Suspects(), **more) for rule in rules]
    made = [UserProcessor(hello, clock=clock) for hello in hellos]
    return UserProcessors(made) if made else None


class UserProcessors:
    """All users' processors of a node or a group's member. `run` in a loop of its own; the rest from any thread."""

    def __init__(self, processors: Sequence[UserProcessor]) -> None:
        self._processors = processors
        self._stopping = False

    def stop(self) -> None:
        """End `run`."""
        self._stopping = True

    def status(self) -> dict[str, Any]:
        return {one.name: one.status() for one in self._processors}

    def problems(self) -> list[str]:
        return [problem for one in self._processors if (problem := one.problem())]

    async def run(self) -> None:
        """Until `stop`; a defect of one ends all, and whoever runs this begins again."""
        tasks = [asyncio.ensure_future(one.run()) for one in self._processors]
        try:
            while not self._stopping:
                done, _ = await asyncio.wait(tasks, timeout=0.25)
                for task in done:
                    task.result()
            for one in self._processors:
                one.stop()
            await asyncio.wait(tasks, timeout=STOP_S)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
