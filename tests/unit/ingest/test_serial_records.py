"""What a port reads becomes records and dead letters."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from devices.binary_framing import FramingSettings
from devices.checksums import CHECKS
from gateway.ingest.marks import MarkSettings
from gateway.ingest.pipeline import Ingest
from gateway.ingest.serial import port_profile, run_serial
from gateway.ingest.serial_settings import SerialSettings
from gateway.log.partition import PartitionLog
from gateway.log.records import decode_batch, split_batches
from gateway.log.settings import LogSettings
from gateway.log.store import LogStore
from headwater.clock import SystemClock
from headwater.disk import RealDisk
from tests.support.serial_ports import AIR, WIND, Line, Taken, mast, run
from tests.support.waiting import eventually


def test_a_line_without_a_profile_is_json_or_a_number(link: Path) -> None:
    line = Line(link)

    async def story(taken: Taken) -> None:
        await eventually(lambda: taken.source.connected)
        line.say(b"21.5\r\n")
        await eventually(lambda: taken.frames == [b"21.5"])

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
        await eventually(lambda: any(source.connected for source in ingest.sources.values()))
        line.say(WIND + b"\r\nhello?\r\n$WIMWV,231.5,T,7.42,M,A*11\r\n" + AIR + b"\r\n")
        await eventually(lambda: ingest.readings.synced_offset == 2 and ingest.deadletter.synced_offset == 2)
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
        await eventually(lambda: taken.source.connected)
        line.say(frame(b"21.5") + frame(b"7")[:-1] + b"\0" + frame(b"22"))
        await eventually(lambda: len(taken.frames) == 3)

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
        await eventually(lambda: any(source.connected for source in ingest.sources.values()))
        line.say(b"\0\x0421\x63\0\x0422\x00\0\x0332\0\x0422\x64\0")
        await eventually(lambda: ingest.readings.synced_offset == 2 and ingest.deadletter.synced_offset == 2)
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
