"""Prometheus' own tool on what Headwater ships and serves."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from prometheus_client import generate_latest

from headwater.dashboard.metrics import registry
from headwater.dashboard.model import PageModel
from tests.support.peers import program
from tests.unit.dashboard.test_web import STATUS

RULES = Path(__file__).parents[2] / "deploy" / "prometheus" / "headwater.rules.yml"


def promtool(*arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    found = program("promtool")
    assert found is not None
    return subprocess.run([found, *arguments], input=text, capture_output=True, text=True, timeout=60)


@pytest.mark.peer("promtool")
def test_the_shipped_rules_are_good() -> None:
    checked = promtool("check", "rules", str(RULES))
    assert checked.returncode == 0, checked.stderr
    assert "SUCCESS: 9 rules found" in checked.stdout


@pytest.mark.peer("promtool")
def test_the_judge_refuses_bad_rules(tmp_path: Path) -> None:
    bad = tmp_path / "bad.yml"
    bad.write_text(RULES.read_text().replace("headwater_up == 0", "headwater_up = 0"))
    assert promtool("check", "rules", str(bad)).returncode != 0


@pytest.mark.peer("promtool")
def test_metrics_follow_the_conventions() -> None:
    model = PageModel(history_s=60, devices_max=10, series_max=10)
    model.alerts["hot/edge/t1"] = {"rule": "hot", "instance": "edge/t1", "state": "firing", "change": 1}
    model.nodes["edge"] = {"node": "edge", "mark_seen_ms": 4_000, "live_ms": 2_000, "backlog_records": 7, "change": 1}
    text = generate_latest(registry(lambda: STATUS, model)).decode()
    checked = promtool("check", "metrics", text=text)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
