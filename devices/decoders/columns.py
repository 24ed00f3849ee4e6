"""Texts that are numbers, by columns: what the messages of a group say at one place is read in one call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

_CHARS_MAX = 18  # what fits 64 bits as an integer, for certain
_numbers = msgspec.json.Decoder(list[int | float])
_floats = msgspec.json.Decoder(list[float])


def one_line_each(payloads: Sequence[bytes]) -> str | None:
    """The messages of a group as lines, where each is one line of UTF-8 without a byte order mark; else None."""
    try:
        text = b"\n".join([payload.rstrip(b"\r\n") for payload in payloads]).decode()
    except UnicodeDecodeError:
        return None
    if text.count("\n") != len(payloads) - 1 or "\r" in text or "\ufeff" in text:
        return None
    return None if not text or text[0] == "\n" or text[-1] == "\n" or "\n\n" in text else text


def numbers(cells: Sequence[str]) -> list[int | float] | None:
    """Each as `devices.shape.number_of` reads it; None where one is no number, or not written as JSON writes it."""
    return _decoded(_numbers, cells)


def floats(cells: Sequence[str]) -> list[float] | None:
    """Each as `float` reads it; None as in `numbers`."""
    return _decoded(_floats, cells)


def _decoded(decoder: msgspec.json.Decoder[list[Any]], cells: Sequence[str]) -> list[Any] | None:
    joined = ",".join(cells)
    # An exponent may have more digits than a device's number has; a zero keeps its sign.
    if max(map(len, cells), default=0) > _CHARS_MAX or "e" in joined or "E" in joined or "-0" in cells:
        return None
    try:
        values = decoder.decode(f"[{joined}]")
    except ValueError:
        return None
    return values if len(values) == len(cells) else None  # a cell with a comma in it would be two
