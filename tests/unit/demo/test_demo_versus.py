"""`headwater demo --versus`: what is counted as lost and as there twice, and what the exit status says."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from headwater.demo import versus
from headwater.demo.rivals import Rival, need
from headwater.demo.versus import Outcome, play, table
from headwater.errors import UserError


class Fake(Rival):
    """Has what it is told to have; notes what is done to it."""

    def __init__(self, folder: Path, name: str, has: Counter[int]) -> None:
        super().__init__(folder, name)
        self.has = has
        self.done: list[str] = []

    def start(self) -> None:
        self.done.append("start")

    def kill(self) -> None:
        self.done.append("kill")

    def found(self, wanted: set[int]) -> Counter[int]:
        self.done.append("found")
        return self.has


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> None:
    def publish(port: int, *, messages: int, rate: int, after: int, kill: Callable[[], None]) -> set[int]:
        kill()
        return set(range(messages))

    monkeypatch.setattr(versus, "publish", publish)


@pytest.mark.usefixtures("device")
def test_only_what_was_acknowledged_counts(tmp_path: Path) -> None:
    has = Counter({0: 1, 1: 2, 2: 1, 7: 3, -1: 1})  # 7 and -1 were never acknowledged
    rival = Fake(tmp_path / "fake", "fake", has)
    assert play(rival, messages=5) == Outcome("fake", acknowledged=5, lost=2, twice=1)
    assert rival.done == ["start", "kill", "start", "found", "kill"]


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("lost", [0, 1])
def test_the_exit_status_and_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], lost: int
) -> None:
    ours = Counter(range(lost, versus.MESSAGES))
    rivals = [Fake(tmp_path / "a", "Headwater", ours), Fake(tmp_path / "b", "other", Counter())]
    monkeypatch.setattr(versus, "contestants", lambda folder: rivals)
    monkeypatch.setattr(versus, "need", lambda program, hint: "true")
    report = tmp_path / "report.json"
    assert versus.run(tmp_path, report=report) == lost
    told = json.loads(report.read_text())["outcomes"]
    assert told[0] == {"name": "Headwater", "acknowledged": versus.MESSAGES, "lost": lost, "twice": 0}
    assert told[1]["lost"] == versus.MESSAGES
    assert f"{lost} of {versus.MESSAGES} lost" in capsys.readouterr().out


def test_the_table_is_for_people() -> None:
    head, row = table([Outcome("x", 12_345, 0, 1)])
    assert head.split() == ["acknowledged", "lost", "twice"]
    assert row.split() == ["x", "12,345", "0", "1"]


def test_a_program_that_is_not_there_is_named_with_the_command_that_brings_it() -> None:
    with pytest.raises(UserError) as caught:
        need("no-such-broker", "On Debian: apt install it")
    assert "no-such-broker is not installed" in caught.value.what
    assert "apt install" in caught.value.hint
