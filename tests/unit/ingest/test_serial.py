"""Serial ports over real pseudo-terminals: late, unplugged, garbled, silent, and a disk that fails."""

from __future__ import annotations

import asyncio
import logging
import os
import tty
from collections.abc import Callable, Coroutine
from pathlib import Path

import pytest

from devices.profiles import Profile
from gateway.ingest.marks import MarkSettings, MarkSource
from gateway.ingest.pipeline import Ingest
from gateway.ingest.serial import port_profile, run_serial
from gateway.ingest.serial_settings import SerialSettings
from gateway.ingest.sources import Done, Message, Source
from gateway.log.partition import PartitionLog
from gateway.log.records import decode_batch, split_batches
from gateway.log.settings import LogSettings
from gateway.log.store import LogStore
from headwater.clock import SystemClock
from headwater.disk import RealDisk

WIND = b"$WIMWV,231.5,T,7.41,M,A*11"
AIR = b"$WIXDR,C,11.32,C,AIRTEMP,P,1.01338,B,AIRPRES*53"


class Taken:
    """The pipeline as a port sees it, with nothing behind it."""

    def __init__(self) -> None:
        self.source = Source("none", "serial", MarkSource("none"), "edge-1")
        self.profile: Profile | None = None
        self.frames: list[bytes] = []
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

    def take(self, source: Source, messages: list[Message], done: Done) -> None:
        assert source is self.source
        if self.disk_fails:
            self.disk_fails -= 1
            done(False)
            return
        self.frames += [message[1] for message in messages]
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


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what is waited for is a kernel's and a port's doing
            await asyncio.sleep(0.002)


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


@pytest.fixture
def link(tmp_path: Path) -> Path:
    return tmp_path / "usb-mast-port0"


def mast(link: Path, **more: object) -> SerialSettings:
    return SerialSettings(port=str(link), name="mast", profile="met-mast", retry_max_ms=20, **more)  # type: ignore[arg-type]


def test_sentences_reach_the_pipeline_under_the_ports_name(link: Path) -> None:
    line = Line(link)

    async def story(taken: Taken) -> None:
        await until(lambda: taken.source.connected)
        line.say(WIND + b"\r\n" + AIR[:10])
        await until(lambda: taken.frames == [WIND])
        line.say(AIR[10:] + b"\r\n")
        await until(lambda: taken.frames == [WIND, AIR])

    taken = run(mast(link), story)
    assert taken.source.id == "serial:mast"
    assert taken.topics == {"mast"}
    assert taken.profile is not None
    assert taken.profile.name == "met-mast"
    assert not taken.source.connected
    line.unplug()


def test_a_port_that_does_not_exist_yet_is_waited_for(link: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def story(taken: Taken) -> None:
        await until(lambda: "does not exist; waiting" in taken.problem)
        assert str(link) in taken.problem
        await asyncio.sleep(0.1)  # many tries, one line
        line = Line(link)
        await until(lambda: taken.source.connected)
        assert taken.source.problem is None
        line.say(WIND + b"\n")
        await until(lambda: taken.frames == [WIND])

    with caplog.at_level(logging.INFO, logger="headwater.serial"):
        run(mast(link), story)
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "is open" in caplog.text


def test_an_unplugged_port_recovers_alone(link: Path) -> None:
    async def story(taken: Taken) -> None:
        line = Line(link)
        for turn in range(3):
            await until(lambda: taken.source.connected)
            line.say(WIND + b"\r\n$WIMW")
            await until(lambda count=turn + 1: len(taken.frames) == count)  # type: ignore[misc]
            line.unplug()
            await until(lambda: "unplugged" in taken.problem or "does not exist" in taken.problem)
            assert not taken.source.connected
            line = Line(link)
        await until(lambda: taken.source.connected)
        line.unplug()

    assert run(mast(link), story).frames == [WIND] * 3  # and nothing of the half sentences


def test_garbage_is_passed_on_for_the_dead_letters_and_the_next_sentence_is_read(link: Path) -> None:
    line = Line(link)

    async def story(taken: Taken) -> None:
        await until(lambda: taken.source.connected)
        line.say(WIND + b"\r\n")
        for _ in range(6):
            line.say(b"\xfe\x81\x00noise\r\n")
        await until(lambda: "garbled" in taken.problem)
        assert "9600" in taken.problem
        line.say(b"$WIMWV,23" + AIR + b"\r\n")
        await until(lambda: taken.frames[-1] == AIR)
        assert taken.source.problem is None

    taken = run(mast(link), story)
    assert taken.frames == [WIND, *[b"\xfe\x81\x00noise"] * 6, b"$WIMWV,23", AIR]
    line.unplug()


def test_a_line_without_end_costs_no_memory(link: Path) -> None:
    line = Line(link)

    async def story(taken: Taken) -> None:
        await until(lambda: taken.source.connected)
        line.say(b"\n")
        for _ in range(20):
            line.say(b"x" * 500)
            await asyncio.sleep(0)
        line.say(b"\n" + WIND + b"\n")
        await until(lambda: taken.frames[-1:] == [WIND])

    taken = run(mast(link, frame_bytes_max=82), story)
    assert taken.frames == [b"x" * 82, WIND]
    line.unplug()


def test_a_silent_port_is_opened_anew_and_named_until_it_speaks(link: Path) -> None:
    first = Line(link)

    async def story(taken: Taken) -> None:
        await until(lambda: "silent" in taken.problem)
        second = Line(link)  # what hung was the adapter: the same name leads to a fresh one
        await until(lambda: os.get_blocking(second.near) and taken.source.connected)
        while not taken.frames:
            second.say(WIND + b"\n")
            await asyncio.sleep(0.005)
        assert taken.source.problem is None
        second.unplug()

    run(mast(link, silent_ms=30), story)
    first.unplug()


def test_what_the_disk_would_not_take_is_taken_again(link: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.ingest.retake.RETAKE_MS", 5.0)
    line = Line(link)

    async def story(taken: Taken) -> None:
        await until(lambda: taken.source.connected)
        taken.disk_fails = 2
        line.say(WIND + b"\n")
        await until(lambda: taken.frames == [WIND])
        assert not taken.disk_fails

    run(mast(link), story)
    line.unplug()


def test_a_full_pipeline_stops_the_reading_until_there_is_room(link: Path) -> None:
    line = Line(link)

    async def story(taken: Taken) -> None:
        await until(lambda: taken.source.connected)
        taken.full = True
        line.say(WIND + b"\n")
        await until(lambda: bool(taken.room))
        line.say(AIR + b"\n")
        await asyncio.sleep(0.05)
        assert taken.frames == [WIND]
        taken.full = False
        taken.room.pop()()
        await until(lambda: taken.frames == [WIND, AIR])

    run(mast(link), story)
    line.unplug()


def test_a_port_that_another_program_holds_is_named(link: Path) -> None:
    line = Line(link)
    settings = mast(link)

    async def story(taken: Taken) -> None:
        await until(lambda: taken.source.connected)
        other = Taken()
        second = asyncio.create_task(run_serial(other, settings, SystemClock()))
        await until(lambda: "in use by another program" in other.problem)
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)

    run(settings, story)
    line.unplug()


def test_what_is_no_serial_port_is_named(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("no port")

    async def story(taken: Taken) -> None:
        await until(lambda: "is no serial port" in taken.problem)

    run(mast(file), story)


def test_a_line_without_a_profile_is_json_or_a_number(link: Path) -> None:
    line = Line(link)

    async def story(taken: Taken) -> None:
        await until(lambda: taken.source.connected)
        line.say(b"21.5\r\n")
        await until(lambda: taken.frames == [b"21.5"])

    taken = run(SerialSettings(port=str(link), device="tank-3", retry_max_ms=20), story)
    assert (taken.source.id, taken.topics) == ("serial:usb-mast-port0", {"tank-3"})
    line.unplug()


def test_the_device_of_a_port_goes_before_the_profiles() -> None:
    profile = port_profile(SerialSettings(port="/dev/ttyUSB0", profile="met-mast", device="mast-north"))
    assert profile is not None
    assert profile.device == "mast-north"


def test_a_sentence_becomes_a_record_and_garbage_a_dead_letter(link: Path, tmp_path: Path) -> None:
    """The whole way, with the real pipeline and log behind the port."""
    line = Line(link)
    settings = mast(link)
    profile = port_profile(settings)

    async def story() -> tuple[list[tuple[bytes | None, bytes | None]], list[tuple[bytes | None, bytes | None]]]:
        clock = SystemClock()
        loop = asyncio.get_running_loop()
        store = LogStore.open(
            str(tmp_path / "data"),
            node="edge-1",
            settings=LogSettings(fsync_interval_ms=0),
            disk=RealDisk(),
            clock=clock,
            call_in_loop=loop.call_soon_threadsafe,
        )
        marks = MarkSettings()
        ingest = Ingest(store, node="edge-1", profiles=[], marks=marks, clock=clock, health=lambda: {"up": True})
        port = asyncio.create_task(run_serial(ingest, settings, clock, profile=profile))
        await until(lambda: any(source.connected for source in ingest.sources.values()))
        line.say(WIND + b"\r\nhello?\r\n$WIMWV,231.5,T,7.42,M,A*11\r\n" + AIR + b"\r\n")
        await until(lambda: ingest.readings.synced_offset == 2 and ingest.deadletter.synced_offset == 2)
        status = ingest.status()["sources"][0]
        assert (status["id"], status["kind"], status["connected"], status["readings"]) == (
            "serial:mast",
            "serial",
            True,
            2,
        )
        port.cancel()
        await asyncio.gather(port, return_exceptions=True)
        found = [contents(ingest.readings), contents(ingest.deadletter)]
        ingest.close()
        store.close()
        return found[0], found[1]

    readings, dead = asyncio.run(story())
    assert readings == [
        (b"edge-1/mast", b'{"wind_direction":231.5,"wind_speed":7.41}'),
        (b"edge-1/mast", b'{"air_temperature":11.32,"air_pressure":1013.38}'),
    ]
    assert dead == [
        (b"edge-1/serial:mast", b"hello?"),
        (b"edge-1/serial:mast", b"$WIMWV,231.5,T,7.42,M,A*11"),
    ]
    line.unplug()


def contents(log: PartitionLog) -> list[tuple[bytes | None, bytes | None]]:
    """Keys and values of everything in a log."""
    batches = [decode_batch(batch) for batch in split_batches(log.read(0, 1 << 20).data)]
    return [pair for batch in batches for pair in zip(batch.keys, batch.values, strict=True)]
