from __future__ import annotations

import itertools
import statistics
from random import Random

from simulators.scenario import Signal
from simulators.shapes import DAY_MS, Shape

MIDNIGHT_MS = 1_735_689_600_000


def values(signal: Signal, *, seconds: int, every_ms: int = 1000, seed: int = 1) -> list[object]:
    shape = Shape(signal, Random(seed), MIDNIGHT_MS)
    return [shape.at(MIDNIGHT_MS + at) for at in range(0, seconds * 1000, every_ms)]


def numbers(signal: Signal, **rest: int) -> list[float]:
    return [value for value in values(signal, **rest) if isinstance(value, float)]


def test_a_daily_cycle_is_highest_at_its_hour_and_lowest_twelve_hours_later() -> None:
    day = numbers(Signal(base=10.0, daily=2.0, daily_peak="06:30", digits=9), seconds=86_400, every_ms=60_000)
    assert day[6 * 60 + 30] == max(day) == 12.0
    assert day[18 * 60 + 30] == min(day) == 8.0


def test_noise_has_its_deviation_and_drift_its_slope() -> None:
    noisy = numbers(Signal(base=5.0, noise=0.5, digits=6), seconds=10_000)
    assert abs(statistics.fmean(noisy) - 5.0) < 0.02
    assert abs(statistics.stdev(noisy) - 0.5) < 0.02
    drifting = numbers(Signal(drift_per_day=3.0), seconds=DAY_MS // 1000 + 1, every_ms=DAY_MS)
    assert drifting == [0.0, 3.0]


def test_steps_move_the_level_and_leave_it() -> None:
    stepping = numbers(Signal(step=1.0, step_every_ms=60_000), seconds=3600)
    changes = [after - before for before, after in itertools.pairwise(stepping) if after != before]
    assert 30 <= len(changes) <= 95
    assert {abs(change) for change in changes} <= {1.0, 2.0}


def test_a_stuck_value_stays_and_comes_free() -> None:
    sticking = numbers(Signal(noise=1.0, digits=9, stuck_every_ms=600_000, stuck_for_ms=60_000), seconds=7200)
    runs, run = [], 1
    for before, after in itertools.pairwise(sticking):
        run = run + 1 if before == after else 1
        runs.append(run)
    assert max(runs) == 60
    assert sum(length == 60 for length in runs) >= 3


def test_a_counter_never_falls_and_grows_at_its_rate() -> None:
    counted = numbers(Signal(kind="counter", base=100.0, per_second=2.0, noise=5.0, digits=6), seconds=5000)
    assert all(after >= before for before, after in itertools.pairwise(counted))
    assert counted[0] == 100.0
    assert counted[-1] > 100.0 + 2.0 * 4999


def test_a_state_is_one_of_its_values_and_changes() -> None:
    states = values(Signal(kind="state", states=("a", "b", "c"), state_every_ms=10_000), seconds=600)
    assert set(states) == {"a", "b", "c"}
    assert 20 <= sum(before != after for before, after in itertools.pairwise(states)) <= 100


def test_bounds_hold_and_digits_are_few() -> None:
    bounded = numbers(Signal(base=0.5, noise=3.0, min=0.0, max=1.0, digits=1), seconds=1000)
    assert set(bounded) <= {round(at / 10, 1) for at in range(11)}
