"""Ports: one that is gone, one by its USB id, RS-485."""

from __future__ import annotations

import asyncio
import fcntl
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from gateway.ingest.serial_line import find_port
from gateway.ingest.serial_settings import Rs485Settings, SerialSettings
from headwater.errors import UserError
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
        await eventually(lambda: taken.source.connected)

    run(mast(link, rs485=rs485), story)
    # linux/serial.h, struct serial_rs485: flags ENABLED | RTS_AFTER_SEND, the two delays
    assert asked == [(0b101, 3, 2)]
    line.unplug()


def test_a_driver_without_rs485_is_named(link: Path) -> None:
    line = Line(link)

    async def story(taken: Taken) -> None:
        await eventually(lambda: "its driver has no RS-485 mode" in taken.problem)

    run(mast(link, rs485=Rs485Settings()), story)
    line.unplug()
