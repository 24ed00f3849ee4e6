"""`headwater config check` says what an edited rule would keep, before the node is started with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from headwater.app.status import notes
from headwater.cli import config_group
from headwater.cli.config import check
from headwater.errors import UserError
from processors.checkpoint import Checkpoint, InputState, Writer, encode_checkpoint
from processors.processor import PartitionProcessor
from processors.rules.model import Rules
from tests.support import river
from tests.support.river import Row

RULES = """
[[window]]
name = "w"
size_s = 10
every_field = ["count", "p95"]
"""
CONFIG = 'role = "central"\nnode = "c"\ndata_dir = "data"\nrules = ["rules.toml"]\n'


def test_config_check_reads_the_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rules.toml").write_text(RULES)
    (tmp_path / "headwater.toml").write_text(CONFIG)
    check(str(tmp_path / "headwater.toml"))
    assert "at the next start" not in capsys.readouterr().out  # there is no state yet

    one = river.processor(river.window(every_field=["count"]), river.window(name="old"))
    one.process(river.block([Row("a", 1_000, {"t": 1.0})]))
    checkpoint = Checkpoint(inputs={"readings/0": InputState(1, one.snapshot(), Writer((1, 0)))})
    (tmp_path / "data" / "work").mkdir(parents=True)
    (tmp_path / "data" / "work" / "processors.checkpoint").write_bytes(encode_checkpoint(checkpoint))
    check(str(tmp_path / "headwater.toml"))
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("at the next start")]
    assert told == [
        "at the next start window w: every_field changed: keeps its windows; p95 of other fields:"
        " from the next whole window on",
        "at the next start window old: is gone, and its state with it",
    ]


def test_status_notes_what_became_of_changed_rules() -> None:
    document = {"now_ms": 0, "work": {"report": {"processors": {"changes": ["window w: is new"]}}}}
    assert notes(document) == ["since the last start: window w: is new"]


GROUPED = (
    RULES
    + """
[[window]]
name = "site"
size_s = 60
group_by = ["site"]

[[window]]
name = "late_grouped"
size_s = 60
group_by = ["type"]
"""
)


def test_rules_over_groups_are_told_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rules.toml").write_text(GROUPED)
    (tmp_path / "headwater.toml").write_text(CONFIG)
    old = river.window(name="site", size_s=30, group_by=("site",))
    gone = river.window(name="gone", size_s=30, group_by=("site",))
    states = {
        "readings/0": river.processor(river.window(every_field=["count", "p95"]), river.window(name="late_grouped"))
    }
    states |= {
        f"processors-{rule.name}-repartition/0": PartitionProcessor(
            Rules(windows=(rule,)), f"processors-{rule.name}-repartition", 0, place="central", group=rule
        )
        for rule in (old, gone)
    }
    inputs = {name: InputState(1, one.snapshot(), Writer((1, 0))) for name, one in states.items()}
    (tmp_path / "data" / "work").mkdir(parents=True)
    (tmp_path / "data" / "work" / "processors.checkpoint").write_bytes(encode_checkpoint(Checkpoint(inputs=inputs)))
    check(str(tmp_path / "headwater.toml"))
    assert sorted(line for line in capsys.readouterr().out.splitlines() if line.startswith("at the next start")) == [
        "at the next start window gone: is gone, and its state with it",
        "at the next start window late_grouped: begins anew with the next whole window: size_s and group_by changed",
        "at the next start window site: begins anew with the next whole window: size_s changed",
    ]


def test_the_file_of_a_group_is_checked_as_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config_group, "ANSWER_S_MAX", 0.1)
    (tmp_path / "rules.toml").write_text(RULES.replace("size_s", 'where = "power-w > 3"\nsize_s'))
    file = tmp_path / "process.toml"
    file.write_text('name = "farm"\nbootstrap_servers = "127.0.0.1:1"\nrules = ["rules.toml"]\n')
    check(str(file))
    told = capsys.readouterr().out.splitlines()
    assert told[:3] == [
        f"ok: {file}",
        "a group's file, for `headwater process`: group farm at 127.0.0.1:1",
        "  runs 1 window",
    ]
    assert told[3].startswith("warning: window w, where: “power-w” is power minus w")
    assert told[4].startswith("what becomes of its state is not known: 127.0.0.1:1: ")
    file.write_text('name = "farm"\nbootstrap_serves = "127.0.0.1:1"\nrules = ["rules.toml"]\n')
    with pytest.raises(
        UserError, match=r"process.toml:2: unknown key “bootstrap_serves”; did you mean “bootstrap_servers”"
    ):
        check(str(file))
