"""Zigzag varints of record format 2 (protobuf's encoding), by table where numbers are small, as most are."""

from __future__ import annotations

from gateway.log.errors import CorruptBatch

_TABLE_SIZE = 16_384
_VARINT_BYTES_MAX = 10


def _encode(number: int) -> bytes:
    raw = ((number << 1) ^ (number >> 63)) & 0xFFFF_FFFF_FFFF_FFFF
    out = bytearray()
    while raw > 0x7F:
        out.append(raw & 0x7F | 0x80)
        raw >>= 7
    out.append(raw)
    return bytes(out)


def small_varints(sign: int) -> list[bytes]:
    """The varints of 0 to 16,383 (sign 0) or of -1 to -16,384 (sign 1), in a twentieth of the time of `_encode`."""
    low = range(sign, 128, 2)
    one = [bytes((byte,)) for byte in low]
    two = [bytes((byte | 0x80, high)) for high in range(1, 128) for byte in low]
    return one + two + [bytes((byte | 0x80, high | 0x80, 1)) for high in range(128) for byte in low]


# SMALL[n] is the varint of n, for 0 <= n < 16,384.
SMALL: list[bytes] = small_varints(0)
NULL = _encode(-1)
# UNZIGZAG[b] is the number that the one-byte varint b stands for.
UNZIGZAG: tuple[int, ...] = tuple((raw >> 1) ^ -(raw & 1) for raw in range(128))


def encode_varint(number: int) -> bytes:
    """The zigzag varint of a signed 64-bit number."""
    return SMALL[number] if 0 <= number < _TABLE_SIZE else _encode(number)


def decode_varint(data: bytes, position: int) -> tuple[int, int]:
    """The number at `position` and the position after it. Raises `CorruptBatch`; `IndexError` at the end of `data`."""
    raw = 0
    for shift in range(0, 7 * _VARINT_BYTES_MAX, 7):
        byte = data[position]
        position += 1
        raw |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (raw >> 1) ^ -(raw & 1), position
    raise CorruptBatch("Record with a number longer than ten bytes")
