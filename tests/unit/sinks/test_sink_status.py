"""What people and Prometheus see of a sink."""

from __future__ import annotations

from typing import Any

from prometheus_client import generate_latest

from headwater.cli.status import lines
from headwater.dashboard.metrics import registry
from headwater.dashboard.model import PageModel

NOW = 1_700_000_000_000
SINK: dict[str, Any] = {
    "kind": "influx", "url": "http://db:8086", "bucket": "b", "state": "retrying", "error": "503: busy",
    "last_success_ms": NOW - 65_000, "lag_records": 1200, "points": 7, "requests": 3, "retries": 2, "dead_letters": 1,
    "superseded": 0, "beyond_retention": 0, "expired": 0, "left_out": 0, "positions": {"readings/0": 8},
}  # fmt: skip
STATUS: dict[str, Any] = {
    "node": "n", "version": "1", "now_ms": NOW, "central": None, "ingest": None, "log": {}, "clock": {"wall_ms": NOW},
    "disk": {"free_bytes": 1, "total_bytes": 2, "data_bytes": 0}, "addresses": {},
    "work": {"state": "running", "restarts": 0, "report": {"problems": [], "sinks": {"influx": SINK}}},
}  # fmt: skip


def test_status_shows_lag_last_success_and_error() -> None:
    told = dict(lines(STATUS))["influx"]
    assert told == "retrying, 1,200 records behind, last success 1 min 5 s ago, 1 dead letter: 503: busy"


def test_metrics_name_the_sink() -> None:
    text = (
        generate_latest(registry(lambda: STATUS, PageModel(history_s=1, devices_max=1, series_max=1)))
        .decode()
        .splitlines()
    )
    assert 'headwater_sink_up{sink="influx"} 0.0' in text
    assert 'headwater_sink_lag_records{sink="influx"} 1200.0' in text
    assert 'headwater_sink_last_success_timestamp_seconds{sink="influx"} 1.699999935e+09' in text
    assert 'headwater_sink_dead_letters_total{sink="influx"} 1.0' in text
