"""docs/sinks.md: its settings are all that there are, its examples are what the code writes, its queries run."""

from __future__ import annotations

import asyncio
import csv
import json
import re
import sqlite3
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.consume.reader import Block, Reader
from gateway.log.records import NO_HEADERS
from headwater.cli import export as export_module
from headwater.clock import ManualClock
from headwater.net import RealNet
from processors.sinks.points import Line, Mapper
from processors.sinks.settings import InfluxSettings
from tests.support.kafka_node import KafkaNode
from tests.support.memory_log import MemoryNode, MemoryReader, export_from

PAGE = (Path(__file__).parents[3] / "docs" / "sinks.md").read_text()


def example(kind: str) -> str:
    found = re.search(rf"<!-- {kind} -->\n```\w*\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None, kind
    return found[1]


def result(start: int, revision: int, mean: float, *, count: int = 5) -> tuple[int, bytes, bytes, bytes]:
    value = {
        "rule": "r", "group": "n/d", "start": start, "end": start + 10, "revision": revision, "complete": True,
        "cause": "late" if revision else "close", "count": count, "fields": {"power": {"mean": mean}} if count else {},
    }  # fmt: skip
    return start + 10, b"n/d/r/%d" % start, json.dumps(value).encode(), NO_HEADERS


RESULTS = [result(0, 0, 1.0), result(10, 0, 2.0), result(0, 1, 1.5), result(20, 0, 3.0), result(20, 1, 0.0, count=0)]


@pytest.mark.parametrize("kind", ["reading", "aggregate"])
def test_examples_are_what_is_written(kind: str) -> None:
    told = dict(line.split(maxsplit=1) for line in example(f"example: {kind}").splitlines())
    block = Block(
        f"{kind}s", 0, [0], [int(told["timestamp"])], [told["key"].encode()], [told["value"].encode()], [NO_HEADERS], 1
    )
    (line,) = Mapper(InfluxSettings(url="http://x:1", bucket="b")).lines(block, 0, 1)
    assert isinstance(line, Line)
    assert line.text() == told["line"]


def test_every_setting_and_its_default_stand_in_the_table() -> None:
    rows = re.findall(r"^\| (`[^|]+) \| ([^|]+) \|", PAGE, re.MULTILINE)
    told: dict[str, str] = {}
    for names, defaults in rows:
        parts = [part.strip() for part in re.split(r", (?=\d)", defaults)]
        for index, name in enumerate(re.findall(r"`(\w+)`", names)):
            told[name] = parts[min(index, len(parts) - 1)]
    told.pop("token_file")
    settings = msgspec.to_builtins(InfluxSettings(url="http://x:1", bucket="b"))
    assert told.keys() == settings.keys()
    for name, default in told.items():
        if default != "required":
            assert default.strip("`") == _toml(settings[name]), name


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f'{name} = "{text}"' for name, text in value.items()) + " }"
    return json.dumps(list(value) if isinstance(value, tuple) else value)


TYPES = ("TEXT", "NUMERIC")
"""How a table may have the columns of an export: `sqlite3 .import` makes texts of all of them."""


@pytest.mark.parametrize("kind", TYPES)
def test_the_sql_query_takes_the_latest_revisions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    node = MemoryNode(ManualClock())
    node.topics = {"aggregates": [[*RESULTS, *(result(5, revision, float(revision)) for revision in range(12))]]}

    export_from(monkeypatch, MemoryReader(node))
    file = str(tmp_path / "out.csv")
    asyncio.run(
        export_module.export(
            None, "aggregates", start="", end="", file=file, columns="", everything=False, replace=False
        )
    )
    with open(file, newline="") as exported:
        header, *rows = csv.reader(exported)
    database = sqlite3.connect(":memory:")
    columns = ", ".join(f'"{name}" {kind}' for name in header)
    database.execute(f"CREATE TABLE aggregates ({columns})")
    database.executemany(f"INSERT INTO aggregates VALUES ({','.join('?' * len(header))})", rows)
    found = database.execute(example("tested: sql")).fetchall()
    database.close()
    told = [(group, int(start), float(mean)) for group, start, mean in found]
    assert told == [("n/d", 0, 1.5), ("n/d", 5, 11.0), ("n/d", 10, 2.0)]


def test_the_kafka_reader_keeps_the_latest_revisions(tmp_path: Path) -> None:
    node = KafkaNode(tmp_path)

    async def write() -> None:
        reader = await Reader.connect(RealNet(), "127.0.0.1", node.port, client_id="test")
        await reader.ensure_topic("aggregates", 1)
        await reader.produce("aggregates", 0, RESULTS)
        await reader.close()

    try:
        asyncio.run(write())
        names: dict[str, Any] = {}
        exec(example("tested: kafka").replace("127.0.0.1:9092", node.address), names)
    finally:
        node.stop()
    assert {key: value["revision"] for key, value in names["latest"].items()} == {b"n/d/r/0": 1, b"n/d/r/10": 0}
