"""A decoder out of an installed package: found by its entry point, by the commands and by a running node."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest

from headwater.app.control import read_status
from headwater.net import free_port
from tests.support import processes

PROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "tank-gauge"
version = "1.0"
[project.entry-points."headwater.decoders"]
tank-gauge = "tank_gauge.wire:decode"
[tool.hatch.build.targets.wheel]
packages = ["tank_gauge"]
"""
CODE = """\
from headwater.api import Message, Reading
from tank_gauge import SCALE

def decode(message: Message):
    if message.payload == b"loop":
        while True:
            pass
    yield Reading({"level": message.payload[0] * SCALE}, device="tank-1")
"""
PROFILE = 'name = "tank"\ndecoder = "entry:tank-gauge"\ntopics = ["tank/{device}"]\n[fields.level]\nunit = "m"\n'


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The package as pip installs it, in a folder of its own that Python looks into."""
    source = tmp_path / "source"
    (source / "tank_gauge").mkdir(parents=True)
    (source / "pyproject.toml").write_text(PROJECT)
    (source / "tank_gauge" / "__init__.py").write_text("SCALE = 0.5\n")
    (source / "tank_gauge" / "wire.py").write_text(CODE)
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    told = subprocess.run([*pip, "--target", str(site), str(source)], capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    monkeypatch.setenv("PYTHONPATH", str(site))
    (tmp_path / "tank.toml").write_text(PROFILE)
    (tmp_path / "headwater.toml").write_text(
        f'node = "edge-1"\ndata_dir = "data"\nprofiles = ["tank.toml"]\n[mqtt]\nlisten = "127.0.0.1:{free_port()}"\n'
        f'[kafka]\nlisten = "127.0.0.1:{free_port()}"\n[decoders]\ntime_max_ms = 1000\ntries = 1\n'
    )
    return site


def test_the_commands_find_it_and_decode_and_name_one_that_is_not_installed(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lines").write_text("05\n")
    tried = processes.headwater(["profiles", "test", str(tmp_path / "tank.toml"), str(tmp_path / "lines"), "--hex"])
    assert (tried.returncode, "tank-1" in tried.stdout, "level=2.5 m" in tried.stdout) == (0, True, True), tried
    config = tmp_path / "headwater.toml"
    checked = processes.headwater(["config", "check", str(config)])
    assert "entry:tank-gauge" in checked.stdout, checked
    monkeypatch.delenv("PYTHONPATH")
    checked = processes.headwater(["config", "check", str(config)])
    assert checked.returncode != 0
    assert "no installed package has the decoder “tank-gauge”" in checked.stderr, checked


@pytest.mark.long("user-decoder")
def test_a_node_decodes_by_it_and_names_the_line_where_it_hangs(site: Path, tmp_path: Path) -> None:
    config = tmp_path / "headwater.toml"
    port = int(config.read_text().split("127.0.0.1:")[1].split('"')[0])
    with processes.node(config, tmp_path / "data"):
        client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="c")
        client.connect("127.0.0.1", port)
        client.loop_start()
        for payload in (b"\x03", b"loop", b"\x04"):
            client.publish("tank/x", payload, qos=1).wait_for_publish(10)
        deadline = time.monotonic() + 30
        while True:
            status = read_status(str(tmp_path / "data")) or {}
            if (status["ingest"]["stored"], status["ingest"]["dead_letters"]) == (2, 1):
                break
            assert time.monotonic() < deadline, status
            time.sleep(0.05)
        listed = processes.headwater(["deadletter", "list", "--config", str(config)]).stdout
        assert "wire.py, line " in listed, listed
        client.disconnect()
        client.loop_stop()
