"""Serial ports over real pseudo-terminals: late, unplugged, garbled, silent, and a disk that fails."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import time
import tty
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from devices.binary_framing import FramingSettings
from devices.checksums import CHECKS
from devices.profiles import Profile
from gateway.ingest.marks import MarkSettings, MarkSource
from gateway.ingest.pipeline import Ingest
from gateway.ingest.serial import port_profile, run_serial
from gateway.ingest.serial_line import find_port
from gateway.ingest.serial_settings import Rs485Settings, SerialSettings
from gateway.ingest.sources import Done, Message, Source
from gateway.log.partition import PartitionLog
from gateway.log.records import decode_batch, split_batches
from gateway.log.settings import LogSettings
from gateway.log.store import LogStore
from headwater.clock import SystemClock
from headwater.disk import RealDisk
from headwater.errors import UserError

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
    assert sorted(dead) == [
        (b"edge-1/serial:mast", b"$WIMWV,231.5,T,7.42,M,A*11"),
        (b"edge-1/serial:mast", b"hello?"),
    ]
    line.unplug()


def contents(log: PartitionLog) -> list[tuple[bytes | None, bytes | None]]:
    """Keys and values of everything in a log."""
    batches = [decode_batch(batch) for batch in split_batches(log.read(0, 1 << 20).data)]
    return [pair for batch in batches for pair in zip(batch.keys, batch.values, strict=True)]


def test_frames_of_bytes_and_what_is_none_with_its_reason(link: Path) -> None:
    line = Line(link)
    framing = FramingSettings(kind="length", length_bytes=1, check="xor8", start="AA")

    def frame(text: bytes) -> bytes:
        return b"\xaa" + bytes([len(text)]) + text + bytes([CHECKS["xor8"].of(text)])

    async def story(taken: Taken) -> None:
        await until(lambda: taken.source.connected)
        line.say(frame(b"21.5") + frame(b"7")[:-1] + b"\0" + frame(b"22"))
        await until(lambda: len(taken.frames) == 3)

    taken = run(SerialSettings(port=str(link), framing=framing, retry_max_ms=20), story)
    assert taken.frames == [b"21.5", b"\xaa\x017\0", b"22"]
    assert taken.reasons == ["", "no frame: its xor8 is 37, it says 0", ""]
    line.unplug()


def test_a_garbled_frame_is_a_dead_letter_even_where_its_bytes_would_decode(link: Path, tmp_path: Path) -> None:
    line = Line(link)
    settings = SerialSettings(port=str(link), name="scale", framing=FramingSettings(kind="cobs", check="sum8"))

    async def story() -> tuple[PartitionLog, PartitionLog, dict[str, Any]]:
        clock = SystemClock()
        store = LogStore.open(
            str(tmp_path / "data"),
            node="edge-1",
            settings=LogSettings(fsync_interval_ms=0),
            disk=RealDisk(),
            clock=clock,
            call_in_loop=asyncio.get_running_loop().call_soon_threadsafe,
        )
        ingest = Ingest(store, node="edge-1", profiles=[], marks=MarkSettings(), clock=clock, health=lambda: {"up": 1})
        port = asyncio.create_task(run_serial(ingest, settings, clock))
        await until(lambda: any(source.connected for source in ingest.sources.values()))
        line.say(b"\0\x0421\x63\0\x0422\x00\0\x0332\0\x0422\x64\0")
        await until(lambda: ingest.readings.synced_offset == 2 and ingest.deadletter.synced_offset == 2)
        status = ingest.status()
        port.cancel()
        await asyncio.gather(port, return_exceptions=True)
        ingest.close()
        store.close()
        return ingest.readings, ingest.deadletter, status

    readings, dead, status = asyncio.run(story())
    assert [value for _, value in contents(readings)] == [b'{"value":21}', b'{"value":22}']
    assert [value for _, value in contents(dead)] == [b"\x0422", b"\x0332"]
    assert b"a part of it is missing" in dead.read(0, 1 << 16).data
    assert (status["received"], status["stored"], status["dead_letters"]) == (4, 2, 2)
    line.unplug()


def test_a_port_that_is_gone_costs_next_to_nothing(link: Path) -> None:
    """With the shortest retry that the default settings lead to, and one that nobody would set."""

    async def story(taken: Taken) -> None:
        await until(lambda: "does not exist" in taken.problem)
        began, began_cpu = time.monotonic(), time.process_time()
        await asyncio.sleep(0.5)
        assert time.process_time() - began_cpu < 0.05 * (time.monotonic() - began)

    run(SerialSettings(port=str(link), retry_max_ms=100), story)
    usb = SerialSettings(port="usb:0403:6001:NOT-THERE", retry_max_ms=500)
    run(usb, story)


class Plugged(NamedTuple):
    """What list_ports tells of a port."""

    device: str
    vid: int | None
    pid: int | None
    serial_number: str | None


def test_a_port_by_its_usb_id_is_found_wherever_it_comes_up(link: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there: list[Plugged] = [Plugged("/dev/ttyS0", None, None, None), Plugged("/dev/ttyUSB7", 0x403, 0x6001, "OTHER")]
    monkeypatch.setattr("serial.tools.list_ports.comports", lambda: there)
    settings = SerialSettings(port="usb:0403:6001:A50285BI", name="mast", profile="met-mast", retry_max_ms=20)

    async def story(taken: Taken) -> None:
        await until(lambda: "usb:0403:6001:A50285BI does not exist" in taken.problem)
        for name in ("first", "second"):
            line = Line(link.with_name(name))
            there.append(Plugged(str(link.with_name(name)), 0x403, 0x6001, "A50285BI"))
            count = len(taken.frames)
            await until(lambda: taken.source.connected)
            line.say(WIND + b"\r\n")
            await until(lambda many=count: len(taken.frames) > many)  # type: ignore[misc]
            there.pop()
            line.unplug()
            await until(lambda: not taken.source.connected)

    assert run(settings, story).source.id == "serial:mast"


def test_two_adapters_of_one_kind_are_not_mixed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    twins = [Plugged("/dev/ttyUSB0", 0x1A86, 0x7523, None), Plugged("/dev/ttyUSB1", 0x1A86, 0x7523, None)]
    monkeypatch.setattr("serial.tools.list_ports.comports", lambda: twins)
    with pytest.raises(UserError, match=r"usb:1a86:7523 fits /dev/ttyUSB0 without a serial number, /dev/ttyUSB1") as no:
        find_port("usb:1a86:7523")
    assert "by-path" in no.value.hint
    with pytest.raises(UserError, match="is no USB id"):
        find_port("usb:mast")
    assert find_port("/dev/ttyUSB0") == "/dev/ttyUSB0"


def test_rs485_is_asked_of_the_driver(link: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, ...]] = []
    real = fcntl.ioctl
    get_rs485, set_rs485 = 0x542E, 0x542F

    def ioctl(fd: int, request: int, argument: Any = 0, *rest: Any) -> Any:
        if request == get_rs485:
            return 0
        if request == set_rs485:
            asked.append(tuple(argument)[:3])
            return 0
        return real(fd, request, argument, *rest)

    monkeypatch.setattr("serial.serialposix.fcntl.ioctl", ioctl)
    line = Line(link)
    rs485 = Rs485Settings(rts_high_for_tx=False, rts_high_for_rx=True, delay_before_tx_ms=3, delay_before_rx_ms=2)

    async def story(taken: Taken) -> None:
        await until(lambda: taken.source.connected)

    run(mast(link, rs485=rs485), story)
    # linux/serial.h, struct serial_rs485: flags ENABLED | RTS_AFTER_SEND, the two delays
    assert asked == [(0b101, 3, 2)]
    line.unplug()


def test_a_driver_without_rs485_is_named(link: Path) -> None:
    line = Line(link)

    async def story(taken: Taken) -> None:
        await until(lambda: "its driver has no RS-485 mode" in taken.problem)

    run(mast(link, rs485=Rs485Settings()), story)
    line.unplug()
