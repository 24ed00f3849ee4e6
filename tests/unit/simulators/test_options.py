"""The simulators' command lines: help that helps, and mistakes that end with a sentence."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headwater.clock import ManualClock
from headwater.demo.main import main as demo
from headwater.errors import UserError
from headwater.net import free_port
from simulators import farm, mast, options, replay
from simulators.control import Console

COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "headwater demo": demo,
    "headwater simulate farm": farm.main,
    "headwater simulate mast": mast.main,
    "headwater simulate replay": replay.main,
}


class Impatient(ManualClock):
    """Time flies."""

    def monotonic_ms(self) -> float:
        self.advance(500)
        return super().monotonic_ms()


class Mute(Console):
    """Nobody commands, nobody listens."""

    def __init__(self, *_: Any) -> None:
        self.inputs = []
        self.said: list[tuple[str, Any]] = []

    def say(self, event: str, members: Any = None) -> None:
        self.said.append((event, members))


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_examples_and_a_text_for_every_option(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        COMMANDS[name](["--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert len(re.findall(rf"^  {name} ?", shown.partition("Examples:")[2], re.MULTILINE)) >= 2
    listed = shown.partition("options:")[2].partition("Examples:")[0]
    for option in re.findall(r"^  (-\S.*)$", listed, re.MULTILINE):
        row = listed.partition(option)[2].partition("\n  -")[0]
        assert re.search(r"\S  +\w", option) or re.match(r"\n {8,}\w", row), f"{name}: no text for {option}"
    if name.startswith("headwater simulate"):
        assert "(default: 1)" in shown or name.endswith("replay")
        assert "None" not in shown


@pytest.mark.parametrize("link", ["/proc/nobody/mast", "here"])
def test_a_link_that_cannot_be_made_is_named(tmp_path: Path, link: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(mast, "Console", Mute)
    (tmp_path / "here").mkdir()
    with pytest.raises(UserError, match=f"--link {link}: ") as caught:
        mast.main(["--link", link])
    assert caught.value.hint
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


@pytest.mark.parametrize("module", ["simulators.farm", "simulators.replay"])
def test_a_gateway_that_never_answers_is_given_up(module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.import_module(module)
    monkeypatch.setattr(found, "SystemClock", Impatient)
    monkeypatch.setattr(found, "Console", Mute)
    recording = tmp_path / "r.csv"
    recording.write_text("time,device,value\n2013-01-01T00:00:00Z,a,1\n")
    address = f"127.0.0.1:{free_port()}"
    arguments = ["--mqtt", address, "--turbines", "2"]
    if module == "simulators.replay":
        arguments = [str(recording), "--mqtt", address, "--time-column", "time", "--device-column", "device"]
    with pytest.raises(
        UserError, match=f"no MQTT gateway at {address} within 30 s: cannot connect: .*refused"
    ) as caught:
        found.main(arguments)
    assert "--mqtt" in caught.value.hint


def test_a_gateway_that_was_there_once_is_waited_for() -> None:
    class Known:
        connects, problem = 1, "cannot connect"

    options.check_answered([Known()], ("h", 1), 1e9)  # type: ignore[list-item]
