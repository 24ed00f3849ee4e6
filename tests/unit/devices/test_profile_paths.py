"""Paths that nothing would ever stand at are refused with line and key, and the way to write them."""

from __future__ import annotations

import re

import pytest

from devices.decoders.json_messages import decode_group
from devices.profile_text import parse_profile
from devices.reading import Reading, Undecodable
from headwater.errors import UserError

CSV = 'name = "p"\nformat = "csv"\n[options]\ncolumns = ["Date", "T [°C]"]\n'


@pytest.mark.parametrize(
    ("text", "what", "hint"),
    [
        ("[fields.a]\npath = '$.water.flow'", "x.toml, line 3: fields.a.path: “$.water.flow”", "“water.flow”"),
        ("[fields.a]\npath = 'water[0].flow'", "x.toml, line 3: fields.a.path: “water[0].flow”", "“water.0.flow”"),
        ("[fields.a]\npath = 'water[\"flow\"]'", "x.toml, line 3: fields.a.path: “water", "“water.flow”"),
        ("[fields.a]\npath = '/water/flow'", "x.toml, line 3: fields.a.path: “/water/flow”", "“water.flow”"),
        ("[fields.a]\npath = ' water.flow'", "x.toml, line 3: fields.a.path: “ water.flow” begins", "a.b"),
        ("natural_key = '$.n'", "x.toml, line 2: natural_key: “$.n”", "“n”"),
        ("device_path = 'id '", "x.toml, line 2: device_path: “id ” begins or ends", "a.b"),
        ("[timestamp]\npath = '$.ts'", "x.toml, line 3: timestamp.path: “$.ts”", "“ts”"),
    ],
)
def test_a_path_in_another_language_is_refused(text: str, what: str, hint: str) -> None:
    with pytest.raises(UserError, match=re.escape(what)) as caught:
        parse_profile(f'name = "p"\n{text}\n', "x.toml")
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("[timestamp]\npath = 'date'\nunit = 'iso8601'", "line 6: timestamp.path: there is no column “date”"),
        ("[fields.temp]\npath = 'T'", "line 6: fields.temp.path: there is no column “T”"),
        ("[fields.temp]", "line 5: fields.temp: there is no column “temp”"),
    ],
)
def test_a_column_that_is_none_is_refused(text: str, key: str) -> None:
    with pytest.raises(UserError, match=f"x.toml, {key}"):
        parse_profile(f"{CSV}{text}\n", "x.toml")


def test_names_that_only_look_odd_are_fine() -> None:
    parse_profile(f"{CSV}[fields.temp]\npath = 'T [°C]'\n", "x.toml")
    parse_profile('name = "p"\nformat = "sparkplug-b"\n[fields.a]\npath = "Node Control/Rebirth"\n', "x.toml")
    parse_profile("name = 'p'\n[fields.a]\npath = 'T [°C]'\n", "x.toml")


def test_a_reject_says_what_the_message_holds_instead() -> None:
    profile = parse_profile("name = 'p'\n[fields.flow]\npath = 'water/flow'\n", "x.toml")
    results = decode_group(profile, [("t", b'{"water":{"flow":1},"n":2}'), ("t", b'{"water/flow":1}'), ("t", b"{}")])
    reasons = [result.reason if isinstance(result, Undecodable) else "" for result in results]
    none = "the object holds none of the profile's fields"
    assert reasons == [f"{none} (it holds water, n)", "", none]


@pytest.mark.parametrize("payload", [b'{"x":"\xff"}', b'{"\xff":1}', b'{"x":1e999}', b'{"x":' + b"1" * 5_000 + b"}"])
def test_what_the_profile_leaves_out_may_be_broken(payload: bytes) -> None:
    profile = parse_profile("name = 'p'\n[fields.flow]\n", "x.toml")
    results = decode_group(profile, [("t", payload), ("t", b'{"flow":1}')])
    assert isinstance(results[0], Undecodable)
    assert results[0].reason == "the object holds none of the profile's fields"
    assert results[1] == [Reading("t", {"flow": 1})]
