"""`headwater export` from a node in memory: every record of the time asked for, once, in a file that is whole."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from gateway.log.records import NO_HEADERS
from headwater.cli import export as export_module
from headwater.cli.export import Progress, cell, export, flat, iso, parse_time
from headwater.clock import ManualClock
from headwater.errors import UserError
from tests.support.memory_log import MemoryNode, MemoryReader, export_from

Rows = list[dict[str, str]]


class TimedReader(MemoryReader):
    """Knows offsets by time, as the node does."""

    async def offset(self, topic: str, partition: int, at: str | int) -> int:
        if isinstance(at, str):
            return await super().offset(topic, partition, at)
        log = self._node.topics[topic][partition]
        return next((offset for offset, record in enumerate(log) if record[0] >= at), len(log))


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> MemoryNode:
    node = MemoryNode(ManualClock())
    node.topics = {"readings": [[], []], "deadletter": [[]]}

    export_from(monkeypatch, TimedReader(node))
    return node


def put(node: MemoryNode, time: int, value: Any, *, partition: int = 0, topic: str = "readings") -> None:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    node.topics[topic][partition].append((time, b"edge/t-%d" % partition, data, NO_HEADERS))


def run(topic: str = "readings", **options: Any) -> None:
    asked: dict[str, Any] = {"start": "", "end": "", "columns": "", "everything": False, "replace": False}
    asyncio.run(export(None, topic, **(asked | options)))


def rows(file: Path) -> Rows:
    return list(csv.DictReader(io.StringIO(file.read_text())))


def test_every_member_has_a_column(node: MemoryNode, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(node, 1_700_000_000_005, {"power": 812, "state": 'a "b",\nc', "gps": {"lat": 1.5}})
    put(node, -1, {"power": None, "ok": True, "list": [1, "x"]}, partition=1)
    run(file=str(tmp_path / "out.csv"))
    assert (tmp_path / "out.csv").read_text() == (
        "time,time_ms,key,gps.lat,list,ok,power,state\n"
        '2023-11-14T22:13:20.005Z,1700000000005,edge/t-0,1.5,,,812,"a ""b"",\nc"\n'
        '1969-12-31T23:59:59.999Z,-1,edge/t-1,,"[1,""x""]",true,,\n'
    )
    assert "2 records of topic readings in " in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["out.csv"]


def test_a_span_holds_late_records_too(node: MemoryNode, tmp_path: Path) -> None:
    for time in (10, 20, 30, 40, 25, 5, 39):
        put(node, time, {"n": time})
    run(file=str(tmp_path / "out.csv"), start="20", end="40")
    assert [row["n"] for row in rows(tmp_path / "out.csv")] == ["20", "30", "25", "39"]


def test_what_comes_meanwhile_is_not_waited_for(
    node: MemoryNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for time in range(12):
        put(node, time, {"n": time})
    before = TimedReader.poll

    async def poll(self: TimedReader, **options: Any) -> Any:
        put(node, 99, {"late": 1})
        return await before(self, **options)

    monkeypatch.setattr(TimedReader, "poll", poll)
    run(file=str(tmp_path / "out.csv"))
    found = rows(tmp_path / "out.csv")
    assert [row["n"] for row in found] == [str(n) for n in range(12)]
    assert "late" not in found[0]


@pytest.mark.parametrize(("everything", "names"), [(False, ["power"]), (True, ["disk_free", "power"])])
def test_the_nodes_own_health_is_left_out_unless_asked_for(
    node: MemoryNode, tmp_path: Path, *, everything: bool, names: list[str]
) -> None:
    put(node, 0, {"power": 1})
    node.topics["readings"][0].append((1, b"edge/$gateway", b'{"disk_free":1}', NO_HEADERS))
    run(file=str(tmp_path / "out.csv"), everything=everything)
    found = rows(tmp_path / "out.csv")
    assert list(found[0])[3:] == names
    assert len(found) == len(names)


def test_chosen_columns_and_standard_output(node: MemoryNode, capsys: pytest.CaptureFixture[str]) -> None:
    put(node, 0, {"a": 1, "b": 2.0})
    put(node, 1, {"c": 1})
    run(file="-", columns="b,missing,none")
    written = capsys.readouterr()
    assert written.out == (
        "time,time_ms,key,b,missing,none\n1970-01-01T00:00:00.000Z,0,edge/t-0,2.0,,\n"
        "1970-01-01T00:00:00.001Z,1,edge/t-0,,,\n"
    )
    assert written.err.endswith("; none has missing, none\n")
    run(file="-", columns="b,c")
    assert "none has" not in capsys.readouterr().err


def test_values_that_are_no_objects(node: MemoryNode, tmp_path: Path) -> None:
    for value in (b"out of \xfforder", b"[1]", b"7"):
        put(node, 0, value, topic="deadletter")
    run("deadletter", file=str(tmp_path / "out.csv"))
    assert [row["value"] for row in rows(tmp_path / "out.csv")] == ["out of \\xfforder", "[1]", "7"]


def test_mistakes_are_named_and_leave_no_file(node: MemoryNode, tmp_path: Path) -> None:
    there = tmp_path / "there.csv"
    there.write_text("mine")
    with pytest.raises(UserError, match="is there already"):
        run(file=str(there))
    with pytest.raises(UserError, match="no topic “reading”"):
        run("reading", file=str(tmp_path / "x.csv"))
    with pytest.raises(UserError, match="--from yesterday: no time"):
        run(file=str(tmp_path / "x.csv"), start="yesterday")
    with pytest.raises(UserError, match="cannot write"):
        run(file=str(tmp_path / "no" / "x.csv"))
    for number in range(export_module.COLUMNS_MAX + 1):
        put(node, 0, {f"f{number}": 1})
    with pytest.raises(UserError, match="more than 2,000 different members"):
        run(file=str(tmp_path / "x.csv"))
    assert os.listdir(tmp_path) == ["there.csv"]
    assert there.read_text() == "mine"
    run(file=str(there), columns="f1", replace=True)
    assert len(rows(there)) == export_module.COLUMNS_MAX + 1


def test_a_failure_half_way_leaves_no_file(node: MemoryNode, tmp_path: Path) -> None:
    for time in range(40):
        put(node, time, {"n": time})
    node.fail_at, node.error = 18, ConnectionResetError("cut")
    with pytest.raises(ConnectionResetError):
        run(file=str(tmp_path / "out.csv"))
    assert os.listdir(tmp_path) == []


def test_memory_does_not_grow_with_the_log(node: MemoryNode, tmp_path: Path) -> None:
    node.records_per_poll = 100
    node.topics["readings"][0] = [(1, b"edge/t", b'{"n":%d}' % (n % 7), NO_HEADERS) for n in range(4_000)]
    tracemalloc.start()
    run(file=str(tmp_path / "out.csv"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(rows(tmp_path / "out.csv")) == 4_000
    assert peak < 300_000


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("", 5),
        ("0", 0),
        ("-7", -7),
        ("1700000000000", 1_700_000_000_000),
        ("2023-11-14", 1_699_920_000_000),
        ("2023-11-14T22:13:20", 1_700_000_000_000),
        ("2023-11-14T23:13:20+01:00", 1_700_000_000_000),
    ],
)
def test_times(text: str, ms: int) -> None:
    assert parse_time(text, "--from", 5) == ms


def test_cells() -> None:
    assert [cell(item) for item in (1, 1.0, True, None, "x", [1])] == ["1", "1.0", "true", "", "x", "[1]"]
    assert flat(None) == {}
    assert iso(1 << 60) == ""


def test_progress_tells_share_speed_and_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    progress = Progress(4000, tell=True, now=lambda: now[0])
    progress.step = "writing"
    progress.begin()
    now[0] = 2.0
    progress.add(1000)
    progress.add(1)
    assert capsys.readouterr().err == "\rwriting:  25%  1,000 records  500/s  6 s left"
    progress.end("done")
    assert capsys.readouterr().err.startswith("\rdone     ")
