from __future__ import annotations

import itertools
import math

from simulators.signals import RATED_KW, Turbine, Wind, power_kw

START_MS = 1_700_000_000_000


def run(seed: int, steps: int = 600, *, hot_from: int = 10**9, hot_to: int = 10**9) -> list[tuple[float, ...]]:
    turbine = Turbine("turbine-01", seed, Wind(seed))
    out = []
    for step in range(steps):
        turbine.overheating = hot_from <= step < hot_to
        out.append(tuple(turbine.at(START_MS + 100 * step)))
    return out


def test_the_same_seed_gives_the_same_signal_and_another_one_another() -> None:
    assert run(7) == run(7)
    assert run(7) != run(8)


def test_the_power_curve() -> None:
    assert power_kw(2.9) == 0.0
    assert power_kw(12.5) == power_kw(24.9) == RATED_KW
    assert power_kw(25.0) == 0.0
    assert 0.0 < power_kw(6.0) < power_kw(9.0) < RATED_KW


def test_values_stay_within_what_a_turbine_can_do() -> None:
    for seed in range(1, 6):
        for wind_speed, wind_direction, power, rotor_rpm, gearbox in run(seed):
            assert 0.0 <= wind_speed < 25.0
            assert 0.0 <= wind_direction < 360.0
            assert 0.0 <= power < RATED_KW * 1.05
            assert 0.0 <= rotor_rpm <= 15.0
            assert 45.0 < gearbox < 75.0


def test_the_wind_blows_around_north_so_that_only_a_circular_mean_is_right() -> None:
    directions = [row[1] for row in run(1, 6000)]
    assert min(directions) < 20.0
    assert max(directions) > 340.0


def test_the_wind_varies_slowly() -> None:
    speeds = [Wind(1).at(START_MS + ms)[0] for ms in range(0, 10_000, 100)]
    assert max(abs(a - b) for a, b in itertools.pairwise(speeds)) < 0.1
    assert math.dist([speeds[0]], [speeds[-1]]) > 0.01


def test_an_overheating_gearbox_passes_85_within_5_s_and_is_below_75_within_8_s_of_the_end() -> None:
    gearbox = [row[4] for row in run(1, 600, hot_from=100, hot_to=400)]
    assert max(gearbox[:100]) < 75.0
    assert min(gearbox[150:400]) > 85.0
    assert max(gearbox[480:]) < 75.0
