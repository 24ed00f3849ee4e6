"""A real recording through a node of its own: every row once, at its own time, and the days' figures right."""

from __future__ import annotations

import csv
import json
import math
from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from headwater.net import free_port
from simulators.verdict import LogReader
from tests.support.processes import headwater, node
from tests.support.recordings import airport_weather

DAY_MS, HOUR_MS = 86_400_000, 3_600_000
CONFIG = """
role = "edge"
node = "recorder"
data_dir = "data"
profiles = ["recorded-weather"]
rules = ["days.toml"]
[kafka]
listen = "127.0.0.1:{kafka}"
[mqtt]
listen = "127.0.0.1:{mqtt}"
"""
RULES = """
[[window]]
name = "days"
size_s = 86400
allowed_lateness_s = 86400
fields = { wind_dir = ["count", "circular_mean"] }
"""
LOCAL = """
[[window]]
name = "local_{calendar}"
kind = "calendar"
calendar = "{calendar}"
zone = "America/New_York"
every_field = []
fields = {{ temp = ["count", "sum", "min", "max"], precip = ["sum"] }}
"""
Windows = dict[tuple[str, str, date], list[dict[str, str]]]


def local_windows(path: Path) -> Windows:
    """(calendar, airport, first day) -> rows, by the local dates that the recording has in columns of its own."""
    found: Windows = defaultdict(list)
    with open(path, newline="") as file:
        for row in csv.DictReader(file):
            day = date(int(row["year"]), int(row["month"]), int(row["day"]))
            found["day", row["origin"], day].append(row)
            found["week", row["origin"], day - timedelta(day.weekday())].append(row)
            found["month", row["origin"], day.replace(day=1)].append(row)
    return found


def midnight(day: date) -> int:
    """When a day begins in New York, whose clocks were an hour ahead from 10 March to 3 November 2013."""
    hours = 4 if date(2013, 3, 10) < day <= date(2013, 11, 3) else 5
    return round(datetime(day.year, day.month, day.day, hours, tzinfo=UTC).timestamp() * 1000)


def following(calendar: str, day: date) -> date:
    match calendar:
        case "day":
            return day + timedelta(1)
        case "week":
            return day + timedelta(7)
    return (day + timedelta(31)).replace(day=1)


def check_local(results: dict[tuple[str, str, int], dict[str, Any]], windows: Windows) -> None:
    """Days, weeks and months in New York: each with its rows, and none without."""
    assert results.keys() == {(f"local_{calendar}", origin, midnight(day)) for calendar, origin, day in windows}
    for (calendar, origin, day), rows in windows.items():
        result = results[f"local_{calendar}", origin, midnight(day)]
        assert result["end"] == midnight(following(calendar, day))
        assert (result["count"], result["complete"], result["revision"]) == (len(rows), True, 0)
        temps = [float(row["temp"]) for row in rows if row["temp"] != "NA"]
        precip = [float(row["precip"]) for row in rows if row["precip"] != "NA"]
        assert result["fields"]["precip"]["sum"] == pytest.approx(math.fsum(precip), rel=1e-12)
        if not temps:
            assert "temp" not in result["fields"]
            continue
        temp = result["fields"]["temp"]
        assert (temp["count"], temp["min"], temp["max"]) == (len(temps), min(temps), max(temps))
        assert temp["sum"] == pytest.approx(math.fsum(temps), rel=1e-12)
    # By hand: awk -F, '$1=="EWR" && $3==3 && $4==10 {n++; s+=$6} END {print n, s}', for 3 November $3==11 && $4==3
    spring, autumn = (results["local_day", "EWR", midnight(date(2013, *day))] for day in ((3, 10), (11, 3)))
    assert (spring["count"], (spring["end"] - spring["start"]) / HOUR_MS) == (23, 23)
    assert (autumn["count"], (autumn["end"] - autumn["start"]) / HOUR_MS) == (24, 25), "midnight is missing there"
    assert [round(one["fields"]["temp"]["sum"], 2) for one in (spring, autumn)] == [912.4, 1116.84]
    # and awk -F, '$1=="JFK" && $3==7 {n++; s+=$6; p+=$12} END {print n, s, p}'
    july = results["local_month", "JFK", midnight(date(2013, 7, 1))]
    assert (july["count"], round(july["fields"]["temp"]["sum"], 1)) == (744, 58_578.8)
    assert round(july["fields"]["precip"]["sum"], 2) == 2.26


def expected(path: Path) -> tuple[list[tuple[int, str]], dict[tuple[str, int], dict[str, list[float]]]]:
    """(time, airport) of every row in order of time, and each airport's values per UTC day, by csv and float alone."""
    rows: list[tuple[int, str]] = []
    days: dict[tuple[str, int], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    with open(path, newline="") as file:
        for row in csv.DictReader(file):
            at = round(datetime.fromisoformat(row["time_hour"]).timestamp() * 1000)
            rows.append((at, row["origin"]))
            day = days[row["origin"], at // DAY_MS * DAY_MS]
            day["rows"].append(1.0)
            for field in ("temp", "pressure", "wind_dir"):
                if row[field] != "NA":
                    day[field].append(float(row[field]))
    return sorted(rows), days


@pytest.mark.timeout(180)
def test_the_weather_of_2013_through_a_node(tmp_path: Path) -> None:
    weather = airport_weather(tmp_path)
    rows, days = expected(weather)
    assert len(rows) == 26_115
    kafka, mqtt = free_port(), free_port()
    config = tmp_path / "node.toml"
    config.write_text(CONFIG.format(kafka=kafka, mqtt=mqtt))
    rules = [RULES, *(LOCAL.format(calendar=calendar) for calendar in ("day", "week", "month"))]
    (tmp_path / "days.toml").write_text("".join(rules))
    local = local_windows(weather)
    with node(config, tmp_path / "data"):
        arguments = ["simulate", "replay", str(weather), "--time-column", "time_hour", "--device-column", "origin"]
        done = headwater([*arguments, "--speed", "max", "--mqtt", f"127.0.0.1:{mqtt}"], timeout_s=120)
        assert done.returncode == 0, done.stderr
        last = json.loads(done.stdout.splitlines()[-1])
        assert last == {"event": "done", "rows": 26_115, "sent": 26_115, "acknowledged": 26_115}

        got: list[tuple[int, str]] = []
        results: dict[tuple[str, int], dict[str, Any]] = {}
        in_new_york: dict[tuple[str, str, int], dict[str, Any]] = {}

        def reading(message: Any) -> None:
            device = message.key().decode().removeprefix("recorder/")
            if device != "$gateway":
                got.append((message.timestamp()[1], device))

        def window(message: Any) -> None:
            result = json.loads(message.value())
            airport, start = result["group"].removeprefix("recorder/"), result["start"]
            if result["rule"] == "days":
                results[airport, start] = result
            else:
                in_new_york[result["rule"], airport, start] = result

        reader = LogReader(f"127.0.0.1:{kafka}", {"readings": reading, "aggregates": window})
        while len(results) < len(days) or len(in_new_york) < len(local):
            assert reader.read_to_end(30)
        reader.close()

    assert sorted(got) == rows, "every row once"
    times = [at for at, _ in got]
    assert times == sorted(times), "in the order of their times"
    check_local(in_new_york, local)
    assert results.keys() == days.keys()
    for key, day in days.items():
        result = results[key]
        assert result["count"] == len(day["rows"])
        for field in ("temp", "pressure"):
            if not day[field]:
                assert field not in result["fields"]
                continue
            claim = result["fields"][field]
            assert claim["count"] == len(day[field])
            assert math.isclose(claim["mean"], math.fsum(day[field]) / len(day[field]), rel_tol=1e-9)
            assert (claim["min"], claim["max"]) == (min(day[field]), max(day[field]))
