"""Windows that lie side by side: where the one around a time begins and ends.

A calendar's windows begin when a clock on the wall first shows their beginning: a day is 23, 24 or 25 hours long, and
one that the clock leaves out (Samoa, 30 December 2011) has no window. A beginning that the clock leaps over (midnight
in Beirut) is the moment of the leap.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from functools import lru_cache
from typing import Any, Protocol
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import numpy.typing as npt

from processors.rules.model import DEVICE_ZONE, WindowRule

Ints = npt.NDArray[np.int64]

FIRST_YEAR, LAST_YEAR = 1970, 2400
"""Years that have windows of their own; all time after them is one window."""
END_OF_TIME = 1 << 53


class Grid(Protocol):
    """A division of time into windows."""

    def starts(self, time: Ints) -> Ints:
        """The beginning of the window around each time (ms)."""

    def start(self, time: int) -> int:
        """The same of one time."""

    def ends(self, starts: Ints) -> Ints:
        """The ends of the windows that begin at `starts`."""

    def end(self, start: int) -> int:
        """The same of one window."""

    def label(self, start: int) -> dict[str, Any]:
        """Members of a result that name this window."""


class EvenGrid:
    """Windows of one size, aligned to the Unix epoch."""

    def __init__(self, size_ms: int) -> None:
        self.size_ms = size_ms

    def starts(self, time: Ints) -> Ints:
        return time // self.size_ms * self.size_ms  # NumPy divides several at a time, but takes remainders one by one

    def start(self, time: int) -> int:
        return time // self.size_ms * self.size_ms

    def ends(self, starts: Ints) -> Ints:
        return starts + self.size_ms

    def end(self, start: int) -> int:
        return start + self.size_ms

    def label(self, start: int) -> dict[str, Any]:
        return {}


class CalendarGrid:
    """Days, ISO weeks, months, years or named shifts by the clock on the wall of one time zone."""

    def __init__(self, unit: str, zone: ZoneInfo, shifts: dict[str, str] | None = None) -> None:
        """`shifts`: name -> local time HH:MM at which it begins; each lasts until the next one begins."""
        self._unit = unit
        self._zone = zone
        self._shifts = sorted((time.fromisoformat(at), name) for name, at in (shifts or {}).items())
        self._names: dict[int, str] = {}  # of windows that are shifts, by their start
        self._bounds: Ints = np.array([END_OF_TIME], dtype=np.int64)
        self._years: range = range(0)

    def starts(self, time: Ints) -> Ints:
        if len(time):
            self._reach(int(time.min()), int(time.max()))
        return self._bounds[np.searchsorted(self._bounds, time, side="right") - 1]

    def start(self, time: int) -> int:
        return int(self.starts(np.array([time], dtype=np.int64))[0])

    def ends(self, starts: Ints) -> Ints:
        if len(starts):
            self._reach(int(starts.min()), int(starts.max()))
        found: Ints = self._bounds[np.searchsorted(self._bounds, starts, side="right")]
        return found

    def end(self, start: int) -> int:
        return int(self.ends(np.array([start], dtype=np.int64))[0])

    def label(self, start: int) -> dict[str, Any]:
        if not self._shifts:
            return {}
        self._reach(start, start)
        return {"shift": self._names.get(start, "")}

    def _reach(self, first_ms: int, last_ms: int) -> None:
        """Have the bounds of the years around these times and at least one more on either side, for windows across."""
        low = min(max(_year(first_ms) - 2, FIRST_YEAR - 1), LAST_YEAR - 1)
        high = min(_year(last_ms) + 2, LAST_YEAR - 1)
        years = self._years
        if len(years) and years.start <= low and high < years.stop:
            return
        if len(years):
            low, high = min(low, years.start), max(high, years.stop - 1)
        self._years = range(low, high + 1)
        bounds: dict[int, str] = {}
        for year in self._years:
            for local, name in self._begins(year):
                bounds[first_showing(self._zone, local) * 1000] = name  # the later of two that share a moment is it
        if self._shifts:
            self._names = bounds
        self._bounds = np.array([*sorted(bounds), END_OF_TIME], dtype=np.int64)

    def _begins(self, year: int) -> Iterator[tuple[datetime, str]]:
        """When the windows of a year begin by the clock on the wall."""
        if self._unit == "year":
            yield datetime.combine(date(year, 1, 1), time()), ""
        elif self._unit == "month":
            for month in range(1, 13):
                yield datetime.combine(date(year, month, 1), time()), ""
        else:
            day = date(year, 1, 1)
            step = timedelta(days=7 if self._unit == "week" else 1)
            if self._unit == "week":
                day += timedelta(days=-day.weekday() % 7)
            while day.year == year:
                for at, name in self._shifts or [(time(), "")]:
                    yield datetime.combine(day, at), name
                day += step


def _year(ms: int) -> int:
    return min(max(ms, 0) // 31_556_952_000 + 1970, LAST_YEAR)  # the mean year: right to within one


def first_showing(zone: ZoneInfo, local: datetime) -> int:
    """Seconds since the epoch at which a clock in the zone first shows `local` (naive, whole seconds) or later."""
    at = round(local.replace(tzinfo=zone).timestamp())
    if _shown(zone, at) == local:
        return at
    # The clock leaps over it, somewhere between the moments that its old and its new offset from UTC give.
    low, high = round(local.replace(tzinfo=zone, fold=1).timestamp()), at
    while high - low > 1:
        middle = (low + high) // 2
        if _shown(zone, middle) >= local:
            high = middle
        else:
            low = middle
    return high


def _shown(zone: ZoneInfo, at: int) -> datetime:
    return datetime.fromtimestamp(at, zone).replace(tzinfo=None)


def grid_of(rule: WindowRule) -> Grid:
    """The grid of a rule whose windows lie side by side; of one by devices' own zones that of its default zone."""
    if rule.kind == "calendar":
        zone = rule.default_zone if rule.zone == DEVICE_ZONE else rule.zone
        return _calendar(rule.calendar or "day", zone, tuple(rule.shifts.items()))
    return EvenGrid(rule.size_ms)


def zoned_grid(rule: WindowRule, zone: str) -> Grid | None:
    """The grid of a calendar rule in a zone; None for what is no zone here."""
    try:
        return _calendar(rule.calendar or "day", zone, tuple(rule.shifts.items()))
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None


@lru_cache(maxsize=256)
def _calendar(unit: str, zone: str, shifts: tuple[tuple[str, str], ...]) -> CalendarGrid:
    """Shared by all partitions: a calendar is the same whoever asked it for which years."""
    return CalendarGrid(unit, ZoneInfo(zone), dict(shifts))
