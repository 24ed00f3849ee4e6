"""Every benchmark runs, at a size that proves nothing but that."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks import (
    devices_decode,
    kill_compare,
    mqtt_client,
    mqtt_ingest,
    mqtt_steady,
    node_consume,
    node_latency,
    node_produce,
    node_raw,
    node_start,
    node_wear,
    window_state,
    window_step,
    windows,
)
from benchmarks.kafka_raw import Shape
from benchmarks.kafka_servers import Servers, both
from benchmarks.windows_load import Load as WindowsLoad
from benchmarks.windows_load import Oracle, Story
from tests.support.peers import Kafka


@pytest.mark.peer("mosquitto")
def test_mqtt_ingest_runs_beside_mosquitto(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    load = mqtt_ingest.Load(connections=3, inflight=4, messages=400)
    report = mqtt_ingest.main(load=load, rounds=1, results=tmp_path, only_mosquitto=True)
    assert json.loads((tmp_path / "mqtt-ingest.json").read_text()) == report
    assert report["ours"]["median"] > 0
    assert report["ratio"]["mosquitto"] > 0
    assert report["ratio"]["floor"] > 0
    details = report["details"]
    assert details["ours"].keys() == details["mosquitto"].keys()
    for key in ("puback_p50_ms", "puback_p99_ms", "cpu_us", "rss_mib", "generator_busy"):
        assert details["ours"][key] >= 0
    printed = capsys.readouterr().out
    assert "max_queued_messages 0" in printed
    assert "against mosquitto" in printed


@pytest.mark.long("benchmarks")
@pytest.mark.peer("mosquitto", "telegraf")
def test_mqtt_ingest_runs_beside_telegraf_and_at_a_steady_rate(tmp_path: Path) -> None:
    load = mqtt_ingest.Load(connections=3, inflight=4, messages=400)
    report = mqtt_ingest.main(load=load, rounds=1, results=tmp_path)
    assert set(report["ratio"]) == {"mosquitto", "interval 0", "telegraf"}
    many = mqtt_ingest.Load(connections=20, messages=400, rate=400.0, block=1)
    steady = mqtt_steady.main(load=load, many=many, seconds=0.5, rounds=1, results=tmp_path)
    assert steady["mqtt-puback"]["details"]["ours"]["wanted_ms"] > 5
    assert 300 < steady["mqtt-thousand"]["details"]["ours"]["rate"] <= 420


def test_devices_decode_makes_readings_of_every_format(tmp_path: Path) -> None:
    reports = devices_decode.main(messages=20, rounds=1, results=tmp_path)
    assert len(reports) == 10
    assert all(report["ours"]["median"] > 0 for report in reports.values())


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    with both() as running:
        yield running


def check_report(report: dict[str, Any], results: Path) -> None:
    assert json.loads((results / f"{report['name']}.json").read_text()) == json.loads(json.dumps(report))
    assert report["ours"]["median"] > 0
    assert report["ratio"]["kafka"] > 0
    assert report["details"]["ours"].keys() == report["details"]["kafka"].keys()


@pytest.mark.peer("kafka")
def test_node_produce_and_consume_run_beside_kafka(tmp_path: Path, servers: Servers) -> None:
    loads = {"node-produce": node_produce.Load(records=500, warm=10, size=100)}
    report = node_produce.main(loads=loads, rounds=1, results=tmp_path, servers=servers)["node-produce"]
    check_report(report, tmp_path)
    assert report["ratio"]["null"] > 0
    assert report["details"]["null"]["store_cpu_us"] > 0
    loads = {"node-produce-2": node_produce.Load(records=500, warm=10, producers=2)}
    report = node_produce.main(loads=loads, rounds=1, results=tmp_path, servers=servers)["node-produce-2"]
    check_report(report, tmp_path)
    assert report["details"]["null"]["ceiling"] > 0
    load = node_consume.Load(records=500)
    check_report(node_consume.main(load=load, rounds=1, results=tmp_path, servers=servers), tmp_path)


@pytest.mark.peer("kafka")
def test_node_raw_and_latency_run_beside_kafka(tmp_path: Path, servers: Servers) -> None:
    raw = node_raw.main(shapes=(Shape(10, 2, 2),), seconds=0.1, rounds=1, results=tmp_path, servers=servers)
    check_report(raw["node-raw-10"], tmp_path)
    assert raw["node-raw-10"]["details"]["ours"]["p99_ms"] >= raw["node-raw-10"]["details"]["ours"]["p50_ms"] > 0
    latency = node_latency.main(shapes=(Shape(1, 1, 2),), seconds=0.1, rounds=1, results=tmp_path, servers=servers)
    check_report(latency["node-latency-2"], tmp_path)
    details = latency["node-latency-2"]["details"]
    assert details["ours"]["fdatasync_us"] > 0
    assert details["floor"]["requests_s"] > 0


@pytest.mark.peer("kafka")
@pytest.mark.long("benchmarks")
def test_node_start_and_wear_run_beside_kafka(tmp_path: Path) -> None:
    load = node_start.Load(size_bytes=1_000_000, partitions=2, many=5)
    started = node_start.main(load=load, rounds=1, results=tmp_path)
    for report in started.values():
        check_report(report, tmp_path)
    wear = node_wear.main(
        load=node_wear.Load(rates=(200,), intervals_ms=(0, 50), seconds=0.2), rounds=1, results=tmp_path
    )["node-wear-200"]
    check_report(wear, tmp_path)
    for who in ("ours", "ours-50ms"):
        assert wear["details"][who]["file"] > 1  # each byte of payload is there, and its batch's header too
    assert wear["details"]["ours"]["pages"] > wear["details"]["ours-50ms"]["pages"]


@pytest.mark.peer("mosquitto")
def test_mqtt_client_runs_beside_mosquitto_sub(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    load = mqtt_ingest.Load(connections=3, inflight=4, messages=400)
    report = mqtt_client.main(load=load, rounds=1, results=tmp_path)
    assert json.loads((tmp_path / "mqtt-client.json").read_text()) == report
    assert report["ratio"]["mosquitto_sub"] > 0
    for details in report["details"].values():
        assert details["cpu_us"] >= details["reader_cpu_us"] >= 0
    assert "against mosquitto_sub" in capsys.readouterr().out


@pytest.mark.long("benchmarks")
@pytest.mark.peer("mosquitto")
def test_kill_compare_counts_what_was_acknowledged_and_is_gone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = kill_compare.main(rounds=1, messages=60, rate=1_000, only="defaults", results=tmp_path)
    assert json.loads((tmp_path / "kill-compare.json").read_text()) == report
    ours, theirs = report["contestants"].values()
    assert ours["acknowledged"][0] >= 30
    assert (ours["lost"], ours["twice"]) == ([0], [0])
    assert theirs["lost"] == theirs["acknowledged"] != [0]  # it keeps its queues in memory
    assert "of" in capsys.readouterr().out


def test_window_step_and_state(tmp_path: Path) -> None:
    step = window_step.main(load=window_step.Load(devices=10, rows=100, blocks=20), rounds=1, results=tmp_path)
    assert set(step["ratio"]) == {"hours", "decoded", "bincount"}
    assert step["details"]["ours"]["told"] == 30  # 200 s, of which the first three minutes are over
    state = window_state.main(load=window_state.Load(keys=50, devices=2, hours=2), rounds=1, results=tmp_path)
    assert state["window-state-keys"]["details"]["ours"]["file_mib"] > 0
    panes = state["window-state-panes"]["details"]
    assert panes["ours"]["told"] == panes["minutes"]["told"] > panes["one-pane"]["told"] > 0


TINY = WindowsLoad(windows=3, devices=4, peer_windows=2)


def check_windows(report: dict[str, Any], results: Path, printed: str) -> None:
    """Results were compared with NumPy's on the way: a wrong one ends the benchmark."""
    assert json.loads((results / "windows.json").read_text()) == json.loads(json.dumps(report))
    for details in report["details"].values():
        assert details["cpu_s_per_million"] > 0
        assert details["rss_mib"] > 10
    assert "at most 300 MiB" in printed


@pytest.mark.peer("kafka")
@pytest.mark.timeout(120)
def test_windows_in_both_drivers(tmp_path: Path, kafka: Kafka, capsys: pytest.CaptureFixture[str]) -> None:
    report = windows.main(load=TINY, rounds=1, results=tmp_path, node=("127.0.0.1", kafka.port), only=())
    assert set(report["ratio"]) == {"inline"}
    check_windows(report, tmp_path, capsys.readouterr().out)


@pytest.mark.long("benchmarks")
@pytest.mark.peer("kafka", "kafka-streams", "bytewax", "quix")
@pytest.mark.timeout(300)
def test_windows_run_beside_other_engines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = windows.main(load=TINY, rounds=2, results=tmp_path)
    assert set(report["ratio"]) == {"inline", "kafka-streams", "bytewax", "quix"}
    assert report["details"]["kafka-streams"]["warm"] > 0
    check_windows(report, tmp_path, capsys.readouterr().out)


def test_a_wrong_a_missing_and_a_repeated_result_end_the_windows_benchmark() -> None:
    story = Story(TINY, 0)
    right = {"count": 60, "mean": 0.0, "min": 0.0, "max": 0.0}
    story.values[:] = 0
    oracle = Oracle(story, 1)
    assert not oracle.check("d0000", 60_000, right, p95=False)  # a window that is not asked for
    for device in range(3):
        assert oracle.check(f"d{device:04}", 0, right, p95=False)
    for wrong in ({"count": 59}, {"mean": 0.1}, {"min": -0.1}, {"max": 1.0}):
        with pytest.raises(SystemExit, match="d0003"):
            oracle.check("d0003", 0, right | wrong, p95=False)
    with pytest.raises(SystemExit, match="1 are missing and 0 told twice"):
        oracle.finish("it")
    oracle.check("d0002", 0, right, p95=False)
    with pytest.raises(SystemExit, match="1 are missing and 1 told twice"):
        oracle.finish("it")
