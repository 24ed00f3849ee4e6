"""Calendar windows: every day of every zone is where its clocks say, through all changes of time zone rules."""

from __future__ import annotations

import struct
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import TZPATH, ZoneInfo, available_timezones

import numpy as np
import numpy.typing as npt
import pytest

from processors.windows.grids import END_OF_TIME, CalendarGrid

Ints = npt.NDArray[np.int64]
DAY = 86_400


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


def changes(path: Path) -> tuple[Ints, Ints]:
    """The moments at which a zone's offset changes, and the offsets before the first, between them and after the last:
    a plain reading of RFC 8536, with the rule for later years left out.
    """
    data = path.read_bytes()
    assert data[:4] == b"TZif"

    def counts(at: int) -> list[int]:
        return list(struct.unpack(">6l", data[at + 20 : at + 44]))

    utc, standard, leaps, times, types, letters = counts(0)
    at = 44 + times * 5 + types * 6 + letters + leaps * 8 + standard + utc  # version 2 follows, with 64-bit times
    _, _, _, times, types, _ = counts(at)
    at += 44
    moments = np.frombuffer(data, ">i8", times, at).astype(np.int64)
    which = np.frombuffer(data, "u1", times, at + 8 * times)
    records = np.frombuffer(data, [("offset", ">i4"), ("dst", "u1"), ("name", "u1")], types, at + 9 * times)
    offsets = records["offset"].astype(np.int64)
    return moments, np.concatenate([offsets[:1], offsets[which]])


def zones() -> dict[bytes, str]:
    """Each different zone once: most names are links."""
    found: dict[bytes, str] = {}
    for name in sorted(available_timezones()):
        for folder in TZPATH:
            if (path := Path(folder) / name).is_file():
                found.setdefault(path.read_bytes(), name)
                break
    return found


def misplaced(name: str) -> list[int]:
    """Times around all changes of a zone's offset, 1970 to 2038, at which the window is not that of the local day.

    A day begins when its date is shown first; where a clock is put back over midnight, the date shown first stays.
    """
    path = next(Path(folder) / name for folder in TZPATH if (Path(folder) / name).is_file())
    moments, offsets = changes(path)
    near = moments[(moments > 3 * DAY) & (moments < 2_145_916_800)]
    steps = np.concatenate([np.arange(-2 * DAY, 2 * DAY, 900), [-1, 1, 59, 60, 61, -59, -60, -61]])
    times = np.unique((near[:, None] + steps).ravel()) if len(near) else np.arange(3 * DAY, 40 * DAY, 900)
    last = moments[-1] if len(moments) else 0
    times = times[times <= max(last, 40 * DAY)]
    dates = (times + offsets[np.searchsorted(moments, times, side="right")]) // DAY
    dates = np.maximum.accumulate(dates)
    starts = CalendarGrid("day", ZoneInfo(name)).starts(times * 1000) // 1000
    wrong = (starts > times) | (np.diff(starts, prepend=-1) != 0) & (np.diff(dates, prepend=-1) == 0)
    wrong |= (np.diff(starts, prepend=-1) == 0) & (np.diff(dates, prepend=-1) != 0)
    at_start = offsets[np.searchsorted(moments, starts, side="right")]
    before = offsets[np.searchsorted(moments, starts - 1, side="right")]
    wrong |= (starts + at_start) // DAY != dates
    wrong |= ((starts - 1 + before) // DAY >= dates) & (starts > 0)
    return times[wrong].tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "name", ["Europe/Berlin", "America/Goose_Bay", "Pacific/Apia", "Africa/Casablanca", "Asia/Gaza"]
)
def test_days_around_every_change_of_a_zone(name: str) -> None:
    assert misplaced(name) == []


@pytest.mark.long("time-zones")
def test_days_around_every_change_of_every_zone() -> None:
    every = zones()
    assert len(every) > 300
    assert {name: found[:5] for name in every.values() if (found := misplaced(name))} == {}
