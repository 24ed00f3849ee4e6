"""The variable-length parts of Kafka's wire format: unsigned varints and tagged fields (KIP-482).

Decoders read a `memoryview` at a position and return the value and the next position. They may raise
`IndexError` or `struct.error` past the end; `gateway.wire.compiler` turns every failure into a `PeerError`.
"""

from __future__ import annotations

from collections.abc import Callable

from headwater.errors import PeerError

# One byte objects for 0..127: the encoder's commonest varints without a call.
VARINT1 = tuple(bytes((n,)) for n in range(128))


class MalformedError(PeerError):
    """Bytes that are no message of the protocol."""


def encode_uvarint(value: int) -> bytes:
    """Base-128, least significant group first."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def decode_uvarint(buffer: memoryview, position: int) -> tuple[int, int]:
    """An unsigned varint of at most five bytes (32 bits)."""
    value = 0
    for shift in (0, 7, 14, 21, 28):
        byte = buffer[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            if value > 0xFFFFFFFF:
                break
            return value, position
    raise MalformedError("a varint is longer than 32 bits")


def skip_tags(buffer: memoryview, position: int) -> int:
    """Pass over a structure's tagged fields; returns the position after them."""
    return read_tags(buffer, position, None)


def read_tags(buffer: memoryview, position: int, known: Callable[[int, int, int], int | None] | None) -> int:
    """Walk tagged fields: `known(tag, start, end)` returns where it stopped reading, or None to skip the tag."""
    count, position = decode_uvarint(buffer, position)
    if count * 2 > len(buffer) - position:
        raise MalformedError(f"{count} tagged fields do not fit")
    last = -1
    for _ in range(count):
        tag, position = decode_uvarint(buffer, position)
        size, position = decode_uvarint(buffer, position)
        if tag <= last:
            raise MalformedError(f"tagged field {tag} comes after {last}")
        last = tag
        end = position + size
        if end > len(buffer):
            raise MalformedError(f"tagged field {tag} does not fit")
        if known is not None and (stopped := known(tag, position, end)) is not None and stopped != end:
            raise MalformedError(f"tagged field {tag} has {size} bytes, {stopped - position} were read")
        position = end
    return position


def encode_tags(tags: list[tuple[int, list[bytes]]]) -> bytes:
    """A structure's tagged fields, in ascending order of their tags."""
    out = [encode_uvarint(len(tags))]
    for tag, parts in tags:
        out.append(encode_uvarint(tag))
        out.append(encode_uvarint(sum(map(len, parts))))
        out += parts
    return b"".join(out)
