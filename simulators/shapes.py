"""What a signal of a scenario says at a moment, by seed. Sans-IO, deterministic.

Every random decision is drawn from the device's own generator in the order of its readings, so a device says the
same whatever the others do and however fast it is played.
"""

from __future__ import annotations

import math
from random import Random

from simulators.scenario import Signal

DAY_MS = 86_400_000
Value = float | int | str


class Shape:
    """One field of one device; call `at` with times (Unix milliseconds) that do not go back."""

    def __init__(self, signal: Signal, random: Random, start_ms: float) -> None:
        self._signal, self._random, self._start_ms = signal, random, start_ms
        self._own = random.gauss(0.0, signal.spread) if signal.spread else 0.0
        hours, minutes = signal.daily_peak.split(":")
        self._peak_ms = (int(hours) * 60 + int(minutes)) * 60_000
        self._level = 0.0
        self._step_ms = self._next(start_ms, signal.step_every_ms) if signal.step else math.inf
        self._stick_ms = self._next(start_ms, signal.stuck_every_ms) if signal.stuck_every_ms else math.inf
        self._free_ms = -math.inf
        self._last: Value = 0.0
        self._last_ms = start_ms
        self._state = random.randrange(len(signal.states)) if signal.kind == "state" else 0
        self._change_ms = self._next(start_ms, signal.state_every_ms)

    def _next(self, now_ms: float, mean_ms: float) -> float:
        return now_ms + self._random.expovariate(1.0 / mean_ms)

    def at(self, now_ms: float) -> Value:
        """The field's value."""
        if now_ms < self._free_ms:
            return self._last
        if now_ms >= self._stick_ms:
            self._free_ms = now_ms + self._signal.stuck_for_ms
            self._stick_ms = self._next(self._free_ms, self._signal.stuck_every_ms or DAY_MS)
        match self._signal.kind:
            case "number":
                self._last = self._number(now_ms)
            case "counter":
                self._last = self._counter(now_ms)
            case "state":
                self._last = self._named(now_ms)
        return self._last

    def _number(self, now_ms: float) -> float:
        signal = self._signal
        while now_ms >= self._step_ms:
            self._level += signal.step if self._random.random() < 0.5 else -signal.step
            self._step_ms = self._next(self._step_ms, signal.step_every_ms)
        value = signal.base + self._own + self._level
        if signal.daily:
            value += signal.daily * math.cos(math.tau * ((now_ms - self._peak_ms) % DAY_MS) / DAY_MS)
        if signal.drift_per_day:
            value += signal.drift_per_day * (now_ms - self._start_ms) / DAY_MS
        return self._trimmed(value + self._noise())

    def _counter(self, now_ms: float) -> float:
        signal = self._signal
        passed_s = (now_ms - self._last_ms) / 1000.0
        self._last_ms = now_ms
        self._level += max(0.0, signal.per_second + self._own + self._noise()) * passed_s
        return self._trimmed(signal.base + self._level)

    def _named(self, now_ms: float) -> str:
        while now_ms >= self._change_ms:
            # any but the one that it is in
            self._state = (self._state + self._random.randrange(1, len(self._signal.states))) % len(self._signal.states)
            self._change_ms = self._next(self._change_ms, self._signal.state_every_ms)
        return self._signal.states[self._state]

    def _noise(self) -> float:
        return self._random.gauss(0.0, self._signal.noise) if self._signal.noise else 0.0

    def _trimmed(self, value: float) -> float:
        if self._signal.min is not None:
            value = max(value, self._signal.min)
        if self._signal.max is not None:
            value = min(value, self._signal.max)
        return round(value, self._signal.digits)
