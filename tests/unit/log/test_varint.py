"""Zigzag varints: the tables that are made at each start hold what the encoding says."""

from __future__ import annotations

from aiokafka.record.util import encode_varint as foreign_varint

from gateway.log.varint import decode_varint, encode_varint, small_varints


def foreign(number: int) -> bytes:
    written = bytearray()
    foreign_varint(number, written.append)
    return bytes(written)


def test_the_tables_are_a_foreign_encoders_bytes() -> None:
    assert small_varints(0) == [foreign(number) for number in range(16_384)]
    assert small_varints(1) == [foreign(-1 - number) for number in range(16_384)]


def test_edges() -> None:
    edges = [edge + step for shift in range(0, 63, 7) for edge in (1 << shift, -1 << shift) for step in (-1, 0, 1)]
    for number in [*edges, (1 << 63) - 1, -(1 << 63)]:
        assert encode_varint(number) == foreign(number)
        assert decode_varint(foreign(number), 0) == (number, len(foreign(number)))
