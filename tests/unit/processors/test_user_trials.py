"""`headwater process test` and `headwater new processor`: what ships passes, what depends on a cut is named."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from headwater.cli.new import write_processor
from headwater.cli.process_test import run_test
from headwater.cli.readings_file import read_readings
from headwater.errors import UserError

HEAD = """\
from __future__ import annotations
import random
import time
from headwater.api import Device, Processor, StoredReading

class Mine(Processor[dict[str, float]]):
    deterministic = True
    def on_reading(self, reading: StoredReading, device: Device[dict[str, float]]) -> None:
        flow = reading.number("flow")
"""


def tried(folder: Path, body: str, readings: str | None = None) -> int:
    (folder / "mine.py").write_text(HEAD + "".join(f"        {line}\n" for line in body.splitlines()))
    return run_test(str(folder / "mine.py"), readings, name="", count=200, seed=1, show=False)


@pytest.mark.long("user-processor")
@pytest.mark.parametrize(
    "body",
    [
        "self.count = getattr(self, 'count', 0) + 1\ndevice.emit({'count': self.count})",
        "device.emit({'chance': random.random()})",
        "device.emit({'now': time.time_ns()})",
        "device.emit({'first': list({'one', 'two', 'three', 'four', 'five', 'six'})})",
        "if getattr(self, 'seen', 0) < 100:\n    self.seen = getattr(self, 'seen', 0) + 1\n    device.emit({})",
    ],
    ids=["attribute", "chance", "clock", "order of a set", "fewer"],
)
def test_what_depends_on_more_than_the_readings_fails_and_is_named(
    body: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tried(tmp_path, body) == 1
    told = capsys.readouterr().out
    assert "NOT THE SAME when the readings come in pieces" in told
    assert "  output " in told


def test_what_is_the_same_passes_with_readings_of_a_file_and_dead_letters_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    body = "device.state['sum'] = device.state.get('sum', 0.0) + (flow or 0)\ndevice.emit({'sum': device.state['sum']})"
    (tmp_path / "some.csv").write_text(
        "time,time_ms,key,flow,mode\n2025-01-01T00:00:00Z,1735689600000,n/a,1.5,on\n,1735689601000,n/a,,off\n"
    )
    assert tried(tmp_path, body, str(tmp_path / "some.csv")) == 0
    assert "2 readings: 2 to test" in capsys.readouterr().out
    assert tried(tmp_path, "self.n = getattr(self, 'n', 0) + 1\ndevice.emit({'n': self.n})") == 1
    assert "NOT THE SAME" in capsys.readouterr().out
    assert tried(tmp_path, body + "\nif flow is None:\n    raise ValueError('no flow')") == 0
    told = capsys.readouterr().out
    assert "with what it asks for: flow" in told
    assert re.search(
        r"dead letters: it raises for .*\n  .*mine.py, line \d+: ValueError: no flow; the reading: {", told
    )


@pytest.mark.long("user-processor")
def test_a_trial_in_which_every_reading_is_a_dead_letter_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tried(tmp_path, "raise ValueError('nothing works')") == 1
    told = capsys.readouterr().out
    assert "ValueError: nothing works" in told
    assert told.endswith("FAILED: not one reading was taken, each is a dead letter\n")


@pytest.mark.timeout(60)
def test_a_processor_that_forks_is_refused_in_its_own_line_and_hangs_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tried(tmp_path, "import os\nif os.fork() == 0:\n    time.sleep(3600)") == 1
    told = capsys.readouterr().out
    assert re.search(r"mine.py, line \d+: RuntimeError: a processor cannot fork", told)


def test_a_loop_without_end_is_named_with_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headwater.cli.process_test.TIME_MAX_MS", 300)
    with pytest.raises(UserError, match=r"mine.py: mine.py, line 1\d: still at it after 0.3 s"):
        tried(tmp_path, "while True:\n    pass")
    with pytest.raises(UserError, match=r"mine.py, line 10: SyntaxError|mine.py, line 10: "):
        tried(tmp_path, "def")


def test_readings_of_a_file_in_each_form_and_the_line_of_a_mistake(tmp_path: Path) -> None:
    def read(text: str, name: str = "some.jsonl") -> list[tuple[str, int, dict[str, object]]]:
        (tmp_path / name).write_text(text)
        return read_readings(str(tmp_path / name))

    tail = '{"topic":"readings","partition":0,"offset":3,"time_ms":5,"key":"n/a","value":{"x":1},"headers":{}}'
    assert read(f'{tail}\n\n{{"device":"b","time":"1970-01-01T00:00:01Z","fields":{{"y":true}}}}\n{{"z":2}}\n') == [
        ("n/a", 5, {"x": 1}),
        ("test/b", 1000, {"y": True}),
        ("test/device", 2000, {"z": 2}),
    ]
    assert read("device,time,x,y\nd,1970-01-02,1.5,true\n", "some.csv") == [
        ("test/d", 86_400_000, {"x": 1.5, "y": True})
    ]
    for text, said in (
        ("nope", "line 1 is no JSON"),
        ('{"fields":3}', ":1: its fields are no object"),
        ("", "no readings"),
    ):
        with pytest.raises(UserError) as error:
            read(text)
        assert said in error.value.what


@pytest.mark.long("user-processor")
def test_a_new_processor_passes_its_test_the_type_checker_and_the_trial(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_processor("blocked_pump", str(tmp_path))
    with pytest.raises(UserError, match="is there already"):
        write_processor("blocked_pump", str(tmp_path))
    with pytest.raises(UserError, match="a package of Python"):
        write_processor("numpy", str(tmp_path))
    pytest_run = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--rootdir", "."]
    own = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run([*pytest_run, "test_blocked_pump.py"], cwd=tmp_path, env=own, capture_output=True, text=True)
    assert "3 passed" in done.stdout, done.stdout + done.stderr
    capsys.readouterr()
    assert run_test(str(tmp_path / "blocked_pump.toml"), None, name="", count=600, seed=1, show=True) == 0
    assert "blocked-pump  node" in capsys.readouterr().out


@pytest.mark.long("user-processor")
def test_a_new_processor_passes_the_strict_type_checker(tmp_path: Path) -> None:
    write_processor("blocked_pump", str(tmp_path))
    root = Path(__file__).parents[3]
    own = os.environ | {"MYPYPATH": str(root)}
    check = [sys.executable, "-m", "mypy", "--strict", "--explicit-package-bases", "--config-file=", "--cache-dir=.m"]
    done = subprocess.run([*check, "."], cwd=tmp_path, env=own, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    (tmp_path / "wrong.py").write_text("from blocked_pump import BlockedPump\nBlockedPump(hold_s='long')\n")
    done = subprocess.run([*check, "wrong.py"], cwd=tmp_path, env=own, capture_output=True, text=True)
    assert 'wrong.py:2: error: Argument "hold_s" to "BlockedPump" has incompatible type "str"' in done.stdout


@pytest.mark.parametrize("name", ["reading", "output", "stored_reading", "device", "driver", "state", "true", "timer"])
def test_a_new_processor_may_be_called_as_what_its_files_import(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_processor(name, str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, name, raising=False)
    test = tmp_path / f"test_{name}.py"
    names: dict[str, Any] = {"__name__": f"test_{name}"}
    exec(compile(test.read_text(), test, "exec"), names)
    tests = [function for key, function in names.items() if key.startswith("test_")]
    for function in tests:
        function()
    assert len(tests) == 3
    monkeypatch.delitem(sys.modules, name)


@pytest.mark.parametrize("name", ["readings", "alerts", "raw", "class", "json", "numpy"])
def test_a_new_processor_whose_name_is_taken_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"“{name}”"):
        write_processor(name, str(tmp_path))
    assert not list(tmp_path.iterdir())
