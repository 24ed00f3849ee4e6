"""JSON messages that need a profile's deeper keys: several readings, labels, arrays, types, forms of time."""

from __future__ import annotations

import pytest

from devices.decoders.json_messages import decode_group
from devices.profile_text import parse_profile
from devices.profiles import Profile, TimestampSpec
from devices.reading import Reading, Undecodable
from devices.times import milliseconds


def one(payload: bytes, profile: Profile, topic: str = "t") -> list[Reading]:
    [result] = decode_group(profile, [(topic, payload)])
    assert isinstance(result, list), result
    return result


def reason(payload: bytes, profile: Profile, topic: str = "t") -> str:
    [result] = decode_group(profile, [(topic, payload)])
    assert isinstance(result, Undecodable), result
    return result.reason


EACH = parse_profile(
    """
name = "gateway"
topics = ["plant/{hall}/readings"]
each = "samples"
device_path = "id"
natural_key = "n"
[timestamp]
path = "t"
unit = "s"
[fields.temperature]
path = "v.0"
[fields.humidity]
path = "v.1"
[fields.door]
type = "boolean"
""",
    "gateway.toml",
)


def test_one_message_many_devices_times_and_labels() -> None:
    second = b'{"id":7,"t":1735689601.5,"v":[3],"n":2.0,"door":"on"}'
    payload = b'{"t":1735689600,"samples":[{"id":"a","v":[21.5,40],"n":1},%b]}' % second
    assert one(payload, EACH, "plant/h1/readings") == [
        Reading("a", {"temperature": 21.5, "humidity": 40, "n": 1, "hall": "h1"}, 1735689600000, 1),
        Reading("7", {"temperature": 3, "door": True, "n": 2.0, "hall": "h1"}, 1735689601500, 2),
    ]


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        (b'{"samples":{}}', "“samples” is no array"),
        (b"[]", "“samples” is no array"),
        (b'{"samples":[]}', "is empty"),
        (b'{"samples":[{"v":[1]}]}', "no device at “id”"),
        (b'{"samples":[{"id":"a","t":"x","v":[1]}]}', "timestamp “t” should be s"),
        (b'{"samples":[{"id":"a","v":[[1]]}]}', "“temperature” holds an array"),
        (b'{"samples":[{"id":"a","v":{"x":1}}]}', "none of the profile's fields (it holds id)"),
        (b'{"samples":[{"id":"a","door":"ajar"}]}', "“door” should be a boolean and holds 'ajar'"),
        (b'{"samples":[' + b'{"id":1,"v":[1]},' * 10_000 + b'{"id":1,"v":[1]}]}', "10000 is the most"),
    ],
)
def test_what_is_wrong_with_many_is_said(payload: bytes, said: str) -> None:
    assert said in reason(payload, EACH, "plant/h1/readings")


def test_a_field_in_the_topic_names_a_bare_value_and_stands_before_members() -> None:
    profile = parse_profile('name = "x"\ntopics = ["shed/{device}/{field}"]\n', "x.toml")
    assert one(b"21.5", profile, "shed/pump1/temperature") == [Reading("pump1", {"temperature": 21.5})]
    assert one(b'{"a":1,"b":{"c":2}}', profile, "shed/pump1/in") == [Reading("pump1", {"in.a": 1, "in.b.c": 2})]
    listed = parse_profile(
        'name = "x"\ntopics = ["shed/{device}/{field}"]\n[timestamp]\npath = "ts"\n[fields.kw]\npath = "power.now"\n'
        "scale = 0.5\n[fields.temperature]\n",
        "x.toml",
    )
    assert one(b"21.5", listed, "shed/pump1/temperature") == [Reading("pump1", {"temperature": 21.5})]
    assert one(b'{"now":3,"ts":9}', listed, "shed/pump1/power") == [Reading("pump1", {"kw": 1.5}, 9)]
    assert "holds rpm" in reason(b"3", listed, "shed/pump1/rpm")


def test_an_array_of_bare_values() -> None:
    profile = parse_profile('name = "x"\neach = "."\n', "x.toml")
    assert one(b'[1,{"a":2}]', profile) == [Reading("t", {"value": 1}), Reading("t", {"a": 2})]


@pytest.mark.parametrize(
    ("kind", "sent", "stored"),
    [
        ("number", '"1.5"', 1.5),
        ("number", "true", 1),
        ("integer", '" 7 "', 7),
        ("integer", "7.0", 7),
        ("integer", "7.5", "should be a integer"),
        ("number", '"nan"', "should be a number"),
        ("text", "7", "7"),
        ("text", "true", "true"),
        ("boolean", "0", False),
        ("boolean", '"YES"', True),
        ("boolean", "2", "should be a boolean"),
        ("number", "null", None),
    ],
)
def test_types(kind: str, sent: str, stored: object) -> None:
    profile = parse_profile(f'name = "x"\n[fields.a]\ntype = "{kind}"\n', "x.toml")
    payload = f'{{"a":{sent}}}'.encode()
    if isinstance(stored, str) and stored.startswith("should"):
        assert stored in reason(payload, profile)
    else:
        [reading] = one(payload, profile)
        assert reading.fields == {"a": stored}
        assert type(reading.fields["a"]) is type(stored)


@pytest.mark.parametrize(
    ("spec", "claim", "expected"),
    [
        (TimestampSpec(path="t", unit="us"), 1_735_689_600_123_999, 1_735_689_600_123),
        (TimestampSpec(path="t", unit="ns"), 1_735_689_600_123_999_999, 1_735_689_600_123),
        (TimestampSpec(path="t", unit="iso8601"), "2024-02-29T12:00:00,5+02:00", 1_709_200_800_500),
        (TimestampSpec(path="t", unit="iso8601", zone="Europe/Berlin"), "2024-07-01T12:00:00", 1_719_828_000_000),
        (TimestampSpec(path="t", unit="iso8601", zone="Europe/Berlin"), "2024-07-01T12:00:00Z", 1_719_835_200_000),
        # the hour that occurs twice: the first one, in summer time
        (TimestampSpec(path="t", unit="iso8601", zone="Europe/Berlin"), "2024-10-27T02:30:00", 1_729_989_000_000),
        (TimestampSpec(path="t", unit="text", format="%d.%m.%Y %H:%M:%S"), "29.02.2024 10:00:00", 1_709_200_800_000),
        (TimestampSpec(path="t", unit="text", format="%Y%m%d%H%M%S"), 20240229100000, 1_709_200_800_000),
    ],
)
def test_forms_of_time(spec: TimestampSpec, claim: object, expected: int) -> None:
    assert milliseconds(claim, spec) == expected


@pytest.mark.parametrize(
    ("spec", "claim", "said"),
    [
        (TimestampSpec(path="t", unit="s"), float("nan"), "should be s"),
        (TimestampSpec(path="t", unit="s"), 1e300, "should be s"),
        (TimestampSpec(path="t", unit="ns"), "7", "should be ns"),
        (TimestampSpec(path="t", unit="ms"), True, "should be ms"),
        (TimestampSpec(path="t", unit="iso8601"), "24-2-29", "should be iso8601"),
        (TimestampSpec(path="t", unit="text", format="%H"), "29", "should be text like “%H” and holds '29'"),
    ],
)
def test_times_that_are_none(spec: TimestampSpec, claim: object, said: str) -> None:
    with pytest.raises(Undecodable, match=said):
        milliseconds(claim, spec)


def test_date_and_time_apart() -> None:
    text = 'name = "x"\n[timestamp]\npath = "d"\ntime_path = "t"\nunit = "text"\nformat = "%d/%m/%y %H:%M"\n'
    profile = parse_profile(text + 'zone = "America/New_York"\n', "x.toml")
    assert one(b'{"d":"01/02/24","t":"07:30","a":1}', profile) == [Reading("t", {"a": 1}, 1_706_790_600_000)]


def test_scaling_invents_no_digits() -> None:
    profile = parse_profile('name = "x"\n[fields.a]\nscale = 0.1\n[fields.b]\nscale = 0.001\n', "x.toml")
    for quick in (profile, parse_profile('name = "x"\neach = "."\n[fields.a]\nscale = 0.1\n', "x.toml")):
        [reading] = one(b'[{"a":8148}]' if quick.each else b'{"a":8148,"b":4711}', quick)
        assert reading.fields["a"] == 814.8
    assert one(b'{"b":4711}', profile)[0].fields == {"b": 4.711}
