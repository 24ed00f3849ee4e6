"""`headwater config check` of what is no node's file: a rule file, and no file at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from headwater.cli.config import check
from headwater.cli.find import config_file
from headwater.cli.process import run_group
from headwater.errors import UserError
from headwater.settings.group import load_group
from headwater.settings.load import load_settings

RULES = '[[window]]\nname = "w"\nsize_s = 10\n\n[[window]]\nname = "v"\nsize_s = 60\n'
ALERT = '[[alert]]\nname = "hot"\nwindow = "w"\nfield = "t"\nfire_above = 85\n'


def written(folder: Path, text: str) -> str:
    (folder / "mine.toml").write_text(text)
    return str(folder / "mine.toml")


def test_a_rule_file_is_checked_as_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = written(tmp_path, RULES + ALERT)
    check(file)
    first, second, third = capsys.readouterr().out.splitlines()
    assert (first, second) == (f"ok: {file}", "a rule file: 2 windows, 1 alert")
    assert third.endswith(f'rules = ["{file}"]')


def test_a_rule_files_mistakes_are_named_with_their_lines(tmp_path: Path) -> None:
    file = written(tmp_path, RULES.replace("60", "-1"))
    with pytest.raises(UserError, match=rf"^{file}:7: window\[1\].size_s"):
        check(file)
    with pytest.raises(UserError, match="there is no window named “w”") as caught:
        check(written(tmp_path, ALERT))
    assert "what stands in another one, only the node's file knows" in caught.value.hint


def test_a_file_with_anything_else_is_a_nodes(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown key “window”"):
        check(written(tmp_path, 'node = "n"\n' + RULES))
    with pytest.raises(UserError, match="no valid TOML"):
        check(written(tmp_path, "[[window]\n"))


@pytest.mark.parametrize("load", [load_settings, load_group])
def test_who_wants_a_nodes_file_says_where_a_rule_file_belongs(load: Callable[[str], object], tmp_path: Path) -> None:
    file = written(tmp_path, "\n" + RULES)
    with pytest.raises(UserError) as caught:
        load(file)
    assert caught.value.what == f"{file}:2: [[window]] belongs into a rule file, and this one has nothing else"
    assert 'rules = ["mine.toml"]' in caught.value.hint


def test_an_empty_name_is_no_file_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "headwater.toml").write_text('role = "edge"\nnode = "n"\n')
    assert config_file(None) == str(tmp_path / "headwater.toml")
    with pytest.raises(UserError, match="the name of the configuration file is empty"):
        config_file("")
    with pytest.raises(UserError, match="the name of the configuration file is empty"):
        run_group("", instance="", rebuild=False, metrics_port=0, level="info", form="text")


def test_a_dead_man_alert_that_is_hastier_than_a_profile_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tank.toml").write_text('name = "tank"\n[fields.level]\ndeadband = 0.5\n')
    rules = RULES + '[[alert]]\nname = "gone"\nwindow = "w"\nsilent_after_s = {}\n'
    node = 'node = "n"\ndata_dir = "d"\nprofiles = ["./tank.toml"]\nrules = ["mine.toml"]\n[mqtt]\n'
    (tmp_path / "node.toml").write_text(node)
    for after_s, told in ((15, True), (200, False)):
        (tmp_path / "mine.toml").write_text(rules.format(after_s))
        check(str(tmp_path / "node.toml"))
        said = (
            "alert gone calls a device silent after 15 s, while of one of profile tank a reading is stored every 60 s"
        )
        assert (f"warning: {said}" in capsys.readouterr().out) is told


def test_an_alert_by_intervals_is_told_where_no_profile_has_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rules = RULES + '[[alert]]\nname = "gone"\nwindow = "w"\nmissed = 3\nsilent_after_s = 1\n'
    (tmp_path / "mine.toml").write_text(rules)
    node = 'node = "n"\ndata_dir = "d"\nprofiles = ["./tank.toml"]\nrules = ["mine.toml"]\n[mqtt]\n'
    (tmp_path / "node.toml").write_text(node)
    for key, told in (("", True), ("expected_interval_ms = 60000\n", False)):
        (tmp_path / "tank.toml").write_text(f'name = "tank"\n{key}[fields.level]\nunit = "%"\n')
        check(str(tmp_path / "node.toml"))
        out = capsys.readouterr().out
        assert ("warning: alert gone goes by devices' expected intervals" in out) is told
        assert "calls a device silent after" not in out


@pytest.mark.parametrize(("partitions", "there", "told"), [(2, 1, True), (2, 2, False), (2, 0, False)])
def test_other_partitions_than_the_log_has_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], partitions: int, there: int, *, told: bool
) -> None:
    (tmp_path / "node.toml").write_text(
        f'node = "n"\ndata_dir = "d"\n[topics]\nreadings_partitions = {partitions}\n[mqtt]\n'
    )
    for partition in range(there):
        (tmp_path / "d" / "log" / f"readings-{partition}").mkdir(parents=True)
    check(str(tmp_path / "node.toml"))
    said = (
        f"warning: topic readings keeps its {there} partitions: readings_partitions = {partitions} counts at the first"
    )
    assert (said in capsys.readouterr().out) is told
