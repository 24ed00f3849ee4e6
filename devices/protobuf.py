"""Just enough of the Protocol Buffers wire format to read a message field by field, and to write a short one.

What is on the wire: https://protobuf.dev/programming-guides/encoding. Groups, deprecated since 2008, are refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_UINT64, _UINT32 = Struct("<Q"), Struct("<I")


class ProtobufError(ValueError):
    """Bytes that are no message; the text is one sentence."""


def fields(data: bytes) -> Iterator[tuple[int, int, int | bytes]]:
    """(field number, wire type, value) in order: an unsigned int, or the bytes of what is length-delimited."""
    at, end = 0, len(data)
    while at < end:
        if (tag := data[at]) < 0x80:  # of one byte, as nearly every tag and most numbers
            at += 1
        else:
            tag, at = _varint(data, at)
        number, kind = tag >> 3, tag & 7
        if number == 0:
            raise ProtobufError(f"byte {at - 1}: field number 0")
        value: int | bytes
        if kind == VARINT:
            if at < end and (value := data[at]) < 0x80:
                at += 1
            else:
                value, at = _varint(data, at)
        elif kind == BYTES:
            if at < end and (size := data[at]) < 0x80:
                at += 1
            else:
                size, at = _varint(data, at)
            if size > end - at:
                raise ProtobufError(f"it ends in the middle of field {number}")
            value, at = data[at : at + size], at + size
        elif kind in (FIXED64, FIXED32):
            form = _UINT64 if kind == FIXED64 else _UINT32
            if form.size > end - at:
                raise ProtobufError(f"it ends in the middle of field {number}")
            value, at = form.unpack_from(data, at)[0], at + form.size
        else:
            raise ProtobufError(f"byte {at - 1}: wire type {kind} is unknown")
        yield number, kind, value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    for position in range(at, min(at + 10, len(data))):
        byte = data[position]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, position + 1
        shift += 7
    raise ProtobufError("it ends in the middle of a number" if len(data) < at + 10 else f"byte {at}: an endless number")


def field(number: int, value: int | bytes) -> bytes:
    """One encoded field: an unsigned int as varint, bytes length-delimited."""
    if isinstance(value, int):
        return _encode(number << 3 | VARINT) + _encode(value)
    return _encode(number << 3 | BYTES) + _encode(len(value)) + value


def _encode(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
