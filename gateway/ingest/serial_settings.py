"""Settings of a serial line, and of a port that is read: one `[[serial]]` section each."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from devices.binary_framing import FramingSettings


class Rs485Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """RS-485 through the UART's driver, which switches the transmitter by RTS (Linux, TIOCSRS485).

    Leave it out for USB adapters and HATs that switch by themselves; they need no settings.

    rts_high_for_tx     RTS is high while this side speaks
    rts_high_for_rx     RTS is high while it listens; must be the other level, or nothing switches
    loopback            hear what was said
    delay_before_tx_ms  how long RTS stands before the first bit; Linux takes at most 100
    delay_before_rx_ms  how long RTS stands after the last bit; the same
    """

    rts_high_for_tx: bool = True
    rts_high_for_rx: bool = False
    loopback: bool = False
    delay_before_tx_ms: Annotated[int, msgspec.Meta(ge=0, le=100)] = 0
    delay_before_rx_ms: Annotated[int, msgspec.Meta(ge=0, le=100)] = 0

    def __post_init__(self) -> None:
        # a kernel given one level for both takes `rts_high_for_tx` alone, or switches nothing, and says neither
        if self.rts_high_for_tx == self.rts_high_for_rx:
            raise ValueError("rts_high_for_tx and rts_high_for_rx are the same level; one is true, the other false")


class LineSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A serial line.

    port               its path: the names under /dev/serial/by-id stay the same when other ports come and go, those
                       under /dev/serial/by-path say which socket; or usb:VID:PID:SERIAL as `lsusb` has them
    baudrate           bits per second; NMEA 0183 has 4800
    bytesize           data bits
    parity, stopbits   as the device's manual says
    rs485              only for a UART whose driver switches the direction
    retry_max_ms       what is not there is tried again at least this often
    silent_ms          after this long without a byte the line is opened anew: some adapters hang
    """

    port: str
    baudrate: Annotated[int, msgspec.Meta(ge=50, le=4_000_000)] = 9_600
    bytesize: Literal[5, 6, 7, 8] = 8
    parity: Literal["none", "even", "odd", "mark", "space"] = "none"
    stopbits: Literal[1, 2] = 1
    rs485: Rs485Settings | None = None
    retry_max_ms: Annotated[int, msgspec.Meta(ge=10)] = 5_000
    silent_ms: Annotated[int, msgspec.Meta(ge=10)] = 60_000

    @property
    def bits_a_byte(self) -> int:
        """What a byte takes on the wire: a start bit, its own, parity and stop."""
        return 1 + self.bytesize + (self.parity != "none") + self.stopbits


class SerialSettings(LineSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One serial port that is read.

    name               what the node calls it (source `serial:<name>`); the path's last part when left out
    profile            how its messages are read: a shipped profile's name, or a path that ends in `.toml`;
                       without one a line is JSON or a bare number
    device             the device at its end, when the profile's name for it will not do
    framing            where a message ends, when it is not the end of a line
    frame_bytes_max    a longer message is none
    """

    name: str = ""
    profile: str | None = None
    device: str | None = None
    framing: FramingSettings = FramingSettings()
    frame_bytes_max: Annotated[int, msgspec.Meta(ge=16, le=65_536)] = 1_024

    @property
    def source_name(self) -> str:
        """The port's name in the topic column, in status and in its source id."""
        return self.name or self.port.rstrip("/").rpartition("/")[2]
