"""JSON by profile, without one, in groups, and whatever may be wrong with it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.decoders.json_messages import decode_group
from devices.profile_files import read_profiles
from devices.profile_text import parse_profile
from devices.profiles import Profile
from devices.reading import Reading, Scalar, Undecodable

[TURBINE] = read_profiles(["wind-turbine"])
TOPIC = "farm/turbine-03/telemetry"


def one(payload: bytes, profile: Profile | None = None, topic: str = "shed/pump1") -> Reading:
    [result] = decode_group(profile, [(topic, payload)])
    assert isinstance(result, list), result
    [reading] = result
    return reading


def reason(payload: bytes, profile: Profile | None = None) -> str:
    [result] = decode_group(profile, [("shed/pump1", payload)])
    assert isinstance(result, Undecodable), result
    return result.reason


def test_the_shipped_turbine_profile() -> None:
    payload = b'{"ts":1735689600123,"seq":4711,"wind_speed":7.4,"power":812.0,"firmware":"2.1","log":[1,2]}'
    reading = one(payload, TURBINE, TOPIC)
    assert reading == Reading("turbine-03", {"seq": 4711, "wind_speed": 7.4, "power": 812.0}, 1735689600123, 4711)


@pytest.mark.parametrize("payload", [b"21.5", b'"on"', b"true", b"-3"])
def test_a_bare_scalar_is_the_field_value(payload: bytes) -> None:
    reading = one(payload)
    assert reading.device == "shed/pump1"
    assert list(reading.fields) == ["value"]
    assert reading.event_ms is None


def test_nested_members_are_named_by_their_path() -> None:
    assert one(b'{"a":{"b":1,"c":{"d":2}},"e":null}').fields == {"a.b": 1, "a.c.d": 2, "e": None}


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        (b"", "empty"),
        (b"{on", "no JSON"),
        (b"[]", "empty"),
        (b'{"xyz":[]}', "empty"),
        (b"[" + b'{"a":1},' * 10_000 + b'{"a":1}]', "10001 readings in one message"),
        (b'[{"a":1},{}]', "empty"),
        (b"null", "null"),
        (b"{}", "empty"),
        (b'{"a":1} x', "no JSON"),
        (b'{"a":NaN}', "no JSON"),
        (b'{"a":1e999}', "range"),
        (b'"\xff"', "UTF-8"),
        (b"[" * 50_000, "deep"),
        (b'{"a":' * 20 + b"1" + b"}" * 20, "deeper"),
    ],
)
def test_what_is_no_reading_says_why(payload: bytes, said: str) -> None:
    assert said in reason(payload)


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        (b'{"power":[1]}', "$.power"),
        (b'{"ts":1,"firmware":2}', "none of the profile's fields"),
        (b'{"ts":"yesterday","power":1}', "timestamp “ts” should be ms"),
        (b"7", "Expected `object`"),
    ],
)
def test_what_the_profile_refuses(payload: bytes, said: str) -> None:
    assert said in reason(payload, TURBINE)


MOVED = parse_profile(
    """
name = "moved"
topics = ["m/+/{device}/#"]
natural_key = "meta.id"
[timestamp]
path = "meta.at"
unit = "iso8601"
[fields.power]
path = "electrical.power"
scale = 0.001
offset = 1.0
[fields.state]
""",
    "moved.toml",
)


def test_paths_scale_and_iso_time() -> None:
    payload = b'{"meta":{"id":"x9","at":"2024-02-29T12:00:00+02:00"},"electrical":{"power":5000},"state":"ok"}'
    reading = one(payload, MOVED, "m/site/dev-1/a/b")
    assert reading == Reading("dev-1", {"power": 6.0, "state": "ok", "id": "x9"}, 1_709_200_800_000, "x9")


def test_a_nested_time_leaves_nothing_behind() -> None:
    text = 'name = "t"\nnatural_key = "m.id"\n[timestamp]\npath = "m.at"\n[fields.x]\n'
    reading = one(b'{"m":{"at":5,"id":6},"x":1}', parse_profile(text, "t.toml"))
    assert reading == Reading("shed/pump1", {"x": 1, "id": 6}, 5, 6)


def test_a_scaled_field_must_be_a_number() -> None:
    assert "no number" in reason(b'{"electrical":{"power":"much"}}', MOVED)


@pytest.mark.parametrize(("unit", "claim", "expected"), [("s", "1.5", 1500), ("ms", "1500.4", 1500), ("s", "2", 2000)])
def test_units_of_time(unit: str, claim: str, expected: int) -> None:
    profile = parse_profile(f'name = "t"\n[timestamp]\npath = "t"\nunit = "{unit}"\n', "t.toml")
    assert one(f'{{"t":{claim},"x":1}}'.encode(), profile) == Reading("shed/pump1", {"x": 1}, expected)


def test_a_time_without_a_zone_is_utc() -> None:
    profile = parse_profile('name = "t"\n[timestamp]\npath = "t"\nunit = "iso8601"\n', "t.toml")
    assert one(b'{"t":"1970-01-01T00:00:01Z","x":1}', profile).event_ms == 1000
    assert one(b'{"t":"1970-01-01T00:00:01","x":1}', profile).event_ms == 1000


def test_the_time_itself_as_natural_key() -> None:
    [weather] = read_profiles(["recorded-weather"])
    reading = one(b'{"ts":1357020000000,"temp":39.02,"wind_dir":null}', weather, "recording/EWR/telemetry")
    assert reading == Reading("EWR", {"temp": 39.02, "wind_dir": None}, 1357020000000, 1357020000000)


def test_a_senders_bytes_never_shift_anothers() -> None:
    # two values in one payload, one value in two: as many values as messages, if nobody looks closer
    group = [
        ("a", b'{"x":1}\n{"x":2}'),
        ("b", b'{"x":{"y":1}'),
        ("c", b',"z":2}'),
        ("d", b'{"x":4}'),
    ]
    results = decode_group(None, group)
    assert [isinstance(result, list) for result in results] == [False, False, False, True]
    assert results[3] == [Reading("d", {"x": 4})]


@pytest.mark.parametrize("payload", [b'{"x":1},{"x":2}', b'{"x":1}{"x":2}', b'{"x":1}\n{"x":2}', b'{"x":1', b'"x":1}'])
def test_bad_neighbours_of_a_good_message(payload: bytes) -> None:
    for group in ([payload, b'{"g":1}'], [b'{"g":1}', payload], [payload, b'{"g":1}', payload]):
        results = decode_group(None, [("t", each) for each in group])
        assert [each == [Reading("t", {"g": 1})] for each in results] == [each == b'{"g":1}' for each in group]


def test_pretty_printed_messages_are_fine_in_a_group() -> None:
    results = decode_group(None, [("t", b'{\n "x": 1\n}\n'), ("t", b'{"x":2}')])
    assert results == [[Reading("t", {"x": 1})], [Reading("t", {"x": 2})]]


EACH = parse_profile('name = "each"\neach = "."\n[fields.a]\npath = "0.b"\ntype = "number"\n[fields.b]\n', "each.toml")

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.lists(st.binary(max_size=12) | json_values.map(lambda value: _dumps(value)), max_size=6))
def test_a_group_is_decoded_as_each_alone(payloads: list[bytes]) -> None:
    for profile in (None, TURBINE, MOVED, EACH):
        together = decode_group(profile, [("t", payload) for payload in payloads])
        alone = [decode_group(profile, [("t", payload)])[0] for payload in payloads]
        assert [_shown(each) for each in together] == [_shown(each) for each in alone]


def _dumps(value: Any) -> bytes:
    import json

    return json.dumps(value).encode("utf-8", "surrogatepass")


def _shown(result: list[Reading] | Undecodable) -> str:
    return result.reason if isinstance(result, Undecodable) else repr(result)


@pytest.mark.parametrize(
    ("payload", "value"),
    [(b"Offline", "Offline"), (b"ON\n", "ON"), ("größer".encode(), "größer"), (b"+21.5", 21.5), (b"a b", "a b")],
)  # fmt: skip
def test_without_a_profile_a_short_text_needs_no_quotes(payload: bytes, value: Scalar) -> None:
    [first, result, last] = decode_group(None, [("t", b'{"a":1}'), ("dev/lwt", payload), ("t", b'{"a":2}')])
    assert result == [Reading("dev/lwt", {"value": value})]
    assert isinstance(first, list)
    assert isinstance(last, list)
    profile = parse_profile('name = "x"\n[fields.value]\n', "x.toml")
    assert isinstance(decode_group(profile, [("t", payload)])[0], Undecodable)


@pytest.mark.parametrize(
    "payload", [b"nan", b"NaN", b"-inf", b"Infinity", b"1,5", b"1e999", b"1e99999", b"-1.#QNAN", b"1.234,5"]
)
def test_a_broken_bare_number_is_refused_and_no_text(payload: bytes) -> None:
    said = reason(payload)
    assert said.startswith(f"“{payload.decode()}” is no number")
    assert ("decimal" in said) == (b"," in payload)


@pytest.mark.parametrize("payload", [b"", b" ", b'{"a":', b"[1", b'"on', b"\xffOffline", b"a\nb", b"a\0", b"x" * 257])
def test_what_only_broke_is_no_text(payload: bytes) -> None:
    [result] = decode_group(None, [("t", payload)])
    assert isinstance(result, Undecodable)


def test_what_a_broker_says_of_itself_needs_a_profile_that_names_the_device() -> None:
    """docs/mqtt-client.md; without one the device would be `$SYS/…`, which is refused."""
    text = 'name = "hall"\ntopics = ["$SYS/broker/load/{field}/1min"]\ndevice = "hall-broker"\n'
    topic = "$SYS/broker/load/sockets/1min"
    assert one(b"12.5", parse_profile(text, "h.toml"), topic) == Reading("hall-broker", {"sockets": 12.5})


@pytest.mark.parametrize(
    ("payload", "whose", "number"),
    [
        (b'{"a": 1, "t\\"1": "9e999", "b": {"deep": -1e999}, "c": 2e999}', "field “deep”", "-1e999"),
        (b'{"1e999": 1, "x":[0, 3.5E+400]}', "the message", "3.5E+400"),
    ],
)
@pytest.mark.parametrize("profile", [None, Profile(name="p")])
def test_a_number_that_no_double_can_be_is_named(
    payload: bytes, whose: str, number: str, profile: Profile | None
) -> None:
    (result,) = decode_group(profile, [("t", payload)])
    assert isinstance(result, Undecodable)
    assert result.reason == f"{whose} holds {number}, which is out of range for a number"
