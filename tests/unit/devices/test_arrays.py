"""Arrays in messages that no profile takes apart: fields, readings or a text; the message is never lost."""

from __future__ import annotations

import msgspec
import pytest

from devices.decoders.cbor_messages import decode_group as decode_cbor
from devices.decoders.json_messages import decode_group as decode_json
from devices.profile_text import parse_profile
from devices.profiles import Profile
from devices.reading import Reading, Undecodable

FREE = Profile(name="free", topics=("shed/{device}",))
LABELLED = parse_profile('name = "l"\ntopics = ["shed/{area}/{device}/{field}"]\n', "l.toml")


def read(value: object, profile: Profile | None = None, topic: str = "shed/d") -> list[Reading]:
    [result] = decode_json(profile, [(topic, msgspec.json.encode(value))])
    assert isinstance(result, list), result
    return result


@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        ({"t": 20.5, "v": [1, 2.5, "x"]}, {"t": 20.5, "v.0": 1, "v.1": 2.5, "v.2": "x"}),
        ({"t": 1, "v": [{"a": 1, "b": {"c": True}}, {"a": 2}]}, {"t": 1, "v.0.a": 1, "v.1.a": 2, "v.0.b.c": True}),
        ({"o": {"v": [None, [7]]}}, {"o.v.0": None, "o.v.1.0": 7}),
        ({"t": 1, "v": []}, {"t": 1}),
        ([1, 2], {"value.0": 1, "value.1": 2}),
        ([1, {"a": 2}], {"value.0": 1, "value.1.a": 2}),
    ],
)
@pytest.mark.parametrize("profile", [None, FREE])
def test_elements_are_fields_by_their_number(sent: object, stored: dict[str, object], profile: Profile | None) -> None:
    [reading] = read(sent, profile)
    assert reading.fields == stored


def test_an_array_of_objects_is_many_readings() -> None:
    sent = [{"temp": 1.5, "ts": 1735689600000}, {"temp": 2.5, "ts": 1735689601000}]
    assert [one.fields["temp"] for one in read(sent)] == [1.5, 2.5]
    stamped = parse_profile('name = "s"\ntopics = ["#"]\n[timestamp]\npath = "ts"\n', "s.toml")
    assert [(one.event_ms, one.fields) for one in read(sent, stamped)] == [
        (1735689600000, {"temp": 1.5}),
        (1735689601000, {"temp": 2.5}),
    ]
    labelled = read([{"t": 1}, {"t": 2}], LABELLED, "shed/north/d1/in")
    assert [(one.device, one.fields) for one in labelled] == [
        ("d1", {"in.t": 1, "area": "north"}),
        ("d1", {"in.t": 2, "area": "north"}),
    ]
    cbor = bytes.fromhex("82a1617401a1617402")  # [{"t": 1}, {"t": 2}]
    assert decode_cbor(Profile(name="c", format="cbor"), [("d", cbor)]) == [
        [Reading("d", {"t": 1}), Reading("d", {"t": 2})]
    ]


@pytest.mark.parametrize(
    "spectrum",
    [list(range(65)), [[0.5] * 33, [0.5] * 33], [[[[[[[[[1]]]]]]]]], [{str(n): n for n in range(70)}]],
    ids=["long", "wide", "deep", "of long objects"],
)
def test_a_long_array_is_one_text_and_spoils_nothing(spectrum: list[object]) -> None:
    [reading] = read({"t": 20.5, "s": spectrum})
    assert reading.fields == {"t": 20.5, "s": msgspec.json.encode(spectrum).decode()}


@pytest.mark.parametrize("sent", [{"a": [1], "a.0": 2}, {"a.b": 1, "a": {"b": 1}}, {"a": {"b": [0] * 65}, "a.b": 1}])
def test_two_members_are_never_one_field(sent: object) -> None:
    for profile in (None, parse_profile('name = "p"\ntopics = ["{place}"]\n', "p.toml")):
        [result] = decode_json(profile, [("t", msgspec.json.encode(sent))])
        assert isinstance(result, Undecodable)
        assert result.reason.startswith("two members are both “a.")


def test_many_arrays_are_not_more_fields_than_a_reading_may_have() -> None:
    [reading] = read({f"a{n}": list(range(60)) for n in range(30)} | {"t": 1})
    assert reading.fields["t"] == 1
    assert len([name for name in reading.fields if "." in name]) == 480
    assert len([value for value in reading.fields.values() if isinstance(value, str)]) == 22


def test_an_array_beside_the_readings_belongs_to_each() -> None:
    listed = parse_profile(
        'name = "e"\ntopics = ["#"]\neach = "m"\n[fields.flag]\npath = "flags.1"\n[fields.v]\n', "e.toml"
    )
    sent = {"flags": [0, 1], "m": [{"v": 5}, {"v": 6}]}
    assert [one.fields for one in read(sent, listed)] == [{"flag": 1, "v": 5}, {"flag": 1, "v": 6}]
    free = parse_profile('name = "e"\ntopics = ["#"]\neach = "m"\n', "e.toml")
    assert [one.fields for one in read(sent, free)] == [
        {"flags.0": 0, "flags.1": 1, "v": 5},
        {"flags.0": 0, "flags.1": 1, "v": 6},
    ]


def test_what_stands_beside_an_array_multiplies_within_bounds() -> None:
    free = parse_profile('name = "e"\ntopics = ["#"]\neach = "m"\n', "e.toml")
    sent = {"o": {str(n): n for n in range(900)}, "m": list(range(9_000))}
    [result] = decode_json(free, [("d", msgspec.json.encode(sent))])
    assert isinstance(result, Undecodable)
    assert "more than 200000 fields" in result.reason


def test_a_field_that_is_an_array_says_how_to_name_its_elements() -> None:
    listed = parse_profile('name = "f"\ntopics = ["#"]\n[fields.flags]\ntype = "number"\n', "f.toml")
    [result] = decode_json(listed, [("d", b'{"flags":[1,2]}')])
    assert isinstance(result, Undecodable)
    assert "name its elements (path = “flags.0”)" in result.reason
