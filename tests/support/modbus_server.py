"""pymodbus's server as the foreign side of a bus: units with registers of every type, dead ones and garbling ones."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from pymodbus import FramerType
from pymodbus.client.mixin import ModbusClientMixin
from pymodbus.server import ModbusSerialServer, ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from headwater.net import free_port

_TYPES = ModbusClientMixin.DATATYPE
Packet = Callable[[bool, bytes], bytes]

METER = """
name = "meter"
format = "modbus"

[fields.relay]
register = { address = 3, table = "coil" }
[fields.door]
register = { address = 10, table = "discrete" }
[fields.valve]
register = { address = 90, table = "discrete" }
[fields.status]
register = { address = 0, bits = 4 }
[fields.alarm]
register = { address = 0, bit = 9 }
[fields.power]
unit = "kW"
scale = 0.1
register = { address = 1, encoding = "int32", order = "CDAB" }
[fields.voltage]
unit = "V"
register = { address = 3, encoding = "float32" }
[fields.energy]
register = { address = 10, encoding = "uint64" }
[fields.angle]
register = { address = 300, encoding = "float64", order = "CDAB" }
[fields.serial]
register = { address = 310, encoding = "text", length = 4 }
[fields.temperature]
scale = 0.1
register = { address = 5, table = "input", encoding = "int16" }
"""
READS: dict[str, Any] = {
    "relay": True,
    "door": True,
    "valve": False,
    "status": 11,
    "alarm": True,
    "power": -1234.5,
    "voltage": 230.25,
    "energy": 18_000_000_000_000_000_000,
    "angle": -1234.5678,
    "serial": "SN-0042",
    "temperature": -4.5,
}
"""What a meter's registers say, as a reading's fields."""


def registers(address: int, value: int | float | str, kind: Any, *, words_swapped: bool = False) -> SimData:
    """A value as pymodbus lays it down in registers."""
    order = "little" if words_swapped else "big"
    values = ModbusClientMixin.convert_to_registers(value, kind, word_order=order)  # type: ignore[arg-type]
    return SimData(address, values=values, datatype=DataType.REGISTERS)


def meter(unit: int) -> SimDevice:
    """A device with `METER`'s registers."""
    coils = [SimData(0, values=[False, False, False, True] + [False] * 12, datatype=DataType.BITS)]
    discrete = [SimData(0, values=[n in (10, 11) for n in range(112)], datatype=DataType.BITS)]
    holding = [
        SimData(0, values=[0x020B], datatype=DataType.REGISTERS),
        registers(1, -12345, _TYPES.INT32, words_swapped=True),
        registers(3, 230.25, _TYPES.FLOAT32),
        SimData(5, values=[0] * 5, datatype=DataType.REGISTERS),
        registers(10, READS["energy"], _TYPES.UINT64),
        registers(300, -1234.5678, _TYPES.FLOAT64, words_swapped=True),
        SimData(304, values=[0] * 6, datatype=DataType.REGISTERS),
        registers(310, "SN-0042 ", _TYPES.STRING),
    ]
    inputs = [SimData(0, values=[0, 0, 0, 0, 0, 0xFFD3], datatype=DataType.REGISTERS)]
    return SimDevice(id=unit, simdata=(coils, discrete, holding, inputs))


@asynccontextmanager
async def tcp_server(
    devices: list[SimDevice],
    *,
    port: int | None = None,
    trace: Packet | None = None,
    framer: FramerType = FramerType.SOCKET,
) -> AsyncIterator[int]:
    """A Modbus TCP server; its port."""
    port = free_port() if port is None else port
    server = ModbusTcpServer(devices, framer=framer, address=("127.0.0.1", port), trace_packet=trace or _as_is)
    await server.serve_forever(background=True)
    try:
        yield port
    finally:
        await server.shutdown()  # type: ignore[no-untyped-call]


@asynccontextmanager
async def rtu_server(devices: list[SimDevice], port: str, *, trace: Packet | None = None) -> AsyncIterator[None]:
    """Slaves on a serial line."""
    server = ModbusSerialServer(
        devices,
        framer=FramerType.RTU,
        port=port,
        baudrate=115_200,
        trace_packet=trace or _as_is,
    )
    await server.serve_forever(background=True)
    try:
        yield
    finally:
        await server.shutdown()  # type: ignore[no-untyped-call]


@asynccontextmanager
async def pty_pair(folder: Path) -> AsyncIterator[tuple[str, str]]:
    """Two pseudo-terminals that socat ties together, like a null-modem cable."""
    ends = str(folder / "ours"), str(folder / "theirs")
    socat = await asyncio.create_subprocess_exec("socat", *(f"pty,rawer,link={end}" for end in ends))
    try:
        async with asyncio.timeout(10):
            while not all(map(os.path.exists, ends)):  # noqa: ASYNC110 - socat tells nobody
                await asyncio.sleep(0.01)
        yield ends
    finally:
        if socat.returncode is None:
            socat.terminate()
        await socat.wait()


def dead(unit: int) -> Packet:
    """A slave that hears everything on the line and says nothing."""
    return lambda sending, data: b"" if sending and data[0] == unit else data


def _as_is(sending: bool, data: bytes) -> bytes:
    return data
