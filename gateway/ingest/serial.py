"""Serial ports as sources: a line's bytes framed, and handed to the pipeline.

A port that is garbled or silent is named in `status`, and why; the next good message ends that. Nothing goes back to
such a device, so nothing can be asked for again: what the disk would not take is kept, up to a limit, and taken again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Protocol

import msgspec

from devices.binary_framing import CobsFramer, LengthFramer
from devices.framing import Framer, LineFramer
from devices.profile_files import read_profiles
from devices.profiles import Profile
from gateway.ingest.messages import Message
from gateway.ingest.retake import Retake
from gateway.ingest.serial_line import SerialLine
from gateway.ingest.serial_settings import SerialSettings
from gateway.ingest.sources import Done, Source
from headwater.clock import Clock

_log = logging.getLogger("headwater.serial")

GARBLED_RUN = 5  # so many messages in a row that are none: the line itself is wrong

_FRAME_STARTS = {"nmea0183": b"$!"}


class Taker(Protocol):
    """What a port needs of `gateway.ingest.pipeline.Ingest`."""

    def attach(self, source_id: str, *, kind: str, profile: Profile | None = None) -> Source: ...
    def detach(self, source: Source, *, clean: bool, problem: str | None = None) -> None: ...
    def take(self, source: Source, messages: list[Message], done: Done, *, reasons: Sequence[str] = ()) -> None: ...
    @property
    def full(self) -> bool: ...
    def when_room(self, callback: Callable[[], None]) -> None: ...


def port_profile(settings: SerialSettings, *, base: str = ".") -> Profile | None:
    """The profile that the port's section names, with the port's own device. Raises `UserError`."""
    make_framer(settings, None)
    if settings.profile is None:
        return None
    [profile] = read_profiles([settings.profile], base=base)
    return profile if settings.device is None else msgspec.structs.replace(profile, device=settings.device)


def make_framer(settings: SerialSettings, profile: Profile | None) -> Framer:
    """What takes the port's bytes apart. Raises `UserError`."""
    if settings.framing.kind == "length":
        return LengthFramer(settings.framing, settings.frame_bytes_max)
    if settings.framing.kind == "cobs":
        return CobsFramer(settings.framing, settings.frame_bytes_max)
    starts = _FRAME_STARTS.get(profile.format, b"") if profile is not None else b""
    return LineFramer(settings.frame_bytes_max, starts=starts)


async def run_serial(ingest: Taker, settings: SerialSettings, clock: Clock, *, profile: Profile | None = None) -> None:
    """Read one port until cancelled. `profile` is `port_profile(settings)`, read before anything was opened."""
    port = SerialPort(ingest, settings, clock, profile)
    try:
        await port.line.run()
    finally:
        port.close()


class SerialPort:
    """One port: what its line says becomes messages of its source."""

    def __init__(self, ingest: Taker, settings: SerialSettings, clock: Clock, profile: Profile | None) -> None:
        self._ingest = ingest
        self._settings = settings
        self._profile = profile
        self._topic = settings.device or settings.source_name
        self._clock = clock
        self._framer = make_framer(settings, profile)
        self._bad_run = 0
        self._retake = Retake(f"serial port {settings.source_name}", self._take)
        self._source = ingest.attach(f"serial:{settings.source_name}", kind="serial", profile=profile)
        ingest.detach(self._source, clean=False, problem=f"{settings.port} is not open yet")
        self.line = SerialLine(settings, clock, self)

    def line_opened(self, *, silent: bool) -> None:
        """What its silence said stays in status until the first byte."""
        problem = self._source.problem
        self._framer.reset()
        self._source = self._ingest.attach(self._source.id, kind="serial", profile=self._profile)
        if silent:
            self._source.problem = problem
        else:
            settings = self._settings
            _log.info("serial port %s is open (%s, %d baud)", settings.source_name, settings.port, settings.baudrate)

    def line_heard(self, data: bytes) -> None:
        frames = self._framer.feed(data, self._clock.monotonic_ms())
        if not frames:
            return
        self._judge([frame.problem for frame in frames])
        for garbled, together in groupby(frames, key=lambda frame: frame.problem != ""):
            part = list(together)
            messages: list[Message] = [(self._topic, frame.data, 0, 0) for frame in part]
            self._take(self._source, messages, [frame.problem for frame in part] if garbled else ())

    def line_lost(self, problem: str) -> None:
        """Into status, and into the log when it is a new problem."""
        if self._source.problem != problem:
            _log.warning("serial port %s: %s", self._settings.source_name, problem)
        self._ingest.detach(self._source, clean=False, problem=problem)

    def _take(self, source: Source, messages: list[Message], reasons: Sequence[str] = ()) -> None:
        """`reasons`: why each of them is none; their bytes are kept as dead letters."""

        def done(stored: bool) -> None:  # noqa: FBT001 - as every `done`
            if not stored:
                self._retake.keep(source, messages, reasons)

        self._ingest.take(source, messages, done, reasons=reasons)
        if self._ingest.full:
            self.line.pause()
            self._ingest.when_room(self.line.resume)

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

    def close(self) -> None:
        """Let go of the port: the node stops."""
        self._retake.cancel()
        self.line.close()
        self._ingest.detach(self._source, clean=False)
