"""CBOR (RFC 8949) as Python values: what sensors send, read strictly, in time linear in the bytes.

A reader of our own (ADR 0013), because the bytes are a stranger's: a map key is a text or an integer of 32 bits
(chosen big numbers collide in a dict, and one message would keep a core busy for seconds), tags build no objects (no
regular expressions, no references that form rings), nesting has an end, and bytes left over are an error.
"""

from __future__ import annotations

import math
import struct
from struct import Struct
from typing import Any

DEPTH_MAX = 16
_ARGUMENTS = {24: Struct(">B"), 25: Struct(">H"), 26: Struct(">I"), 27: Struct(">Q")}
_FLOATS = {25: Struct(">e"), 26: Struct(">f"), 27: Struct(">d")}
_DOUBLE = _FLOATS[27].unpack_from
_SIMPLE = {20: False, 21: True, 22: None, 23: None}  # false, true, null, undefined
_KEY_MAX = 2**32
_BREAK: Any = object()


class CborError(ValueError):
    """Bytes that are no CBOR, or not what a sensor sends; the message is one sentence."""


def loads(data: bytes) -> Any:
    """The one value in `data`: dict, list, str, bytes, int, float, bool or None. Raises `CborError`.

    Maps have text and integer keys. Tags (section 3.4): 0 and 1 (times) and any unknown one leave their content as
    it is, 2 and 3 (big numbers) become an int, 4 and 5 (decimal fractions, big floats) a float.
    """
    try:
        value, end = _item(data, 0, DEPTH_MAX)
    except (IndexError, struct.error):
        raise CborError("it ends in the middle of a value") from None
    if value is _BREAK:
        raise CborError("byte 0: a break with nothing to end")
    if end != len(data):
        raise CborError(f"bytes after the value: {len(data) - end}")
    return value


def _item(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    """The value at `at`, and where the next one begins."""
    first = data[at]
    major, info = first >> 5, first & 31
    at += 1
    if major == 7:
        return _simple(data, at, info)
    if info < 24:
        number = info
    elif info < 28:
        argument = _ARGUMENTS[info]
        (number,) = argument.unpack_from(data, at)
        at += argument.size
    elif info == 31 and 2 <= major <= 5:
        return _indefinite(data, at, major, depth)
    else:
        raise CborError(f"byte {at - 1}: {first:#04x} begins no value")
    if major == 0:
        return number, at
    if major == 1:
        return -1 - number, at
    if major <= 3:
        return _string(data, at, at + number, major)
    if depth == 0:
        raise CborError(f"nested deeper than {DEPTH_MAX} levels")
    if major == 4:
        items = []
        for _ in range(number):
            value, at = _item(data, at, depth - 1)
            items.append(_whole(value, at))
        return items, at
    if major == 5:
        members: dict[int | str, Any] = {}
        for _ in range(number):
            at = _member(data, at, depth, members)
        return members, at
    value, at = _item(data, at, depth - 1)
    return _tagged(number, _whole(value, at), at), at


def _string(data: bytes, at: int, end: int, major: int) -> tuple[bytes | str, int]:
    if end > len(data):
        raise IndexError
    if major == 2:
        return data[at:end], end
    try:
        return data[at:end].decode(), end
    except UnicodeDecodeError:
        raise CborError(f"byte {at}: a text that is not UTF-8") from None


def _member(data: bytes, at: int, depth: int, members: dict[int | str, Any]) -> int:
    start = at
    first = data[at]
    key: Any
    if 0x60 <= first < 0x78 and (end := at + first - 0x5F) <= len(data):  # a short text: nearly every key
        key, at = _string(data, at + 1, end, 3)
    else:
        key, at = _item(data, at, 0)
    if type(key) is not str and (type(key) is not int or not -_KEY_MAX <= key < _KEY_MAX):
        raise CborError(f"byte {start}: a map's key that is neither a text nor an integer of 32 bits")
    if key in members:
        raise CborError(f"byte {start}: key {key!r:.40} twice in a map")
    if data[at] == 0xFB:  # a double: nearly every value
        (members[key],) = _DOUBLE(data, at + 1)
        return at + 9
    value, at = _item(data, at, depth - 1)
    members[key] = _whole(value, at)
    return at


def _indefinite(data: bytes, at: int, major: int, depth: int) -> tuple[Any, int]:
    """Section 3.2: chunks, items or members until the break."""
    if depth == 0:
        raise CborError(f"nested deeper than {DEPTH_MAX} levels")
    if major == 5:
        members: dict[int | str, Any] = {}
        while data[at] != 0xFF:
            at = _member(data, at, depth, members)
        return members, at + 1
    items = []
    while data[at] != 0xFF:
        if major != 4 and (data[at] >> 5 != major or data[at] & 31 == 31):
            raise CborError(f"byte {at}: a chunk of another kind in a string")
        value, at = _item(data, at, depth - 1)
        items.append(value)
    if major == 4:
        return items, at + 1
    return (b"" if major == 2 else "").join(items), at + 1


def _simple(data: bytes, at: int, info: int) -> tuple[Any, int]:
    if (simple := _SIMPLE.get(info, _BREAK)) is not _BREAK:
        return simple, at
    if (form := _FLOATS.get(info)) is not None:
        return form.unpack_from(data, at)[0], at + form.size
    if info == 31:
        return _BREAK, at
    raise CborError(f"byte {at - 1}: simple value {data[at] if info == 24 else info} is unknown")


def _whole(value: Any, at: int) -> Any:
    if value is _BREAK:
        raise CborError(f"byte {at - 1}: a break with nothing to end")
    return value


def _tagged(tag: int, value: Any, at: int) -> Any:
    if tag in (2, 3):
        if type(value) is not bytes or len(value) > 64:
            raise CborError(f"byte {at}: a big number of more than 64 bytes, or of no bytes at all")
        return int.from_bytes(value, "big") if tag == 2 else -1 - int.from_bytes(value, "big")
    if tag in (4, 5):
        if type(value) is not list or [type(part) for part in value] != [int, int]:
            raise CborError(f"byte {at}: a fraction is an array of exponent and mantissa")
        exponent, mantissa = value
        try:
            # through the decimal text, so that 273.15 is 273.15
            number = float(f"{mantissa}e{exponent}") if tag == 4 else math.ldexp(mantissa, exponent)
        except OverflowError:
            number = math.inf
        if math.isinf(number):
            raise CborError(f"byte {at}: a fraction that is too large")
        return number
    return value
