"""Modbus polling against pymodbus's server: over TCP, and over a serial line that socat stands in for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pymodbus import FramerType
from pymodbus.simulator import DataType, SimData, SimDevice

from gateway.ingest.marks import MarkSettings
from gateway.ingest.messages import Message
from gateway.ingest.modbus.bus import ModbusBus
from gateway.ingest.modbus.plan import bus_plan
from gateway.ingest.modbus.poller import Poller
from gateway.ingest.modbus.settings import ModbusSettings, UnitSettings
from gateway.ingest.pipeline import Ingest
from gateway.ingest.sources import Done, Source
from gateway.log.settings import LogSettings
from gateway.log.store import LogStore
from headwater.clock import SystemClock
from headwater.disk import RealDisk
from headwater.net import RealNet, free_port
from tests.support.ingest import Stored, stored
from tests.support.modbus_server import METER, READS, dead, meter, pty_pair, rtu_server, tcp_server
from tests.support.waiting import eventually


@pytest.fixture
def profile(tmp_path: Path) -> str:
    file = tmp_path / "meter.toml"
    file.write_text(METER)
    return str(file)


class Node:
    """The pipeline with its log, and one bus."""

    def __init__(self, ingest: Ingest, bus: ModbusBus) -> None:
        self.ingest = ingest
        self.bus = bus
        self.running = asyncio.create_task(bus.run())

    def of(self, device: str) -> list[Stored]:
        """What is on disk of a device."""
        return [one for one in stored(self.ingest.readings) if one.key == f"edge-1/{device}"]

    def unit(self, number: int) -> dict[str, Any]:
        return next(unit for unit in self.bus.status()["units"] if unit["unit"] == number)

    def source(self, number: int) -> dict[str, Any]:
        wanted = self.unit(number)["source"]
        return next(one for one in self.ingest.status()["sources"] if one["id"] == wanted)


@asynccontextmanager
async def node(folder: Path, settings: ModbusSettings) -> AsyncIterator[Node]:
    clock = SystemClock()
    store = LogStore.open(
        str(folder / "data"),
        node="edge-1",
        settings=LogSettings(fsync_interval_ms=0),
        disk=RealDisk(),
        clock=clock,
        call_in_loop=asyncio.get_running_loop().call_soon_threadsafe,
    )
    ingest = Ingest(store, node="edge-1", profiles=[], marks=MarkSettings(), clock=clock, health=lambda: {"up": True})
    bus = ModbusBus(ingest, bus_plan(settings), clock, RealNet())
    edge = Node(ingest, bus)
    try:
        yield edge
        assert not edge.running.done()
    finally:
        edge.running.cancel()
        await asyncio.gather(edge.running, return_exceptions=True)
        ingest.close()
        store.close()


def units(*numbers: int) -> tuple[UnitSettings, ...]:
    return tuple(UnitSettings(unit=number, device=f"meter-{number}") for number in numbers)


def test_every_kind_of_register_over_tcp(tmp_path: Path, profile: str) -> None:
    async def story() -> None:
        async with tcp_server([meter(1)]) as port:
            settings = ModbusSettings(tcp=f"127.0.0.1:{port}", profile=profile, units=units(1), every_ms=20)
            async with node(tmp_path, settings) as edge:
                await eventually(lambda: len(edge.of("meter-1")) >= 3)
                first = edge.of("meter-1")[0]
                assert first.value == READS
                assert edge.unit(1)["requests"] == 5  # a coil, two of inputs 80 apart, two of holding, one of input
                assert not edge.unit(1)["timeouts"]
                assert edge.source(1)["connected"]
                assert edge.source(1)["problem"] is None

    asyncio.run(story())


@pytest.mark.parametrize("where", ["tick", "feed"])
def test_a_defect_ends_the_bus_for_whoever_begins_it_again(
    tmp_path: Path, profile: str, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        async with tcp_server([meter(1)]) as port:
            settings = ModbusSettings(tcp=f"127.0.0.1:{port}", profile=profile, units=units(1), every_ms=20)
            async with node(tmp_path, settings) as edge:
                await eventually(lambda: len(edge.of("meter-1")) >= 1)
                with monkeypatch.context() as broken:
                    broken.setattr(Poller, where, defect)
                    with pytest.raises(ZeroDivisionError):
                        await asyncio.wait_for(edge.running, 5)
                assert not edge.source(1)["connected"]
                edge.running = asyncio.create_task(edge.bus.run())
                before = len(edge.of("meter-1"))
                await eventually(lambda: len(edge.of("meter-1")) > before)

    def defect(*_: object) -> bytes:
        raise ZeroDivisionError

    asyncio.run(story())


@pytest.mark.peer("socat")
def test_every_kind_of_register_over_a_serial_line(tmp_path: Path, profile: str) -> None:
    async def story() -> None:
        async with pty_pair(tmp_path) as (ours, theirs), rtu_server([meter(1), meter(247)], theirs):
            settings = ModbusSettings(port=ours, baudrate=115_200, profile=profile, units=units(1, 247), every_ms=30)
            async with node(tmp_path, settings) as edge:
                await eventually(lambda: len(edge.of("meter-1")) >= 2 and len(edge.of("meter-247")) >= 2)
                assert edge.of("meter-1")[0].value == READS
                assert edge.of("meter-247")[0].value == READS

    asyncio.run(story())


@pytest.mark.peer("socat")
def test_a_dead_slave_among_three_costs_the_others_nothing(tmp_path: Path, profile: str) -> None:
    async def story() -> None:
        async with (
            pty_pair(tmp_path) as (ours, theirs),
            rtu_server([meter(1), meter(2), meter(3)], theirs, trace=dead(2)),
        ):
            settings = ModbusSettings(
                port=ours, baudrate=115_200, profile=profile, units=units(1, 2, 3), every_ms=50, timeout_ms=60
            )
            async with node(tmp_path, settings) as edge:
                await eventually(lambda: len(edge.of("meter-1")) >= 20 and len(edge.of("meter-3")) >= 20)
                silent = edge.unit(2)
                assert silent["timeouts"] <= 6  # of 20 polls that it was due for: 50, 100, 200, 400… ms apart
                assert silent["backoff_ms"] >= 200
                problem = str(edge.source(2)["problem"])
                assert "no answer within 60 ms" in problem
                assert not edge.source(2)["connected"]
                assert not edge.of("meter-2")

    asyncio.run(story())


@pytest.mark.peer("socat")
def test_a_slave_that_answers_garbage_is_named_and_its_neighbour_is_read(
    tmp_path: Path, profile: str, caplog: pytest.LogCaptureFixture
) -> None:
    garbles = True

    def garble(sending: bool, data: bytes) -> bytes:
        if not garbles or not sending or data[0] != 2:
            return data
        return data[:-1] + bytes([data[-1] ^ 0x55])

    async def story() -> None:
        async with pty_pair(tmp_path) as (ours, theirs), rtu_server([meter(1), meter(2)], theirs, trace=garble):
            settings = ModbusSettings(
                port=ours, baudrate=115_200, profile=profile, units=units(1, 2), every_ms=30, timeout_ms=60
            )
            async with node(tmp_path, settings) as edge:
                await eventually(lambda: edge.unit(2)["garbled"] >= 2 and len(edge.of("meter-1")) >= 5)
                assert "garbled" in str(edge.source(2)["problem"])
                assert not edge.of("meter-2")
                assert edge.of("meter-1")[-1].value == READS
                assert not edge.ingest.status()["dead_letters"]
                nonlocal garbles
                garbles = False
                await eventually(lambda: len(edge.of("meter-2")) >= 1)
                assert edge.source(2)["problem"] is None

    with caplog.at_level(logging.INFO, logger="headwater.modbus"):
        asyncio.run(story())
    said = [record.getMessage() for record in caplog.records if "unit 2" in record.getMessage()]
    assert len(said) == 2  # once when it begins, once when it ends
    assert "garbled" in said[0]
    assert said[1].endswith("unit 2 (meter-2) is well again")


def test_a_register_that_is_not_there_is_named_and_the_rest_is_read(tmp_path: Path, profile: str) -> None:
    holding = [SimData(0, values=[0x020B, 0xCFC7, 0xFFFF, 0x4366, 0x4000], datatype=DataType.REGISTERS)]
    bits = [SimData(0, values=[False] * 16, datatype=DataType.BITS)]
    inputs = [SimData(5, values=[0xFFD3], datatype=DataType.REGISTERS)]

    async def story() -> None:
        async with tcp_server([SimDevice(id=1, simdata=(bits, bits, holding, inputs))]) as port:
            settings = ModbusSettings(tcp=f"127.0.0.1:{port}", profile=profile, units=units(1), every_ms=20)
            async with node(tmp_path, settings) as edge:
                await eventually(lambda: len(edge.of("meter-1")) >= 3)
                last = edge.of("meter-1")[-1].value
                assert last == {
                    "relay": False, "door": False, "status": 11, "alarm": True,
                    "power": -1234.5, "voltage": 230.25, "temperature": -4.5,
                }  # fmt: skip
                problem = str(edge.source(1)["problem"])
                assert "discrete 90 to 90: exception 2, illegal data address" in problem
                assert "holding 10 to 13" in problem
                assert edge.source(1)["connected"]
                before = dict(edge.unit(1)["exceptions"])
                count = len(edge.of("meter-1"))
                await eventually(lambda: len(edge.of("meter-1")) >= count + 3)
                assert edge.unit(1)["exceptions"] == before  # they are not asked for again with every poll

    asyncio.run(story())


def test_a_server_that_comes_late_goes_and_comes_back(tmp_path: Path, profile: str) -> None:
    async def story() -> None:
        port = free_port()
        settings = ModbusSettings(
            tcp=f"127.0.0.1:{port}", name="hall", profile=profile, units=units(1), every_ms=20, retry_max_ms=50
        )
        async with node(tmp_path, settings) as edge:
            await eventually(lambda: "cannot be reached" in str(edge.bus.status()["problem"]))
            for _ in range(2):
                count = len(edge.of("meter-1"))
                async with tcp_server([meter(1)], port=port):
                    await eventually(lambda many=count: len(edge.of("meter-1")) > many)  # type: ignore[misc]
                    assert edge.bus.status()["problem"] is None
                await eventually(lambda: edge.bus.status()["problem"] is not None)
                assert not edge.source(1)["connected"]

    asyncio.run(story())


def test_rtu_frames_through_a_serial_device_server(tmp_path: Path, profile: str) -> None:
    async def story() -> None:
        async with tcp_server([meter(1), meter(2)], framer=FramerType.RTU) as port:
            settings = ModbusSettings(
                tcp=f"127.0.0.1:{port}", rtu_over_tcp=True, profile=profile, units=units(1, 2), every_ms=20
            )
            async with node(tmp_path, settings) as edge:
                await eventually(lambda: len(edge.of("meter-1")) >= 2 and len(edge.of("meter-2")) >= 2)
                assert edge.of("meter-2")[0].value == READS

    asyncio.run(story())


@pytest.mark.peer("socat")
def test_a_line_that_is_unplugged_comes_back_by_itself(tmp_path: Path, profile: str) -> None:
    async def story() -> None:
        settings = ModbusSettings(
            port=str(tmp_path / "ours"), profile=profile, units=units(1), every_ms=20, retry_max_ms=50, timeout_ms=100
        )
        async with node(tmp_path, settings) as edge:
            await eventually(lambda: "does not exist; waiting" in str(edge.bus.status()["problem"]))
            for _ in range(2):
                count = len(edge.of("meter-1"))
                async with pty_pair(tmp_path) as (_, theirs), rtu_server([meter(1)], theirs):
                    await eventually(lambda many=count: len(edge.of("meter-1")) > many)  # type: ignore[misc]
                    assert edge.bus.status()["problem"] is None
                await eventually(lambda: edge.bus.status()["problem"] is not None)
                assert not edge.source(1)["connected"]
                assert edge.source(1)["problem"] is None  # it is the bus's

    asyncio.run(story())


@pytest.mark.peer("socat")
def test_noise_and_an_echo_on_the_line_are_passed_over(tmp_path: Path, profile: str) -> None:
    """A two-wire adapter hears itself; a bad wire adds bytes before each answer."""
    asked: list[bytes] = []

    def noisy(sending: bool, data: bytes) -> bytes:
        if not sending:
            asked.append(data)
            return data
        return asked[-1] + b"\xff\x00\x01\x03" + data

    async def story() -> None:
        async with pty_pair(tmp_path) as (ours, theirs), rtu_server([meter(1)], theirs, trace=noisy):
            settings = ModbusSettings(port=ours, baudrate=115_200, profile=profile, units=units(1), every_ms=30)
            async with node(tmp_path, settings) as edge:
                await eventually(lambda: len(edge.of("meter-1")) >= 3)
                assert edge.of("meter-1")[-1].value == READS
                assert not edge.unit(1)["timeouts"]
                assert edge.bus.status()["garbage_bytes"] >= 3 * 5 * 12

    asyncio.run(story())


def test_what_the_disk_would_not_take_is_taken_again(
    tmp_path: Path, profile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.ingest.retake.RETAKE_MS", 5.0)

    async def story() -> None:
        async with tcp_server([meter(1)]) as port:
            settings = ModbusSettings(tcp=f"127.0.0.1:{port}", profile=profile, units=units(1), every_ms=3_600_000)
            async with node(tmp_path, settings) as edge:
                real, failures = edge.ingest.take, [1, 2]

                def take(source: Source, messages: list[Message], done: Done, **more: Any) -> None:
                    if failures:
                        failures.pop()
                        done(False)
                    else:
                        real(source, messages, done, **more)

                monkeypatch.setattr(edge.ingest, "take", take)
                await eventually(lambda: len(edge.of("meter-1")) == 1)
                assert not failures
                assert edge.of("meter-1")[0].value == READS

    asyncio.run(story())
