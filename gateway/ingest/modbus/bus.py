"""A Modbus bus as a source of readings: the poller, driven over a serial line or a TCP connection.

Each unit is a source of its own, `modbus:<bus>/<unit>`, so that `status`, metrics and windows tell a dead device from
its neighbours. What a poll read is one message, and counts as taken when the log has it on disk.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from devices.decoders.modbus import encode_blocks
from gateway.ingest.messages import Message
from gateway.ingest.modbus.framing import LostFraming
from gateway.ingest.modbus.plan import BusPlan, Device
from gateway.ingest.modbus.poller import FOREVER_MS, Poll
from gateway.ingest.retake import Retake
from gateway.ingest.serial import Taker
from gateway.ingest.serial_line import RETRY_FIRST_MS, SerialLine
from gateway.ingest.sources import Source
from headwater.clock import Clock
from headwater.net import Net

_log = logging.getLogger("headwater.modbus")

CONNECT_TIMEOUT_S = 5.0


class ModbusBus:
    """One bus; `run` for ever, cancelled in the end."""

    def __init__(self, ingest: Taker, plan: BusPlan, clock: Clock, net: Net) -> None:
        self.name = plan.settings.bus_name
        self._ingest = ingest
        self._plan = plan
        self._clock = clock
        self._poller = plan.poller()
        self._sources: dict[int, Source] = {}
        self._devices: dict[int, Device] = {}
        for device in plan.devices:
            source = ingest.attach(plan.source_id(device), kind="modbus", profile=device.profile)
            ingest.detach(source, clean=False)
            self._sources[device.unit], self._devices[device.unit] = source, device
        self._retake = Retake(f"Modbus {self.name}", self._take)
        self._timer: asyncio.TimerHandle | None = None
        self._problem: str | None = f"{plan.settings.where} is not open yet"
        self._defect: asyncio.Future[None] | None = None  # while it runs
        self._line: SerialLine | _TcpLine
        if plan.settings.port:
            self._line = SerialLine(plan.settings, clock, self)
        else:
            self._line = _TcpLine(plan, clock, net, self)

    async def run(self) -> None:
        """Poll for ever. Raises what a timer or the line's bytes met, for whoever begins it again."""
        self._defect = asyncio.get_running_loop().create_future()
        line = asyncio.create_task(self._line.run())
        try:
            await asyncio.wait((line, self._defect), return_when=asyncio.FIRST_COMPLETED)
            (self._defect if self._defect.done() else line).result()
        finally:
            line.cancel()
            self._defect = None
            self._stop_timer()
            self._retake.cancel()
            self._line.close()
            self._poller.lost()
            for source in self._sources.values():
                self._ingest.detach(source, clean=False)

    # --- the line's events

    def line_opened(self, *, silent: bool) -> None:
        if not silent:
            self._problem = None
            _log.info("Modbus %s: %s is open, %d units", self.name, self._plan.settings.where, len(self._devices))
        self._poller.opened(self._clock.monotonic_ms(), forgive=not silent)
        self._go_on()

    def line_heard(self, data: bytes) -> None:
        try:
            self._poller.feed(data, self._clock.monotonic_ms())
        except LostFraming as error:
            if isinstance(self._line, _TcpLine):
                self._line.end(str(error))
            return
        except Exception as error:  # called by the loop, which would only log it: `run` raises it
            self._met(error)
            return
        self._problem = None
        self._go_on()

    def line_lost(self, problem: str) -> None:
        """The bus's problem, not its units': it is told once."""
        if self._problem != problem:
            _log.warning("Modbus %s: %s", self.name, problem)
        self._problem = problem
        self._stop_timer()
        self._poller.lost()
        for source in self._sources.values():
            if source.connected:
                self._ingest.detach(source, clean=False)

    # --- polling

    def _go_on(self) -> None:
        try:
            self._poll()
        except Exception as error:  # as in `line_heard`; without its timer the bus would stand still for ever
            self._met(error)

    def _met(self, defect: Exception) -> None:
        if self._defect is not None and not self._defect.done():
            self._defect.set_exception(defect)

    def _poll(self) -> None:
        """Write what is due, hand over what has come, and look again when the poller says."""
        self._stop_timer()
        now_ms = self._clock.monotonic_ms()
        while data := self._poller.tick(now_ms):
            self._line.write(data)
        for poll in self._poller.taken():
            self._ended(poll)
        if (next_ms := self._poller.next_ms) < FOREVER_MS:
            delay_s = max(0.0, next_ms - self._clock.monotonic_ms()) / 1000
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._go_on)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ended(self, poll: Poll) -> None:
        unit = poll.unit.number
        device, source = self._devices[unit], self._sources[unit]
        before = source.problem
        if poll.blocks:
            if not source.connected:
                source = self._sources[unit] = self._ingest.attach(source.id, kind="modbus", profile=device.profile)
            self._take(source, [(device.name, encode_blocks(poll.blocks), 0, 0)])
        elif poll.problem and source.connected:
            self._ingest.detach(source, clean=False)
        source.problem = poll.problem or None
        # into the log when it begins and when it ends; status has it meanwhile
        if poll.problem and before is None:
            _log.warning("Modbus %s, unit %d (%s): %s", self.name, unit, device.name, poll.problem)
        elif not poll.problem and before is not None:
            _log.info("Modbus %s, unit %d (%s) is well again", self.name, unit, device.name)

    def _take(self, source: Source, messages: list[Message], _: Sequence[str] = ()) -> None:
        self._ingest.take(source, messages, lambda stored: None if stored else self._retake.keep(source, messages))
        if self._ingest.full and not self._poller.paused:
            self._poller.paused = True
            self._ingest.when_room(self._room)

    def _room(self) -> None:
        self._poller.paused = False
        self._go_on()

    def status(self) -> dict[str, Any]:
        """The bus and its units; a unit's `problem` is that of its source."""
        now_ms = self._clock.monotonic_ms()
        framing = self._poller.framing
        return {
            "name": self.name,
            "where": self._plan.settings.where,
            "problem": self._problem,
            "garbage_bytes": framing.garbage_bytes,
            "late_answers": framing.late_answers,
            "units": [
                {
                    "device": self._devices[unit.number].name,
                    "source": self._sources[unit.number].id,
                    "last_ms": self._sources[unit.number].last_ms,
                    "problem": self._sources[unit.number].problem,
                    **unit.status(now_ms),
                }
                for unit in self._poller.units
            ],
        }


class _TcpLine(asyncio.Protocol):
    """A TCP connection that is opened again whenever it ends, or says nothing for too long."""

    def __init__(self, plan: BusPlan, clock: Clock, net: Net, user: ModbusBus) -> None:
        self._settings = plan.settings
        self._address = plan.address
        self._clock = clock
        self._net = net
        self._user = user
        self._transport: asyncio.Transport | None = None
        self._lost = asyncio.Event()
        self._cause = ""
        self._heard_ms = 0.0

    async def run(self) -> None:
        settings = self._settings
        retry_ms = RETRY_FIRST_MS
        silent = False
        while True:
            self._lost.clear()
            self._cause = ""
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT_S):
                    await self._net.connect(lambda: self, *self._address)
            except (OSError, TimeoutError) as error:
                silent = False
                self._user.line_lost(f"{settings.tcp} cannot be reached ({_reason(error)}); tried again")
                await asyncio.sleep(min(retry_ms, settings.retry_max_ms) / 1000)
                retry_ms = min(retry_ms * 2, float(settings.retry_max_ms))
                continue
            opened_ms = self._heard_ms = self._clock.monotonic_ms()
            self._user.line_opened(silent=silent)
            silent = not await self._until_lost()
            self.close()
            said = f"{settings.tcp} said nothing for {settings.silent_ms / 1000:g} s; connected anew"
            self._user.line_lost(said if silent else f"{settings.tcp}: {self._cause}; connecting again")
            if self._heard_ms > opened_ms:
                retry_ms = RETRY_FIRST_MS
            await asyncio.sleep(min(retry_ms, settings.retry_max_ms) / 1000)
            retry_ms = min(retry_ms * 2, float(settings.retry_max_ms))

    async def _until_lost(self) -> bool:
        """Whether the connection ended; False when it only fell silent."""
        while True:
            left_ms = self._heard_ms + self._settings.silent_ms - self._clock.monotonic_ms()
            if left_ms <= 0:
                return False
            try:
                async with asyncio.timeout(left_ms / 1000):
                    await self._lost.wait()
            except TimeoutError:
                continue
            return True

    def write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def end(self, cause: str) -> None:
        """Nothing that follows on this connection can be read."""
        self._cause = self._cause or cause
        self._lost.set()

    def close(self) -> None:
        if self._transport is not None:
            transport, self._transport = self._transport, None
            transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # what a stream socket gives

    def data_received(self, data: bytes) -> None:
        if self._transport is not None and not self._lost.is_set():
            self._heard_ms = self._clock.monotonic_ms()
            self._user.line_heard(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._transport is not None:
            self._transport = None
            self.end("the connection was closed" if exc is None else f"the connection broke ({_reason(exc)})")


def _reason(error: BaseException) -> str:
    if isinstance(error, TimeoutError) and not error.args:
        return f"no answer within {CONNECT_TIMEOUT_S:g} s"
    return getattr(error, "strerror", None) or str(error)
