from __future__ import annotations

import io
import re
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import NamedTuple, Protocol

import pytest

from gateway.users import matches, read_users
from headwater.cli.config import to_toml
from headwater.cli.entry import main, run_options
from headwater.cli.init import suggest_name
from headwater.cli.status import lines, node_rows, source_rows


class Ended(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


class Headwater(Protocol):
    def __call__(self, *arguments: str) -> Ended: ...


@pytest.fixture
def headwater(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Headwater:
    """The command, run in this process and in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HEADWATER_CONFIG", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "100")

    def run(*arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["headwater", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return Ended(int(ended.value.code or 0), printed.out, printed.err)

    return run


def test_init_writes_a_configuration_that_checks(headwater: Headwater, tmp_path: Path) -> None:
    made = headwater("init", "edge", "--node", "shed-1")
    assert made.returncode == 0, made.stderr
    assert "headwater run" in made.stdout
    assert 'node = "shed-1"' in (tmp_path / "headwater.toml").read_text()
    checked = headwater("config", "check")
    assert checked.returncode == 0, checked.stderr
    assert "edge node shed-1" in checked.stdout
    again = headwater("init", "edge")
    assert again.returncode == 2
    assert "is there already" in again.stderr


def test_init_central_elsewhere_names_the_file_in_its_steps(headwater: Headwater) -> None:
    made = headwater("init", "central", "--dir", "etc", "--node", "office")
    assert "headwater run --config etc/headwater.toml" in made.stdout
    checked = headwater("config", "check", "etc/headwater.toml")
    assert "computes window" in checked.stdout


def test_check_names_processors_and_one_that_is_no_python(headwater: Headwater, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('[[processor]]\nname = "mine"\nfile = "mine.py"\n')
    (tmp_path / "mine.py").write_text("raise SystemExit('this code is not run')\ndef broken(\n")
    file = tmp_path / "headwater.toml"
    file.write_text(f'node = "n"\ndata_dir = "{tmp_path}"\nrules = ["mine.toml"]\n')
    checked = headwater("config", "check", str(file))
    assert checked.returncode == 0, checked.stderr
    assert f"runs processor mine ({tmp_path}/mine.py)" in checked.stdout
    assert f"warning: processor mine will not run: {tmp_path}/mine.py:2: " in checked.stdout


def test_check_names_every_listener(headwater: Headwater, tmp_path: Path) -> None:
    file = tmp_path / "headwater.toml"
    file.write_text(
        f'node = "n"\ndata_dir = "{tmp_path}"\n[mqtt.tls]\ncertificate_file = "a"\nkey_file = "b"\n'
        '[[kafka.listeners]]\nlisten = ":9093"\nprotocol = "SASL_PLAINTEXT"\n'
    )
    checked = headwater("config", "check", str(file))
    assert checked.returncode == 0, checked.stderr
    assert "  serves Kafka by SASL_PLAINTEXT on :9093\n" in checked.stdout
    assert "  takes MQTT over TLS on 127.0.0.1:8883\n" in checked.stdout


def test_check_names_each_mistake_without_a_traceback(headwater: Headwater, tmp_path: Path) -> None:
    (tmp_path / "headwater.toml").write_text('node = "n"\n[mqtt]\nlisen = "x"\n')
    checked = headwater("config", "check")
    assert checked.returncode == 2
    assert "headwater.toml:3: unknown key “lisen” in [mqtt]; did you mean “listen”?" in checked.stderr
    assert "Traceback" not in checked.stderr


def test_without_any_configuration_the_next_step_is_named(headwater: Headwater) -> None:
    status = headwater("status")
    assert status.returncode == 2
    assert "headwater init edge" in status.stderr


def test_the_status_of_a_node_that_does_not_run_is_down(headwater: Headwater) -> None:
    headwater("init", "edge", "--node", "shed-1")
    status = headwater("status", "--json")
    assert status.returncode == 2
    assert '"state": "down"' in status.stdout


def test_what_show_prints_is_toml_that_loads_the_same(headwater: Headwater, tmp_path: Path) -> None:
    headwater("init", "central", "--node", "office")
    first = headwater("config", "show")
    assert first.returncode == 0, first.stderr
    (tmp_path / "headwater.toml").write_text(first.stdout)
    assert headwater("config", "show").stdout == first.stdout


def test_toml_is_written_as_it_is_read() -> None:
    table = {"a": 'q"uo\n', "b": [1, 2.5], "c": True, "d": {"e": {"f": "é"}}, "g": [{"h": 1}, {"h": 2}]}
    assert tomllib.loads(to_toml(table)) == table


def test_version_and_help(headwater: Headwater) -> None:
    assert headwater("--version").stdout.startswith("headwater ")
    shown = headwater("--help").stdout
    for command in ("init", "run", "tail", "status", "topics", "config", "simulate", "demo"):
        assert f"  {command} " in shown


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys\nsys.argv = ['headwater', '--help']\nfrom headwater.cli.entry import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'rich', 'numpy', 'asyncio', 'msgspec', 'gateway', 'starlette'} & set(sys.modules)\n"
        "sys.exit(', '.join(sorted(heavy)) or 0)"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def test_a_node_starts_without_the_command_lines_library() -> None:
    script = (
        "import sys\nimport headwater.cli.entry\nimport headwater.cli.run\n"
        "heavy = {'typer', 'rich', 'pydantic', 'numpy', 'starlette'} & set(sys.modules)\n"
        "sys.exit(', '.join(sorted(heavy)) or 0)"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize(
    ("line", "options"),
    [
        ("run", {}),
        ("run --config a.toml", {"config": "a.toml"}),
        ("run -c a.toml --log-format json", {"config": "a.toml", "log_format": "json"}),
        ("run --config=a.toml --log-level=debug", {"config": "a.toml", "log_level": "debug"}),
        *[(other, None) for other in ("", "status", "run --help", "run a.toml", "run --config", "run --config= x")],
        *[(other, None) for other in ("run --config --help", "run -c=a.toml", "run --conf a.toml", "--version run")],
    ],
)
def test_only_a_plain_start_is_read_without_it(line: str, options: dict[str, str] | None) -> None:
    assert run_options(line.split()) == options


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
    assert shown["records"] == "readings 1,234 (health readings included)"
    assert shown["ingest"] == "9 received, 8 stored, 1 repeat"
    rows = source_rows(document)
    assert [row[0] for row in rows[:2]] == ["mqtt:3", "mqtt:29"]


def test_a_central_s_status_names_its_nodes_and_alerts() -> None:
    now = int(time.time() * 1000)
    document = {
        "role": "central",
        "now_ms": now,
        "started_ms": now,
        "central": None,
        "nodes": [
            {"node": "a", "mark_ms": now - 500, "backlog_records": 0, "version": "0.1.0"},
            {"node": "b", "mark_ms": now - 45_000, "backlog_records": 1_200, "version": None},
        ],
        "alerts": [{"rule": "gearbox_hot", "instance": "a/t7", "state": "firing"}],
        "disk": {"free_bytes": 5e9, "total_bytes": 3e10, "data_bytes": 4096},
        "clock": {"wall_ms": now},
        "addresses": {"kafka": "127.0.0.1:9092"},
    }
    shown = dict(lines(document))
    assert "link" not in shown
    assert shown["alerts"] == "gearbox_hot on a/t7 firing"
    assert node_rows(document) == [("b", "45 s ago", "1,200 records", "-"), ("a", "just now", "0 records", "0.1.0")]
    assert dict(lines(document | {"alerts": []}))["alerts"] == "none"
    assert "no central configured" in dict(lines(document | {"role": "edge"}))["link"]


def test_user_add_writes_where_the_node_reads(
    headwater: Headwater, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = headwater("init", "edge", "--node", "shed-1")
    assert made.returncode == 0, made.stderr
    monkeypatch.setattr(sys, "stdin", io.StringIO("secret\n"))
    added = headwater("user", "add", "pump", "--mqtt")
    assert added.returncode == 0, added.stderr
    assert list(read_users(str(tmp_path / "data" / "node" / "users"))) == ["pump"]
    assert "secret" not in added.stdout
    assert "From now on every MQTT client" in added.stdout
    assert 'listen = ":1883" in [mqtt]' in added.stdout
    monkeypatch.setattr(sys, "stdin", io.StringIO("other\n"))
    again = headwater("user", "add", "pump")
    assert again.returncode == 2
    assert "--replace" in again.stderr
    generated = headwater("user", "add", "pump", "--generate", "--replace")
    assert "From now on" not in generated.stdout  # it has been so since the first
    [password] = [line.split(": ")[1] for line in generated.stdout.splitlines() if "this once" in line]
    assert matches(read_users(str(tmp_path / "data" / "node" / "users"))["pump"], password.encode())
    config = tmp_path / "headwater.toml"
    config.write_text(config.read_text().replace("[mqtt]\n", '[mqtt]\nusers_file = "who"\n'))
    assert headwater("user", "add", "meter", "--generate").returncode == 0
    assert list(read_users(str(tmp_path / "who"))) == ["meter"]


def test_user_add_does_not_ask_for_a_setting_that_is_there(headwater: Headwater, tmp_path: Path) -> None:
    (tmp_path / "headwater.toml").write_text('node = "n"\n[mqtt]\nlisten = ":1883"\n')
    added = headwater("user", "add", "pump", "--generate").stdout
    assert "listens to the network at :1883" in added
    assert "To listen to the whole network" not in added


def test_config_check_names_an_access_rule_that_is_none(headwater: Headwater, tmp_path: Path) -> None:
    headwater("init", "edge", "--node", "shed-1")
    config = tmp_path / "headwater.toml"
    config.write_text(config.read_text() + '\n[[mqtt.acl]]\npublish = ["farm/a#"]\n')
    checked = headwater("config", "check")
    assert checked.returncode == 2
    assert "farm/a#" in checked.stderr


def test_check_shows_no_value_that_came_from_a_file(headwater: Headwater, tmp_path: Path) -> None:
    (tmp_path / "broker").write_text("secret.example:9092\n")
    (tmp_path / "headwater.toml").write_text('node = "n"\n[mqtt]\n[central]\nbootstrap_servers_file = "broker"\n')
    checked = headwater("config", "check")
    assert checked.returncode == 0, checked.stderr
    assert "replicates to the central ********" in checked.stdout
    assert "secret.example" not in checked.stdout


def test_an_edge_that_takes_nothing_in_is_warned_of(headwater: Headwater, tmp_path: Path) -> None:
    (tmp_path / "headwater.toml").write_text('node = "n"\n')
    assert "warning: no [mqtt], [[mqtt_client]], [[serial]] or [[modbus]]" in headwater("config", "check").stdout
    (tmp_path / "headwater.toml").write_text('node = "n"\nrole = "central"\n')
    assert "warning" not in headwater("config", "check").stdout


def test_groups_by_what_topics_capture_are_warned_of(headwater: Headwater, tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text('name = "p"\ntopics = ["plant/{line}/{device}"]\n')
    rule = '[[window]]\nname = "w"\nsize_s = 10\ngroup_by = ["site", "labels.line"]\nevery_field = ["mean"]\n'
    (tmp_path / "r.toml").write_text(rule)
    config = 'node = "n"\nprofiles = ["p.toml"]\nrules = ["r.toml"]\n[mqtt]\n'
    (tmp_path / "headwater.toml").write_text(config)
    [warning] = [line for line in headwater("config", "check").stdout.splitlines() if line.startswith("warning")]
    assert "window w groups by labels.line" in warning
    assert "profile p" in warning
    (tmp_path / "headwater.toml").write_text(config + '[[device]]\ndevice = "pump*"\nlabels = { line = "7" }\n')
    checked = headwater("config", "check")
    assert checked.returncode == 0, checked.stderr
    assert "warning" not in checked.stdout


def test_mistakes_in_profiles_and_rules_are_told_together_in_one_style(headwater: Headwater, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('name = "a"\ntopicz = ["x"]\n')
    (tmp_path / "b.toml").write_text('name = "b"\nformat = "jsonn"\n')
    (tmp_path / "r.toml").write_text('[[window]]\nname = "w"\nsizes = 10\n')
    config = 'node = "n"\nprofiles = ["a.toml", "b.toml"]\nrules = ["r.toml"]\n[mqtt]\n'
    (tmp_path / "headwater.toml").write_text(config)
    checked = headwater("config", "check")
    assert checked.returncode == 2
    told = checked.stderr.splitlines()
    for place in ("a.toml:2: ", "b.toml:2: ", "r.toml:3: "):
        assert len([line for line in told if place in line]) == 1, checked.stderr


def test_every_command_stands_in_the_table_of_the_manual(headwater: Headwater) -> None:
    listed = headwater("--help").stdout.partition("Commands:")[2]
    names = re.findall(r"^  ([a-z]+) ", listed, re.MULTILINE)
    page = (Path(__file__).parents[3] / "docs" / "operations.md").read_text()
    table = page.partition("## Commands")[2].partition("## Ports")[0]
    assert len(names) > 15
    assert [name for name in names if not re.search(rf"`{name}\b", table)] == []
