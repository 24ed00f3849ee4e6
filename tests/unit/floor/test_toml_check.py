from __future__ import annotations

import msgspec
import pytest

from headwater.toml.check import convert
from headwater.toml.source import Source


class Field(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    base: float = 0.0


class Fleet(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str
    fields: dict[str, Field] = {}


class File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    fleets: tuple[Fleet, ...] = ()


def problems(text: str) -> list[str]:
    source = Source("fleet.toml")
    source.add_text("fleet.toml", text)
    convert(source, File)
    return source.problems


def test_a_wrong_value_within_a_mapping_is_named_with_its_line() -> None:
    text = '[[fleets]]\nname = "a"\n[fleets.fields.level]\nbase = 1\n[fleets.fields.flow]\nbase = "fast"\n'
    assert problems(text) == ["fleet.toml:6: fleets[0].fields.flow.base must be a number, not text in quotes"]


def test_an_unknown_key_within_a_mapping_is_named_with_the_nearest() -> None:
    text = '[[fleets]]\nname = "a"\n[fleets.fields.level]\nbsae = 1\n'
    (problem,) = problems(text)
    assert problem.startswith("fleet.toml:4: unknown key “bsae”")
    assert "base" in problem


@pytest.mark.parametrize("text", ["", '[[fleets]]\nname = "a"\n[fleets.fields.level]\nbase = 2\n'])
def test_what_fits_has_no_problems(text: str) -> None:
    assert problems(text) == []
