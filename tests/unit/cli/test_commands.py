from __future__ import annotations

import os
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

from headwater.cli.config import to_toml
from headwater.cli.init import suggest_name
from headwater.cli.status import lines, source_rows


def headwater(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "HEADWATER_CONFIG"}
    environment |= {"XDG_RUNTIME_DIR": str(cwd), "COLUMNS": "100"}
    command = [sys.executable, "-c", "from headwater.cli.main import main; main()", *arguments]
    environment["PYTHONPATH"] = os.getcwd()
    return subprocess.run(
        command,
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_init_writes_a_configuration_that_checks(tmp_path: Path) -> None:
    made = headwater("init", "edge", "--node", "shed-1", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    assert "headwater run" in made.stdout
    assert 'node = "shed-1"' in (tmp_path / "headwater.toml").read_text()
    checked = headwater("config", "check", cwd=tmp_path)
    assert checked.returncode == 0, checked.stderr
    assert "edge node shed-1" in checked.stdout
    again = headwater("init", "edge", cwd=tmp_path)
    assert again.returncode == 2
    assert "is there already" in again.stderr


def test_init_central_elsewhere_names_the_file_in_its_steps(tmp_path: Path) -> None:
    made = headwater("init", "central", "--dir", "etc", "--node", "office", cwd=tmp_path)
    assert "headwater run --config etc/headwater.toml" in made.stdout
    checked = headwater("config", "check", "etc/headwater.toml", cwd=tmp_path)
    assert "computes window" in checked.stdout


def test_check_names_each_mistake_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "headwater.toml").write_text('node = "n"\n[mqtt]\nlisen = "x"\n')
    checked = headwater("config", "check", cwd=tmp_path)
    assert checked.returncode == 2
    assert "headwater.toml:3: unknown key “lisen” in [mqtt]; did you mean “listen”?" in checked.stderr
    assert "Traceback" not in checked.stderr


def test_without_any_configuration_the_next_step_is_named(tmp_path: Path) -> None:
    status = headwater("status", cwd=tmp_path)
    assert status.returncode == 2
    assert "headwater init edge" in status.stderr


def test_the_status_of_a_node_that_does_not_run_is_down(tmp_path: Path) -> None:
    headwater("init", "edge", "--node", "shed-1", cwd=tmp_path)
    status = headwater("status", "--json", cwd=tmp_path)
    assert status.returncode == 2
    assert '"state": "down"' in status.stdout


def test_what_show_prints_is_toml_that_loads_the_same(tmp_path: Path) -> None:
    headwater("init", "central", "--node", "office", cwd=tmp_path)
    first = headwater("config", "show", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    (tmp_path / "headwater.toml").write_text(first.stdout)
    assert headwater("config", "show", cwd=tmp_path).stdout == first.stdout


def test_toml_is_written_as_it_is_read() -> None:
    table = {"a": 'q"uo\n', "b": [1, 2.5], "c": True, "d": {"e": {"f": "é"}}, "g": [{"h": 1}, {"h": 2}]}
    assert tomllib.loads(to_toml(table)) == table


def test_version_and_help(tmp_path: Path) -> None:
    assert headwater("--version", cwd=tmp_path).stdout.startswith("headwater ")
    for command in ("init", "run", "tail", "status", "topics", "config", "simulate", "demo"):
        assert command in headwater("--help", cwd=tmp_path).stdout


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys\nsys.argv = ['headwater', '--help']\nfrom headwater.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'rich', 'numpy', 'asyncio', 'msgspec', 'gateway', 'starlette'} & set(sys.modules)\n"
        "sys.exit(', '.join(sorted(heavy)) or 0)"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("host", ["raspberrypi", "localhost.localdomain"])
def test_a_host_name_that_cannot_name_a_node_is_replaced(host: str) -> None:
    assert suggest_name("edge", host).startswith("edge-")
    assert suggest_name("edge", "pump-house.example.org") == "pump-house"


def test_status_lines_fit_a_screen() -> None:
    now = int(time.time() * 1000)
    sources = [{"id": f"mqtt:{n}", "connected": True, "last_ms": now - n * 1000, "readings": n} for n in range(30)]
    sources[3]["problem"] = "its clock is 1 h ahead"
    document = {
        "now_ms": now,
        "started_ms": now - 60_000,
        "central": {
            "state": "up",
            "bootstrap": "c:9092",
            "since_ms": now - 9_000,
            "backlog_records": 5,
            "backlog_bytes": 5_000,
            "last_success_ms": now - 2_500,
        },
        "ingest": {"sources": sources, "received": 9, "stored": 8, "repeats": 1},
        "log": {"topics": {"readings": {"partitions": [{"start": 0, "end": 1234, "synced": 1234, "bytes": 1}]}}},
        "disk": {"free_bytes": 5e9, "total_bytes": 3e10, "data_bytes": 4096},
        "clock": {"wall_ms": now, "trusted": True},
        "work": {"state": "running", "restarts": 0},
        "addresses": {"kafka": "127.0.0.1:9092", "mqtt": None},
    }
    shown = dict(lines(document))
    assert shown["backlog"] == "5 records, 5.0 kB"
    assert shown["end to end"] == "last success 2 s ago"
    assert shown["log"] == "readings 1,234"
    assert "1 repeats" in shown["ingest"]
    rows = source_rows(document)
    assert [row[0] for row in rows[:2]] == ["mqtt:3", "mqtt:29"]
