"""The work process of a node: processors, sinks and page, apart from the core so that they can never delay a PUBACK.

The core starts it (`headwater.app.supervisor`) and it ends with the core: when its stdin closes, and by the kernel's
own hand when it is too busy to notice. It reads the log as any Kafka client does, and the core's status over the
control socket. Once a second it writes a line about itself to stdout, an empty one when nothing changed: a work process
whose loop stands still says nothing, and the core starts another.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import gc
import importlib.util
import logging
import os
import signal
import stat
import sys
import threading
from typing import Any

import msgspec

from headwater.app.control import fetch_status
from headwater.app.logs import set_up_logging
from headwater.app.nodes import NodeWatch
from headwater.app.rule_problems import rule_problems
from headwater.clock import SystemClock
from headwater.disk import RealDisk
from headwater.errors import HeadwaterError, UserError
from headwater.net import RealNet, parse_address
from headwater.settings.load import load_settings
from headwater.settings.model import Settings

log = logging.getLogger("headwater.work")  # by name: this module runs as __main__

STATUS_EVERY_S = 1.0
PAGE_RETRY_S = 5.0
PAGE_UP_S = 0.5  # a page that cannot listen says so at once
ALERTS_MAX = 100
STOP_S = 4.0
_PR_SET_PDEATHSIG = 1


class Work:
    """Processors and a sink, each in a thread with a loop of its own; the page in this one."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._status: dict[str, Any] | None = None
        self._problems: dict[str, str] = {}
        self._processors: Any = None
        self._sink: Any = None
        self._decoders: Any = None
        self._history: Any = None
        self._users: Any = None
        self._nodes: NodeWatch | None = None
        self._page_up = False
        self._failed = False
        self.stopping = asyncio.Event()

    async def run(self) -> int:
        """Until told to stop; returns the exit status."""
        poll = asyncio.create_task(self._poll_status())
        kafka = await self._kafka_address()
        threads = self._start_threads(kafka) if kafka else []
        tasks = [poll, asyncio.create_task(self._report())]
        if kafka:
            self._nodes = NodeWatch(net=RealNet(), clock=SystemClock(), kafka=kafka)
            tasks.append(asyncio.create_task(self._nodes.run()))
        if self._settings.page is not None and kafka:
            tasks.append(asyncio.create_task(self._page(kafka)))
        await self.stopping.wait()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for part in (self._processors, self._users, self._sink, self._decoders, self._history):
            if part is not None:
                part.stop()
        for thread in threads:
            await asyncio.to_thread(thread.join, STOP_S / len(threads))
        return 1 if self._failed else 0

    # --- the core's status

    async def _poll_status(self) -> None:
        while True:
            self._status = await fetch_status(self._settings.data_dir)
            await asyncio.sleep(STATUS_EVERY_S)

    async def _kafka_address(self) -> tuple[str, int] | None:
        """Where the core listens: it may have been given a free port. None when told to stop first."""
        while not self.stopping.is_set():
            status = await fetch_status(self._settings.data_dir)
            if status is not None:
                self._status = status
                host, port = parse_address(status["addresses"]["kafka"])
                return ("127.0.0.1" if host == "0.0.0.0" else "::1" if host == "::" else host), port
            await asyncio.sleep(STATUS_EVERY_S / 4)
        return None

    # --- processors and sinks

    def _start_threads(self, kafka: tuple[str, int]) -> list[threading.Thread]:
        if self._settings.rules:
            self._make_processors(kafka)
        if self._settings.influx is not None:
            self._sink = self._make_sink(kafka)
        self._decoders = self._make_decoders(kafka)
        self._history = self._make_history(kafka)
        loop = asyncio.get_running_loop()
        threads = [
            threading.Thread(target=self._run_part, args=(part, name, loop), name=name, daemon=True)
            for part, name in (
                (self._processors, "processors"),
                (self._users, "users' processors"),
                (self._sink, "sink"),
                (self._decoders, "decoders"),
                (self._history, "history"),
            )
            if part is not None
        ]
        for thread in threads:
            thread.start()
        return threads

    def _make_processors(self, kafka: tuple[str, int]) -> None:
        try:
            from headwater.app.user_processors import inline_processors
            from processors.inline import make_processors
            from processors.rules.files import load_rules
        except ModuleNotFoundError as error:
            self._missing("processors", "the processors need", error.name)
            return
        settings, data_dir, clock = self._settings.processors, self._settings.data_dir, SystemClock()
        rules = load_rules(self._settings.rules)
        if rules.windows:
            self._processors = make_processors(settings, rules, *kafka, RealNet(), clock, data_dir, RealDisk())
        self._users = inline_processors(rules.processors, settings, kafka, data_dir, clock)

    def _make_history(self, kafka: tuple[str, int]) -> Any:
        page = self._settings.page
        if page is None or not page.history_bytes_max:
            return None
        from processors.history.feed import make_history

        host, port = kafka
        path = os.path.join(self._settings.data_dir, "work", "history.db")
        return make_history(
            path, bytes_max=page.history_bytes_max, host=host, port=port, net=RealNet(), clock=SystemClock()
        )

    def _make_decoders(self, kafka: tuple[str, int]) -> Any:
        from headwater.app.decoders import configured_decoders

        return configured_decoders(self._settings, *kafka, RealNet(), SystemClock(), RealDisk())

    def _make_sink(self, kafka: tuple[str, int]) -> Any:
        if importlib.util.find_spec("influxdb_client") is None:  # imported in the sink's thread: it takes a second
            self._missing("sink", "the sink to InfluxDB needs", "influxdb-client", extra="influx")
            return None
        from processors.sinks.influx import make_influx_sink

        assert self._settings.influx is not None  # noqa: S101 - checked by the caller
        host, port = kafka
        return make_influx_sink(
            self._settings.influx,
            node=self._settings.node,
            host=host,
            port=port,
            net=RealNet(),
            clock=SystemClock(),
            data_dir=self._settings.data_dir,
            disk=RealDisk(),
        )

    def _run_part(self, part: Any, name: str, loop: asyncio.AbstractEventLoop) -> None:
        try:
            asyncio.run(part.run())
        except Exception:  # a defect: logged whole, and this process begins again clean
            log.exception("the %s failed", name)
            self._failed = True
            loop.call_soon_threadsafe(self.stopping.set)

    # --- the page

    async def _page(self, kafka: tuple[str, int]) -> None:
        try:
            from headwater.dashboard.page import run_page
        except ModuleNotFoundError as error:
            self._missing("page", "the page needs", error.name)
            return
        assert self._settings.page is not None  # noqa: S101 - checked by the caller
        while True:
            serving = asyncio.ensure_future(
                run_page(
                    self._settings.page,
                    data_dir=self._settings.data_dir,
                    kafka=kafka,
                    status=lambda: self._status,
                    net=RealNet(),
                    clock=SystemClock(),
                    history=self._history,
                )
            )
            try:
                await asyncio.wait({serving}, timeout=PAGE_UP_S)
                if not serving.done():
                    self._page_up = True
                    self._problems.pop("page", None)
                await serving
            except UserError as error:
                self._say("page", f"{error.what}. {error.hint}".rstrip())
            except Exception:  # a defect of the page: told whole, and the page begins again
                log.exception("the page failed and begins again")
                self._say("page", "the page failed; the node's log has the details")
            finally:
                self._page_up = False
                serving.cancel()
            await asyncio.sleep(PAGE_RETRY_S)

    # --- about itself

    def _missing(self, part: str, needs: str, package: str | None, *, extra: str = "work") -> None:
        self._say(part, f"{needs} the package {package}: pip install 'headwater[{extra}]'")

    def _say(self, part: str, problem: str) -> None:
        if self._problems.get(part) != problem:
            log.error("%s", problem)
        self._problems[part] = problem

    async def _report(self) -> None:
        said = b""
        while True:
            line = msgspec.json.encode(self._about())
            sys.stdout.buffer.write((line if line != said else b"") + b"\n")
            sys.stdout.buffer.flush()
            said = line
            await asyncio.sleep(STATUS_EVERY_S)

    def _about(self) -> dict[str, Any]:
        alerts = self._processors.status().get("alerts", ()) if self._processors is not None else ()
        slow = self._sink.problem() if self._sink is not None else ""
        return {
            "problems": [
                *self._problems.values(),
                *([slow] if slow else []),
                *(self._decoders.problems() if self._decoders is not None else ()),
                *self._rule_problems(),
                *([f"history: {self._history.problem()}"] if self._history and self._history.problem() else ()),
                *(self._users.problems() if self._users is not None else ()),
            ],
            "decoders": self._decoders.status() if self._decoders is not None else {},
            "page": self._page_up,
            "processors": self._processing(),
            "user_processors": self._users.status() if self._users is not None else {},
            "history": self._history.status() if self._history is not None else None,
            "sinks": {"influx": self._sink.status()} if self._sink is not None else {},
            "alerts": [alert for alert in alerts if alert["state"] not in ("inactive", "resolved")][:ALERTS_MAX],
            "nodes": self._nodes.rows() if self._nodes is not None else [],
        }

    def _rule_problems(self) -> list[str]:
        status = self._processors.status() if self._processors is not None else {}
        return rule_problems(status, self._settings.processors.state_bytes_max)

    def _processing(self) -> dict[str, Any] | None:
        if self._processors is None:
            return None
        return {key: value for key, value in self._processors.status().items() if key != "alerts"}


def die_with_parent() -> None:
    """Ask the kernel for SIGKILL when the core is gone: it may die without closing anything."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _watch_parent(stopping: asyncio.Event) -> None:
    """Stop when stdin, the core's pipe, closes; a terminal or /dev/null there says nothing."""
    mode = os.fstat(0).st_mode
    if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
        return
    loop = asyncio.get_running_loop()

    def readable() -> None:
        if not os.read(0, 4096):
            loop.remove_reader(0)
            stopping.set()

    loop.add_reader(0, readable)


async def _run(settings: Settings) -> int:
    work = Work(settings)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, work.stopping.set)
    _watch_parent(work.stopping)
    return await work.run()


def main() -> int:
    """The command line that the supervisor writes."""
    parser = argparse.ArgumentParser(prog="python -m headwater.app.work")
    parser.add_argument("--config", required=True)
    parser.add_argument("--log-level", default="info")
    parser.add_argument("--log-format", choices=("text", "json"), default="text")
    parser.add_argument("--parent", type=int, default=0)
    options = parser.parse_args()
    if options.parent:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to both; the core decides
        die_with_parent()
        if os.getppid() != options.parent:
            return 0  # it was gone before the kernel was asked
    try:
        settings = load_settings(options.config).settings
        set_up_logging(settings.node, level=options.log_level, form=options.log_format)
        gc.set_threshold(50_000, 20, 50)  # blocks of records are freed by reference counting
        return asyncio.run(_run(settings))
    except HeadwaterError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2


if __name__ == "__main__":
    sys.exit(main())
