"""CBOR maps that differ in their numbers alone, as a device sends them again and again: read by one `struct` call.

A flat map whose keys are short texts, and whose values are booleans and numbers, has each value at the same place in
every message of its size. What is of another kind, or wrong, is left to `devices.cbor`, which says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from struct import Struct
from typing import Any, NamedTuple

_FIRST_MAP, _FIRST_TEXT = 0xA0, 0x60
_SHORT = 0x18  # lengths and numbers below it stand in the first byte itself
_FLOATS = {0xFA: "f", 0xFB: "d"}
_UNSIGNED = {0x18: "B", 0x19: "H", 0x1A: "I", 0x1B: "Q"}
_NEGATIVE = {0x38: "B", 0x39: "H", 0x3A: "I"}  # of eight bytes: not all of them fit 64 bits
_FALSE, _TRUE = 0xF4, 0xF5
_Column = tuple[Any, ...]
_Read = Callable[[_Column], Sequence[Any] | None]


class _Layout(NamedTuple):
    """`struct` cuts a message into columns: constant bytes, then a value, in turns."""

    struct: Struct
    names: list[str]
    constants: list[bytes]
    reads: list[_Read]


def flat_maps(messages: Sequence[bytes]) -> list[dict[str, Any]] | None:
    """The maps of messages of one size; None where they are not all laid out as the first, or not as simple as that.

    Each value is a finite number of 64 bits or a boolean. A name with a dot is a path elsewhere: none is here.
    """
    layout = _layout(messages[0])
    if layout is None or layout.struct.size != len(messages[0]):
        return None
    columns: list[_Column] = list(zip(*layout.struct.iter_unpack(b"".join(messages)), strict=True))
    for constant, column in zip(layout.constants, columns[::2], strict=True):
        if column.count(constant) != len(column):
            return None
    values = []
    for read, column in zip(layout.reads, columns[1::2], strict=True):
        if (found := read(column)) is None:
            return None
        values.append(found)
    return [dict(zip(layout.names, row, strict=True)) for row in zip(*values, strict=True)]


def _layout(message: bytes) -> _Layout | None:
    if not message or not _FIRST_MAP < message[0] < _FIRST_MAP + _SHORT:
        return None
    at, form = 1, ">"
    layout: tuple[list[str], list[bytes], list[_Read]] = ([], [], [])
    names, constants, reads = layout
    begun = 0
    try:
        for _ in range(message[0] - _FIRST_MAP):
            size = message[at] - _FIRST_TEXT
            if not 0 <= size < _SHORT:
                return None
            names.append(message[at + 1 : at + 1 + size].decode())
            at += 1 + size
            first = message[at]
            if (value := _value(first)) is None:
                return None
            code, read, is_first = value
            at += not is_first
            constants.append(message[begun:at])
            reads.append(read)
            form += f"{at - begun}s{code}"
            at += Struct(code).size
            begun = at
    except (IndexError, UnicodeDecodeError):
        return None
    if len(set(names)) != len(names) or any("." in name for name in names):
        return None
    return _Layout(Struct(form), names, constants, reads)


def _value(first: int) -> tuple[str, _Read, bool] | None:
    """How to cut the value that begins so, how to read its column, and whether the first byte is the value."""
    if first in _FLOATS:
        return _FLOATS[first], _finite, False
    if first in _UNSIGNED:
        return _UNSIGNED[first], _as_it_is, False
    if first in _NEGATIVE:
        return _NEGATIVE[first], _negative, False
    if first < _SHORT:
        return "B", _small, True
    return ("B", _boolean, True) if first in (_FALSE, _TRUE) else None


def _as_it_is(column: _Column) -> _Column:
    return column


def _finite(column: _Column) -> _Column | None:
    return column if math.isfinite(sum(column)) else None


def _negative(column: _Column) -> list[int]:
    return [-1 - number for number in column]


def _small(column: _Column) -> _Column | None:
    return column if max(column) < _SHORT else None


def _boolean(column: _Column) -> list[bool] | None:
    return [first == _TRUE for first in column] if {*column} <= {_FALSE, _TRUE} else None
