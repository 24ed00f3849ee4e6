"""Directions on the circle, and arithmetic whose bytes do not depend on how values came in."""

from __future__ import annotations

import math

import numpy as np
import pytest

from processors.aggregates.field_state import FieldState, circular_mean
from tests.support.field_rows import rows_of

WINDOW = (np.array([0]), np.array([1000]))


def mean_of(directions: list[float]) -> float | None:
    state = FieldState(("circular_mean",), 1)
    count = len(directions)
    state.add(np.zeros(count, dtype=np.int64), np.array(directions, dtype=np.float64), np.arange(count))
    [found] = rows_of(state, np.array([0]), *WINDOW)
    assert found is not None
    return found["circular_mean"]  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("directions", "mean"),
    [
        ([0.0], 0.0),
        ([350.0, 10.0], 0.0),
        ([10.0, 350.0], 0.0),
        ([359.0, 2.0], 0.5),
        ([270.0, 300.0], 285.0),
        ([90.0, 90.0, 90.0], 90.0),
        ([-90.0], 270.0),
        ([720.0 + 45.0], 45.0),
        ([180.0, 180.0], 180.0),
        ([0.0, 0.0, 90.0], math.degrees(math.atan2(1, 2))),
    ],
)
def test_the_mean_of_directions(directions: list[float], mean: float) -> None:
    found = mean_of(directions)
    assert found is not None
    assert min(abs(found - mean), 360 - abs(found - mean)) < 1e-9
    assert 0.0 <= found < 360.0


@pytest.mark.parametrize("directions", [[0.0, 180.0], [90.0, 270.0], [0.0, 120.0, 240.0], [45.0, 225.0] * 500])
def test_directions_that_cancel_out_have_no_mean(directions: list[float]) -> None:
    assert mean_of(directions) is None


def test_a_tiny_negative_angle_does_not_become_360() -> None:
    assert circular_mean(-1e-17, 1.0, 1) == 0.0
    assert circular_mean(0.0, 0.0, 0) is None


def test_no_direction_comes_of_a_number_beyond_all_bounds() -> None:
    assert mean_of([math.inf]) is None


def test_cleared_rows_are_as_new_and_grown_ones_empty() -> None:
    names = ("min", "max", "sum", "first", "p50", "integral", "distinct", "variance", "slope")
    state = FieldState(names, 2)
    window = (np.zeros(4, dtype=np.int64), np.full(4, 1000))
    state.add(np.array([0, 1, 1]), np.array([5.0, 6.0, 7.0]), np.array([1, 2, 3]))
    state.clear(np.array([0]))
    state.grow(4)
    assert [found is None for found in rows_of(state, np.arange(4), *window)] == [True, False, True, True]
    state.add(np.array([0]), np.array([-1.0]), np.array([9]))
    assert rows_of(state, np.array([0]), np.array([0]), np.array([1000])) == [
        dict.fromkeys(names, -1.0) | {"distinct": 1, "variance": None, "slope": None}
    ]
