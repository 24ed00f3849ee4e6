from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import NamedTuple, Protocol

import pytest

from gateway.log.settings import LogSettings
from gateway.log.store import LogStore
from headwater.cli.entry import main
from headwater.clock import SystemClock
from headwater.disk import RealDisk
from tests.support.logs import append


class Ended(NamedTuple):
    status: int
    out: str
    err: str


class Run(Protocol):
    def __call__(self, *arguments: str) -> Ended: ...


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """`headwater log …` in this process."""

    def call(*arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["headwater", "log", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return Ended(int(ended.value.code or 0), printed.out, printed.err)

    return call


def open_real(data: Path) -> LogStore:
    return LogStore.open(
        str(data),
        node="edge-1",
        settings=LogSettings(segment_bytes=4_096, index_interval_bytes=256),
        disk=RealDisk(),
        clock=SystemClock(),
        call_in_loop=lambda callback: callback(),
        flusher="manual",
    )


@pytest.fixture
def data(tmp_path: Path) -> Path:
    store = open_real(tmp_path / "data")
    log = store.create_topic("readings").partitions[0]
    for number in range(30):
        append(log, b"%d" % number + bytes(400))
    store.close()
    return tmp_path / "data"


def damage(data: Path) -> Path:
    path = sorted((data / "log" / "readings-0").glob("*.log"))[1]
    found = bytearray(path.read_bytes())
    found[100] ^= 1
    path.write_bytes(found)
    return path


def test_verify_says_good_then_what_is_damaged_and_repair_mends_it(run: Run, data: Path) -> None:
    good = run("verify", str(data))
    assert (good.status, good.err) == (0, "")
    assert "good    readings-0  0 to 30, 4 segments" in good.out
    path = damage(data)
    bad = run("verify", str(data))
    assert bad.status == 1
    assert f"! {path}: damaged range, offsets 8 to 8, byte 0" in bad.out
    assert "headwater log repair" in bad.out
    row = json.loads(run("verify", "--json", str(data)).out)
    assert (row["topic"], row["faults"][0]["first"]) == ("readings", 8)
    mended = run("repair", str(data))
    assert mended.status == 0
    assert "readings-0: damaged range quarantined, offsets 8 to 8: " in mended.out
    assert run("verify", str(data)).status == 0
    assert run("repair", str(data)).out == "nothing to mend\n"


def test_repair_refuses_while_the_node_runs(run: Run, data: Path) -> None:
    store = open_real(data)
    damage(data)
    assert run("verify", str(data)).status == 1
    refused = run("repair", str(data))
    store.close()
    assert refused.status == 2
    assert "in use" in refused.err


def test_dump_prints_a_row_a_batch_and_fails_where_one_is_bad(run: Run, data: Path) -> None:
    path = damage(data)
    good = run("dump", str(path.with_name("00000000000000000000.log")), "--records")
    assert good.status == 0
    assert good.out.startswith("position 0  size ")
    assert "    offset 0  time " in good.out
    bad = run("dump", "--json", str(path))
    assert bad.status == 1
    assert "CRC is" in json.loads(bad.out.splitlines()[0])["bad"]
    assert run("dump", str(path.with_name("partition.metadata"))).status == 2
    assert "No such file" in run("dump", str(path.with_name("00000000000000000099.log"))).err


def test_a_folder_that_is_no_data_directory_is_named(run: Run, tmp_path: Path) -> None:
    ended = run("verify", str(tmp_path))
    assert ended.status == 2
    assert "is no data directory" in ended.err
