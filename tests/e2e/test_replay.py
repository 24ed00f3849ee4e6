"""A real recording through a node of its own: every row once, at its own time, and the days' figures right."""

from __future__ import annotations

import csv
import json
import math
from collections import defaultdict
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from headwater.net import free_port
from simulators.verdict import LogReader
from tests.support.processes import headwater, node
from tests.support.recordings import airport_weather

DAY_MS = 86_400_000
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
    (tmp_path / "days.toml").write_text(RULES)
    with node(config, tmp_path / "data"):
        arguments = ["simulate", "replay", str(weather), "--time-column", "time_hour", "--device-column", "origin"]
        done = headwater([*arguments, "--speed", "max", "--mqtt", f"127.0.0.1:{mqtt}"], timeout_s=120)
        assert done.returncode == 0, done.stderr
        last = json.loads(done.stdout.splitlines()[-1])
        assert last == {"event": "done", "rows": 26_115, "sent": 26_115, "acknowledged": 26_115}

        got: list[tuple[int, str]] = []
        results: dict[tuple[str, int], dict[str, Any]] = {}

        def reading(message: Any) -> None:
            device = message.key().decode().removeprefix("recorder/")
            if device != "$gateway":
                got.append((message.timestamp()[1], device))

        def window(message: Any) -> None:
            result = json.loads(message.value())
            results[result["group"].removeprefix("recorder/"), result["start"]] = result

        reader = LogReader(f"127.0.0.1:{kafka}", {"readings": reading, "aggregates": window})
        while len(results) < len(days):
            assert reader.read_to_end(30)
        reader.close()

    assert sorted(got) == rows, "every row once"
    times = [at for at, _ in got]
    assert times == sorted(times), "in the order of their times"
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
