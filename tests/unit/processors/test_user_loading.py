"""Users' processors are found in their files: settings, outputs, rule files that would go round for ever."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from headwater.errors import UserError
from processors.rules.files import load_rules
from processors.user.loading import Loaded, load
from processors.user.rule import ProcessorRule

FILE = """\
from __future__ import annotations
from headwater.api import Processor, StoredReading, Device

class Mine(Processor[dict[str, int]]):
    limit: float = 3.0

    def on_reading(self, reading: StoredReading, device: Device[dict[str, int]]) -> None:
        pass
"""


def loaded(folder: Path, text: str = FILE, **rule: Any) -> Loaded:
    (folder / "mine.py").write_text(text)
    return load(ProcessorRule(name="mine", file=str(folder / "mine.py"), **rule))


def test_a_file_is_loaded_by_its_path_with_settings_that_fit(tmp_path: Path) -> None:
    assert loaded(tmp_path, settings={"limit": 5}).make().limit == 5.0  # type: ignore[attr-defined]
    assert loaded(tmp_path).outs == ("mine",)
    for rule, text, said in (
        ({"settings": {"limits": 5}}, FILE, "Mine has no setting “limits”; it has limit"),
        ({"settings": {"limit": "x"}}, FILE, "Mine: setting “limit”: Expected `float`, got `str`"),
        ({"out": ("readings",)}, FILE, "cannot write to “readings”"),
        ({"out": ("x-changelog",)}, FILE, "Headwater's own"),
        ({"out": ("ok", "..")}, FILE, "cannot write to “..”: no name of a topic"),
        ({"class_": "Other"}, FILE, "has no processor Other; it has Mine"),
        ({}, "import nothing_of_this_name\n", "mine.py, line 1: ModuleNotFoundError"),
        ({}, FILE + "def broken(:\n", "mine.py, line 9: "),
        ({}, FILE.replace("dict[str, int]", "int"), "int cannot be a state"),
        ({}, "", "has no processor"),
        ({}, FILE + FILE.split("\n\n")[1].replace("Mine", "Other"), "mine.py has Mine, Other"),
    ):
        with pytest.raises(UserError) as error:
            loaded(tmp_path, text, **rule)
        assert said in error.value.what


def test_a_rule_file_whose_processors_feed_each_other_for_ever_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(FILE)

    def said(**ways: tuple[str, str]) -> str:
        file = tmp_path / "rules.toml"
        rule = '[[processor]]\nname = "{}"\nfile = "mine.py"\ntopic = "{}"\nout = ["also", "{}"]\n'
        file.write_text("".join(rule.format(name, *way) for name, way in ways.items()))
        try:
            load_rules([str(file)])
        except UserError as error:
            return str(error)
        return ""

    assert said(a=("readings", "x"), b=("x", "y"), c=("readings", "y"), d=("y", "z")) == ""
    told = said(a=("readings", "x"), b=("x", "y"), c=("y", "z"), d=("z", "x"))
    assert "processor[1].out: its records would come back to it and go round for ever: x → y → z → x" in told
    assert "processor[0]" not in told
    assert "processor[0].out[1]: it cannot write to “x”: it is what it reads" in said(a=("x", "x"))
    assert "processor[0].out[1]: it cannot write to “readings”: Headwater's own" in said(a=("x", "readings"))


def test_circles_of_topics_that_stand_only_in_classes_are_seen_without_running_them(tmp_path: Path) -> None:
    kind = 'class {}(Processor[dict[str, int]]):\n    topic = "{}"\n    out = {}\n'
    head = "from headwater.api import Processor\nraise SystemExit('nobody runs this')\n"
    (tmp_path / "one.py").write_text(head + kind.format("One", "x", '("also", "y")'))
    (tmp_path / "two.py").write_text(
        head + kind.format("Base", "y", '"x"') + "class Two(Base):\n    pass\n" + kind.format("Three", "z", '"w"')
    )
    rules = '[[processor]]\nname = "one"\nfile = "one.py"\n[[processor]]\nname = "two"\nfile = "two.py"\nclass = "{}"\n'
    (tmp_path / "rules.toml").write_text(rules.format("Two"))
    with pytest.raises(UserError) as error:
        load_rules([str(tmp_path / "rules.toml")])
    assert (
        "rules.toml:3: processor[0].file: its records would come back to it and go round for ever" in error.value.what
    )
    assert "x → y → x (by way of two)" in error.value.what
    assert "y → x → y (by way of one)" in error.value.what
    (tmp_path / "rules.toml").write_text(rules.format("Three"))
    assert len(load_rules([str(tmp_path / "rules.toml")]).processors) == 2
    (tmp_path / "one.py").write_text(head + kind.format("One", "x", '"x"'))
    with pytest.raises(UserError, match=r"processor\[0\].file: .*x → x"):
        load_rules([str(tmp_path / "rules.toml")])
    (tmp_path / "one.py").write_text(head + kind.format("One", "x", '"x".lower()'))
    assert len(load_rules([str(tmp_path / "rules.toml")]).processors) == 2


def test_a_helper_beside_the_file_is_told_apart_from_a_package_that_is_not_installed(tmp_path: Path) -> None:
    (tmp_path / "helping.py").write_text("")
    with pytest.raises(UserError) as error:
        loaded(tmp_path, "import helping\n")
    assert "A processor is one file" in error.value.hint
