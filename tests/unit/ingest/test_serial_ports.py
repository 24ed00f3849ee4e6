"""Ports: one that is gone, one by its USB id, RS-485."""

from __future__ import annotations

import array
import asyncio
import errno
import fcntl
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from gateway.ingest.serial_line import find_port
from gateway.ingest.serial_settings import Rs485Settings, SerialSettings
from headwater.errors import UserError
from headwater.settings.load import load_settings
from tests.support.serial_ports import WIND, Line, Taken, mast, run
from tests.support.waiting import eventually


def test_a_port_that_is_gone_costs_next_to_nothing(link: Path) -> None:
    """With the shortest retry that the default settings lead to, and one that nobody would set."""

    async def story(taken: Taken) -> None:
        await eventually(lambda: "does not exist" in taken.problem)
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
        await eventually(lambda: "usb:0403:6001:A50285BI does not exist" in taken.problem)
        for name in ("first", "second"):
            line = Line(link.with_name(name))
            there.append(Plugged(str(link.with_name(name)), 0x403, 0x6001, "A50285BI"))
            count = len(taken.frames)
            await eventually(lambda: taken.source.connected)
            line.say(WIND + b"\r\n")
            await eventually(lambda many=count: len(taken.frames) > many)  # type: ignore[misc]
            there.pop()
            line.unplug()
            await eventually(lambda: not taken.source.connected)

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


class Uart:
    """A driver with an RS-485 mode, as Linux has it: what it cannot do it drops, and says what is left."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, flags: int = 0xFFFF_FFFF, refuses: int = 0) -> None:
        self.flags, self.refuses = flags, refuses
        self.state: tuple[int, ...] = (0, 0, 0)
        self.asked: list[tuple[int, ...]] = []
        self._real = fcntl.ioctl
        monkeypatch.setattr("serial.serialposix.fcntl.ioctl", self.ioctl)

    def ioctl(self, fd: int, request: int, argument: Any = 0, *rest: Any) -> Any:
        if request == 0x542E:  # TIOCGRS485
            argument[:3] = array.array(argument.typecode, self.state)
            return 0
        if request != 0x542F:  # TIOCSRS485
            return self._real(fd, request, argument, *rest)
        if self.refuses:
            raise OSError(self.refuses, os.strerror(self.refuses))
        assert argument.itemsize * len(argument) == 32
        self.asked.append(tuple(argument)[:3])
        self.state = (argument[0] & self.flags, *argument[1:3])
        return 0


def rs485_problem(link: Path, settings: Rs485Settings, *, opens: bool = True) -> str:
    """Open a line so; what status says then."""
    line = Line(link)
    problem = ""

    async def story(taken: Taken) -> None:
        nonlocal problem
        await eventually(lambda: taken.source.connected if opens else "rs485" in taken.problem)
        problem = taken.problem

    run(mast(link, rs485=settings), story)
    line.unplug()
    return problem


@pytest.mark.parametrize(
    ("settings", "asked"),
    [
        # linux/serial.h, struct serial_rs485: ENABLED 1, RTS_ON_SEND 2, RTS_AFTER_SEND 4, RX_DURING_TX 16; two delays
        (Rs485Settings(), (0b00011, 0, 0)),
        (Rs485Settings(loopback=True, delay_before_rx_ms=100), (0b10011, 0, 100)),
        (
            Rs485Settings(rts_high_for_tx=False, rts_high_for_rx=True, delay_before_tx_ms=3, delay_before_rx_ms=2),
            (0b00101, 3, 2),
        ),
    ],
)
def test_rs485_is_asked_of_the_driver(
    link: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, settings: Rs485Settings, asked: Any
) -> None:
    uart = Uart(monkeypatch)
    uart.state = (0b10110, 7, 7)  # of who had the port before
    rs485_problem(link, settings)
    assert uart.asked == [asked]
    assert "RS-485" not in caplog.text


def test_a_driver_that_does_less_than_was_asked_is_named(
    link: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    Uart(monkeypatch, flags=~0b10000)
    rs485_problem(link, Rs485Settings(loopback=True))
    assert "its driver took other RS-485 settings than asked for: loopback = false" in caplog.text


def test_a_driver_that_refuses_says_why(link: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Uart(monkeypatch, refuses=errno.EINVAL)
    problem = rs485_problem(link, Rs485Settings(), opens=False)
    assert "does not take these rs485 settings ([Errno 22] Invalid argument)" in problem


def test_rs485_that_would_switch_nothing_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "headwater.toml"
    for wrong, said in (
        ("rts_high_for_tx = true, rts_high_for_rx = true", "the same level"),
        ("delay_before_tx_ms = 101", "100"),
    ):
        file.write_text(f'node = "edge-1"\n[[serial]]\nport = "/dev/ttyS0"\nrs485 = {{ {wrong} }}\n')
        with pytest.raises(UserError) as refused:
            load_settings(str(file), environ={}, host_name="host")
        assert "headwater.toml:4" in refused.value.what
        assert said in refused.value.what


def test_a_driver_without_rs485_is_named(link: Path) -> None:
    line = Line(link)

    async def story(taken: Taken) -> None:
        await eventually(lambda: "its driver has no RS-485 mode" in taken.problem)

    run(mast(link, rs485=Rs485Settings()), story)
    line.unplug()
