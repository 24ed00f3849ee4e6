"""All time zones of this machine and every moment at which one changes its offset, read plainly from their files."""

from __future__ import annotations

import struct
from datetime import UTC, date, datetime
from functools import lru_cache
from pathlib import Path
from zoneinfo import TZPATH, ZoneInfo, available_timezones

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
DAY = 86_400
LAST = 2_145_916_800  # 2038-01-01
EVER = 1 << 60


def file_of(name: str) -> Path | None:
    return next((path for folder in TZPATH if (path := Path(folder) / name).is_file()), None)


def zones() -> list[str]:
    """Each different zone once: most names are links."""
    found: dict[bytes, str] = {}
    for name in sorted(available_timezones()):
        if (path := file_of(name)) is not None:
            found.setdefault(path.read_bytes(), name)
    return list(found.values())


@lru_cache(maxsize=1000)
def changes(name: str) -> tuple[Ints, Ints]:
    """The moments (s) at which a zone's offset changes until 2038, and the offsets (s) before the first, between them
    and after the last: a plain reading of RFC 8536. Where a file leaves later years to a rule, they are asked for.
    """
    path = file_of(name)
    assert path is not None, name
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
    offsets = np.concatenate([offsets[:1], offsets[which]])
    later = _by_rule(ZoneInfo(name), int(moments[-1]) if len(moments) else 0)
    more = np.array(later, dtype=np.int64).reshape(-1, 2)
    return np.concatenate([moments, more[:, 0]]), np.concatenate([offsets, more[:, 1]])


def _by_rule(zone: ZoneInfo, after: int) -> list[tuple[int, int]]:
    """(moment, offset from then on) behind what a file lists: by rules, at most a few a year."""

    def offset(at: int) -> int:
        told = datetime.fromtimestamp(at, UTC).astimezone(zone).utcoffset()
        assert told is not None
        return round(told.total_seconds())

    found = []
    for begin in range(max(after, 0), LAST, 15 * DAY):
        low, high = begin, begin + 15 * DAY
        if offset(low) == offset(high):
            continue
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if offset(middle) == offset(low) else (low, middle)
        found.append((high, offset(high)))
    return found


def first_shown(name: str, local: Ints) -> Ints:
    """The moments (s) at which a clock in the zone first shows these local times (s, as if they were UTC) or later."""
    moments, offsets = changes(name)
    begins = np.concatenate([[-EVER], moments])
    shown_last = np.maximum.accumulate(np.concatenate([moments + offsets[:-1], [EVER]]))
    span = np.searchsorted(shown_last, local, side="right")
    shown: Ints = np.maximum(local - offsets[span], begins[span])
    return shown


SHIFTS = {"early": "06:00", "late": "14:30", "night": "22:00"}


@lru_cache(maxsize=8)
def local_bounds(unit: str) -> Ints:
    """When the windows of a calendar begin by the clock on the wall (s, as if it were UTC), 1969 to 2039."""
    first, last = date(1969, 1, 1).toordinal(), date(2040, 1, 1).toordinal()
    days = [date.fromordinal(day) for day in range(first, last)]
    match unit:
        case "week":
            days = [day for day in days if day.weekday() == 0]
        case "month":
            days = [day for day in days if day.day == 1]
        case "year":
            days = [day for day in days if (day.month, day.day) == (1, 1)]
    midnights = np.array([day.toordinal() - date(1970, 1, 1).toordinal() for day in days], dtype=np.int64) * DAY
    if unit != "shifts":
        return midnights
    clock = [int(at[:2]) * 3600 + int(at[3:]) * 60 for at in SHIFTS.values()]
    return np.sort((midnights[:, None] + np.array(clock)).ravel())


def bounds(unit: str, name: str) -> Ints:
    """When the windows of a calendar begin in a zone (s), sorted."""
    return np.unique(first_shown(name, local_bounds(unit)))


def around_changes(name: str, steps: Ints) -> Ints:
    """Times (s) at these distances from all changes of a zone's offset, 1970 to 2038; some days, where it has none."""
    moments, _ = changes(name)
    near = moments[(moments > 10 * DAY) & (moments < LAST - 10 * DAY)]
    return np.unique((near[:, None] + steps).ravel()) if len(near) else np.arange(10 * DAY, 40 * DAY, 900)
