"""README "Your first device": its very commands, in their order, on ports that are free."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from headwater.app.control import read_status
from headwater.net import free_port

README = Path(__file__).resolve().parents[2] / "README.md"
START_S_MAX = 30.0


def readme_terminals() -> list[list[str]]:
    """The commands of each block: one block is pasted into one terminal."""
    section = README.read_text(encoding="utf-8").partition("## Your first device")[2].partition("\n## ")[0]
    blocks = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    return [[line.split("#")[0].strip() for line in block.splitlines()] for block in blocks]


class Shed:
    """A folder in which a new user tries Headwater, with free ports set beside the written configuration."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.page = free_port()
        mqtt = free_port()
        (folder / "conf.d").mkdir()
        (folder / "conf.d" / "ports.toml").write_text(
            f'[mqtt]\nlisten = "127.0.0.1:{mqtt}"\n[kafka]\nlisten = "127.0.0.1:{free_port()}"\n'
            f'[page]\nlisten = "127.0.0.1:{self.page}"\n'
        )
        (folder / "mosquitto_pub").write_text(f"-p {mqtt}\n")  # mosquitto_pub reads its defaults from here
        self.environment = {key: value for key, value in os.environ.items() if key != "HEADWATER_CONFIG"} | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "XDG_CONFIG_HOME": str(folder),
            "XDG_RUNTIME_DIR": str(folder),
        }
        self.node: subprocess.Popen[str] | None = None

    def run(self, command: str, *, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command.split(), cwd=cwd or self.folder, env=self.environment, capture_output=True, text=True, timeout=60
        )

    def start(self, command: str) -> None:
        with open(self.folder / "run.log", "w") as log:
            self.node = subprocess.Popen(
                command.split(), cwd=self.folder, env=self.environment, stdout=log, stderr=log, text=True
            )
        deadline = time.monotonic() + START_S_MAX
        while read_status(str(self.folder / "data")) is None:
            assert self.node.poll() is None, self.log()
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.05)

    def log(self) -> str:
        return (self.folder / "run.log").read_text()


@pytest.fixture
def shed(tmp_path: Path) -> Iterator[Shed]:
    shed = Shed(tmp_path)
    yield shed
    if shed.node is not None:
        shed.node.kill()
        shed.node.wait()


@pytest.mark.peer("mosquitto")
def test_the_readme_s_first_device(shed: Shed) -> None:
    (setup, path, init, run), (path_again, publish, tail, status) = readme_terminals()
    assert (setup, run) == ("make setup", "headwater run")
    assert path == path_again
    assert path.startswith("export PATH=")
    made = shed.run(init)
    assert made.returncode == 0, made.stderr
    shed.start(run)
    published = shed.run(publish)
    assert published.returncode == 0, published.stderr
    seen = shed.run(tail)
    assert seen.returncode == 0, seen.stderr
    assert '/shed/pump1/temperature  {"value":21.5}' in seen.stdout
    shown = shed.run(status)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    for word in ("good", "link", "ingest", "disk", "clock", "mqtt:"):
        assert word in shown.stdout
    assert len(shown.stdout.splitlines()) <= 24
    page_answers(shed)
    finds_itself_from_elsewhere(shed)
    assert shed.node is not None
    shed.node.send_signal(signal.SIGINT)
    assert shed.node.wait(20) == 0, shed.log()
    assert "everything taken is on disk" in shed.log()
    assert shed.run(status).returncode == 2


def page_answers(shed: Shed) -> None:
    deadline = time.monotonic() + START_S_MAX
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{shed.page}/", timeout=5) as page:
                assert "Headwater" in page.read().decode()
            return
        except OSError:  # the work process takes a moment longer than the core
            assert time.monotonic() < deadline, shed.log()
            time.sleep(0.1)


def finds_itself_from_elsewhere(shed: Shed) -> None:
    """Without a configuration in sight, status finds the one node that runs."""
    elsewhere = shed.folder / "elsewhere"
    elsewhere.mkdir()
    found = shed.run("headwater status --json", cwd=elsewhere)
    assert found.returncode == 0, found.stdout + found.stderr
    told = json.loads(found.stdout)["addresses"]["page"]
    assert told is None or told.endswith(f":{shed.page}")  # None until the work process has said that it is served


def test_what_a_first_try_writes_into_a_checkout_is_ignored() -> None:
    ignored = (README.parent / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert {"/headwater.toml", "/conf.d/", "/data/"} <= set(ignored)


def test_the_readme_says_where_its_foreign_tools_come_from() -> None:
    text = README.read_text(encoding="utf-8")
    assert "apt install kcat mosquitto-clients" in text.partition("## Your first device")[0]
