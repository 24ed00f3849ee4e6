"""The core process of a node: ingest, log, serve, replicate, in one event loop. The composition root.

`Core.open` builds the parts from the settings, in the order in which they need each other, and `Core.run` keeps them
going until told to stop. Nothing here imports what only the work process needs (numpy, Starlette): an edge without
those packages takes readings all the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
from collections.abc import Awaitable, Callable, Mapping
from random import SystemRandom
from typing import Any

from devices.profile_files import read_profiles
from devices.profiles import Profile
from gateway.ingest.devices import Devices
from gateway.ingest.events import Events
from gateway.ingest.interval_file import IntervalFile
from gateway.ingest.modbus.bus import ModbusBus
from gateway.ingest.modbus.plan import bus_plan
from gateway.ingest.mqtt.listener import serve_mqtt
from gateway.ingest.mqtt_client.driver import open_brokers
from gateway.ingest.pipeline import Ingest
from gateway.ingest.raw import RAW_TOPIC, with_decoder
from gateway.ingest.serial import port_profile, run_serial
from gateway.log.store import LogStore
from gateway.log.upkeep import Upkeep
from gateway.replicate.driver import Uplink, first_offsets
from gateway.replicate.journal import RunJournal
from gateway.serve import serve_kafka
from gateway.wire.broker import Broker
from headwater.app.command import CommandServer
from headwater.app.control import ControlServer
from headwater.app.core_parts import CoreParts
from headwater.app.outcomes import OutcomeServer
from headwater.app.registry import registered
from headwater.app.report import Reporter
from headwater.app.status import recovery_line
from headwater.app.supervisor import Supervisor, work_command
from headwater.app.topics import make_topics
from headwater.app.upkeep import run_upkeep, trusts
from headwater.clock import Clock, SystemClock
from headwater.disk import Disk, RealDisk
from headwater.errors import HeadwaterError, UserError
from headwater.memory import give_back_large_blocks
from headwater.net import Net, RealNet, parse_address
from headwater.settings.model import Settings
from headwater.version import version

log = logging.getLogger(__name__)

TICK_S = 0.1
RETRY_S = 5.0


class Core(CoreParts):
    """Opens the parts of one node's core process, keeps them going and closes them."""

    def __init__(self, settings: Settings, *, clock: Clock, disk: Disk, net: Net) -> None:
        super().__init__(settings, clock=clock, disk=disk, net=net)
        self.reporter = Reporter(self)
        self._control: ControlServer | None = None
        self._commands: CommandServer | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self, command: list[str]) -> None:
        """Build and connect every part; nothing is accepted before its log is recovered. Raises UserError."""
        settings, clock, disk = self.settings, self.clock, self.disk
        profiles = read_profiles(settings.profiles)
        ports = [(port, port_profile(port)) for port in settings.serial]
        plans = [bus_plan(bus) for bus in settings.modbus]
        decoders = with_decoder([*profiles, *(profile for _, profile in ports if profile is not None)])
        loop = asyncio.get_running_loop()
        store = self.store = LogStore.open(
            settings.data_dir,
            node=settings.node,
            settings=settings.log,
            disk=disk,
            clock=clock,
            call_in_loop=loop.call_soon_threadsafe,
            call_soon=loop.call_soon,
        )
        make_topics(store, settings)
        first = self._first_offsets(store)
        self.events = Events(store, node=settings.node, clock=clock)
        first_start = not store.topics["events"].partitions[0].log_end_offset
        if settings.mqtt is not None or settings.reads_elsewhere:
            self.ingest = self._make_ingest(store, profiles, decoders)
            self.brokers = open_brokers(
                self.ingest, settings.mqtt_client, net=self.net, disk=disk, random=SystemRandom(), emit=self._emit
            )
            self.intervals = IntervalFile(disk, settings.data_dir, self.ingest.marks)
            self.modbus = [ModbusBus(self.ingest, plan, clock, self.net) for plan in plans]
        host, port = parse_address(settings.kafka.listen, default_port=9092)
        reserved = frozenset({"readings"}) if settings.role == "edge" else frozenset[str]()
        broker = Broker(store, clock, settings=settings.kafka)
        self.kafka = await serve_kafka(broker, self.net, host, port, reserved=reserved)
        self.kafka.doors.emit = self._emit
        if settings.mqtt is not None:
            await self._serve_mqtt()
        journal = self._begin_run(first)  # not before: a start that fails at a port, again and again, is no run
        if settings.central is not None:
            self.uplink = Uplink(
                store,
                journal,
                settings.central,
                node=settings.node,
                net=self.net,
                clock=clock,
                random=SystemRandom(),
                version=version(),
                emit=self._emit,
            )
        self.upkeep = Upkeep(
            store,
            clock=clock,
            trusted=lambda: trusts(clock),
            emit=self.events.emit,
            when_synced=self.events.when_synced,
            settled=self._settled,
        )
        if settings.wants_work or decoders:
            self.work = Supervisor(command, clock=clock, event=self._emit)
        await self._open_sockets()
        self._say_started(store, clean=store.stopped_cleanly or first_start)
        self._begin_tasks(ports)

    # --- parts

    def _make_ingest(self, store: LogStore, profiles: list[Profile], decoders: list[Profile]) -> Ingest:
        return Ingest(
            store,
            node=self.settings.node,
            profiles=profiles,
            marks=self.settings.marks,
            clock=self.clock,
            health=self.reporter.health,
            decoders=decoders,
            devices=Devices(store, self.settings.node, self.settings.devices, self.settings.device),
        )

    def _settled(self, topic: str, partition: int) -> int | None:
        """Below which offset a partition's records have gone on: to the central; of topic `raw`, through a decoder."""
        if topic == RAW_TOPIC and self.ingest is not None and self.ingest.raw.profiles and self.store is not None:
            log = self.store.partition(RAW_TOPIC, partition)
            return self.ingest.raw.decoded_below(log.log_end_offset if log is not None else 0)
        return self.uplink.settled(topic, partition) if self.uplink is not None else None

    async def _open_sockets(self) -> None:
        """For commands of this machine, and for readings that were decoded elsewhere."""
        data_dir = self.settings.data_dir
        if self.ingest is not None:
            self.outcomes = await OutcomeServer.start(self.ingest, data_dir, self.disk)
        self._control = await ControlServer.start(data_dir, self.reporter.document)
        self._commands = await CommandServer.start(data_dir, {"replication": self._choose})

    def _first_offsets(self, store: LogStore) -> dict[str, int]:
        central = self.settings.central
        return first_offsets(store, central.topics if central is not None else ("readings", "deadletter", "events"))

    def _begin_run(self, first: Mapping[str, int]) -> RunJournal:
        journal = RunJournal.begin(
            self.disk,
            self.settings.data_dir,
            first=first,
            random=SystemRandom(),
            boot_id=_boot_id(),
            wall_ms=self.clock.wall_ms(),
            monotonic_ms=self.clock.monotonic_ms(),
        )
        for damage in journal.damaged:
            log.warning("%s", damage)
        return journal

    async def _serve_mqtt(self) -> None:
        """A node that reads serial ports or brokers too goes on without it and tries again; another one stops here."""
        assert self.ingest is not None  # noqa: S101 - made for whoever has [mqtt]
        assert self.settings.mqtt is not None  # noqa: S101 - as above
        uses = self.ingest.tail_uses
        try:
            self.mqtt = await serve_mqtt(self.ingest, self.net, self.settings.mqtt)
        except UserError as error:
            if not self.settings.reads_elsewhere:
                raise
            self.ingest.tail_uses = uses
            if "mqtt" not in self.listener_problems:
                log.error("no MQTT: %s %s", error.what, error.hint)
            self.listener_problems["mqtt"] = error.what
        else:
            self.listener_problems.pop("mqtt", None)

    def _say_started(self, store: LogStore, *, clean: bool) -> None:
        where = self.reporter.addresses()
        log.info("serving %s", ", ".join(f"{name} on {address}" for name, address in where.items() if address))
        found = store.status()["recovered"]
        if line := recovery_line(found, clean=clean):
            log.warning("%s", line)
        self._emit("start", version=version(), clean=clean, recovered=found)

    def _emit(self, kind: str, **detail: Any) -> None:
        if self.events is None:
            return
        try:
            self.events.emit(kind, **detail)
        except (HeadwaterError, OSError) as error:  # a disk that fails must not take the caller along
            log.error("the event “%s” could not be written: %s", kind, error)

    def _choose(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """The operator's answer to an uplink that has stopped (`headwater replication resend|accept`)."""
        choice = request.get("choice")
        if choice not in ("resend", "accept"):
            raise UserError(f"“{choice}” is no choice", hint="Choose resend or accept.")
        if self.uplink is None:
            raise UserError("this node replicates to nobody", hint="Nothing needs to be chosen.")
        link = self.uplink.status()
        if link["state"] != "stopped":
            raise UserError(f"the uplink is {link['state']}, not stopped", hint="Nothing needs to be chosen.")
        self.uplink.choose(choice)
        log.warning("the operator chose to %s", choice)
        return {"said": f"the uplink goes on: {choice}; `headwater replication status` shows how"}

    # --- running

    def _begin_tasks(self, ports: list[Any]) -> None:
        self._begin("tick", self._tick)
        self._begin("disk use", self.reporter.measure_data)
        if self.upkeep is not None:
            self._begin("upkeep", _bound(run_upkeep, self.upkeep))
        if self.ingest is not None:
            for port, profile in ports:
                run = _bound(run_serial, self.ingest, port, self.clock, profile=profile)
                self._begin(f"serial port {port.port}", run)
        if self.intervals is not None:
            self._begin("learnt intervals", self.intervals.run)
        for bus in self.modbus:
            self._begin(f"Modbus {bus.name}", bus.run)
        for broker in self.brokers:
            self._begin(f"broker {broker.name}", broker.run)
        if self.mqtt is None and self.settings.mqtt is not None:
            self._begin("MQTT", self._retry_mqtt)
        if self.uplink is not None:
            self._begin("replication", self.uplink.run)
        if self.work is not None:
            self._begin("work process", self.work.run)

    def _begin(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        self._tasks.append(asyncio.create_task(self._keep_going(name, run), name=name))

    async def _keep_going(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        """One part's defect is logged whole and the part begins again; the others do not notice."""
        while True:
            try:
                await run()
            except Exception:
                log.exception("%s failed and begins again in %.0f s", name, RETRY_S)
                await asyncio.sleep(RETRY_S)
            else:
                return

    async def _tick(self) -> None:
        while True:
            if self.ingest is not None:
                self.ingest.tick()
            await asyncio.sleep(TICK_S)

    async def _retry_mqtt(self) -> None:
        while self.mqtt is None:
            await asyncio.sleep(RETRY_S)
            await self._serve_mqtt()

    # --- the end

    async def close(self, cause: str) -> None:
        """Work first, which still needs the listener; then take nothing more in, flush, answer, mark the log clean."""
        for task in reversed(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        # Each step is done even when one before it fails; the last comes first.
        async with contextlib.AsyncExitStack() as rest:
            if self.store is None:
                return
            rest.callback(self.store.close)
            if self.upkeep is not None:
                rest.callback(self.upkeep.close)
            if self.kafka is not None:
                rest.push_async_callback(self.kafka.ended)
            for listener in (self.kafka, self.mqtt, *self.brokers):
                if listener is not None:
                    rest.callback(listener.close)
            rest.callback(self.store.flush_now)
            if self.ingest is not None:
                rest.callback(self.ingest.close)
            if self.intervals is not None:
                rest.callback(self.intervals.close)
            if self.outcomes is not None:
                rest.callback(self.outcomes.close)
            if self._control is not None:
                rest.callback(self._emit, "stop", cause=cause)
                rest.callback(self._control.close)
            if self._commands is not None:
                rest.callback(self._commands.close)


async def run_node(
    settings: Settings,
    *,
    config: str,
    level: str = "info",
    form: str = "text",
    clock: Clock | None = None,
    disk: Disk | None = None,
    net: Net | None = None,
) -> int:
    """Run a node until SIGTERM or SIGINT; returns 0 after a clean end. Raises UserError when it cannot start."""
    core = Core(settings, clock=clock or SystemClock(), disk=disk or RealDisk(), net=net or RealNet())
    stop: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, _stop, stop, number.name)
    log.info("headwater %s starts, data in %s", version(), settings.data_dir)
    give_back_large_blocks()
    cause = "failed to start"
    try:
        await core.open(work_command(config, level=level, form=form))
        # What is alive now stays: the collector need not look at it again, and forks share its pages.
        gc.collect()
        gc.freeze()
        # A commit group makes thousands of short-lived tuples, which reference counting frees without the collector.
        gc.set_threshold(50_000, 20, 50)
        with registered(settings.node, settings.data_dir, config):
            cause = await stop
        log.info("%s: stopping", cause)
    finally:
        await core.close(cause)
    log.info("stopped, everything taken is on disk")
    return 0


def _stop(stop: asyncio.Future[str], cause: str) -> None:
    if not stop.done():
        stop.set_result(cause)


def _bound(function: Callable[..., Awaitable[None]], *arguments: Any, **named: Any) -> Callable[[], Awaitable[None]]:
    return lambda: function(*arguments, **named)


def _boot_id() -> str:
    with contextlib.suppress(OSError), open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()
    return f"unknown-{os.getpid()}"
