"""Reads the headers that Headwater writes on its own records: `hw`, `hw-t` and `hw-mark` (docs/records.md). Sans-IO.

Anybody who may produce to the log can put anything under these names, so each value is read into bounded integers, or
is None: none of ours. Numbers are at most 2**52 away from 0: times of a hundred thousand years, and arithmetic with a
few of them stays inside int64.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

import msgspec

from headwater.errors import UNREADABLE

WHOLE_MAX = 1 << 52
Whole = Annotated[int, msgspec.Meta(ge=-WHOLE_MAX, le=WHOLE_MAX)]
Count = Annotated[int, msgspec.Meta(ge=0, le=WHOLE_MAX)]

_DIGITS = re.compile(rb"-?[0-9]{1,16}")


class OwnMark(msgspec.Struct, frozen=True, kw_only=True):
    """What a node takes up again of a mark that it wrote before; times are ms since the Unix epoch."""

    node: str
    partition: Count = 0
    n: Count
    live: Whole
    src: dict[str, tuple[Literal["connected", "gone"], Whole]]
    clock: Whole


_own_mark = msgspec.json.Decoder(OwnMark)


def read_whole(text: bytes) -> int | None:
    """A decimal integer, as `hw-t` has it (ms since the Unix epoch)."""
    if _DIGITS.fullmatch(text) is None:
        return None
    number = int(text)
    return number if abs(number) <= WHOLE_MAX else None


def read_place(identity: bytes) -> tuple[bytes, int] | None:
    """A copy's `hw`: (source log `node/epoch/partition`, offset there)."""
    log, slash, digits = identity.rpartition(b"/")
    offset = read_whole(digits)
    return (log, offset) if slash and offset is not None and offset >= 0 else None


def read_own_mark(value: bytes) -> OwnMark | None:
    """The value of `hw-mark`."""
    try:
        return _own_mark.decode(value)
    except UNREADABLE:
        return None
