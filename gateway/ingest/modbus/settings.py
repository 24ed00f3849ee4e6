"""Settings of a Modbus bus, one `[[modbus]]` section each."""

from __future__ import annotations

from typing import Annotated

import msgspec

from gateway.ingest.serial_settings import LineSettings


class UnitSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One device on the bus.

    unit      its number: the slave address on a serial line (1 to 247), the unit identifier of Modbus TCP
    device    what its readings are called; `<bus>-<unit>` when left out
    profile   which registers it has, when it is not the bus's
    every_ms  how often it is asked, when it is not the bus's
    """

    unit: Annotated[int, msgspec.Meta(ge=0, le=255)]
    device: str = ""
    profile: str | None = None
    every_ms: Annotated[int, msgspec.Meta(ge=10)] | None = None


class ModbusSettings(LineSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One bus that is polled: a serial line (`port`) that speaks Modbus RTU, or a host (`tcp`) that speaks Modbus TCP.

    port               the serial line; its keys are those of [[serial]]
    tcp                host:port, the port 502 when left out
    rtu_over_tcp       the host passes RTU frames through, as serial device servers do
    name               what the node calls the bus; the port's last part or the host when left out
    profile            which registers the devices have: format "modbus", a shipped profile's name or a path
    units              the devices
    every_ms           how often each is asked
    timeout_ms         how long a device may take to answer; what the wire takes is added
    turnaround_ms      the pause before each request; at least the 3.5 characters of Modbus RTU
    backoff_max_ms     a device that does not answer is asked half as often each time, at least this often
    gap_max            registers that nobody wants are read along up to this many, to save a request
    registers_max      registers of one request; some devices take fewer than the 125 of the specification
    """

    port: str = ""
    tcp: str = ""
    rtu_over_tcp: bool = False
    name: str = ""
    profile: str | None = None
    units: tuple[UnitSettings, ...] = ()
    every_ms: Annotated[int, msgspec.Meta(ge=10)] = 1_000
    timeout_ms: Annotated[int, msgspec.Meta(ge=10, le=60_000)] = 500
    turnaround_ms: Annotated[int, msgspec.Meta(ge=0, le=10_000)] = 0
    backoff_max_ms: Annotated[int, msgspec.Meta(ge=10)] = 60_000
    gap_max: Annotated[int, msgspec.Meta(ge=0, le=124)] = 8
    registers_max: Annotated[int, msgspec.Meta(ge=1, le=125)] = 125

    @property
    def where(self) -> str:
        """The line or host as its owner wrote it."""
        return self.port or self.tcp

    @property
    def bus_name(self) -> str:
        """The bus's name in status and in its sources' ids."""
        return self.name or (self.port.rstrip("/").rpartition("/")[2] if self.port else self.tcp)
