"""What Prometheus and `headwater status` are told of users' processors."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.registry import Collector

from headwater.cli.status import _processor_line
from headwater.dashboard.metrics import _user_processors

ONE = {
    "state": "paused",
    "problem": "line 3",
    "lag_records": 1234,
    "readings": 5,
    "outputs": 2,
    "failed": 1,
    "killed": 0,
}


class Only(Collector):
    def collect(self):  # type: ignore[no-untyped-def]
        yield from _user_processors({"pump": ONE, "other": {**ONE, "problem": None}})


def test_a_paused_one_is_told() -> None:
    registry = CollectorRegistry()
    registry.register(Only())
    text = generate_latest(registry).decode()
    for line in (
        'headwater_user_processor_paused{processor="pump"} 1.0',
        'headwater_user_processor_paused{processor="other"} 0.0',
        'headwater_user_processor_lag_records{processor="pump"} 1234.0',
        'headwater_user_processor_failed_total{processor="pump"} 1.0',
    ):
        assert line in text
    young = ONE | {"state": "waiting", "restarts": 3, "readings": None, "lag_records": None}
    said = "waiting, started again 3 times; it has not run long enough to say how far behind it is"
    assert _processor_line(young) == said
    assert _processor_line(ONE) == "paused, 1,234 records behind; 5 readings, 2 out, 1 dead letters, 0 devices"
