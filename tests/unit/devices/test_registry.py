"""Every format that a profile may name has a decoder, and every decoder keeps to the group's order."""

from __future__ import annotations

import pytest

from devices.decoders.registry import FORMATS, decoder_for
from devices.options import OPTIONS
from devices.profiles import Profile
from devices.reading import Undecodable
from headwater.errors import UserError


def test_formats_and_options_are_the_same() -> None:
    assert list(FORMATS) == list(OPTIONS)


@pytest.mark.parametrize("name", FORMATS)
def test_every_decoder_names_itself_and_refuses_nothing_at_all(name: str) -> None:
    profile = Profile(name="x", format=name)
    results = decoder_for(name)(profile, [("t", b""), ("t", b"\xff\x00")])
    assert [type(result) for result in results] == [Undecodable, Undecodable]
    assert all(isinstance(result, Undecodable) and result.decoder == name for result in results)
    assert decoder_for(name)(profile, []) == []


def test_an_unknown_format() -> None:
    with pytest.raises(UserError, match="no decoder reads format “jason”"):
        decoder_for("jason")
