"""Directions on the circle, and arithmetic whose bytes do not depend on how values came in."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.aggregates import FieldState, circular_mean


def mean_of(directions: list[float]) -> float | None:
    state = FieldState(("circular_mean",), 1)
    state.add(np.zeros(len(directions), dtype=np.int64), np.array(directions, dtype=np.float64))
    [found] = state.results(np.array([0]))
    assert found is not None
    return found["circular_mean"]


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


@given(st.lists(st.floats(-1e15, 1e15), min_size=1, max_size=60), st.integers(0, 60))
def test_two_parts_give_the_same_bytes_as_one(values: list[float], cut: int) -> None:
    names = ("count", "sum", "mean", "min", "max", "circular_mean")
    rows = np.arange(len(values)) % 3
    whole, parts = FieldState(names, 3), FieldState(names, 3)
    array = np.array(values)
    whole.add(rows, array)
    parts.add(rows[:cut], array[:cut])
    parts.add(rows[cut:], array[cut:])
    everything = np.arange(3)
    assert whole.results(everything) == parts.results(everything)
    assert whole.snapshot(everything) == parts.snapshot(everything)


def test_cleared_rows_are_as_new_and_grown_ones_empty() -> None:
    state = FieldState(("min", "max", "sum"), 2)
    state.add(np.array([0, 1]), np.array([5.0, 6.0]))
    state.clear(np.array([0]))
    state.grow(4)
    assert state.results(np.arange(4)) == [None, {"min": 6.0, "max": 6.0, "sum": 6.0}, None, None]
    state.add(np.array([0]), np.array([-1.0]))
    assert state.results(np.array([0])) == [{"min": -1.0, "max": -1.0, "sum": -1.0}]
