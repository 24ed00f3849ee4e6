"""JSON objects of numbers alone, read without making an object of any: what nearly all readings are.

A row is compared with another one's text but for its numbers. Those are read digit by digit, all rows together. Up to
15 digits are a whole number below 2^53, a power of ten up to 10^22 is exact too, and their quotient is rounded once: so
it is the double that the decimal text means (Clinger, "How to Read Floating Point Numbers Accurately", 1990).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from headwater.errors import UNREADABLE
from processors.pieces import Bools, Ints, Pieces

SHAPES_MAX = 4
"""Kinds of readings in a block that are looked for; each costs a pass over those that are left."""
_SHARE_MIN = 16  # a shape that fewer than every so-manyth of the rows has is the last one that is looked for
_DIGITS_MAX = 15
_MEMBERS_MAX = 64
_MEMBER = re.compile(rb'[{,]\s*"([^"\\]*)"\s*:\s*(-?\d+(?:\.\d+)?)')
_END = re.compile(rb"\s*\}\s*\Z")
_TENS = np.array([10.0**digits for digits in range(_DIGITS_MAX + 1)])
_POINT = (ord(".") - ord("0")) % 256
_DECODER = msgspec.json.Decoder(dict)
Floats = npt.NDArray[np.float64]


class Plain(NamedTuple):
    """Values by field, with their rows, in pieces; and the rows that are to be read otherwise."""

    fields: dict[str, list[tuple[Ints, Floats]]]
    left: Ints


def whole(pieces: Sequence[tuple[Ints, Floats]], count: int) -> tuple[Ints | None, Floats]:
    """Pieces of a column in the order of their rows; None: all of so many rows."""
    if len(pieces) == 1:
        rows, values = pieces[0]
    else:
        rows, values = (np.concatenate(some) for some in zip(*pieces, strict=True))
        order = np.argsort(rows)
        rows, values = rows[order], values[order]
    return None if len(rows) == count else rows, values


def read_plain(values: Pieces) -> Plain:
    """Every row is told of once: by its fields, or as left."""
    fields: dict[str, list[tuple[Ints, Floats]]] = {}
    left, odd = np.arange(len(values)), list[Ints]()
    for _ in range(SHAPES_MAX):
        if not len(left):
            break
        shape = _shape(values[int(left[0])])
        if shape is None:
            odd.append(left[:1])
            left = left[1:]
            continue
        names, literals = shape
        fits, numbers = _match(values, left, literals)
        rows = left[fits]
        for name, column in zip(names, numbers, strict=True) if len(rows) else ():
            fields.setdefault(name, []).append((rows, column[fits]))
        if len(rows) == len(left):
            left = left[:0]
            break
        few = len(rows) * _SHARE_MIN < len(left)
        left = left[~fits]
        if few:
            break
    return Plain(fields, np.sort(np.concatenate([*odd, left])) if odd else left)


def _shape(text: bytes) -> tuple[list[str], list[bytes]] | None:
    """Names of the members, and what stands before each number and behind the last; None if it is of another kind."""
    literals: list[bytes] = []
    names, at = [], 0
    while (found := _MEMBER.match(text, at)) is not None:
        literals.append(text[at : found.start(2)])
        names.append(found[1])
        at = found.end()
    if not names or len(names) > _MEMBERS_MAX or len(set(names)) < len(names) or _END.match(text, at) is None:
        return None
    try:
        decoded = _DECODER.decode(text)
    except UNREADABLE:
        return None
    return (list(decoded), [*literals, text[at:]]) if len(decoded) == len(names) else None


def _match(values: Pieces, rows: Ints, literals: list[bytes]) -> tuple[Bools, list[Floats]]:
    at, columns = values.begins[rows], []
    fits = np.ones(len(rows), dtype=np.bool_)
    for literal in literals[:-1]:
        fits &= values.holds(at, literal)
        column, at, good = _numbers(values, at + len(literal))
        fits &= good
        columns.append(column)
    fits &= values.holds(at, literals[-1])
    fits &= at + len(literals[-1]) == values.ends[rows]
    return fits, columns


def _numbers(values: Pieces, at: Ints) -> tuple[Floats, Ints, Bools]:
    """The numbers that begin at these places, where they end, and whether they are numbers, without an exponent."""
    octets = values.octets
    negative = octets.take(at, mode="clip") == ord("-")
    at = at + negative
    whole, sizes = np.zeros(len(at), dtype=np.int64), np.zeros(len(at), dtype=np.int64)
    point = np.full(len(at), -1, dtype=np.int64)  # how many digits stand before it
    going = np.ones(len(at), dtype=np.bool_)
    for place in range(_DIGITS_MAX + 2):
        digits = octets.take(at + place, mode="clip") - np.uint8(ord("0"))  # of bytes: what is below wraps around
        here = going & (digits < 10)
        dots = going & (digits == _POINT) & (point < 0)
        whole = np.where(here, whole * 10 + digits, whole)
        point[dots] = place
        going = here | dots
        if not going.any():
            break
        sizes += going
    before = np.where(point < 0, sizes, point)
    after = sizes - before - (point >= 0)
    good = ~going & (before > 0) & (before + after <= _DIGITS_MAX) & ((after > 0) | (point < 0))
    good &= (before == 1) | (octets.take(at, mode="clip") != ord("0"))
    found = whole / _TENS[np.clip(after, 0, _DIGITS_MAX)]
    found[negative] *= -1.0
    found[(point < 0) & (whole == 0)] = 0.0  # -0 is a whole number, which has no sign there
    return found, at + sizes, good
