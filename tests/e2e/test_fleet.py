"""A simulated fleet against a real node, judged from the ledger that the simulator kept."""

from __future__ import annotations

import json
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from headwater.net import free_port
from tests.support.processes import HEADWATER, headwater, node

CONFIG = """
role = "edge"
node = "edge-1"
data_dir = "data"
profiles = ["simulated"]
[kafka]
listen = "127.0.0.1:{kafka}"
[mqtt]
listen = "127.0.0.1:{mqtt}"
[[serial]]
port = "{line}"
profile = "simulated-serial"
"""
SCENARIO = """
[[fleets]]
name = "sensor"
devices = 60
interval_ms = 200
[fleets.signals]
level = {{ base = 3.0, daily = 1.0, noise = 0.1 }}
state = {{ kind = "state", state_every_ms = 1000 }}
[fleets.delivery]
missing = 0.05
duplicate = 0.05
out_of_order = 0.1
late = 0.05
late_by_ms = 1000
garbage = 0.05
[fleets.links]
flapping = 0.3
up_ms = 1500
down_ms = 300

[[fleets]]
name = "meter"
devices = 2
transport = "serial"
devices_per_client = 2
link = "{line}"
interval_ms = 200
[fleets.signals]
energy = {{ kind = "counter", per_second = 0.5 }}
"""


def test_everything_acknowledged_to_a_faulty_fleet_is_in_the_log_once(tmp_path: Path) -> None:
    kafka, mqtt, line = free_port(), free_port(), tmp_path / "line"
    config = tmp_path / "headwater.toml"
    config.write_text(CONFIG.format(kafka=kafka, mqtt=mqtt, line=line))
    (tmp_path / "site.toml").write_text(SCENARIO.format(line=line))
    ledger = str(tmp_path / "site.db")
    with node(config, tmp_path / "data"):
        fleet = ["simulate", "fleet", str(tmp_path / "site.toml"), "--mqtt", f"127.0.0.1:{mqtt}", "--ledger", ledger]
        played = headwater([*fleet, "--for", "4s", "--processes", "2"])
        assert played.returncode == 0, played.stderr
        last = json.loads(played.stdout.splitlines()[-1])
        assert last["event"] == "stopped"
        assert last["cuts"] > 0
        judged = headwater(["simulate", "verify", "--ledger", ledger, "--kafka", f"127.0.0.1:{kafka}", "--json"])
    found = json.loads(judged.stdout)
    assert judged.returncode == 0, judged.stdout
    assert found["acknowledged"] == last["acknowledged"] > 500
    assert found["repeated"] > 0
    assert found["garbage_acknowledged"] == last["garbage_acknowledged"] > 0
    # A line acknowledges nothing: what was said while nobody had it open is the simulator's to know, not the node's.
    assert found["sent"] > found["acknowledged"]


def test_as_fast_as_it_goes_several_processes_say_what_one_would_have_said(tmp_path: Path) -> None:
    kafka, mqtt = free_port(), free_port()
    config, scenario = tmp_path / "headwater.toml", tmp_path / "site.toml"
    config.write_text(CONFIG.format(kafka=kafka, mqtt=mqtt, line=tmp_path / "none"))
    [sensors, _] = SCENARIO.format(line="").split("[[fleets]]\n")[1:]
    scenario.write_text(f"[[fleets]]\n{sensors.partition('[fleets.links]')[0]}")
    wanted = ["simulate", "fleet", str(scenario), "--mqtt", f"127.0.0.1:{mqtt}", "--seed", "7"]
    wanted += ["--start", "2026-03-01T00:00:00Z", "--speed", "max", "--for", "10s"]
    told: list[list[list[object]]] = []
    parts: list[int] = []
    with node(config, tmp_path / "data"):
        for number in ("3", "1"):
            ledger = str(tmp_path / f"{number}.db")
            played = headwater([*wanted, "--processes", number, "--ledger", ledger])
            assert played.returncode == 0, played.stderr
            if not told:
                judged = headwater(["simulate", "verify", "--ledger", ledger, "--kafka", f"127.0.0.1:{kafka}"])
                assert judged.returncode == 0, judged.stdout
            with closing(sqlite3.connect(ledger)) as book:
                tables = ("SELECT * FROM sent", "SELECT * FROM repeated", "SELECT device, n, payload FROM garbage")
                told.append([book.execute(table).fetchall() for table in tables])
                parts.append(book.execute("SELECT count(*) FROM totals WHERE name LIKE 'connects/%'").fetchone()[0])
    assert parts == [3, 1]
    assert len(told[0][0]) > 2_000
    assert told[0] == told[1]


@pytest.mark.long("poison")
@pytest.mark.timeout(900)
def test_an_hour_with_one_poisoned_message_in_ten_loses_no_good_one_and_no_memory(tmp_path: Path) -> None:
    """The hour is the devices'; it is played as fast as the node acknowledges. Memory is the core process'."""
    kafka, mqtt = free_port(), free_port()
    config = tmp_path / "headwater.toml"
    config.write_text(CONFIG.format(kafka=kafka, mqtt=mqtt, line=tmp_path / "none"))
    ledger = str(tmp_path / "hour.db")
    arguments = ["simulate", "fleet", "poison", "--mqtt", f"127.0.0.1:{mqtt}", "--ledger", ledger]
    resident_kib = []
    with node(config, tmp_path / "data") as process:
        command = [*HEADWATER, *arguments, "--speed", "max", "--for", "1h"]
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as fleet:
            assert fleet.stdout is not None
            for line in fleet.stdout:  # one a second
                last = json.loads(line)
                status = Path(f"/proc/{process.pid}/status").read_text()
                resident_kib.append(int(status.partition("VmRSS:")[2].split()[0]))
        assert fleet.returncode == 0
        verify = ["simulate", "verify", "--ledger", ledger, "--kafka", f"127.0.0.1:{kafka}", "--json"]
        judged = headwater(verify, timeout_s=300)
    assert judged.returncode == 0, judged.stdout
    found = json.loads(judged.stdout)
    assert found["acknowledged"] == found["sent"] == last["sent"] > 350_000
    assert found["garbage_acknowledged"] > 35_000
    quarter = len(resident_kib) // 4
    assert max(resident_kib[-quarter:]) < 1.15 * max(resident_kib[:quarter]), resident_kib
