"""Windows from whole columns of panes, against panes merged one after the other: the same to the bit."""

from __future__ import annotations

import numpy as np
import pytest

from processors.aggregates.field_state import FieldState
from processors.windows.cells import in_turn
from processors.windows.joining import joined

CELLS, COUNT = 300, 60
AGGREGATES = ("count", "mean", "min", "max", "range")


@pytest.mark.parametrize("width", [1, 2, 3, 7, 40])
@pytest.mark.parametrize("values", ["spread", "zeros"])
def test_what_is_joined_is_what_is_merged(width: int, values: str) -> None:
    chance = np.random.default_rng(width)
    spread = chance.uniform(-1, 1, 1_000) * 10.0 ** chance.integers(-9, 9, 1_000)
    zeros = chance.choice([0.0, -0.0, 1.0], 1_000, p=[0.45, 0.45, 0.1])
    some, cells = {"spread": spread, "zeros": zeros}[values], chance.integers(0, CELLS, 1_000)
    panes = FieldState(AGGREGATES, CELLS)
    panes.add(cells, some, np.arange(1_000))
    columns = chance.permutation(np.tile(np.arange(CELLS), 8))[: COUNT * width].reshape(COUNT, width)
    merged = FieldState(AGGREGATES, width)
    merged.merge(in_turn(np.arange(width), COUNT), panes, columns.ravel())
    if (found := joined(panes, columns)) is not None:
        assert {name: array.tobytes() for name, array in found.arrays.items()} == {
            name: array.tobytes() for name, array in merged.arrays.items()
        }
    assert (found is None) == (width == 1 or values == "zeros")


def test_what_needs_more_than_sums_is_merged() -> None:
    assert joined(FieldState(("count", "last"), 4), np.zeros((2, 2), dtype=np.int64)) is None
