"""Texts of many digits that are no number: whoever sends one must not hold the loop (it took minutes for 64 KB)."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import reduce
from operator import xor

import pytest

from devices.decoders import csv_lines, json_messages, line_protocol, nmea
from devices.profile_text import parse_profile
from devices.profiles import Profile
from devices.reading import Undecodable

DIGITS = b"1" * 20_000
CSV = 'name = "p"\nformat = "csv"\ntopics = ["t"]\noptions = { columns = ["a", "b"] }\nfields.a.type = "number"'
TYPED = 'name = "p"\ntopics = ["t"]\nfields.a.type = "number"'
LINES = 'name = "p"\nformat = "line-protocol"\ntopics = ["t"]'


def sentence(body: bytes) -> bytes:
    return b"$%b*%02X" % (body, reduce(xor, body))


@pytest.mark.parametrize(
    ("decode", "profile", "payload"),
    [
        (csv_lines.decode_group, CSV, DIGITS + b"x,1"),
        (csv_lines.decode_group, CSV, DIGITS + b".123" * 5_000 + b"x,1"),
        (json_messages.decode_group, TYPED, b'{"a":"%bx"}' % DIGITS),
        (line_protocol.decode_group, LINES, b"m a=%bx" % DIGITS),
        (nmea.decode_group, "", sentence(b"WIMWV,%bx,R,1,M,A" % DIGITS)),
    ],
)
def test_many_digits_are_read_once(
    decode: Callable[[Profile | None, list[tuple[str, bytes]]], list[object]], profile: str, payload: bytes
) -> None:
    read = parse_profile(profile, "p.toml") if profile else None
    began = time.process_time()
    [result] = decode(read, [("t", payload)])
    assert time.process_time() - began < 1
    assert isinstance(result, Undecodable)
