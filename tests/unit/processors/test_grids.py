"""Calendar windows: every day of every zone is where its clocks say, through all changes of time zone rules."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from processors.windows.grids import END_OF_TIME, CalendarGrid
from tests.support import river
from tests.support.river import Row
from tests.support.zones import DAY, LAST, SHIFTS, Ints, around_changes, bounds, zones


def ms(text: str) -> int:
    return round(datetime.fromisoformat(text).astimezone(UTC).timestamp() * 1000)


def around(grid: CalendarGrid, text: str) -> tuple[str, float]:
    """The window around a time: its start as text in that time's offset, and its hours."""
    start = int(grid.starts(np.array([ms(text)]))[0])
    offset = datetime.fromisoformat(text).tzinfo
    return datetime.fromtimestamp(start / 1000, offset).isoformat(), (grid.end(start) - start) / 3_600_000


@pytest.mark.parametrize(
    ("unit", "zone", "time", "start", "hours"),
    [
        ("day", "Europe/Berlin", "2022-03-27T12:00:00+01:00", "2022-03-27T00:00:00+01:00", 23),
        ("day", "Europe/Berlin", "2022-10-30T12:00:00+02:00", "2022-10-30T00:00:00+02:00", 25),
        ("day", "Europe/Berlin", "2022-10-31T00:00:00+01:00", "2022-10-31T00:00:00+01:00", 24),
        ("day", "UTC", "2022-10-30T23:59:59.999+00:00", "2022-10-30T00:00:00+00:00", 24),
        # midnight is leapt over: the day begins at one
        ("day", "Asia/Beirut", "2022-03-27T12:00:00+03:00", "2022-03-27T01:00:00+03:00", 23),
        # midnight comes twice: the day begins with the first
        ("day", "America/Havana", "2022-11-06T12:00:00-04:00", "2022-11-06T00:00:00-04:00", 25),
        # 30 December 2011 did not happen
        ("day", "Pacific/Apia", "2011-12-31T12:00:00+14:00", "2011-12-31T00:00:00+14:00", 24),
        ("week", "Europe/Berlin", "2022-03-27T12:00:00+01:00", "2022-03-21T00:00:00+01:00", 167),
        ("week", "UTC", "2022-01-01T12:00:00+00:00", "2021-12-27T00:00:00+00:00", 168),
        ("month", "Europe/Berlin", "2022-10-09T12:00:00+02:00", "2022-10-01T00:00:00+02:00", 31 * 24 + 1),
        ("month", "UTC", "2024-02-29T12:00:00+00:00", "2024-02-01T00:00:00+00:00", 29 * 24),
        ("year", "America/New_York", "2024-01-01T00:00:00-05:00", "2024-01-01T00:00:00-05:00", 366 * 24),
    ],
)
def test_windows_by_the_clock_on_the_wall(unit: str, zone: str, time: str, start: str, hours: float) -> None:
    assert around(CalendarGrid(unit, ZoneInfo(zone)), time) == (start, hours)


def test_shifts_bear_their_names_and_the_night_is_an_hour_longer_or_shorter() -> None:
    grid = CalendarGrid("shifts", ZoneInfo("Europe/Berlin"), {"early": "06:00", "late": "14:00", "night": "22:00"})
    assert around(grid, "2022-10-29T23:00:00+02:00") == ("2022-10-29T22:00:00+02:00", 9)
    assert around(grid, "2022-03-27T01:00:00+01:00") == ("2022-03-26T22:00:00+01:00", 7)
    assert around(grid, "2022-01-01T05:00:00+01:00") == ("2021-12-31T22:00:00+01:00", 8)
    leapt = CalendarGrid("shifts", ZoneInfo("Europe/Berlin"), {"a": "01:15", "b": "02:30"})
    assert around(leapt, "2022-03-27T03:10:00+02:00") == ("2022-03-27T03:00:00+02:00", 22.25)
    assert grid.label(ms("2021-12-31T22:00:00+01:00")) == {"shift": "night"}
    assert grid.label(ms("2022-03-27T06:00:00+02:00")) == {"shift": "early"}


def test_a_table_that_grows_says_what_one_made_at_once_says() -> None:
    times = np.array([ms(f"{year}-07-01T12:00:00+00:00") for year in (2000, 1970, 2037, 2399, 2003)])
    one = CalendarGrid("week", ZoneInfo("Europe/Paris"))
    found = [int(one.starts(time[None])[0]) for time in times]
    assert found == CalendarGrid("week", ZoneInfo("Europe/Paris")).starts(times).tolist()
    assert [one.end(start) for start in found] == [CalendarGrid("week", ZoneInfo("Europe/Paris")).end(s) for s in found]


def test_all_time_after_the_calendars_end_is_one_window() -> None:
    grid = CalendarGrid("day", ZoneInfo("UTC"))
    [first, second] = grid.starts(np.array([ms("2401-01-01T00:00:00+00:00"), 1 << 52])).tolist()
    assert first == second == ms("2399-12-31T00:00:00+00:00")
    assert grid.end(first) == END_OF_TIME


STEPS = np.unique(np.concatenate([np.arange(-2 * DAY, 2 * DAY, 900), [-61, -60, -59, -1, 1, 59, 60, 61]]))
UNITS = ("day", "week", "month", "year", "shifts")


def misplaced(unit: str, name: str) -> list[int]:
    """Times around all changes of a zone's offset, 1970 to 2038, whose window is another than that of the local time.

    A window begins when its first moment is shown first; where a clock is put back over it, what has begun stays.
    """
    wanted = bounds(unit, name)
    times = around_changes(name, STEPS)
    at = np.searchsorted(wanted, times, side="right")
    grid = CalendarGrid(unit, ZoneInfo(name), SHIFTS if unit == "shifts" else None)
    starts = grid.starts(times * 1000) // 1000
    each, where = np.unique(starts, return_inverse=True)
    ends = np.array([grid.end(start * 1000) // 1000 for start in each.tolist()], dtype=np.int64)[where]
    return times[(starts != wanted[at - 1]) | (ends != wanted[at])].tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "name", ["Europe/Berlin", "America/Goose_Bay", "Pacific/Apia", "Africa/Casablanca", "Asia/Gaza"]
)
def test_days_around_every_change_of_a_zone(name: str) -> None:
    assert misplaced("day", name) == []


@pytest.mark.long("time-zones")
@pytest.mark.parametrize("unit", UNITS)
def test_every_calendar_around_every_change_of_every_zone(unit: str) -> None:
    every = zones()
    assert len(every) > 300
    assert {name: found[:5] for name in every if (found := misplaced(unit, name))} == {}


@pytest.mark.long("time-zones")
def test_devices_in_every_zone_around_every_change_of_it() -> None:
    """Rules with zone = "device" over a device in each zone, whose first reading says where it is."""
    units = ("day", "week", "month")
    more = {
        "kind": "calendar",
        "zone": "device",
        "default_zone": "Asia/Tokyo",
        "size_s": None,
        "every_field": ["count"],
    }
    rules = [river.window(name=unit, calendar=unit, windows_max=2_000_000, **more) for unit in units]
    steps = np.array([-30, -24, -18, -6, -2, -1, -1 / 3600, 0, 1 / 3600, 1, 2, 6, 18, 24, 30]) * 3600
    every, seen = zones(), 0
    for begin in range(0, len(every), 20):
        names = {f"d{number}": name for number, name in enumerate(every[begin : begin + 20])}
        times = {device: around_changes(name, steps.astype(np.int64)) for device, name in names.items()}
        rows = [Row(device, time * 1000, {"t": 1}) for device in names for time in times[device].tolist()]
        firsts = np.cumsum([0, *(len(some) for some in times.values())])[:-1].tolist()
        for first, name in zip(firsts, names.values(), strict=True):
            rows[first] = rows[first]._replace(says={"zone": name})
        wanted: Counter[tuple[str, str, int, int]] = Counter()
        for device, name in names.items():
            for unit in units:
                wanted.update(naive(unit, name, device, times[device]))
        outputs = river.processor(*rules).process(river.block([*rows, river.health((LAST + 800 * DAY) * 1000)]))
        told = Counter({
            (one["rule"], one["group"], one["start"] // 1000, one["end"] // 1000): one["count"]
            for one in river.values(outputs)
        })  # fmt: skip
        assert dict(told - wanted) == dict(wanted - told) == {}, names
        seen += len(rows)
    assert seen > 300_000


def naive(unit: str, name: str, device: str, times: Ints) -> dict[tuple[str, str, int, int], int]:
    """(rule, group, start, end) of windows -> readings."""
    edges = bounds(unit, name)
    each, counts = np.unique(np.searchsorted(edges, times, side="right"), return_counts=True)
    return {
        (unit, f"n1/{device}", int(edges[at - 1]), int(edges[at])): int(count)
        for at, count in zip(each, counts, strict=True)
    }
