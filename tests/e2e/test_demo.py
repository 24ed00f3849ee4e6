"""The river, whole: `headwater demo --for 60s --report FILE`, with its outage and its kill, and what was seen of it."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import subprocess
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from tests.support.processes import HEADWATER, headwater, running_with

MEMBERS = [
    "sent",
    "acknowledged",
    "edge_log",
    "central_log",
    "missing",
    "duplicates",
    "resent",
    "suppressed",
    "dead_lettered",
    "windows_compared",
    "windows_different",
    "premature",
    "alerts_raised",
    "alerts_resolved",
    "uplink_outages",
    "edge_kills",
    "seconds",
]


class Run(NamedTuple):
    """What one run of the demo left."""

    status: int
    output: str
    report: dict[str, Any]
    directory: Path
    pages: dict[str, int]
    kcat: subprocess.CompletedProcess[str] | None

    def log(self, name: str) -> str:
        return (self.directory / f"{name}.log").read_text()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("demo")
    report, kept = folder / "report.json", folder / "kept"
    command = [*HEADWATER, "demo", "--for", "60s", "--report", str(report), "--keep", str(kept), "--seed", "5"]
    pages: dict[str, int] = {}
    kcat: subprocess.CompletedProcess[str] | None = None
    lines = []
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as demo:
        try:
            assert demo.stdout is not None
            for line in demo.stdout:
                lines.append(line)
                for name, url in re.findall(r"^(central|edge) +page (http://\S+)", line):
                    pages[name] = httpx.get(url, timeout=20).status_code
                if kcat is None and "sent" in line and shutil.which("kcat"):
                    address = re.findall(r"kcat -b (\S+)", "".join(lines))[-1]
                    command = ["kcat", "-b", address, "-t", "readings", "-C", "-c", "50", "-f", "%k %s\n"]
                    kcat = subprocess.run(command, capture_output=True, text=True, timeout=60)
            demo.wait(10)
        finally:
            demo.terminate()
    output = "".join(lines)
    assert report.exists(), output
    return Run(demo.returncode, output, json.loads(report.read_text()), kept, pages, kcat)


pytestmark = pytest.mark.timeout(240)


def test_the_verdict_finds_no_failure(run: Run) -> None:
    assert run.status == 0, f"{run.output}\n{run.report}"
    report = run.report
    assert list(report) == MEMBERS
    for zero in ("missing", "duplicates", "windows_different", "premature"):
        assert report[zero] == 0
    assert (report["uplink_outages"], report["edge_kills"]) == (1, 1)
    assert 60 <= report["seconds"] <= 63
    assert report["sent"] >= report["acknowledged"] >= 5000
    assert report["edge_log"] == report["central_log"] >= report["acknowledged"]
    assert report["dead_lettered"] >= 5
    assert report["windows_compared"] >= 13 * 5
    assert report["alerts_raised"] == report["alerts_resolved"] == 1


def test_the_sentence_at_the_end(run: Run) -> None:
    acknowledged = run.report["acknowledged"]
    assert run.output.rstrip().endswith(f"{acknowledged:,} readings were acknowledged: 0 lost, 0 twice.")


def test_the_outage_hit_a_transaction_which_was_aborted_and_fenced(run: Run) -> None:
    assert "black hole for 15 s right after a Produce request" in run.output
    edge = run.log("edge")
    assert "transaction aborted" in edge
    assert "fenced by time-out" in edge
    assert re.search(r"headwater\.\S*edge-01 aborted by time-out after 10000 ms", run.log("central"))
    began = re.search(r"the drain began (\d+\.\d) s after the outage", run.output)
    assert began is not None
    assert float(began[1]) <= 5.0


def test_sessions_were_present_when_the_edge_came_back(run: Run) -> None:
    db = sqlite3.connect(run.directory / "ledger.db")
    totals = dict(db.execute("SELECT name, value FROM totals"))
    db.close()
    assert totals["sessions_present"] == 12
    assert totals["connects"] == 24
    assert totals["held"] == 0


def test_both_pages_answered_while_it_ran(run: Run) -> None:
    assert run.pages == {"central": 200, "edge": 200}


@pytest.mark.peer("kcat")
def test_kcat_reads_the_edge_while_it_runs(run: Run) -> None:
    assert run.kcat is not None
    assert run.kcat.returncode == 0, run.kcat.stderr
    readings = [line for line in run.kcat.stdout.splitlines() if line.startswith("edge-01/turbine-")]
    assert readings
    assert all(json.loads(line.partition(" ")[2])["power"] >= 0 for line in readings)


def test_nothing_wrote_a_traceback(run: Run) -> None:
    for log in run.directory.glob("*.log"):
        assert "Traceback" not in log.read_text(), f"{log.name}:\n{log.read_text()[-4000:]}"


def test_no_process_is_left_behind(run: Run) -> None:
    assert running_with(str(run.directory)) == []
    central = tomllib.loads((run.directory / "central.toml").read_text())
    assert running_with(f"--target {central['kafka']['listen']}") == [], "the proxy"


def test_a_report_on_half_a_story_is_refused(tmp_path: Path) -> None:
    done = headwater(["demo", "--for", "30s", "--report", str(tmp_path / "r.json")])
    assert done.returncode == 2
    assert "half a story" in done.stderr
    assert "Traceback" not in done.stderr
