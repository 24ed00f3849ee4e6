"""A serial line: opened by a stable name, read by the loop, lost, opened again, for whoever speaks over it.

A line that is not there, is unplugged or silent recovers alone. While it is gone, all it costs is one try in
`retry_max_ms`.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import errno
import fcntl
import logging
import os
import re
from typing import Any, Protocol

import serial  # pyserial
from serial.rs485 import RS485Settings

from gateway.ingest.serial_settings import LineSettings, Rs485Settings
from headwater.clock import Clock
from headwater.errors import UserError

_log = logging.getLogger("headwater.serial")

READ_BYTES = 4_096  # a tty holds no more
RETRY_FIRST_MS = 100.0

_PARITIES = {
    "none": serial.PARITY_NONE,
    "even": serial.PARITY_EVEN,
    "odd": serial.PARITY_ODD,
    "mark": serial.PARITY_MARK,
    "space": serial.PARITY_SPACE,
}
_USB_ID = re.compile(r"usb:([0-9a-fA-F]{4}):([0-9a-fA-F]{4})(?::(.+))?")


class LineUser(Protocol):
    """Who speaks over the line; each is called in the loop."""

    def line_opened(self, *, silent: bool) -> None:
        """It is open; `silent`: it was open before too, and had said nothing for too long."""

    def line_heard(self, data: bytes) -> None: ...
    def line_lost(self, problem: str) -> None:
        """It is not there (said again with each try), or no longer; `problem` is why and what would help."""


class SerialLine:
    """One line; `run` for ever, `close` in the end."""

    def __init__(self, settings: LineSettings, clock: Clock, user: LineUser) -> None:
        self._settings = settings
        self._clock = clock
        self._user = user
        self._device: Any = None  # serial.Serial, while open
        self._lost = asyncio.Event()
        self._cause = ""
        self._heard_ms = 0.0

    async def run(self) -> None:
        """Open, read until lost, wait, open again; for ever."""
        settings = self._settings
        retry_ms = RETRY_FIRST_MS
        silent = False
        while True:
            try:
                self._open(silent=silent)
            except (serial.SerialException, OSError, ValueError, UserError) as error:
                silent = False
                self._user.line_lost(_why(settings, error))
                await asyncio.sleep(min(retry_ms, settings.retry_max_ms) / 1000)
                retry_ms = min(retry_ms * 2, float(settings.retry_max_ms))
                continue
            opened_ms = self._heard_ms
            problem = await self._until_lost()
            silent = not problem
            self.close()
            said = f"silent for {settings.silent_ms / 1000:g} s; opened anew, waiting for it to speak"
            self._user.line_lost(problem or said)
            if self._heard_ms > opened_ms:
                retry_ms = RETRY_FIRST_MS  # it worked: a short wait, not the long one of a port that is not there
            await asyncio.sleep(retry_ms / 1000)

    def _open(self, *, silent: bool) -> None:
        settings = self._settings
        device = serial.Serial(
            find_port(settings.port),
            baudrate=settings.baudrate,
            bytesize=settings.bytesize,
            parity=_PARITIES[settings.parity],
            stopbits=settings.stopbits,
            timeout=0,
            exclusive=True,
        )
        try:
            if settings.rs485 is not None:
                device.rs485_mode = _rs485(settings.rs485)
                if other := _taken_otherwise(device.fileno(), settings.rs485):
                    _log.warning("%s: its driver took other RS-485 settings than asked for: %s", settings.port, other)
        except BaseException:
            device.close()
            raise
        self._device = device
        self._lost.clear()
        self._heard_ms = self._clock.monotonic_ms()
        self._user.line_opened(silent=silent)
        self.resume()

    async def _until_lost(self) -> str:
        """Wait while the line speaks; why that ended, "" when it fell silent."""
        silent_ms = self._settings.silent_ms
        while True:
            left_ms = self._heard_ms + silent_ms - self._clock.monotonic_ms()
            if left_ms <= 0:
                return ""
            try:
                async with asyncio.timeout(left_ms / 1000):
                    await self._lost.wait()
            except TimeoutError:
                continue
            return self._cause

    def _readable(self) -> None:
        """The loop says that there is something to read: bytes, or the end."""
        try:
            data = os.read(self._device.fileno(), READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._end(error.strerror)
            return
        if not data:
            self._end("")
            return
        self._heard_ms = self._clock.monotonic_ms()
        self._user.line_heard(data)

    def write(self, data: bytes) -> None:
        """Say something short; what a full or lost line does not take is gone."""
        if self._device is None:
            return
        try:
            os.write(self._device.fileno(), data)
        except BlockingIOError:
            return
        except OSError as error:
            self._end(error.strerror)

    def pause(self) -> None:
        """Read nothing more until `resume`; the kernel holds what fits."""
        if self._device is not None:
            asyncio.get_running_loop().remove_reader(self._device.fileno())

    def resume(self) -> None:
        if self._device is not None and not self._lost.is_set():
            asyncio.get_running_loop().add_reader(self._device.fileno(), self._readable)

    def _end(self, reason: str | None) -> None:
        asyncio.get_running_loop().remove_reader(self._device.fileno())
        because = f" ({reason})" if reason else ""
        self._cause = f"unplugged{because}; waiting for {self._settings.port}"
        self._lost.set()

    def close(self) -> None:
        """Let go of the port."""
        if self._device is None:
            return
        device, self._device = self._device, None
        asyncio.get_running_loop().remove_reader(device.fileno())
        with contextlib.suppress(OSError):  # of an adapter that is gone
            device.close()


def find_port(port: str) -> str:
    """The path of a port: itself, or where `usb:VID:PID[:SERIAL]` is just now. Raises `UserError`."""
    if not port.startswith("usb:"):
        return port
    found = _USB_ID.fullmatch(port)
    if found is None:
        raise UserError(f"“{port}” is no USB id", hint="Write usb:VID:PID:SERIAL, for example usb:0403:6001:A50285BI.")
    from serial.tools import list_ports  # only where it is asked for: it looks through all of /sys

    wanted = int(found[1], 16), int(found[2], 16)
    there = [one for one in list_ports.comports() if (one.vid, one.pid) == wanted]
    ports = sorted(str(one.device) for one in there if found[3] is None or one.serial_number == found[3])
    if len(ports) == 1:
        return ports[0]
    if not ports:
        others = ", ".join(sorted(str(one.serial_number) for one in there))
        seen = f" (with other serial numbers: {others})" if others else ""
        raise FileNotFoundError(errno.ENOENT, f"no port has that id{seen}")
    numbers = ", ".join(f"{one.device} {one.serial_number or 'without a serial number'}" for one in there)
    raise UserError(f"{port} fits {numbers}", hint="Add the serial number, or use a name under /dev/serial/by-path.")


def _rs485(settings: Rs485Settings) -> RS485Settings:
    return RS485Settings(
        rts_level_for_tx=settings.rts_high_for_tx,
        rts_level_for_rx=settings.rts_high_for_rx,
        loopback=settings.loopback,
        delay_before_tx=settings.delay_before_tx_ms / 1000,
        delay_before_rx=settings.delay_before_rx_ms / 1000,
    )


# linux/serial.h: struct serial_rs485 is flags, two delays in ms, padding; 32 bytes
_GET_RS485 = 0x542E
_RS485_ENABLED, _RTS_ON_SEND, _RTS_AFTER_SEND, _RX_DURING_TX = 1, 2, 4, 16


def _taken_otherwise(descriptor: int, asked: Rs485Settings) -> str:
    """What the driver made of the settings, where that is something else: it drops what it cannot do without a word."""
    taken = array.array("I", bytes(32))
    try:
        fcntl.ioctl(descriptor, _GET_RS485, taken)
    except OSError:
        return ""  # it does not say
    flags, before_tx_ms, before_rx_ms = taken[:3]
    pairs = {
        "enabled": (True, bool(flags & _RS485_ENABLED)),
        "rts_high_for_tx": (asked.rts_high_for_tx, bool(flags & _RTS_ON_SEND)),
        "rts_high_for_rx": (asked.rts_high_for_rx, bool(flags & _RTS_AFTER_SEND)),
        "loopback": (asked.loopback, bool(flags & _RX_DURING_TX)),
        "delay_before_tx_ms": (asked.delay_before_tx_ms, before_tx_ms),
        "delay_before_rx_ms": (asked.delay_before_rx_ms, before_rx_ms),
    }
    return ", ".join(f"{key} = {str(got).lower()}" for key, (wanted, got) in pairs.items() if wanted != got)


def _why(settings: LineSettings, error: Exception) -> str:
    """Why a port does not open, and the next step."""
    port = settings.port
    code = getattr(error, "errno", None)
    if isinstance(error, UserError):
        return f"{error.what} {error.hint}".strip()
    if code in (errno.ENOENT, errno.ENXIO, errno.ENODEV):
        shows = "python -m serial.tools.list_ports -v" if port.startswith("usb:") else "ls /dev/serial/by-id"
        return f"{port} does not exist; waiting for it (is it plugged in? {shows} shows what is)"
    if code in (errno.EACCES, errno.EPERM):
        return f"no permission to open {port}; add the service's user to the group dialout"
    if code in (errno.EBUSY, errno.EAGAIN) or "exclusively lock" in str(error):
        return f"{port} is in use by another program; waiting until that ends"
    if "RS485" in str(error):  # pyserial hides the system's error behind its own
        cause = getattr(error.__context__, "errno", None)
        if cause in (errno.ENOTTY, errno.ENOSYS, errno.EOPNOTSUPP):
            return f"{port}: its driver has no RS-485 mode; leave rs485 out where the adapter switches by itself"
        return f"{port}: its driver does not take these rs485 settings ({error.__context__})"
    if code == errno.ENOTTY or "configure port" in str(error):
        return f"{port} is no serial port ({error})"
    return f"{port} does not open ({error})"
