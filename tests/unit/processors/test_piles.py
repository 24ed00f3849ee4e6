"""Items per row: whenever they are sorted into their rows or squeezed, they say the same."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from processors.aggregates import piles, sketches
from processors.aggregates.piles import Pile
from processors.aggregates.sketches import BUCKET, buckets_of, quantiles, squeeze

ROWS = np.array([2, 0, 2, 2, 5, 0, 2], dtype=np.int64)
VALUES = np.array([1.0, 2.0, 3.0, 1.0, -5.0, 0.0, 1e300])


def filled(squeezed: bool, pieces: int) -> Pile:
    pile = Pile(BUCKET, squeeze if squeezed else None)
    for rows, values in zip(np.array_split(ROWS, pieces), np.array_split(VALUES, pieces), strict=True):
        pile.add(rows, buckets_of(values))
    return pile


@pytest.mark.parametrize("waiting_max", [0, 2, 100])
@pytest.mark.parametrize("pieces", [1, 3, 7])
def test_a_row_has_its_items_in_the_order_of_the_log(
    monkeypatch: pytest.MonkeyPatch, waiting_max: int, pieces: int
) -> None:
    monkeypatch.setattr(piles, "WAITING_MAX", waiting_max)
    pile = filled(False, pieces)
    assert pile.held == 7
    assert pile.get(2).tolist() == buckets_of(VALUES[ROWS == 2]).tolist()
    assert pile.get(1).tolist() == []
    pile.clear(np.array([2, 3]))
    assert (pile.held, pile.size(2), pile.size(0)) == (3, 0, 2)


@pytest.mark.parametrize("waiting_max", [0, 2, 100])
def test_snapshots_do_not_tell_when_it_was_squeezed(monkeypatch: pytest.MonkeyPatch, waiting_max: int) -> None:
    monkeypatch.setattr(piles, "WAITING_MAX", waiting_max)
    wanted = filled(True, 1).snapshot(np.arange(6))
    pile = filled(True, 7)
    pile.squeezed(np.array([2]))
    pile.add(np.array([2]), buckets_of(np.array([3.0])))
    more = Pile(BUCKET, squeeze)
    more.add(np.array([0]), buckets_of(np.array([3.0])))
    other = filled(True, 1)
    other.merge(np.array([2]), more, np.array([0]))
    assert other.snapshot(np.arange(6)) == pile.snapshot(np.arange(6)) != wanted
    assert filled(True, 3).snapshot(np.arange(6)) == wanted
    back = Pile(BUCKET, squeeze)
    back.restore(wanted)
    assert back.snapshot(np.arange(6)) == wanted
    assert back.held == 6  # of seven, two were in one bucket


def naive(values: npt.NDArray[np.float64], share: float) -> float:
    return float(np.sort(values)[int(np.floor(share * (len(values) - 1)))])


def test_quantiles_of_many_rows_are_those_of_each() -> None:
    random = np.random.default_rng(7)
    rows = [random.normal(0, 10.0**n, 1 + 40 * n) for n in range(1, 6)] + [np.array([0.0, -0.0]), np.array([-3.5])]
    sizes = np.array([len(row) for row in rows])
    buckets, left = squeeze(buckets_of(np.concatenate(rows)), sizes)
    low, high = np.array([row.min() for row in rows]), np.array([row.max() for row in rows])
    for share in (0.0, 0.01, 0.5, 0.95, 1.0):
        found = quantiles(share, buckets, left, low, high)
        for row, value in zip(rows, found.tolist(), strict=True):
            exact = naive(row, share)
            assert abs(value - exact) <= abs(exact) * sketches.RELATIVE_ERROR


def test_too_many_buckets_fall_together_at_the_low_end_of_their_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sketches, "BUCKETS_MAX", 3)
    many, few = 2.0 ** np.arange(6), np.array([1.0, 2.0])
    buckets, sizes = squeeze(buckets_of(np.concatenate([many, few])), np.array([6, 2]))
    assert sizes.tolist() == [3, 2]
    assert buckets["code"].tolist() == buckets_of(np.array([8.0, 16.0, 32.0, 1.0, 2.0]))["code"].tolist()
    assert buckets["count"].tolist() == [4, 1, 1, 1, 1]
