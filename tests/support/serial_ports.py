"""A serial port over a pseudo-terminal, beside a story that a test tells."""

from __future__ import annotations

import asyncio
import os
import tty
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path

from devices.profiles import Profile
from gateway.ingest.marks import MarkSource
from gateway.ingest.messages import Message
from gateway.ingest.serial import port_profile, run_serial
from gateway.ingest.serial_settings import SerialSettings
from gateway.ingest.sources import Done, Source
from headwater.clock import SystemClock

WIND = b"$WIMWV,231.5,T,7.41,M,A*11"
AIR = b"$WIXDR,C,11.32,C,AIRTEMP,P,1.01338,B,AIRPRES*53"


class Taken:
    """The pipeline as a port sees it, with nothing behind it."""

    def __init__(self) -> None:
        self.source = Source("none", "serial", MarkSource("none"), "edge-1")
        self.profile: Profile | None = None
        self.frames: list[bytes] = []
        self.reasons: list[str] = []
        self.topics: set[str] = set()
        self.disk_fails = 0
        self.full = False
        self.room: list[Callable[[], None]] = []

    def attach(self, source_id: str, *, kind: str, profile: Profile | None = None) -> Source:
        if source_id != self.source.id:
            self.source = Source(source_id, kind, MarkSource(source_id), "edge-1")
        self.profile = profile
        self.source.connected, self.source.problem = True, None
        return self.source

    def detach(self, source: Source, *, clean: bool, problem: str | None = None) -> None:
        assert source is self.source
        assert not clean
        source.connected, source.problem = False, problem

    def take(self, source: Source, messages: list[Message], done: Done, *, reasons: Sequence[str] = ()) -> None:
        assert source is self.source
        if self.disk_fails:
            self.disk_fails -= 1
            done(False)
            return
        self.frames += [message[1] for message in messages]
        self.reasons += reasons or [""] * len(messages)
        self.topics |= {message[0] for message in messages}
        done(True)

    def when_room(self, callback: Callable[[], None]) -> None:
        self.room.append(callback)

    @property
    def problem(self) -> str:
        return self.source.problem or ""


class Line:
    """A pseudo-terminal whose far end stands at a stable name, as udev would have it."""

    def __init__(self, link: Path) -> None:
        self.near, far = os.openpty()
        tty.setraw(far)
        name = os.ttyname(far)
        fresh = link.with_suffix(".new")
        fresh.symlink_to(name)
        fresh.replace(link)
        os.close(far)  # from here on the port is held by its reader alone
        self.say(b"")

    def say(self, data: bytes) -> None:
        os.write(self.near, data)

    def unplug(self) -> None:
        os.close(self.near)


def run(settings: SerialSettings, story: Callable[[Taken], Coroutine[None, None, None]]) -> Taken:
    """Run a port beside its story; what was taken."""
    taken = Taken()

    async def both() -> None:
        port = asyncio.create_task(run_serial(taken, settings, SystemClock(), profile=port_profile(settings)))
        try:
            await story(taken)
            assert not port.done()
        finally:
            port.cancel()
            await asyncio.gather(port, return_exceptions=True)

    asyncio.run(both())
    return taken


def mast(link: Path, **more: object) -> SerialSettings:
    return SerialSettings(port=str(link), name="mast", profile="met-mast", retry_max_ms=20, **more)  # type: ignore[arg-type]
