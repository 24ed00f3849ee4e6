"""What the rules hold in memory: in metrics and in `headwater status`."""

from __future__ import annotations

from prometheus_client import generate_latest

from headwater.cli.status import _memory_lines
from headwater.dashboard.metrics import registry
from headwater.dashboard.model import PageModel

MEMORY = {
    "bytes": 5 << 20, "bytes_max": 256 << 20, "rules": {"a": 1 << 20, "b": 3 << 20},
    "devices": 7, "forgotten": 0, "full": 1,
}  # fmt: skip


def test_metrics_name_the_rules_the_bound_and_who_is_full() -> None:
    status = {"node": "n", "work": {"report": {"processors": {"memory": MEMORY}}}}
    model = PageModel(history_s=60, devices_max=10, series_max=10)
    said = generate_latest(registry(lambda: status, model)).decode()
    for line in (
        'headwater_processor_state_bytes{rule="b"} 3.145728e+06',
        "headwater_processor_state_bytes_max 2.68435456e+08",
        "headwater_processor_devices 7.0",
        "headwater_processor_full_partitions 1.0",
    ):
        assert line in said


def test_status_names_the_largest_first() -> None:
    [(name, said)] = _memory_lines(MEMORY)
    assert name == "rules' memory"
    assert said.index("b ") < said.index("a ")
    assert "7 devices" in said
    assert _memory_lines(None) == _memory_lines(MEMORY | {"bytes_max": 0}) == []
