"""What a [[modbus]] section may not say, and what follows from what it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.ingest.modbus.plan import bus_plan
from gateway.ingest.modbus.settings import ModbusSettings, UnitSettings
from headwater.errors import UserError

ONE = (UnitSettings(unit=1),)


def test_a_profile_whose_registers_are_all_slow_is_asked_less_often_instead(tmp_path: Path) -> None:
    file = tmp_path / "slow.toml"
    head = 'name = "slow"\nformat = "modbus"\n[fields.a]\nregister = { address = 1, every = 4 }\n'
    file.write_text(head + "[fields.b]\nregister = { address = 2, every = 8 }\n")
    with pytest.raises(UserError) as mistake:
        bus_plan(ModbusSettings(tcp="h", units=ONE, profile=str(file)))
    assert "no register that is read at each poll" in mistake.value.what
    assert "every_ms = 4000" in (mistake.value.hint or "")


@pytest.mark.parametrize(
    ("keys", "what"),
    [
        ({"units": ONE}, "it needs either a serial port or a host"),
        ({"port": "/dev/ttyUSB0", "tcp": "h", "units": ONE}, "it needs either a serial port or a host"),
        ({"tcp": "h:x", "units": ONE}, "“h:x” is no address"),
        ({"tcp": "h"}, "h: it has no units"),
        ({"tcp": "h", "units": ONE, "profile": None}, "unit 1 has no profile"),
        ({"port": "/dev/ttyUSB0", "units": (UnitSettings(unit=0),)}, "no slave on a serial line has the number 0"),
        ({"port": "/dev/ttyUSB0", "units": (UnitSettings(unit=248),)}, "has the number 248"),
        ({"tcp": "h", "units": ONE * 2}, "unit 1 is listed twice"),
        (
            {"tcp": "h", "units": (UnitSettings(unit=1, device="m"), UnitSettings(unit=2, device="m"))},
            "units 1 and 2 are both called “m”",
        ),
        ({"tcp": "h", "units": ONE, "profile": "met-mast"}, "profile “met-mast” is of format “nmea0183”"),
        ({"tcp": "h", "units": ONE, "profile": "nothing"}, "no shipped profile is called “nothing”"),
    ],
)
def test_mistakes_are_named(keys: dict[str, Any], what: str) -> None:
    with pytest.raises(UserError) as mistake:
        bus_plan(ModbusSettings(**({"profile": "sdm630"} | keys)))
    assert what in mistake.value.what
    assert mistake.value.hint or "both called" in what


def test_a_profile_without_fields_is_none(tmp_path: Path) -> None:
    (tmp_path / "empty.toml").write_text('name = "empty"\nformat = "modbus"\n')
    with pytest.raises(UserError, match="profile “empty” lists no fields"):
        bus_plan(ModbusSettings(tcp="h", profile="empty.toml", units=ONE), base=str(tmp_path))


def test_units_have_the_bus_s_keys_where_they_have_none_of_their_own() -> None:
    own = UnitSettings(unit=2, device="own", every_ms=5_000)
    plan = bus_plan(ModbusSettings(tcp="h:1502", name="hall", profile="sdm630", units=(*ONE, own), every_ms=250))
    assert [(device.name, device.every_ms) for device in plan.devices] == [("hall-1", 250), ("own", 5_000)]
    assert [plan.source_id(device) for device in plan.devices] == ["modbus:hall/1", "modbus:hall/2"]
    assert [device.profile.expected_interval_ms for device in plan.devices] == [250, 5_000]
    assert plan.address == ("h", 1502)


@pytest.mark.parametrize(
    ("keys", "turnaround_ms"),
    [
        # 3.5 characters of 11 bits, and 1.75 ms above 19,200 bit/s (Modbus over Serial Line 1.02, section 2.5.1.1)
        ({"baudrate": 9_600, "parity": "even"}, 4.01),
        ({"baudrate": 115_200}, 1.75),
        ({"baudrate": 9_600, "turnaround_ms": 20}, 20),
    ],
)
def test_the_line_is_quiet_between_requests(keys: dict[str, Any], turnaround_ms: float) -> None:
    plan = bus_plan(ModbusSettings(port="/dev/ttyUSB0", profile="sdm630", units=ONE, **keys))
    assert plan.timing.turnaround_ms == pytest.approx(turnaround_ms, abs=0.01)
    assert bus_plan(ModbusSettings(tcp="h", profile="sdm630", units=ONE)).timing.turnaround_ms == 0
