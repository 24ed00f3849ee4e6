"""Every aggregate against a naive recomputation, in any order of times, for any split into blocks and any merge."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processors.aggregates.field_state import FieldState
from processors.rules.model import AGGREGATES
from tests.support.aggregate_model import SIGNALS, close_to, expected
from tests.support.field_rows import rows_of

START, END = 1_700_000_000_000, 1_700_000_060_000
ROWS = 3
NAMES = AGGREGATES


def some_readings(seed: int, length: int, kind: str) -> list[tuple[int, int, float]]:
    """(row, time, value) in the order of the log; times are in disorder and may be equal."""
    chance = random.Random(seed)
    ordered = chance.random() < 0.5
    steps = chance.choice([4, 600])  # few: many readings of one time
    times = [START + chance.randrange(steps) * 100 for _ in range(length)]
    rows = [chance.choice(range(ROWS) if chance.random() < 0.7 else [1]) for _ in range(length)]
    times = sorted(times) if ordered else times
    return [(row, at, SIGNALS[kind](chance, at)) for row, at in zip(rows, times, strict=True)]


readings = st.builds(some_readings, st.integers(0, 1 << 32), st.integers(1, 120), st.sampled_from(sorted(SIGNALS)))


def filled(log: list[tuple[int, int, float]], cuts: list[int] | None = None) -> FieldState:
    state = FieldState(NAMES, ROWS)
    for begin, end in pairwise([0, *(cuts or []), len(log)]):
        if end > begin:
            rows, times, values = zip(*log[begin:end], strict=True)
            state.add(np.array(rows), np.array(values), np.array(times))
    return state


def results(state: FieldState) -> list[dict[str, Any] | None]:
    return rows_of(state, np.arange(ROWS), np.full(ROWS, START), np.full(ROWS, END))


@settings(max_examples=80, deadline=None)
@given(readings)
def test_each_says_what_a_naive_recomputation_says(log: list[tuple[int, int, float]]) -> None:
    for row, found in enumerate(results(filled(log))):
        mine = [(time, value) for one, time, value in log if one == row]
        assert (found is None) is (not mine)
        for name, value in (found or {}).items():
            wanted = expected(name, mine, START, END)
            assert close_to(name, value, wanted, mine, END - START), (name, value, wanted)


@settings(max_examples=100, deadline=None)
@given(readings, st.data())
def test_any_split_gives_the_same_bytes(log: list[tuple[int, int, float]], data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(0, len(log)), max_size=6)))
    whole, parts = filled(log), filled(log, cuts)
    assert repr(results(parts)) == repr(results(whole))
    assert parts.snapshot(np.arange(ROWS)) == whole.snapshot(np.arange(ROWS))


@settings(max_examples=40, deadline=None)
@given(readings, st.data())
def test_a_snapshot_goes_on_where_it_was_made(log: list[tuple[int, int, float]], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(log)))
    other = FieldState(NAMES, ROWS)
    other.restore(filled(log[:cut]).snapshot(np.arange(ROWS)), ROWS)
    for row, time, value in log[cut:]:
        other.add(np.array([row]), np.array([value]), np.array([time]))
    assert repr(results(other)) == repr(results(filled(log)))


@settings(max_examples=40, deadline=None)
@given(readings, st.data())
def test_a_merge_says_what_one_state_says(log: list[tuple[int, int, float]], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(log)))
    state, rows = filled(log[:cut]), np.arange(ROWS)
    state.merge(rows, filled(log[cut:]), rows)
    for row, found in enumerate(results(state)):
        mine = [(time, value) for one, time, value in log if one == row]
        for name, value in (found or {}).items():
            wanted = expected(name, mine, START, END)
            assert close_to(name, value, wanted, mine, END - START), (name, value, wanted)


def test_a_merge_into_an_empty_row_is_a_copy() -> None:
    log = some_readings(5, 100, "far")
    state, rows = FieldState(NAMES, ROWS), np.arange(ROWS)
    state.merge(rows, filled(log), rows)
    state.merge(rows, FieldState(NAMES, ROWS), rows)
    assert repr(results(state)) == repr(results(filled(log)))


@pytest.mark.parametrize("count", [10, 1_000, 1_024, 1_025, 3_000, 10_000, 100_000, 1_000_000])
def test_distinct_counts_are_within_their_error(count: int) -> None:
    values = np.arange(count) * 0.1
    state = FieldState(("distinct",), 1)
    for begin in range(0, count, 65_536):
        part = np.concatenate([values[begin : begin + 65_536], values[:10]])
        state.add(np.zeros(len(part), dtype=np.int64), part, np.zeros(len(part), dtype=np.int64))
    [found] = rows_of(state, np.array([0]), np.array([START]), np.array([END]))
    assert found is not None
    assert abs(found["distinct"] - count) <= (1 if count <= 1_024 else 3 * 0.0163 * count)


def test_quantiles_of_more_buckets_than_are_kept_are_exact_at_the_top() -> None:
    chance = np.random.default_rng(1)
    values = 10 ** chance.uniform(-150, 150, 50_000)
    whole, parts = FieldState(("p50", "p99"), 1), FieldState(("p50", "p99"), 1)
    nothing = np.zeros(len(values), dtype=np.int64)
    whole.add(nothing, values, nothing)
    for begin in range(0, len(values), 777):
        part = values[begin : begin + 777]
        parts.add(nothing[: len(part)], part, nothing[: len(part)])
    for state in (whole, parts):
        [found] = rows_of(state, np.array([0]), np.array([START]), np.array([END]))
        assert found is not None
        assert found["p99"] == pytest.approx(np.sort(values)[int(0.99 * (len(values) - 1))], rel=1 / 128)
    assert whole.snapshot(np.array([0])) == parts.snapshot(np.array([0]))


def test_numbers_beyond_all_bounds_leave_nothing_to_say_and_harm_nobody() -> None:
    log = [(0, START, 1.7e308), (0, START + 1000, -1.7e308), (0, START + 2000, 1.7e308), (1, START, 5.0)]
    found = results(filled(log))
    assert found[0] is not None
    assert found[1] is not None
    assert found[0]["integral"] is None
    assert found[1]["integral"] == 300.0
