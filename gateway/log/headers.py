"""The header section of a record: a count, then key and value each with its length, all as zigzag varints."""

from __future__ import annotations

from collections.abc import Iterable

from gateway.log.errors import CorruptBatch
from gateway.log.varint import NULL, decode_varint, encode_varint

NO_HEADERS = b"\x00"


def encode_headers(pairs: Iterable[tuple[str, bytes | None]]) -> bytes:
    """The header section of a record: count, then key and value each with its length."""
    parts: list[bytes] = []
    count = 0
    for key, value in pairs:
        name = key.encode()
        parts += encode_varint(len(name)), name
        parts += (NULL,) if value is None else (encode_varint(len(value)), value)
        count += 1
    return encode_varint(count) + b"".join(parts)


def decode_headers(blob: bytes) -> list[tuple[str, bytes | None]]:
    """The pairs of an encoded header section. Raises `CorruptBatch`."""
    try:
        count, position = decode_varint(blob, 0)
        if not 0 <= count <= len(blob):
            raise CorruptBatch(f"Record with {count} headers in {len(blob)} bytes")
        pairs: list[tuple[str, bytes | None]] = []
        for _ in range(count):
            name, position = _sized(blob, position)
            value, position = _sized(blob, position)
            if name is None:
                raise CorruptBatch("Record with a header that has no key")
            pairs.append((name.decode(), value))
    except (IndexError, UnicodeDecodeError):
        raise CorruptBatch("Record with damaged headers") from None
    if position != len(blob):
        raise CorruptBatch(f"Record with {len(blob) - position} bytes after its headers")
    return pairs


def _sized(blob: bytes, position: int) -> tuple[bytes | None, int]:
    size, position = decode_varint(blob, position)
    if size < 0:
        return None, position
    if position + size > len(blob):
        raise CorruptBatch("Record with a header beyond its end")
    return blob[position : position + size], position + size
