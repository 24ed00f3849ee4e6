"""docs/processors.md: its examples of users' processors run, and its tests pass; its rule is read."""

from __future__ import annotations

import re
import sys
from importlib import util
from pathlib import Path

import pytest

from headwater import api
from processors.rules.files import load_rules
from processors.user.loading import load
from processors.user.settings import UserLimits

PAGE = (Path(__file__).parents[3] / "docs" / "processors.md").read_text(encoding="utf-8")


def blocks(kind: str) -> dict[str, str]:
    """Code blocks of a kind by what stands behind it."""
    return dict(re.findall(rf"^```{kind} (\S+)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE))


def test_the_examples_run_and_their_tests_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in blocks("python").items():
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    ran = 0
    for name in blocks("python"):
        spec = util.spec_from_file_location(name.removesuffix(".py"), tmp_path / name)
        assert spec is not None
        assert spec.loader is not None
        module = util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
        for test in [one for found, one in vars(module).items() if found.startswith("test_")]:
            test()
            ran += 1
    assert ran == 3
    (tmp_path / "rule.toml").write_text(blocks("toml")["rule"])
    [rule] = load_rules([str(tmp_path / "rule.toml")]).processors
    assert load(rule).outs == ("blocked-pumps",)


def test_every_public_name_and_every_limit_is_told() -> None:
    for name in api.__all__:
        if name not in ("Message", "Reject", "read", "Bools", "Texts", "Column", "Mark"):
            assert name in PAGE, name
    for name in UserLimits.__struct_fields__:
        assert f"`{name}`" in PAGE, name
