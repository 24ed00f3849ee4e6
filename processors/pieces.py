"""Columns of records that stay where they came: bytes as places in one buffer, numbers as an array.

To whoever takes them as sequences they are `bytes` and `int`; whoever knows better looks at all rows at once.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any, Generic, TypeVar, overload

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]
Bools = npt.NDArray[np.bool_]
T = TypeVar("T")

WORD = 8
_MASKS = np.array([(1 << 8 * size) - 1 for size in range(WORD + 1)], dtype=np.uint64)


class _Column(Sequence[T], Generic[T]):
    """What both have in common; equal to a list of the same."""

    @property
    @abstractmethod
    def _items(self) -> list[T]:
        """All rows as objects, made once."""

    def __iter__(self) -> Iterator[T]:
        return iter(self._items)

    def __eq__(self, other: object) -> bool:
        return self._items == list(other) if isinstance(other, (list, _Column)) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # as lists

    def __repr__(self) -> str:
        return repr(self._items)

    def __add__(self, other: Iterable[T]) -> list[T]:
        return [*self, *other]

    def __radd__(self, other: Iterable[T]) -> Sequence[T]:
        return [*other, *self]


class Numbers(_Column[int]):
    """Whole numbers, in `array`."""

    def __init__(self, array: Ints) -> None:
        self.array = array

    @cached_property
    def _items(self) -> list[int]:
        found: list[int] = self.array.tolist()
        return found

    def __len__(self) -> int:
        return len(self.array)

    @overload
    def __getitem__(self, at: int) -> int: ...
    @overload
    def __getitem__(self, at: slice) -> Numbers: ...
    def __getitem__(self, at: int | slice) -> int | Numbers:
        return Numbers(self.array[at]) if isinstance(at, slice) else int(self.array[at])


class Pieces(_Column[bytes]):
    """Row i is `data[begins[i]:ends[i]]`."""

    def __init__(self, data: bytes, begins: Ints, ends: Ints) -> None:
        """`data` has at least `WORD` bytes more than any row reaches to."""
        self.data = data
        self.begins = begins
        self.ends = ends

    @staticmethod
    def of(some: Sequence[bytes]) -> Pieces:
        """Copies of these."""
        ends = np.cumsum(np.fromiter(map(len, some), np.int64, len(some)))
        return Pieces(b"".join([*some, bytes(WORD)]), ends - np.diff(ends, prepend=0), ends)

    @cached_property
    def _items(self) -> list[bytes]:
        data = self.data
        return [data[begin:end] for begin, end in zip(self.begins.tolist(), self.ends.tolist(), strict=True)]

    @cached_property
    def octets(self) -> npt.NDArray[np.uint8]:
        """All of `data`."""
        return np.frombuffer(self.data, np.uint8)

    @cached_property
    def _words(self) -> Any:
        """Eight bytes from each place of `data` on, wherever that is in memory."""
        return np.ndarray((max(len(self.data) - WORD + 1, 0),), "<u8", self.data, strides=(1,))

    @cached_property
    def lengths(self) -> Ints:
        return self.ends - self.begins

    def __len__(self) -> int:
        return len(self.begins)

    @overload
    def __getitem__(self, at: int) -> bytes: ...
    @overload
    def __getitem__(self, at: slice) -> Pieces: ...
    def __getitem__(self, at: int | slice) -> bytes | Pieces:
        if isinstance(at, slice):
            return Pieces(self.data, self.begins[at], self.ends[at])
        return self.data[self.begins[at] : self.ends[at]]

    def word(self, at: Ints, sizes: Any = WORD) -> Words:
        """The bytes at these places of `data` as a little-endian number: `sizes` of them, at most eight.

        At a place beyond all rows stands nothing that makes sense.
        """
        if not len(self._words):
            return np.zeros(len(at), dtype=np.uint64)
        found: Words = self._words[np.minimum(at, len(self._words) - 1)]
        return found if isinstance(sizes, int) and sizes == WORD else found & _MASKS[sizes]

    def holds(self, at: Ints, text: bytes) -> Bools:
        """Whether `text` stands at these places, as far as can be told (see `word`)."""
        found = np.ones(len(at), dtype=np.bool_)
        for begin in range(0, len(text), WORD):
            part = text[begin : begin + WORD]
            found &= self.word(at + begin, len(part)) == np.uint64(int.from_bytes(part, "little"))
        return found

    def rows_with(self, what: bytes) -> list[int]:
        """Which rows hold `what`, of which there is little."""
        places, at = [], self.data.find(what)
        while at >= 0:
            places.append(at)
            at = self.data.find(what, at + 1)
        rows = np.searchsorted(self.ends, places, side="right").tolist()
        return [row for row in dict.fromkeys(rows) if row < len(self) and what in self[row]]


def together(some: Sequence[bytes]) -> bytes:
    """All of them as one, perhaps with other bytes between."""
    return some.data if isinstance(some, Pieces) else b"".join(some)


def whole_numbers(some: Sequence[int]) -> Ints:
    """As an array."""
    return some.array if isinstance(some, Numbers) else np.fromiter(some, np.int64, len(some))
