"""`headwater config check` says what an edited rule would keep, before the node is started with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from headwater.app.status import notes
from headwater.cli.config import check
from processors.checkpoint import Checkpoint, InputState, Writer, encode_checkpoint
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
    document = {"work": {"report": {"processors": {"changes": ["window w: is new"]}}}}
    assert notes(document) == ["since the last start: window w: is new"]
