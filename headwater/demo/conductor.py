"""Plays one run: the plot, the keys, the figures, and at the end the verdict."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path
from typing import Any

import msgspec

from gateway.consume.reader import Reader
from headwater.clock import Clock
from headwater.demo.cast import Cast
from headwater.demo.display import Plain
from headwater.demo.figures import Figures
from headwater.demo.layout import EDGE
from headwater.demo.story import DRAIN_BEGINS_S_MAX, Action, Plot
from headwater.errors import PeerError
from headwater.net import RealNet

TICK_S = 0.25
VERDICT_WAIT_S = 60.0
QUICK_WAIT_S = 20.0
ALERTS_MAX = 50


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line said; `seconds` None: until Ctrl-C; `versus` a broker to compare with instead."""

    seconds: float | None = None
    report: Path | None = None
    seed: int = 1
    versus: str | None = None


class Conductor:
    """One run of the demo."""

    def __init__(self, options: Options, cast: Cast, display: Plain, clock: Clock, figures: Figures) -> None:
        self._options, self._cast, self._display, self._clock = options, cast, display, clock
        self._figures = figures
        self._plot = Plot(options.seconds)
        self._enough = asyncio.Event()
        self._started_ms = 0.0
        self._outages = 0
        self._swallowed = 0
        self._kills = 0
        self._suppressed_before = self._suppressed = 0
        self._late_drain_s: float | None = None
        self._restored_ms: float | None = None
        self._restored_at = 0
        self._killing: asyncio.Task[None] | None = None
        self._cutting = False

    # what the simulators say

    def heard(self, event: dict[str, Any]) -> None:
        """An event of a simulator."""
        match event.get("from"), event.get("event"):
            case "farm", ("counters" | "drained" | "stopped"):
                self._figures.take_farm(event)
            case "proxy", "hole":
                moment = " right after a Produce request" if event.get("after_produce") else ""
                self._swallowed = int(event.get("connections", 0))
                self._tell(f"the uplink is a black hole for {event.get('seconds', 0):.0f} s{moment}")
            case "proxy", "restored":
                self._cutting = False
                self._tell("the uplink is back; what saw the hole stays silent")
                self._outages += self._swallowed > 0
                self._restored_ms = self._clock.monotonic_ms()
                self._restored_at = self._figures.replicated

    def _tell(self, text: str) -> None:
        self._display.happened(self._figures, text)

    # what happens

    async def play(self) -> None:
        """From the first reading until the time is up, Ctrl-C, or a process that has died."""
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine runs in a task

        def interrupted() -> None:
            if self._enough.is_set():
                task.cancel()  # the second time: at once
            self._enough.set()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, interrupted)
        self._started_ms = self._clock.monotonic_ms()
        alerts = asyncio.create_task(self._follow_alerts())
        try:
            while not self._enough.is_set():
                await self._tick()
                if self._options.seconds is not None and self._figures.seconds >= self._options.seconds:
                    break
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._enough.wait(), TICK_S)
            self._enough.set()
            if self._killing is not None:
                await self._killing
        finally:
            alerts.cancel()
            await asyncio.gather(alerts, return_exceptions=True)

    async def _tick(self) -> None:
        self._figures.seconds = (self._clock.monotonic_ms() - self._started_ms) / 1000.0
        for action in self._plot.due(self._figures.seconds):
            self.do(action)
        await self._look()
        self._cast.check(edge=self._killing is None)
        if self._killing is not None and self._killing.done():
            await self._killing  # a new start that failed ends the demo
            self._killing = None
        self._display.show(self._figures)

    async def _look(self) -> None:
        edge, central = await asyncio.gather(self._cast.edge_status(), self._cast.central_status())
        self._figures.take_edge(edge)
        self._figures.take_central(central)
        if edge is not None:
            self._suppressed = int((edge.get("ingest") or {}).get("repeats") or 0)
        if self._restored_ms is not None and self._figures.replicated > self._restored_at:
            took_s = (self._clock.monotonic_ms() - self._restored_ms) / 1000.0
            self._restored_ms = None
            self._tell(f"the drain began {took_s:.1f} s after the outage")
            if took_s > DRAIN_BEGINS_S_MAX:
                self._late_drain_s = took_s

    def do(self, action: Action) -> None:
        """One beat of the plot."""
        match action:
            case "overheat on":
                self._cast.overheat("on")
                self._tell("a gearbox begins to overheat")
            case "overheat off":
                self._cast.overheat("off")
                self._tell("the gearbox recovers")
            case "cut" if self._cutting:
                self._tell("the uplink is cut already")
            case "cut":
                self._cutting = True
                self._cast.cut()
            case "kill" if self._killing is not None:
                self._tell("the edge is being started again already")
            case "kill":
                self._killing = asyncio.create_task(self._kill())

    async def _kill(self) -> None:
        self._tell("the edge gets SIGKILL")
        self._suppressed_before += self._suppressed
        self._suppressed = 0
        since_ms = self._clock.monotonic_ms()
        await self._cast.kill_edge()
        self._kills += 1
        self._tell(f"the edge is back after {(self._clock.monotonic_ms() - since_ms) / 1000.0:.1f} s")

    def key(self, handle: int) -> None:
        """A key was pressed; at the end, when the drain is waited for, it means nothing any more."""
        for letter in os.read(handle, 16).decode(errors="replace").lower() * (not self._figures.ending):
            if letter == "c":
                self.do("cut")
            elif letter == "k":
                self.do("kill")
            elif letter == "g":
                self._cast.garbage()
                self._tell("garbage")

    # alerts as they come

    async def _follow_alerts(self) -> None:
        while True:
            # The central is read directly, not through the proxy; while it starts its topics it may refuse.
            with contextlib.suppress(OSError, TimeoutError, PeerError):
                await self._read_alerts()
            await asyncio.sleep(1.0)

    async def _read_alerts(self) -> None:
        port = self._cast.layout.ports.central_kafka
        reader = await Reader.connect(RealNet(), "127.0.0.1", port, client_id="headwater-demo")
        try:
            partitions = await reader.partitions("alerts")
            if not partitions:
                return
            reader.assign({("alerts", partition): 0 for partition in range(partitions)})
            while True:
                for block in await reader.poll(max_wait_ms=500):
                    for value in block.values:
                        self._take_alert(value)
        finally:
            await reader.close()

    def _take_alert(self, value: bytes | None) -> None:
        alert = msgspec.json.decode(value or b"{}")
        name, state = str(alert.get("instance", "?")).removeprefix(f"{EDGE}/"), str(alert.get("state", "?"))
        if self._figures.alerts.get(name) != state:
            self._figures.alerts.pop(name, None)
            self._figures.alerts[name] = state
            while len(self._figures.alerts) > ALERTS_MAX:
                self._figures.alerts.pop(next(iter(self._figures.alerts)))
            if state in ("firing", "resolved"):
                self._tell(f"alert {alert.get('rule')} on {name}: {state}")

    # the end

    async def _hear_verdict(self, *, full: bool) -> dict[str, Any]:
        seconds = round(self._figures.seconds)
        self._figures.ending = True
        self._tell("the farm stops; waiting for the drain" + " and the last windows" * full)
        if self._cast.proxy is not None:
            self._cast.proxy.say("restore")
        showing = asyncio.create_task(self._keep_showing())
        try:
            await self._cast.stop_farm()
            await self._look()
            facts = {
                "suppressed": self._suppressed_before + self._suppressed,
                "uplink_outages": self._outages,
                "edge_kills": self._kills,
                "seconds": seconds,
                "outages_planned": 1,
                "kills_planned": 1,
                "alerts_planned": 1,
            }
            return await self._cast.verdict(
                facts, wait_s=VERDICT_WAIT_S if full else QUICK_WAIT_S, readings_only=not full
            )
        finally:
            showing.cancel()
            await asyncio.gather(showing, return_exceptions=True)

    async def _keep_showing(self) -> None:
        """The drain, as it goes."""
        while True:
            self._figures.seconds = (self._clock.monotonic_ms() - self._started_ms) / 1000.0
            await self._look()
            self._display.show(self._figures)
            await asyncio.sleep(TICK_S)

    async def judge(self) -> int:
        """Stop the farm, hear the verdict, write the report, say the sentence; the exit status."""
        full = self._options.report is not None
        verdict = await self._hear_verdict(full=full)
        self._display.close()
        report, failures = verdict["report"], list(verdict["failures"])
        if self._late_drain_s is not None:
            limit = f"more than {DRAIN_BEGINS_S_MAX:.0f} s"
            failures.append(f"the drain began {self._late_drain_s:.1f} s after the outage, {limit}")
        if self._options.report is not None:
            self._options.report.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
            for failure in (*failures, *verdict["examples"]):
                self._display.line(f"  {failure}")
        for name in verdict["silent"] if not full else ():
            self._display.line(f"  the {name} did not answer the judge")
        self._display.line(
            f"{report['acknowledged']:,} readings were acknowledged: {report['missing']:,} lost,"
            f" {report['duplicates']:,} twice."
        )
        broken = failures if full else report["missing"] or report["duplicates"] or verdict["silent"]
        return 1 if broken else 0
