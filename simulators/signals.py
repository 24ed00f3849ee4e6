"""What a wind turbine measures, as a function of a seed and of time. Sans-IO, deterministic.

The wind over the farm varies slowly; each turbine sees its own share of it, turned and delayed a little. Power
follows a textbook curve (cut-in 3 m/s, rated 2,000 kW from 12.5 m/s, cut-out 25 m/s), the rotor's speed follows
the wind up to its rated speed, and the gearbox warms with the load as a first-order lag. A turbine told to
overheat warms towards 104 °C and comes back when told so.
"""

from __future__ import annotations

import math
from random import Random
from typing import NamedTuple

CUT_IN_M_S, RATED_M_S, CUT_OUT_M_S = 3.0, 12.5, 25.0
RATED_KW = 2000.0
RATED_RPM = 15.0
GEARBOX_LAG_MS = 2500.0
GEARBOX_IDLE_C, GEARBOX_LOAD_C, GEARBOX_OVERHEAT_C = 52.0, 16.0, 104.0


class Telemetry(NamedTuple):
    """One turbine's measurements at one moment."""

    wind_speed: float  # m/s
    wind_direction: float  # degrees from north, 0 <= x < 360
    power: float  # kW
    rotor_rpm: float  # 1/min
    gearbox_temperature: float  # °C


def power_kw(wind_m_s: float) -> float:
    """The power curve: cubic from cut-in to rated, flat to cut-out, nothing outside."""
    if wind_m_s < CUT_IN_M_S or wind_m_s >= CUT_OUT_M_S:
        return 0.0
    if wind_m_s >= RATED_M_S:
        return RATED_KW
    return RATED_KW * (wind_m_s**3 - CUT_IN_M_S**3) / (RATED_M_S**3 - CUT_IN_M_S**3)


class Wave:
    """A slow, never quite repeating signal around 0: three sines of unrelated periods; standard deviation about 1."""

    def __init__(self, random: Random, period_ms: float) -> None:
        self._parts = [
            (math.tau / (period_ms * random.uniform(low, high)), random.uniform(0.0, math.tau))
            for low, high in ((0.8, 1.2), (0.28, 0.4), (0.07, 0.11))
        ]

    def at(self, ms: float) -> float:
        a, b, c = (math.sin(speed * ms + phase) for speed, phase in self._parts)
        return a + 0.7 * b + 0.35 * c


class Wind:
    """The wind over the whole farm."""

    def __init__(self, seed: int) -> None:
        random = Random(f"wind {seed}")  # noqa: S311 - a simulation
        self._speed = Wave(random, 240_000.0)
        self._direction = Wave(random, 600_000.0)
        # Around north, so that a mean of angles that is not circular shows itself at once.
        self._mean_direction = random.uniform(-15.0, 15.0)

    def at(self, ms: float) -> tuple[float, float]:
        """(speed in m/s, direction in degrees, any turn)."""
        return 9.5 + 1.9 * self._speed.at(ms), self._mean_direction + 14.0 * self._direction.at(ms)


class Turbine:
    """One turbine of the farm; call `at` with times that do not go back."""

    def __init__(self, name: str, seed: int, wind: Wind) -> None:
        self.name = name
        self.overheating = False
        self._wind = wind
        self._random = Random(f"{name} {seed}")  # noqa: S311 - a simulation
        self._gust = Wave(self._random, 30_000.0)
        self._delay_ms = self._random.uniform(0.0, 20_000.0)
        self._share = self._random.uniform(0.92, 1.05)
        self._gearbox_c = GEARBOX_IDLE_C + 8.0
        self._last_ms: float | None = None

    def at(self, ms: int) -> Telemetry:
        """The measurements at `ms` (milliseconds since any fixed moment)."""
        speed, direction = self._wind.at(ms - self._delay_ms)
        wind_speed = max(0.0, speed * self._share + 0.5 * self._gust.at(ms) + self._random.gauss(0.0, 0.12))
        power = max(0.0, power_kw(wind_speed) * (1.0 + self._random.gauss(0.0, 0.004)))
        return Telemetry(
            wind_speed=round(wind_speed, 3),
            wind_direction=round((direction + 4.0 * self._gust.at(ms + 7000.0)) % 360.0, 2) % 360.0,
            power=round(power, 2),
            rotor_rpm=round(RATED_RPM * min(1.0, wind_speed / 11.0), 3),
            gearbox_temperature=round(self._gearbox(ms, power / RATED_KW) + self._random.gauss(0.0, 0.15), 2),
        )

    def _gearbox(self, ms: int, load: float) -> float:
        target = GEARBOX_OVERHEAT_C if self.overheating else GEARBOX_IDLE_C + GEARBOX_LOAD_C * min(1.0, load)
        passed_ms = 0.0 if self._last_ms is None else max(0.0, ms - self._last_ms)
        self._last_ms = ms
        self._gearbox_c += (target - self._gearbox_c) * (1.0 - math.exp(-passed_ms / GEARBOX_LAG_MS))
        return self._gearbox_c
