"""Things kept one by one for each row, such as samples: an array of bytes per row that has any."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Items = npt.NDArray[Any]
Squeeze = Callable[[Items, Ints], tuple[Items, Ints]]
"""Items of some rows one after the other and how many each has, to the same made smaller."""

WAITING_MAX = 32_768
"""Items that wait before they are sorted into their rows: between two marks there are few for each."""
_SQUEEZE_BYTES = 4096


class Pile:
    """Items of one type per row, in the order of the log.

    `squeeze`, if there is one, makes items fewer without changing what they say: whatever was squeezed when, squeezing
    all of it gives the same. `held`: the items of all rows.
    """

    def __init__(self, item: np.dtype[Any], squeeze: Squeeze | None = None) -> None:
        self._item = item
        self._squeeze = squeeze
        self._rows: dict[int, bytearray] = {}
        self._limits: dict[int, int] = {}  # bytes at which a row is squeezed next
        self._loose: set[int] = set()  # rows that have grown since they were squeezed
        self._waiting: list[tuple[Ints, Items]] = []
        self._waiting_count = 0
        self.held = 0

    def add(self, rows: Ints, items: Items) -> None:
        """One item for each row; both arrays are the pile's from now on."""
        if not len(rows):
            return
        self._waiting.append((rows, items))
        self._waiting_count += len(rows)
        self.held += len(rows)
        if self._waiting_count > WAITING_MAX:
            self._settle()

    def _settle(self) -> None:
        """Sort what waits into its rows."""
        if not self._waiting:
            return
        rows = np.concatenate([rows for rows, _ in self._waiting])
        items = np.concatenate([items for _, items in self._waiting])
        self._waiting, self._waiting_count = [], 0
        # NumPy sorts numbers of 16 bits by radix, ten times as fast.
        order = np.argsort(rows.astype(np.uint16) if rows.max() < 1 << 16 else rows, kind="stable")
        ordered = rows[order]
        begins = np.flatnonzero(np.diff(ordered, prepend=-1))
        size = self._item.itemsize
        data = memoryview(items[order].tobytes())
        ends = np.append(begins[1:], len(rows)) * size
        piles, squeezes = self._rows, self._squeeze is not None
        grown = ordered[begins].tolist()
        for row, begin, end in zip(grown, (begins * size).tolist(), ends.tolist(), strict=True):
            pile = piles.get(row)
            if pile is None:
                pile = piles[row] = bytearray()
            pile += data[begin:end]
            if squeezes and len(pile) > _SQUEEZE_BYTES:
                self._make_small(row, pile)
        if squeezes:
            self._loose.update(grown)

    def _make_small(self, row: int, pile: bytearray) -> None:
        if len(pile) > self._limits.get(row, _SQUEEZE_BYTES):
            self._squeeze_rows([row])
            self._limits[row] = max(_SQUEEZE_BYTES, 2 * len(pile))

    def _squeeze_rows(self, rows: list[int]) -> None:
        assert self._squeeze is not None  # noqa: S101 - checked by the callers
        piles, size = [self._rows[row] for row in rows], self._item.itemsize
        before = np.array([len(pile) // size for pile in piles], dtype=np.int64)
        items, after = self._squeeze(np.frombuffer(b"".join(piles), dtype=self._item), before)
        self.held -= int((before - after).sum())
        data, end = memoryview(items.tobytes()), 0
        for pile, count in zip(piles, after.tolist(), strict=True):
            begin, end = end, end + count * size
            pile[:] = data[begin:end]

    def get(self, row: int) -> Items:
        """The items of a row; a copy."""
        self._settle()
        return np.frombuffer(bytes(self._rows.get(row, b"")), dtype=self._item)

    def squeezed(self, rows: Ints) -> tuple[Items, Ints]:
        """The items of rows, row after row, squeezed if the pile can; and how many each row has."""
        self._settle()
        wanted = rows.tolist()
        if self._loose and (loose := [row for row in wanted if row in self._loose]):
            self._squeeze_rows(loose)
            self._loose.difference_update(loose)
        piles = [self._rows.get(row, b"") for row in wanted]
        sizes = np.array([len(pile) for pile in piles], dtype=np.int64) // self._item.itemsize
        return np.frombuffer(b"".join(piles), dtype=self._item), sizes

    def everything(self) -> Items:
        """The items of all rows; a copy."""
        self._settle()
        return np.frombuffer(b"".join(self._rows.values()), dtype=self._item)

    def size(self, row: int) -> int:
        """How many items a row has."""
        self._settle()
        return len(self._rows.get(row, b"")) // self._item.itemsize

    def clear(self, rows: Ints) -> None:
        self._settle()
        for row in rows.tolist():
            self.held -= len(self._rows.pop(row, b"")) // self._item.itemsize
            self._limits.pop(row, None)
            self._loose.discard(row)

    def merge(self, into: Ints, other: Pile, rows: Ints) -> None:
        """Append the items of `rows` of another pile to rows `into` of this one."""
        self._settle()
        other._settle()
        grown = set()
        for target, row in zip(into.tolist(), rows.tolist(), strict=True):
            more = other._rows.get(row)
            if more:
                pile = self._rows.setdefault(target, bytearray())
                pile += more
                self.held += len(more) // self._item.itemsize
                grown.add(target)
        if self._squeeze is not None:
            self._loose |= grown
            for target in grown:
                self._make_small(target, self._rows[target])

    def snapshot(self, rows: Ints) -> dict[str, Any]:
        items, sizes = self.squeezed(rows)
        return {"sizes": (sizes * self._item.itemsize).tolist(), "items": items.tobytes()}

    def restore(self, data: dict[str, Any]) -> None:
        """Put a snapshot's rows into the first ones of an empty pile."""
        at = 0
        for row, size in enumerate(data["sizes"]):
            if size:
                self._rows[row] = bytearray(data["items"][at : at + size])
            at += size
        self.held = at // self._item.itemsize
