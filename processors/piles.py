"""Things kept one by one for each row, such as samples: an array of bytes per row that has any."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Items = npt.NDArray[Any]

_SQUEEZE_BYTES = 4096


class Pile:
    """Items of one type per row, in the order of the log.

    `squeeze`, if there is one, makes an array of items smaller without changing what it says: whatever was squeezed
    when, squeezing all of it gives the same. `held`: the items of all rows.
    """

    def __init__(self, item: np.dtype[Any], squeeze: Callable[[Items], Items] | None = None) -> None:
        self._item = item
        self._squeeze = squeeze
        self._rows: dict[int, bytearray] = {}
        self._limits: dict[int, int] = {}  # bytes at which a row is squeezed next
        self.held = 0

    def add(self, rows: Ints, items: Items) -> None:
        """One item for each row."""
        if not len(rows):
            return
        order = np.argsort(rows, kind="stable")
        ordered = rows[order]
        begins = np.flatnonzero(np.diff(ordered, prepend=-1))
        size = self._item.itemsize
        data = memoryview(items[order].tobytes())
        ends = np.append(begins[1:], len(rows)) * size
        piles = self._rows
        self.held += len(rows)
        for row, begin, end in zip(ordered[begins].tolist(), (begins * size).tolist(), ends.tolist(), strict=True):
            pile = piles.get(row)
            if pile is None:
                pile = piles[row] = bytearray()
            pile += data[begin:end]
            if len(pile) > _SQUEEZE_BYTES and self._squeeze is not None:
                self._make_small(row, pile)

    def _make_small(self, row: int, pile: bytearray) -> None:
        assert self._squeeze is not None  # noqa: S101 - checked by the callers
        if len(pile) <= self._limits.get(row, _SQUEEZE_BYTES):
            return
        small = self._squeeze(np.frombuffer(bytes(pile), dtype=self._item)).tobytes()
        self.held -= (len(pile) - len(small)) // self._item.itemsize
        pile[:] = small
        self._limits[row] = max(_SQUEEZE_BYTES, 2 * len(small))

    def get(self, row: int) -> Items:
        """The items of a row; a copy."""
        return np.frombuffer(bytes(self._rows.get(row, b"")), dtype=self._item)

    def size(self, row: int) -> int:
        """How many items a row has."""
        return len(self._rows.get(row, b"")) // self._item.itemsize

    def clear(self, rows: Ints) -> None:
        for row in rows.tolist():
            self.held -= len(self._rows.pop(row, b"")) // self._item.itemsize
            self._limits.pop(row, None)

    def merge(self, into: Ints, other: Pile, rows: Ints) -> None:
        """Append the items of `rows` of another pile to rows `into` of this one."""
        for target, row in zip(into.tolist(), rows.tolist(), strict=True):
            more = other._rows.get(row)
            if more:
                pile = self._rows.setdefault(target, bytearray())
                pile += bytes(more)
                self.held += len(more) // self._item.itemsize
                if self._squeeze is not None:
                    self._make_small(target, pile)

    def snapshot(self, rows: Ints) -> dict[str, Any]:
        squeeze = self._squeeze or (lambda items: items)
        piles = [squeeze(self.get(row)).tobytes() for row in rows.tolist()]
        return {"sizes": [len(pile) for pile in piles], "items": b"".join(piles)}

    def restore(self, data: dict[str, Any]) -> None:
        """Put a snapshot's rows into the first ones of an empty pile."""
        at = 0
        for row, size in enumerate(data["sizes"]):
            if size:
                self._rows[row] = bytearray(data["items"][at : at + size])
            at += size
        self.held = at // self._item.itemsize
