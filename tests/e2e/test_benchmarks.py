"""Every benchmark runs, at a size that proves nothing but that."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import mqtt_ingest


@pytest.mark.peer("mosquitto")
def test_mqtt_ingest_runs_beside_mosquitto(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    load = mqtt_ingest.Load(connections=3, inflight=4, messages=400)
    report = mqtt_ingest.main(load=load, rounds=1, results=tmp_path)
    assert json.loads((tmp_path / "mqtt-ingest.json").read_text()) == report
    assert report["ours"]["median"] > 0
    assert report["ratio"]["mosquitto"] > 0
    details = report["details"]
    assert details["ours"].keys() == details["mosquitto"].keys()
    for key in ("puback_p50_ms", "puback_p99_ms", "cpu_us", "rss_mib", "generator_busy"):
        assert details["ours"][key] >= 0
    printed = capsys.readouterr().out
    assert "max_queued_messages 0" in printed
    assert "against mosquitto" in printed
