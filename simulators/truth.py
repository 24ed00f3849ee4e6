"""What ten-second windows ought to say, worked out the plain way from the readings themselves. Sans-IO.

This is the judge's own arithmetic: it shares no code with the processors that it judges. A window [a, a + size)
holds the readings with a <= time < a + size; per field it has count, mean, smallest and largest value, and for angles
the direction of the sum of unit vectors.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

WINDOW_MS = 10_000
CIRCULAR_FIELDS = frozenset({"wind_direction", "wind_angle"})
MEMBERS = frozenset({"count", "mean", "min", "max"})
RELATIVE_TOLERANCE = 1e-9
NOT_FIELDS = frozenset({"ts", "seq"})


class FieldTruth:
    """One field within one window."""

    __slots__ = ("cosines", "count", "largest", "sines", "smallest", "total")

    def __init__(self) -> None:
        self.count = 0
        self.total = self.sines = self.cosines = 0.0
        self.smallest, self.largest = math.inf, -math.inf

    def add(self, value: float, *, circular: bool) -> None:
        self.count += 1
        self.total += value
        self.smallest = min(self.smallest, value)
        self.largest = max(self.largest, value)
        if circular:
            self.sines += math.sin(math.radians(value))
            self.cosines += math.cos(math.radians(value))

    def circular_mean(self) -> float:
        """Degrees, 0 <= x < 360."""
        return math.degrees(math.atan2(self.sines, self.cosines)) % 360.0


class WindowTruth:
    """One window of one device."""

    __slots__ = ("count", "fields")

    def __init__(self) -> None:
        self.count = 0
        self.fields: dict[str, FieldTruth] = {}

    def add(self, values: Mapping[str, Any]) -> None:
        self.count += 1
        for name, value in values.items():
            # bool is an int to Python; a state is no measurement
            if name in NOT_FIELDS or isinstance(value, bool) or not isinstance(value, int | float):
                continue
            field = self.fields.get(name)
            if field is None:
                field = self.fields[name] = FieldTruth()
            field.add(value, circular=name in CIRCULAR_FIELDS)


class DeviceTruth:
    """All windows of one device."""

    def __init__(self) -> None:
        self.windows: dict[int, WindowTruth] = {}

    def add(self, time_ms: int, values: Mapping[str, Any]) -> None:
        start = time_ms - time_ms % WINDOW_MS
        window = self.windows.get(start)
        if window is None:
            window = self.windows[start] = WindowTruth()
        window.add(values)


def differences(truth: WindowTruth, claimed: Mapping[str, Any], required: frozenset[str]) -> Iterator[str]:
    """Where a window result (`{"count", "fields": {name: {"count", "mean", …}}}`) departs from the truth.

    Of the `required` fields every usual member must be there, of the others what is there must be true.
    """
    if claimed.get("count") != truth.count:
        yield f"count is {claimed.get('count')}, not {truth.count}"
    fields = claimed.get("fields", {})
    for name in sorted(required & truth.fields.keys()):
        wanted = MEMBERS | ({"circular_mean"} if name in CIRCULAR_FIELDS else frozenset[str]())
        if absent := wanted - fields.get(name, {}).keys():
            yield f"{name} has no {' and no '.join(sorted(absent))}"
    for name, claim in fields.items():
        field = truth.fields.get(name)
        if name in NOT_FIELDS:
            continue
        if field is None:
            yield f"{name} was never measured"
        else:
            yield from _field_differences(name, field, claim)


def _field_differences(name: str, field: FieldTruth, claim: Mapping[str, Any]) -> Iterator[str]:
    plain = {
        "count": field.count,
        "sum": field.total,
        "mean": field.total / field.count,
        "min": field.smallest,
        "max": field.largest,
    }
    for member, value in claim.items():
        if member == "circular_mean":
            if not _same_angle(value, field.circular_mean()):
                yield f"{name}.circular_mean is {value}, not {field.circular_mean()}"
        elif member not in plain or not _same(value, plain[member]):
            yield f"{name}.{member} is {value}, not {plain.get(member)}"


def _same(claim: object, value: float) -> bool:
    if isinstance(claim, bool) or not isinstance(claim, int | float):
        return False
    return math.isclose(claim, value, rel_tol=RELATIVE_TOLERANCE, abs_tol=1e-12)


def _same_angle(claim: object, value: float) -> bool:
    if isinstance(claim, bool) or not isinstance(claim, int | float):
        return False
    apart = abs(claim - value) % 360.0  # 359.999… and 0.000… are neighbours
    return min(apart, 360.0 - apart) <= 360.0 * RELATIVE_TOLERANCE
