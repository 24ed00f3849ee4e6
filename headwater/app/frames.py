"""Frames between processes of one node: four bytes of length, big-endian, then msgpack."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from headwater.errors import PeerError

FRAME_BYTES_MAX = 16 << 20
_encoder = msgspec.msgpack.Encoder()


def encode_frame(value: Any) -> bytes:
    """One frame. Raises `PeerError` when it would be too large."""
    body = _encoder.encode(value)
    if len(body) > FRAME_BYTES_MAX:
        raise PeerError(f"a frame of {len(body)} bytes, {FRAME_BYTES_MAX} is the most")
    return len(body).to_bytes(4, "big") + body


async def read_frame(reader: asyncio.StreamReader) -> bytes | None:
    """The next frame's msgpack; None at the end. Raises `PeerError`."""
    try:
        size = int.from_bytes(await reader.readexactly(4), "big")
        if size > FRAME_BYTES_MAX:
            raise PeerError(f"a frame of {size} bytes, {FRAME_BYTES_MAX} is the most")
        return await reader.readexactly(size)
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
