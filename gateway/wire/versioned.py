"""Records of the coordinators' own topics, as Kafka writes them: a version, then a message of the tables. Sans-IO."""

from __future__ import annotations

from gateway.wire.compiler import Body, decoder, encoder
from gateway.wire.primitives import MalformedError


def encode_versioned(name: str, version: int, body: Body) -> bytes:
    """The version (int16), then the message."""
    parts = [version.to_bytes(2, "big")]
    encoder(name, version)(body, parts.append)
    return b"".join(parts)


def decode_versioned(name: str, data: bytes) -> Body:
    """Raises `MalformedError`, also for a version that the tables do not have."""
    version = int.from_bytes(data[:2], "big")
    try:
        decode = decoder(name, version)
    except ValueError as error:
        raise MalformedError(str(error)) from None
    return decode(memoryview(data), 2)[0]
