"""Check values that devices put behind their frames. Sans-IO."""

from __future__ import annotations

import binascii
import zlib
from collections.abc import Callable
from functools import reduce
from operator import xor
from typing import Literal, NamedTuple

Check = Literal["none", "sum8", "xor8", "crc16-modbus", "crc16-ccitt", "crc16-xmodem", "crc32"]


class Checksum(NamedTuple):
    """How long it is, and how it is worked out."""

    size: int
    of: Callable[[bytes], int]


def _crc_table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ 0xA001 if value & 1 else value >> 1
        table.append(value)
    return table


_CRC_TABLE = _crc_table()


def crc16_modbus(data: bytes | bytearray) -> int:
    """CRC-16 of Modbus over Serial Line 1.02, section 6.2.2; over a frame with its own, low byte first, it is 0."""
    crc = 0xFFFF
    table = _CRC_TABLE
    for byte in data:
        crc = crc >> 8 ^ table[(crc ^ byte) & 0xFF]
    return crc


CHECKS: dict[str, Checksum] = {
    "none": Checksum(0, lambda data: 0),
    "sum8": Checksum(1, lambda data: sum(data) & 0xFF),
    "xor8": Checksum(1, lambda data: reduce(xor, data, 0)),
    "crc16-modbus": Checksum(2, crc16_modbus),
    "crc16-ccitt": Checksum(2, lambda data: binascii.crc_hqx(data, 0xFFFF)),  # CCITT-FALSE: from 0xFFFF
    "crc16-xmodem": Checksum(2, lambda data: binascii.crc_hqx(data, 0)),
    "crc32": Checksum(4, zlib.crc32),
}
