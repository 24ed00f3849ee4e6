"""Bytes that no decoder understands, for devices that misbehave. Sans-IO."""

from __future__ import annotations

from random import Random


def garbage_payload(random: Random, n: int) -> bytes:
    """Bytes that are no JSON, each a different one: half a document, a wrong encoding, noise, a stray web page."""
    kind = n % 4
    if kind == 0:
        return b'{"ts": %d, "seq": %d, "wind_spe' % (random.randrange(1 << 40), n)
    if kind == 1:
        return b"\xff\xfe" + f'{{"seq": {n}}}'.encode("utf-16-le")
    if kind == 2:
        return bytes([0x80 | random.randrange(128)]) + random.randbytes(24) + n.to_bytes(4, "big")
    return b"<html><h1>404 device %d not found</h1></html>" % n
