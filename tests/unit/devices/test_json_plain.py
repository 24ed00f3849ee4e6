"""The fast way gives what the general way gives, or gives up."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.decoders.json_messages import decode_group
from devices.decoders.json_plain import plain_json
from devices.decoders.registry import plain_decoder_for
from devices.profile_files import read_profiles
from devices.profile_text import parse_profile
from devices.profiles import Profile

[TURBINE] = read_profiles(["wind-turbine"])
[WEATHER] = read_profiles(["recorded-weather"])
UNLISTED_KEY = parse_profile('name = "k"\nnatural_key = "id"\n[fields.power]\n[fields.b]\n', "k.toml")
FREE_KEY = parse_profile('name = "f"\nnatural_key = "seq"\n[timestamp]\npath = "ts"\n', "f.toml")
PROFILES = (None, TURBINE, WEATHER, UNLISTED_KEY, FREE_KEY)

scalars = st.none() | st.booleans() | st.integers(-(2**64), 2**65) | st.floats() | st.text(max_size=4)
values = scalars | st.lists(scalars, max_size=2) | st.dictionaries(st.text(max_size=2), scalars, max_size=2)
names = st.sampled_from(["ts", "seq", "id", "power", "wind_speed", "b", "{", "ü", ""])
objects = st.dictionaries(names, scalars, max_size=5) | st.dictionaries(names, values, max_size=3)
usual = st.builds(
    lambda ts, seq, power: {"power": power, "ts": ts, "id": seq, "seq": seq},
    st.integers(0, 2**50),
    st.integers(-(2**63), 2**63),
    st.floats(allow_nan=False, allow_infinity=False),
)
payloads = st.lists((usual | objects).map(lambda value: json.dumps(value).encode()) | st.binary(max_size=6), min_size=1)


def both(profile: Profile | None, group: list[bytes]) -> tuple[list[object], list[object]] | None:
    """What either way would store of a group; None when the fast way gives it back."""
    decoder = plain_json(profile)
    assert decoder is not None
    plain = decoder.decode(group)
    if plain is None:
        return None
    values = msgspec.json.Encoder().encode_lines(plain.fields).split(b"\n")[:-1]
    if b"{}" in values:
        return None
    empty = [None] * len(group)
    fast = list(zip(values, plain.claims or empty, plain.naturals or empty, strict=True))
    general: list[object] = []
    for result in decode_group(profile, [("t", payload) for payload in group]):
        assert isinstance(result, list), result
        [reading] = result
        natural = reading.natural_key if plain.naturals is not None else None
        general.append((msgspec.json.encode(reading.fields), reading.event_ms, natural))
        assert reading.device == decoder.device("t")
    return list(fast), general


@given(st.sampled_from(PROFILES), payloads)
def test_the_fast_way_stores_the_same_bytes(profile: Profile | None, group: list[bytes]) -> None:
    found = both(profile, group)
    if found is not None:
        assert found[0] == found[1]


@pytest.mark.parametrize("profile", PROFILES)
def test_the_usual_messages_go_the_fast_way(profile: Profile | None) -> None:
    group = [b'{"power":%d.5,"seq":%d,"ts":%d,"id":%d}' % (n, n, 1_700_000_000_000 + n, n) for n in range(20)]
    if profile is WEATHER:
        group = [message.replace(b"power", b"temp") for message in group]
    found = both(profile, group)
    assert found is not None
    assert found[0] == found[1]


@pytest.mark.parametrize(
    "message",
    [
        b'{"ts":1,"seq":2.5,"power":1}',
        b'{"ts":1.5,"seq":2,"power":1}',
        b'{"seq":2,"power":1}',
        b'{"ts":1,"power":1}',
        b'{"ts":1,"seq":2,"power":[1]}',
        b'{"ts":1,"seq":4611686018427387904,"power":1}',
        b'{"ts":1,"seq":2} {"ts":1,"seq":3}',
        b"",
    ],
)
def test_any_other_message_gives_its_group_back(message: bytes) -> None:
    decoder = plain_json(TURBINE)
    assert decoder is not None
    good = b'{"ts":1,"seq":2,"power":1}'
    assert decoder.decode([good, good]) is not None
    assert decoder.decode([good, message]) is None


@pytest.mark.parametrize(
    "text",
    ["[fields.x]\nscale = 2", '[fields.x]\npath = "a.b"', 'each = "."', '[timestamp]\npath = "t"\nunit = "s"'],
)
def test_profiles_whose_messages_are_never_plain(text: str) -> None:
    assert plain_decoder_for(parse_profile(f'name = "p"\n{text}\n', "p.toml")) is None


def test_the_topic_names_the_device() -> None:
    decoder = plain_json(TURBINE)
    assert decoder is not None
    assert decoder.device("farm/turbine-03/telemetry") == "turbine-03"
    named = plain_json(parse_profile('name = "p"\ndevice = "mast"\n', "p.toml"))
    assert named is not None
    assert named.device("ttyUSB0") == "mast"
