"""From a `[[modbus]]` section and its profiles to what is polled. Raises `UserError` before anything is opened."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from devices.decoders.modbus import spans
from devices.profile_files import read_profiles
from devices.profiles import Profile
from gateway.ingest.modbus.framing import Framing, RtuFraming, TcpFraming
from gateway.ingest.modbus.poller import Poller, Timing, Unit
from gateway.ingest.modbus.settings import ModbusSettings, UnitSettings
from headwater.errors import UserError
from headwater.net import parse_address

TCP_PORT = 502
_RTU_GAP_BYTES = 3.5  # Modbus over Serial Line 1.02, section 2.5.1.1
_RTU_GAP_MIN_MS = 1.75  # the same, above 19,200 bit/s


class Device(NamedTuple):
    """One device on the bus; `profile` as the pipeline decodes its polls with."""

    unit: int
    name: str
    every_ms: int
    profile: Profile


class BusPlan(NamedTuple):
    """One bus, ready to be polled."""

    settings: ModbusSettings
    devices: tuple[Device, ...]

    def source_id(self, device: Device) -> str:
        """What the device's source is called in status, marks and dead letters."""
        return f"modbus:{self.settings.bus_name}/{device.unit}"

    @property
    def timing(self) -> Timing:
        settings = self.settings
        byte_ms = settings.bits_a_byte * 1000 / settings.baudrate if settings.port else 0.0
        gap_ms = max(_RTU_GAP_BYTES * byte_ms, _RTU_GAP_MIN_MS) if settings.port else 0.0
        turnaround_ms = max(float(settings.turnaround_ms), gap_ms)
        return Timing(settings.timeout_ms, turnaround_ms, byte_ms, settings.backoff_max_ms)

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of a bus on Modbus TCP."""
        return parse_address(self.settings.tcp, default_port=TCP_PORT)

    def poller(self) -> Poller:
        """A new poller of all its devices."""
        settings = self.settings
        framing: Framing = TcpFraming() if settings.tcp and not settings.rtu_over_tcp else RtuFraming()
        units = [
            Unit(
                device.unit,
                spans(device.profile),
                every_ms=device.every_ms,
                gap_max=settings.gap_max,
                registers_max=settings.registers_max,
            )
            for device in self.devices
        ]
        return Poller(units, framing, self.timing)


def bus_plan(settings: ModbusSettings, *, base: str = ".") -> BusPlan:
    """The plan of one section. Raises `UserError` for what its types allow and its meaning does not."""
    where = f"[[modbus]] {settings.bus_name}".rstrip()
    if bool(settings.port) == bool(settings.tcp):
        raise UserError(
            f"{where}: it needs either a serial port or a host",
            hint='Write port = "/dev/serial/by-id/…" for Modbus RTU, or tcp = "192.0.2.10:502" for Modbus TCP.',
        )
    if settings.tcp:
        parse_address(settings.tcp, default_port=TCP_PORT)
    if not settings.units:
        raise UserError(f"{where}: it has no units", hint='Write units = [{ unit = 1, device = "meter-1" }].')
    profiles: dict[tuple[str, int], Profile] = {}
    devices: list[Device] = []
    for unit in settings.units:
        _check_unit(settings, unit, devices, where)
        every_ms = unit.every_ms if unit.every_ms is not None else settings.every_ms
        name = unit.profile or settings.profile or ""
        if (name, every_ms) not in profiles:
            profiles[name, every_ms] = _poll_profile(name, every_ms, base, where)
        device = unit.device or f"{settings.bus_name}-{unit.unit}"
        devices.append(Device(unit.unit, device, every_ms, profiles[name, every_ms]))
    # a bus on which nobody has been asked yet is no silent one
    silent_ms = max(settings.silent_ms, 2 * min(device.every_ms for device in devices) + settings.timeout_ms)
    return BusPlan(msgspec.structs.replace(settings, silent_ms=silent_ms), tuple(devices))


def _check_unit(settings: ModbusSettings, unit: UnitSettings, before: list[Device], where: str) -> None:
    if not unit.profile and not settings.profile:
        raise UserError(
            f"{where}: unit {unit.unit} has no profile, so nobody knows which registers it has",
            hint='Write profile = "profiles/meter.toml", for the bus or for the unit (docs/serial.md).',
        )
    if settings.port and not 1 <= unit.unit <= 247:
        raise UserError(f"{where}: no slave on a serial line has the number {unit.unit}", hint="1 to 247.")
    for other in before:
        if other.unit == unit.unit:
            raise UserError(f"{where}: unit {unit.unit} is listed twice", hint="Put its fields into one profile.")
        if unit.device and other.name == unit.device:
            raise UserError(f"{where}: units {other.unit} and {unit.unit} are both called “{unit.device}”")


def _poll_profile(name: str, every_ms: int, base: str, where: str) -> Profile:
    """The profile with what a poll knows by itself: the device, and how often it is heard."""
    [profile] = read_profiles([name], base=base)
    if profile.format != "modbus" or not profile.fields:
        what = f"is of format “{profile.format}”" if profile.format != "modbus" else "lists no fields"
        raise UserError(f"{where}: profile “{profile.name}” {what}", hint='It needs format = "modbus" and its fields.')
    if (fastest := min(spans(profile).values(), default=1)) > 1:
        raise UserError(
            f"{where}: profile “{profile.name}” has no register that is read at each poll",
            hint=f"Ask less often: every_ms = {every_ms * fastest}, and divide each register's `every` by {fastest}.",
        )
    return msgspec.structs.replace(
        profile,
        topics=(),
        device=None,
        options={**profile.options, "layout": "blocks"},
        expected_interval_ms=profile.expected_interval_ms or every_ms,
    )
