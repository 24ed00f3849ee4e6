"""Settings of a serial port, one `[[serial]]` section each."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec


class SerialSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One serial port.

    port               its path; the names under /dev/serial/by-id stay the same when other ports come and go
    name               what the node calls it (source `serial:<name>`); the path's last part when left out
    profile            how its messages are read: a shipped profile's name, or a path that ends in `.toml`;
                       without one a line is JSON or a bare number
    device             the device at its end, when the profile's name for it will not do
    baudrate           bits per second; NMEA 0183 has 4800
    bytesize           data bits
    parity, stopbits   as the device's manual says
    frame_bytes_max    a line longer than this is no message
    retry_max_ms       a port that is not there is tried again at least this often
    silent_ms          after this long without a byte the port is opened anew: some USB adapters hang
    """

    port: str
    name: str = ""
    profile: str | None = None
    device: str | None = None
    baudrate: Annotated[int, msgspec.Meta(ge=50, le=4_000_000)] = 9_600
    bytesize: Literal[5, 6, 7, 8] = 8
    parity: Literal["none", "even", "odd", "mark", "space"] = "none"
    stopbits: Literal[1, 2] = 1
    frame_bytes_max: Annotated[int, msgspec.Meta(ge=16, le=65_536)] = 1_024
    retry_max_ms: Annotated[int, msgspec.Meta(ge=10)] = 5_000
    silent_ms: Annotated[int, msgspec.Meta(ge=10)] = 60_000

    @property
    def source_name(self) -> str:
        """The port's name in the topic column, in status and in its source id."""
        return self.name or self.port.rstrip("/").rpartition("/")[2]
