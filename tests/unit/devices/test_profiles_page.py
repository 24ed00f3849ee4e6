"""docs/profiles.md: `headwater profiles test` makes of its profiles and messages what the page prints."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest

from devices.options import OPTIONS
from devices.profile_text import parse_profile
from devices.profiles import FieldSpec, Profile, RegisterSpec, TimestampSpec
from headwater.cli.entry import main
from tests.support.tree import ROOT

PAGE = (ROOT / "docs" / "profiles.md").read_text(encoding="utf-8")
_EXAMPLE = re.compile(
    r"```toml profile\n(?P<profile>.*?)```\n+"
    r"```text messages(?P<options>[^\n]*)\n(?P<messages>.*?)```\n+"
    r"```text prints\n(?P<prints>.*?)```",
    re.DOTALL,
)


class Example(NamedTuple):
    profile: str
    options: list[str]
    messages: str
    prints: str


EXAMPLES = {
    parse_profile(found["profile"], "page").name: Example(
        found["profile"], shlex.split(found["options"]), found["messages"], found["prints"]
    )
    for found in _EXAMPLE.finditer(PAGE)
}


def printed(example: Example, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    monkeypatch.chdir(folder)
    Path("profile.toml").write_text(example.profile, encoding="utf-8")
    Path("messages").write_text(example.messages, encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["headwater", "profiles", "test", "./profile.toml", "messages", *example.options])
    with pytest.raises(SystemExit):
        main()
    out, err = capsys.readouterr()
    assert err == ""
    return out


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_prints_what_the_page_says(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert printed(EXAMPLES[name], tmp_path, monkeypatch, capsys) == EXAMPLES[name].prints


def test_every_example_is_run() -> None:
    assert len(EXAMPLES) == PAGE.count("```toml profile") == PAGE.count("```text prints")


def test_every_format_has_an_example() -> None:
    shown = {parse_profile(example.profile, "page").format for example in EXAMPLES.values()}
    # one decoder reads both kinds of SenML
    assert shown | {"senml+cbor"} == set(OPTIONS)


def test_every_toml_block_is_a_profile_or_a_line_of_a_configuration() -> None:
    for block in re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL):
        if not block.startswith("profiles ="):
            parse_profile(block, "page")


@pytest.mark.parametrize(
    "struct", [Profile, FieldSpec, TimestampSpec, RegisterSpec, *OPTIONS.values()], ids=lambda struct: struct.__name__
)
def test_every_key_is_explained(struct: type[msgspec.Struct]) -> None:
    for key in struct.__struct_fields__:
        assert re.search(rf"`\[?{key}\b", PAGE), key
