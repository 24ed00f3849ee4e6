"""Serial ports as sources: opened by a stable name, read by the loop, framed, handed to the pipeline.

A port that is not there, is unplugged, garbled or silent recovers alone; meanwhile `status` names it and why. Nothing
goes back to a serial device, so nothing can be asked for again: what the disk would not take is kept, up to a limit,
and taken again.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from collections.abc import Callable
from typing import Any, Protocol

import msgspec
import serial  # pyserial

from devices.framing import LineFramer
from devices.profile_files import read_profiles
from devices.profiles import Profile
from gateway.ingest.serial_settings import SerialSettings
from gateway.ingest.sources import Done, Message, Source
from headwater.clock import Clock

_log = logging.getLogger("headwater.serial")

READ_BYTES = 4_096  # a tty holds no more
RETRY_FIRST_MS = 100.0
RETAKE_MS = 1_000.0
RETAKE_MESSAGES_MAX = 4_096
GARBLED_RUN = 5  # so many lines in a row that are none: the line itself is wrong

_FRAME_STARTS = {"nmea0183": b"$!"}
_PARITIES = {
    "none": serial.PARITY_NONE,
    "even": serial.PARITY_EVEN,
    "odd": serial.PARITY_ODD,
    "mark": serial.PARITY_MARK,
    "space": serial.PARITY_SPACE,
}


class Taker(Protocol):
    """What a port needs of `gateway.ingest.pipeline.Ingest`."""

    def attach(self, source_id: str, *, kind: str, profile: Profile | None = None) -> Source: ...
    def detach(self, source: Source, *, clean: bool, problem: str | None = None) -> None: ...
    def take(self, source: Source, messages: list[Message], done: Done) -> None: ...
    @property
    def full(self) -> bool: ...
    def when_room(self, callback: Callable[[], None]) -> None: ...


def port_profile(settings: SerialSettings, *, base: str = ".") -> Profile | None:
    """The profile that the port's section names, with the port's own device. Raises `UserError`."""
    if settings.profile is None:
        return None
    [profile] = read_profiles([settings.profile], base=base)
    return profile if settings.device is None else msgspec.structs.replace(profile, device=settings.device)


async def run_serial(ingest: Taker, settings: SerialSettings, clock: Clock, *, profile: Profile | None = None) -> None:
    """Read one port until cancelled. `profile` is `port_profile(settings)`, read before anything was opened."""
    port = SerialPort(ingest, settings, clock, profile)
    try:
        await port.run()
    finally:
        port.close(None)


class SerialPort:
    """One port: opened, read, lost, opened again."""

    def __init__(self, ingest: Taker, settings: SerialSettings, clock: Clock, profile: Profile | None) -> None:
        self._ingest = ingest
        self._settings = settings
        self._clock = clock
        self._profile = profile
        self._topic = settings.device or settings.source_name
        self._framer = LineFramer(
            settings.frame_bytes_max, starts=_FRAME_STARTS.get(profile.format, b"") if profile is not None else b""
        )
        self._device: Any = None  # serial.Serial, while open
        self._lost = asyncio.Event()
        self._cause = ""
        self._heard_ms = 0.0
        self._bad_run = 0
        self._retake: list[Message] = []
        self._retake_timer: asyncio.TimerHandle | None = None
        self.lost_messages = 0
        self._source = ingest.attach(f"serial:{settings.source_name}", kind="serial", profile=profile)
        ingest.detach(self._source, clean=False, problem=f"{settings.port} is not open yet")

    async def run(self) -> None:
        """Open, read until lost, wait, open again; for ever."""
        retry_ms = RETRY_FIRST_MS
        problem = ""
        while True:
            try:
                self._open(problem)
            except (serial.SerialException, OSError) as error:
                self._say(cause := _why(self._settings.port, error))
                problem = cause
                await asyncio.sleep(min(retry_ms, self._settings.retry_max_ms) / 1000)
                retry_ms = min(retry_ms * 2, float(self._settings.retry_max_ms))
                continue
            opened_ms = self._heard_ms
            problem = await self._until_lost()
            self.close(problem)
            if self._heard_ms > opened_ms:
                retry_ms = RETRY_FIRST_MS  # it worked: a short wait, not the long one of a port that is not there
            await asyncio.sleep(retry_ms / 1000)

    def _open(self, problem: str) -> None:
        """`problem` stays in status until the first byte when the port was only silent."""
        settings = self._settings
        self._device = serial.Serial(
            settings.port,
            baudrate=settings.baudrate,
            bytesize=settings.bytesize,
            parity=_PARITIES[settings.parity],
            stopbits=settings.stopbits,
            timeout=0,
            exclusive=True,
        )
        self._framer.reset()
        self._lost.clear()
        self._heard_ms = self._clock.monotonic_ms()
        self._source = self._ingest.attach(self._source.id, kind="serial", profile=self._profile)
        if problem.startswith("silent"):
            self._source.problem = problem
        else:
            _log.info("serial port %s is open (%s, %d baud)", settings.source_name, settings.port, settings.baudrate)
        self._watch()

    def _watch(self) -> None:
        if self._device is not None:
            asyncio.get_running_loop().add_reader(self._device.fileno(), self._readable)

    async def _until_lost(self) -> str:
        """Wait while the port speaks; why that ended."""
        silent_ms = self._settings.silent_ms
        while True:
            left_ms = self._heard_ms + silent_ms - self._clock.monotonic_ms()
            if left_ms <= 0:
                return f"silent for {silent_ms / 1000:g} s; opened anew, waiting for it to speak"
            try:
                async with asyncio.timeout(left_ms / 1000):
                    await self._lost.wait()
            except TimeoutError:
                continue
            return self._cause

    def _readable(self) -> None:
        """The loop says that there is something to read: bytes, or the end."""
        try:
            data = os.read(self._device.fileno(), READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._end(f"unplugged ({error.strerror}); waiting for {self._settings.port}")
            return
        if not data:
            self._end(f"unplugged; waiting for {self._settings.port}")
            return
        self._heard_ms = self._clock.monotonic_ms()
        frames = self._framer.feed(data)
        if not frames:
            return
        self._judge([frame.problem for frame in frames])
        # what framing refused goes along: no decoder takes it for a reading, and its bytes are kept as a dead letter
        self._take([(self._topic, frame.data, 0, 0) for frame in frames])

    def _take(self, messages: list[Message]) -> None:
        self._ingest.take(self._source, messages, lambda stored: None if stored else self._keep(messages))
        if self._ingest.full and self._device is not None:
            asyncio.get_running_loop().remove_reader(self._device.fileno())
            self._ingest.when_room(self._watch)

    def _keep(self, messages: list[Message]) -> None:
        """The disk failed: take them again later, the oldest given up beyond the limit."""
        self._retake += messages
        if (over := len(self._retake) - RETAKE_MESSAGES_MAX) > 0:
            self.lost_messages += over
            self._source.problem = f"the disk failed: {self.lost_messages} messages lost"
            _log.error("serial port %s: the disk failed, %d messages lost", self._settings.source_name, over)
            del self._retake[:over]
        if self._retake_timer is None:
            self._retake_timer = asyncio.get_running_loop().call_later(RETAKE_MS / 1000, self._take_again)

    def _take_again(self) -> None:
        self._retake_timer = None
        messages, self._retake = self._retake, []
        self._take(messages)

    def _judge(self, problems: list[str]) -> None:
        """A line that is garbled for long is named in status; the next good message ends that."""
        for problem in problems:
            if not problem:
                self._bad_run = 0
                if self._source.problem is not None:
                    self._source.problem = None
                    _log.info("serial port %s is heard", self._settings.source_name)
                continue
            self._bad_run += 1
            if self._bad_run == GARBLED_RUN:
                self._source.problem = f"garbled: {problem} (baudrate is {self._settings.baudrate})"
                _log.warning("serial port %s is %s", self._settings.source_name, self._source.problem)

    def _end(self, cause: str) -> None:
        asyncio.get_running_loop().remove_reader(self._device.fileno())
        self._cause = cause
        self._lost.set()

    def close(self, problem: str | None) -> None:
        """Let go of the port; `problem` is why, None when the node stops."""
        if problem is None and self._retake_timer is not None:
            self._retake_timer.cancel()
        if self._device is None:
            return
        device, self._device = self._device, None
        asyncio.get_running_loop().remove_reader(device.fileno())
        device.close()
        if problem is None:
            self._ingest.detach(self._source, clean=False)
        else:
            self._say(problem)

    def _say(self, problem: str) -> None:
        """Put the problem into status, and into the log when it is a new one."""
        if self._source.problem != problem:
            _log.warning("serial port %s: %s", self._settings.source_name, problem)
        self._ingest.detach(self._source, clean=False, problem=problem)


def _why(port: str, error: Exception) -> str:
    """Why a port does not open, and the next step."""
    code = getattr(error, "errno", None)
    if code in (errno.ENOENT, errno.ENXIO, errno.ENODEV):
        return f"{port} does not exist; waiting for it (is it plugged in? ls /dev/serial/by-id shows what is)"
    if code in (errno.EACCES, errno.EPERM):
        return f"no permission to open {port}; add the service's user to the group dialout"
    if code in (errno.EBUSY, errno.EAGAIN) or "exclusively lock" in str(error):
        return f"{port} is in use by another program; waiting until that ends"
    if code == errno.ENOTTY or "configure port" in str(error):
        return f"{port} is no serial port ({error})"
    return f"{port} does not open ({error})"
