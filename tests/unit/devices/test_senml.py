"""SenML: the examples of RFC 8428 in JSON (section 5.1) and in CBOR (section 6), and what may be wrong with a pack."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.decoders.registry import decoder_for
from devices.profile_text import parse_profile
from devices.profiles import Profile
from devices.reading import FromArrival, Reading, Scalar, Undecodable

JSON = Profile(name="j", format="senml+json")
CBOR = Profile(name="c", format="senml+cbor")
decode_group = decoder_for("senml+json")
URN = "urn:dev:ow:10e2073a01080063"


def one(payload: bytes, profile: Profile = JSON) -> list[Reading]:
    [result] = decode_group(profile, [("t", payload)])
    assert isinstance(result, list), result
    return result


def reason(payload: bytes, profile: Profile = JSON) -> str:
    [result] = decode_group(profile, [("t", payload)])
    assert isinstance(result, Undecodable), result
    assert result.decoder == profile.format
    return result.reason


def test_5_1_1_a_single_data_point() -> None:
    assert one(b'[{"n":"urn:dev:ow:10e2073a01080063","u":"Cel","v":23.1}]') == [Reading("t", {URN: 23.1})]


def test_5_1_2_multiple_data_points() -> None:
    pack = f'[{{"bn":"{URN}:","n":"voltage","u":"V","v":120.1}},{{"n":"current","u":"A","v":1.2}}]'
    assert one(pack.encode()) == [Reading(URN, {"voltage": 120.1, "current": 1.2})]


SIX_TIMES = (
    b'[{"bn":"urn:dev:ow:10e2073a0108006:","bt":1.276020076001e+09,"bu":"A","bver":5,"n":"voltage","u":"V","v":120.1},'
    b'{"n":"current","t":-5,"v":1.2},{"n":"current","t":-4,"v":1.3},{"n":"current","t":-3,"v":1.4},'
    b'{"n":"current","t":-2,"v":1.5},{"n":"current","t":-1,"v":1.6},{"n":"current","v":1.7}]'
)
SIX_TIMES_READ = [
    Reading("urn:dev:ow:10e2073a0108006", {"voltage": 120.1, "current": 1.7}, 1276020076001),
    *[
        Reading("urn:dev:ow:10e2073a0108006", {"current": value}, 1276020076001 - age * 1000)
        for age, value in ((5, 1.2), (4, 1.3), (3, 1.4), (2, 1.5), (1, 1.6))
    ],
]


def test_5_1_2_base_time() -> None:
    assert one(SIX_TIMES) == SIX_TIMES_READ


def test_5_1_3_multiple_measurements_without_names_go_by_their_units() -> None:
    pack = (
        f'[{{"bn":"{URN}","bt":1.320067464e+09,"bu":"%RH","v":20}},{{"u":"lon","v":24.30621}},'
        '{"u":"lat","v":60.07965},{"t":60,"v":20.3},{"u":"lon","t":60,"v":24.30622},{"u":"lat","t":60,"v":60.07965},'
        '{"u":"%EL","t":150,"v":98}]'
    )
    assert one(pack.encode()) == [
        Reading(URN, {"%RH": 20, "lon": 24.30621, "lat": 60.07965}, 1320067464000),
        Reading(URN, {"%RH": 20.3, "lon": 24.30622, "lat": 60.07965}, 1320067524000),
        Reading(URN, {"%EL": 98}, 1320067614000),
    ]


def test_5_1_5_multiple_data_types() -> None:
    pack = (
        f'[{{"bn":"{URN}:","n":"temp","u":"Cel","v":23.1}},{{"n":"label","vs":"Machine Room"}},'
        '{"n":"open","vb":false},{"n":"nfc-reader","vd":"aGkgCg"}]'
    )
    fields: dict[str, Scalar] = {"temp": 23.1, "label": "Machine Room", "open": False, "nfc-reader": "aGkgCg"}
    assert one(pack.encode()) == [Reading(URN, fields)]


def test_5_1_6_a_collection_of_devices() -> None:
    pack = (
        b'[{"bn":"2001:db8::2/","bt":1.320078429e+09,"n":"temperature","u":"Cel","v":25.2},'
        b'{"n":"humidity","u":"%RH","v":30},{"bn":"2001:db8::1/","n":"temperature","u":"Cel","v":12.3},'
        b'{"n":"humidity","u":"%RH","v":67}]'
    )
    assert one(pack) == [
        Reading("2001:db8::2", {"temperature": 25.2, "humidity": 30}, 1320078429000),
        Reading("2001:db8::1", {"temperature": 12.3, "humidity": 67}, 1320078429000),
    ]


# RFC 8428, section 6: the second example of 5.1.2 in CBOR
SECTION_6 = bytes.fromhex(
    "87a721781b75726e3a6465763a6f773a3130653230373361303130383030363a22fb41d303a15b00106223614120050067766f6c7461676501"
    "615602fb405e066666666666a3006763757272656e74062402fb3ff3333333333333a3006763757272656e74062302fb3ff4cccccccccccd"
    "a3006763757272656e74062202fb3ff6666666666666a3006763757272656e74062102f93e00a3006763757272656e74062002fb3ff99999"
    "9999999aa3006763757272656e74060002fb3ffb333333333333"
)


def test_section_6_cbor() -> None:
    assert one(SECTION_6, CBOR) == SIX_TIMES_READ


def test_data_in_cbor_is_as_in_json() -> None:
    assert one(bytes.fromhex("81a2006466696c65084468690a ff".replace(" ", "")), CBOR) == [
        Reading("t", {"file": "aGkK_w"})
    ]


def test_base_values_and_sums() -> None:
    # section 4.6: of a base and its value the missing one counts as 0
    pack = (
        b'[{"bn":"d/","bv":20,"bs":100},{"n":"a","v":1.5,"s":3},{"n":"b","s":7},{"n":"c"},'
        b'{"bv":0,"bs":0,"n":"e","v":1}]'
    )
    fields: dict[str, Scalar] = {"a": 21.5, "a.sum": 103, "b.sum": 107, "c": 20, "c.sum": 100, "e": 1, "e.sum": 0}
    assert one(pack) == [Reading("d", fields)]


def test_times_relative_to_now_count_from_the_arrival() -> None:
    assert one(b'[{"bn":"d/","n":"a","v":1},{"n":"a","v":2,"t":-30},{"n":"a","v":3,"t":268435455}]') == [
        Reading("d", {"a": 1}),
        Reading("d", {"a": 2}, FromArrival(-30_000)),
        Reading("d", {"a": 3}, FromArrival(268_435_455_000)),
    ]
    [half] = one(b'[{"n":"a","v":1,"t":-0.5}]')
    assert type(half.event_ms) is FromArrival
    assert one(b'[{"n":"a","v":1,"t":268435456}]') == [Reading("t", {"a": 1}, 268435456000)]


def test_the_same_name_twice_at_one_time_is_two_readings() -> None:
    assert one(b'[{"n":"a","v":1},{"n":"a","v":2},{"n":"b","v":3}]') == [
        Reading("t", {"a": 1, "b": 3}),
        Reading("t", {"a": 2}),
    ]


def test_a_separator_parts_device_and_field_in_the_full_name() -> None:
    text = """
name = "s"
format = "senml+json"
[options]
device_separator = "/"
[fields.t_in]
path = "temp"
scale = 2.0
[fields.special]
path = "site/d2/temp"
"""
    pack = b'[{"bn":"site/","n":"d1/temp","v":1,"t":1e9},{"n":"d2/temp","v":2,"t":1e9}]'
    assert one(pack, parse_profile(text, "s.toml")) == [
        Reading("site/d1", {"t_in": 2.0}, 10**12),
        Reading("site/d2", {"t_in": 4.0, "special": 2}, 10**12),
    ]


@pytest.mark.parametrize(
    ("pack", "said"),
    [
        (b"", "the message is empty"),
        (b"{}", "a pack is an array of records"),
        (b"[]", "a pack is an array of records"),
        (b"[1]", "record 1: it is no object"),
        (b'[{"n":"a","v":1},{"n":"b"}]', "record 2: neither a value nor a sum"),
        (b'[{"v":1}]', "record 1: no name"),
        (b'[{"n":"a","v":"1"}]', "record 1: “v” should be a number and holds '1'"),
        (b'[{"n":"a","v":true}]', "“v” should be a number"),
        (b'[{"n":1,"v":1}]', "“n” should be a text"),
        (b'[{"n":"a","vb":1}]', "“vb” should be a boolean"),
        (b'[{"n":"a","vd":1}]', "“vd” should be data"),
        (b'[{"n":"a","v":1,"vs":"x"}]', "record 1: more than one value (v, vs)"),
        (b'[{"bver":11,"n":"a","v":1}]', "version 11 is newer than 10"),
        (b'[{"bver":"x","n":"a","v":1}]', "“bver” should be an integer"),
        (b'[{"n":"a","v":1,"crit_":1}]', "“crit_” must be understood"),
        (b'[{"bn":"x","bt":1}]', "no record holds a value"),
        (b'[{"n":"a","v":1}', "no JSON"),
        (b"[" * 40_000, "no JSON"),
        (b'[{"n":"a","v":1e999}]', "no JSON"),
        (json.dumps([{"n": "a", "v": 1}] * 10_001).encode(), "10001 records"),
    ],
)
def test_what_is_wrong_is_said_with_its_record(pack: bytes, said: str) -> None:
    assert said in reason(pack)


def test_labels_that_need_not_be_understood_are_passed_over() -> None:
    assert one(b'[{"n":"a","v":1,"l":"x","ut":5}]') == [Reading("t", {"a": 1})]


labels = st.sampled_from(["bn", "bt", "bu", "bv", "bs", "bver", "n", "u", "v", "vs", "vb", "vd", "s", "t", "x", "x_"])
values: st.SearchStrategy[object] = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.just([])
)


@given(st.lists(st.dictionaries(labels, values), max_size=4), st.binary(max_size=20))
def test_hostile_packs_raise_nothing(pack: list[dict[str, object]], noise: bytes) -> None:
    for profile, payload in (
        (JSON, json.dumps(pack).encode("utf-8", "replace")),
        (JSON, noise),
        (CBOR, b"\x82" + noise),
    ):
        results = decode_group(profile, [("t", payload), ("t", SECTION_6 if profile is CBOR else SIX_TIMES)])
        assert isinstance(results[0], list | Undecodable)
        assert results[1] == SIX_TIMES_READ
