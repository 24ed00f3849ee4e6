"""Where the copies of a block come from, read from the headers of all of them together."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

from processors.pieces import Bools, Ints, Pieces

_COPY_ALONE = re.compile(rb"\x02\x04hw[\x00-\x7f]([^/\x00]+/\d+/\d+)/(\d{1,15})\Z", re.DOTALL)
_BEFORE_LOG = 5  # bytes: one header, the length of its key, the key, the length of its value
_DIGITS_MAX = 15
_LOOKS_MAX = 8
"""Logs that are looked for all at once, and records with other headers before them."""
_ODD_SHARE, _ODD_MIN = 8, 64
PlaceOf = Callable[[bytes], tuple[bytes, int] | None]


def places_in(headers: Pieces, place_of: PlaceOf) -> tuple[list[bytes], Ints, Ints] | None:
    """Source logs in the order in which they first appear; per record the index of its log, -1 for none, and its offset
    there. None where many records have other headers than `hw`, or these are of many logs.

    `place_of`: the log and the offset that a header section names.
    """
    count, odd = len(headers), list[int]()
    which, offsets = np.full(count, -1, dtype=np.int64), np.zeros(count, dtype=np.int64)
    numbers: dict[bytes, int] = {}
    left = np.arange(count)
    for _ in range(_LOOKS_MAX):
        if not len(left):
            break
        first = int(left[0])
        if (found := _COPY_ALONE.match(headers[first])) is None:
            odd.append(first)
            left = left[1:]
            continue
        fits, places = _of_log(headers, left, found[1])
        rows = left[fits]
        which[rows], offsets[rows] = numbers.setdefault(found[1], len(numbers)), places[fits]
        left = left[~fits]
    if (len(odd) + len(left)) * _ODD_SHARE > count + _ODD_MIN:
        return None
    for row in (*odd, *left.tolist()):
        # As above, which takes a length of one byte for what it is: what a record says is not up to its neighbours.
        alone = _COPY_ALONE.match(blob := headers[row])
        if (place := place_of(blob) if alone is None else (alone[1], int(alone[2]))) is not None:
            which[row], offsets[row] = numbers.setdefault(place[0], len(numbers)), place[1]
    logs = list(numbers)
    firsts, back = np.zeros(len(logs), dtype=np.int64), np.flatnonzero(which >= 0)[::-1]
    firsts[which[back]] = back  # of several the last one stands, which is the first row
    order = np.argsort(firsts).tolist()
    if order != list(range(len(logs))):
        turn = np.array([*np.argsort(order).tolist(), -1], dtype=np.int64)
        which = turn[which]
    return [logs[number] for number in order], which, offsets


def _of_log(headers: Pieces, rows: Ints, log: bytes) -> tuple[Bools, Ints]:
    """Which of the rows have header `hw` alone with a place in this log, and the offsets there."""
    begins, ends = headers.begins[rows], headers.ends[rows]
    digits = headers.lengths[rows] - (_BEFORE_LOG + len(log) + 1)
    fits = headers.holds(begins, b"\x02\x04hw") & headers.holds(begins + _BEFORE_LOG, log + b"/")
    fits &= headers.octets.take(begins + (_BEFORE_LOG - 1), mode="clip") < 0x80  # a length of one byte
    fits &= (digits > 0) & (digits <= _DIGITS_MAX)
    digits = np.clip(digits, 1, _DIGITS_MAX)
    found = np.zeros(len(rows), dtype=np.int64)
    for place in range(int(digits.max())):
        here = place < digits
        digit = headers.octets.take(ends - digits + place, mode="clip") - np.uint8(ord("0"))
        fits &= (digit < 10) | ~here
        found = np.where(here, found * 10 + digit, found)
    return fits, found
