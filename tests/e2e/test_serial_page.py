"""docs/serial.md: its five minutes with a Modbus meter, against pymodbus's server; its blocks are configurations."""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pymodbus.simulator import DataType, SimData, SimDevice

from devices.binary_framing import FramingSettings
from gateway.ingest.modbus.plan import bus_plan
from gateway.ingest.modbus.settings import ModbusSettings, UnitSettings
from gateway.ingest.serial import port_profile
from gateway.ingest.serial_settings import LineSettings, Rs485Settings, SerialSettings
from headwater.app.control import read_status
from headwater.cli.status import unit_rows
from headwater.dashboard.metrics import registry
from headwater.dashboard.model import PageModel
from headwater.net import free_port
from headwater.settings.load import load_settings
from tests.support import processes
from tests.support.modbus_server import registers, tcp_server
from tests.support.tree import ROOT

PAGE = (ROOT / "docs" / "serial.md").read_text(encoding="utf-8")


def block(kind: str) -> str:
    [found] = re.findall(rf"```toml {re.escape(kind)}\n(.*?)```", PAGE, re.DOTALL)
    return str(found)


def load(folder: Path, text: str) -> Any:
    file = folder / "headwater.toml"
    file.write_text(f'node = "edge-1"\n{text}')
    return load_settings(str(file), environ={}, host_name="host").settings


@contextmanager
def serving(devices: list[SimDevice], port: int) -> Iterator[None]:
    """pymodbus's server in a thread, while a node runs as a process."""
    up, down = threading.Event(), threading.Event()

    async def serve() -> None:
        async with tcp_server(devices, port=port):
            up.set()
            await asyncio.to_thread(down.wait)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert up.wait(10)
        yield
    finally:
        down.set()
        thread.join(10)


def test_the_five_minutes(tmp_path: Path) -> None:
    port = free_port()
    (tmp_path / "profiles").mkdir()
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "profiles" / "meter.toml").write_text(block("meter.toml"))
    (tmp_path / "conf.d" / "modbus.toml").write_text(
        block("modbus.toml").replace("192.0.2.10:502", f"127.0.0.1:{port}").replace("= 1000", "= 100")
    )
    config = tmp_path / "headwater.toml"
    config.write_text(f'node = "edge-1"\n[kafka]\nlisten = "127.0.0.1:{free_port()}"\n')
    said = processes.headwater(["config", "check", str(config)]).stdout
    promised = re.search(r"config check +# … polls Modbus 192.0.2.10:502: (.*)\n", PAGE)
    assert promised is not None
    assert f"polls Modbus 127.0.0.1:{port}: {promised[1]}" in said
    float32 = _float32
    bits = [SimData(0, values=[False] * 16, datatype=DataType.BITS)]
    holding = [SimData(0, values=[0], datatype=DataType.REGISTERS)]
    meter = SimDevice(id=1, simdata=(bits, bits, holding, [float32(0, 230.5), float32(12, 1500.0)]))
    with serving([meter], port), processes.node(config, tmp_path / "data"):
        status = _status(tmp_path, lambda one: one["modbus"][0]["units"][0]["answered"] >= 2)
        tail = processes.headwater(["tail", "-n", "1", "--config", str(config)])
        assert "edge-1/meter-1" in tail.stdout, tail.stderr
        assert '"voltage":230.5,"power":1.5' in tail.stdout.replace(" ", "")
        status = _status(tmp_path, lambda one: "2 times in a row" in str(one["problems"]))
        assert "modbus:hall/1: it refuses input 72 to 73: exception 2, illegal data address" in status["problems"]
        rows = unit_rows(status)
        assert [row[:2] for row in rows] == [("hall 2", "meter-2"), ("hall 1", "meter-1")]
        metrics = _metrics(status)
        assert metrics["headwater_modbus_bus_up", "hall"] == 1
        assert metrics["headwater_modbus_exceptions_total", "meter-1"] >= 1
        assert metrics["headwater_modbus_backoff_seconds", "meter-2"] >= 1
    said = processes.headwater(["status", "--config", str(config)]).stdout
    assert "does not run" in said


def _float32(address: int, value: float) -> SimData:
    from pymodbus.client.mixin import ModbusClientMixin

    return registers(address, value, ModbusClientMixin.DATATYPE.FLOAT32)


def _status(folder: Path, wanted: Any) -> dict[str, Any]:
    deadline = time.monotonic() + 20
    while (status := read_status(str(folder / "data"))) is None or not wanted(status):
        assert time.monotonic() < deadline, json.dumps(status, indent=1)
        time.sleep(0.05)
    return status


def _metrics(status: dict[str, Any]) -> dict[tuple[str, str], float]:
    collector = registry(lambda: status, PageModel(history_s=60, devices_max=10, series_max=10))
    return {
        (sample.name, sample.labels.get("device") or sample.labels.get("bus", "")): sample.value
        for metric in collector.collect()
        for sample in metric.samples
    }


@pytest.mark.parametrize("text", re.findall(r"```toml config\n(.*?)```", PAGE, re.DOTALL))
def test_every_block_is_a_configuration(text: str, tmp_path: Path) -> None:
    for port in load(tmp_path, text).serial:
        port_profile(port)


def test_the_annotated_configuration_s_bus_is_one(tmp_path: Path) -> None:
    text = (ROOT / "config" / "edge.toml").read_text()
    section = text[text.index("# [[modbus]]") :].partition("\n\n")[0]
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "meter.toml").write_text(block("meter.toml"))
    settings = load(tmp_path, re.sub(r"(?m)^# ", "", section))
    assert len(bus_plan(settings.modbus[0]).devices) == 2


@pytest.mark.parametrize(
    "struct", [LineSettings, SerialSettings, ModbusSettings, UnitSettings, FramingSettings, Rs485Settings]
)
def test_every_key_is_explained(struct: type[msgspec.Struct]) -> None:
    for key in struct.__struct_fields__:
        assert re.search(rf"\b{key}\b", PAGE), key


def test_the_shipped_meter_is_read_with_few_requests() -> None:
    assert 'profile = "sdm630"' in PAGE
    plan = bus_plan(ModbusSettings(tcp="192.0.2.10", profile="sdm630", units=(UnitSettings(unit=1),)))
    [unit] = plan.poller().units
    assert [str(request) for request in unit.requests] == ["input 0 to 17", "input 52 to 53", "input 70 to 75"]
    assert plan.devices[0].name == "192.0.2.10-1"
    assert plan.settings.silent_ms == 60_000


def test_a_bus_that_is_asked_seldom_is_not_called_silent_between_two_polls() -> None:
    settings = ModbusSettings(tcp="192.0.2.10", profile="sdm630", units=(UnitSettings(unit=1),), every_ms=300_000)
    assert bus_plan(settings).settings.silent_ms > 600_000
