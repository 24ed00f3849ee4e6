"""A node's sink writes to real databases: what is in the log is in the database, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.consume.reader import Reader
from gateway.log.records import NO_HEADERS, Record, decode_headers
from headwater.app.control import read_status
from headwater.net import RealNet, free_port
from tests.support.databases import InfluxDB, VictoriaMetrics
from tests.support.processes import headwater, node

DOC = Path(__file__).parents[2] / "docs" / "sinks.md"
WAIT_S_MAX = 30.0
T0 = int(time.time() * 1000) // 60_000 * 60_000 - 3_600_000


class Gateway:
    """A running node with the section `[influx]`."""

    def __init__(self, folder: Path, url: str, extra: str = "") -> None:
        self.folder = folder
        self.port = free_port()
        self.config = folder / "headwater.toml"
        (folder / "token").write_text("t0ken\n")
        self.config.write_text(
            f'node = "edge-1"\n[kafka]\nlisten = "127.0.0.1:{self.port}"\n'
            f'[influx]\nurl = "{url}"\norg = "o"\nbucket = "b"\ntoken_file = "token"\ninterval_ms = 50\n{extra}'
        )

    @contextlib.contextmanager
    def running(self) -> Iterator[Gateway]:
        with node(self.config, self.folder / "data"):
            yield self

    def with_reader(self, work: Callable[[Reader], Awaitable[Any]]) -> Any:
        async def run() -> Any:
            reader = await Reader.connect(RealNet(), "127.0.0.1", self.port, client_id="test")
            try:
                return await work(reader)
            finally:
                await reader.close()

        return asyncio.run(run())

    def write(self, topic: str, records: list[Record]) -> None:
        async def work(reader: Reader) -> None:
            await reader.ensure_topic(topic, 1)
            await reader.produce(topic, 0, records)

        self.with_reader(work)

    def dead(self) -> list[dict[str, str]]:
        async def work(reader: Reader) -> list[dict[str, str]]:
            reader.assign({("deadletter", 0): 0})
            blocks = await reader.poll(max_wait_ms=100)
            return [
                {name: (value or b"").decode() for name, value in decode_headers(headers)}
                for block in blocks
                for headers in block.headers
            ]

        return list(self.with_reader(work))

    def sink(self) -> dict[str, Any]:
        status = read_status(str(self.folder / "data"))
        found = (((status or {}).get("work") or {}).get("report") or {}).get("sinks") or {}
        return dict(found.get("influx") or {})

    def until(self, **settled: int) -> dict[str, Any]:
        """The sink's status once it has settled these offsets of topics."""
        deadline = time.monotonic() + WAIT_S_MAX
        want = {f"{topic}/0": offset for topic, offset in settled.items()}
        while not want.items() <= self.sink().get("positions", {}).items():
            assert time.monotonic() < deadline, (self.sink(), self.config.with_suffix(".log").read_text()[-3000:])
            time.sleep(0.05)
        return self.sink()


def reading(at: int, device: str = "t-1", **fields: Any) -> Record:
    return at, f"edge-1/{device}".encode(), json.dumps(fields).encode(), NO_HEADERS


def result(start: int, revision: int, mean: float | None, **changes: Any) -> Record:
    value = {
        "rule": "farm_1m", "group": "edge-1/t-1", "start": start, "end": start + 60_000, "revision": revision,
        "complete": True, "cause": "late" if revision else "close", "count": 2 + revision,
        "fields": {"power": {"mean": mean}},
    } | changes  # fmt: skip
    return start + 60_000, f"edge-1/t-1/farm_1m/{start}".encode(), json.dumps(value).encode(), NO_HEADERS


@pytest.fixture
def victoria(tmp_path: Path) -> Iterator[VictoriaMetrics]:
    database = VictoriaMetrics(tmp_path / "victoria")
    yield database
    database.stop()


@pytest.fixture
def influxdb(tmp_path: Path) -> Iterator[InfluxDB]:
    database = InfluxDB(tmp_path / "influxdb")
    yield database
    database.stop()


@pytest.mark.peer("victoria-metrics")
def test_readings_reach_victoriametrics_once_through_a_killed_work_process(
    victoria: VictoriaMetrics, tmp_path: Path
) -> None:
    with Gateway(tmp_path, victoria.url).running() as gateway:
        gateway.write("readings", [reading(T0 + n * 1000, power=n, note="x") for n in range(300)])
        gateway.until(readings=300)
        status = read_status(str(tmp_path / "data"))
        assert status is not None
        os.kill(status["work"]["pid"], signal.SIGKILL)
        gateway.write("readings", [reading(T0 + n * 1000, power=n) for n in range(300, 600)])
        sink = gateway.until(readings=600)
        assert (sink["state"], sink["lag_records"], sink["dead_letters"]) == ("up", 0, 0)
        shown = headwater(["status", "--config", str(gateway.config)])
        assert re.search(r"influx +up, 0 records behind, last success", shown.stdout), shown.stdout
        assert victoria.samples("readings_power") == {
            ("readings_power", "t-1"): {T0 + n * 1000: float(n) for n in range(600)}
        }


@pytest.mark.long("influx")
@pytest.mark.peer("influxdb")
def test_influxdb_keeps_the_latest_revision_and_refuses_by_name(influxdb: InfluxDB, tmp_path: Path) -> None:
    from influxdb_client import InfluxDBClient

    def flux(query: str) -> list[dict[str, Any]]:
        with InfluxDBClient(influxdb.url, token="t0ken", org="o") as client:
            return [record.values for table in client.query_api().query(query) for record in table.records]

    with Gateway(tmp_path, influxdb.url).running() as gateway:
        gateway.write("readings", [reading(T0 + n * 1000, power=n, state="run") for n in range(100)])
        gateway.write("readings", [reading(T0 + 100_000, power="off", state="stop"), reading(T0 + 101_000, state=3)])
        gateway.write("readings", [reading(T0 + 102_000, time=5, power=7)])
        gateway.write("readings", [reading(1000, power=1)])  # long before anything: another shard, its own types
        gateway.write("aggregates", [result(T0, 0, 409.75), result(T0, 1, 410.5), result(T0 + 60_000, 0, 1.0)])
        sink = gateway.until(readings=104, aggregates=3)
        gateway.write("aggregates", [result(T0 + 60_000, 1, 2.0)])
        merged = result(T0 + 120_000, 1, None, count=0, cause="merged", fields={}, merged_into=T0 + 60_000)
        gateway.write("aggregates", [result(T0 + 120_000, 0, 5.0), merged])
        sink = gateway.until(readings=104, aggregates=6)
        assert sink["dead_letters"] == 2
        found = flux('from(bucket:"b") |> range(start: 0) |> filter(fn: (r) => r._field == "power")')
        assert sorted(int(row["_value"]) for row in found) == sorted([*range(100), 7, 1])
        reasons = {dead["record"]: dead["reason"] for dead in gateway.dead()}
        assert reasons == {
            "readings/0/100": "field “power” of measurement “readings” is string here, but float in the database",
            "readings/0/101": "field “state” of measurement “readings” is float here, but string in the database",
        }
        states = flux('from(bucket:"b") |> range(start: 0) |> filter(fn: (r) => r._field == "state")')
        assert sorted(row["_value"] for row in states) == ["run"] * 100 + ["stop"]
        assert len(flux('from(bucket:"b") |> range(start: 0) |> filter(fn: (r) => r._field == "time_")')) == 1
        query = re.search(r"<!-- tested: flux -->\n```\n(.*?)```", DOC.read_text(), re.DOTALL)
        assert query is not None
        rows = flux(query[1].replace('"headwater"', '"b"').replace("-24h", "-3h"))
        assert [(row["power_mean"], row["revision"]) for row in rows] == [(410.5, 1), (2.0, 1)]
