"""Texts among the values of a field, as small numbers: states such as "run" and "stop" go where numbers go.

A text is a NaN whose lowest bits are its code: JSON knows no NaN, so no number is one, and such values are only moved,
never counted with. A block's codes are places in its own list of texts; a field's state has a `TextTable`, whose codes
stay as long as a window has such a text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

OTHER = 0
"""The code of a text that found no place in a table: which one it was is not known."""
TEXT_MAX = 256
"""Characters; longer ones find no place."""
ENTRY_BYTES = 200
"""What a text in a table takes beside its characters: an entry of a dictionary and of a list, and CPython's object."""
_TAG = 0x7FFC  # of a quiet NaN; those that arithmetic makes are 0x7FF8 and 0xFFF8
_CODE_BITS = 48


def boxed(codes: Ints) -> Floats:
    """Codes as values."""
    return (codes | (_TAG << _CODE_BITS)).view(np.float64)


def are_texts(values: Floats) -> Bools:
    """Which values are codes."""
    found: Bools = (values.view(np.int64) >> _CODE_BITS) == _TAG
    return found


def codes_of(values: Floats) -> Ints:
    """The codes of values that are such."""
    return values.view(np.int64) & ((1 << _CODE_BITS) - 1)


def hash_of(text: str) -> int:
    """64 bits that depend on nothing but the text."""
    return _known_hash(text) if len(text) <= TEXT_MAX else _hash(text)


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest())


_known_hash = lru_cache(maxsize=10_000)(_hash)  # not of long ones: a cache of those had no bound in bytes


def hashes_of(values: Floats, texts: Sequence[str]) -> npt.NDArray[np.uint64]:
    """The hash of each of these values, which are codes: places in `texts`."""
    each, which = np.unique(codes_of(values), return_inverse=True)
    found = np.array([hash_of(texts[place]) for place in each.tolist()], dtype=np.uint64)
    return found[which]


class TextTable:
    """The texts of one field over all windows of a rule, at most `texts_max`.

    Codes are given in the order of the log, and never seen outside. `missed`: a text found no place since room was
    last made. `full`: while memory is short no text is taken in.
    """

    def __init__(self, texts_max: int) -> None:
        self.missed = False
        self.full = False
        self._max = texts_max
        self._texts: list[str | None] = [None]  # by code; OTHER is none
        self._codes: dict[str, int] = {}
        self._free: list[int] = []  # codes below the list's end, the lowest last
        self.held_bytes = 0

    def take(self, values: Floats, texts: Sequence[str]) -> tuple[Floats, int]:
        """A block's values with codes of this table, and how many of them are texts that found no place."""
        rows = np.flatnonzero(are_texts(values))
        if not len(rows):
            return values, 0
        each, firsts, which = np.unique(codes_of(values[rows]), return_index=True, return_inverse=True)
        codes = np.empty(len(each), dtype=np.int64)
        for place in np.argsort(firsts).tolist():
            codes[place] = self._code(texts[each[place]])
        found = values.copy()
        found[rows] = boxed(codes[which])
        return found, int(np.count_nonzero(codes[which] == OTHER))

    def _code(self, text: str) -> int:
        code = self._codes.get(text)
        if code is not None:
            return code
        if self.full or len(self._codes) >= self._max or len(text) > TEXT_MAX:
            self.missed |= len(text) <= TEXT_MAX
            return OTHER
        if self._free:
            code = self._free.pop()
            self._texts[code] = text
        else:
            code = len(self._texts)
            self._texts.append(text)
        self._codes[text] = code
        self.held_bytes += _cost(text)
        return code

    def text(self, code: int) -> str | None:
        """None for `OTHER`."""
        return self._texts[code]

    def listed(self, values: Floats) -> list[Any]:
        """Numbers and texts; None for texts that are not known."""
        found: list[Any] = values.tolist()
        for row in np.flatnonzero(are_texts(values)).tolist():
            found[row] = self._texts[int(codes_of(values[row : row + 1])[0])]
        return found

    def keep(self, used: Ints) -> None:
        """Make room: only these codes stand in windows yet."""
        self.missed = False
        staying = set(used.tolist())
        for code, text in enumerate(self._texts):
            if text is not None and code not in staying:
                self._texts[code] = None
                del self._codes[text]
                self.held_bytes -= _cost(text)
        self._find_free()

    def _find_free(self) -> None:
        self._free = [code for code in range(len(self._texts) - 1, 0, -1) if self._texts[code] is None]

    def snapshot(self) -> dict[str, Any]:
        """Plain data for a checkpoint."""
        return {"texts": self._texts[1:], "missed": self.missed}

    def restore(self, data: dict[str, Any]) -> None:
        self._texts = [None, *data["texts"]]
        self._codes = {text: code for code, text in enumerate(self._texts) if text is not None}
        self.held_bytes = sum(map(_cost, self._codes))
        self.missed = data["missed"]
        self._find_free()


def _cost(text: str) -> int:
    return ENTRY_BYTES + len(text.encode(errors="surrogatepass"))
