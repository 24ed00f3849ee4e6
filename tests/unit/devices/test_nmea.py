"""NMEA 0183: sentences printed in manufacturers' manuals, our own mast's, and everything that may be wrong."""

from __future__ import annotations

from functools import reduce

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.decoders.nmea import decode_group
from devices.decoders.registry import decoder_for
from devices.profile_files import read_profiles
from devices.profile_text import parse_profile
from devices.profiles import Profile
from devices.reading import Reading, Undecodable
from simulators.mast import MastSignal

[MET_MAST] = read_profiles(["met-mast"])
EVERYTHING = Profile(name="any", format="nmea0183")


def sealed(body: str) -> bytes:
    return f"${body}*{reduce(lambda sum_, char: sum_ ^ ord(char), body, 0):02X}".encode()


def one(sentence: bytes, profile: Profile | None = EVERYTHING) -> list[Reading] | Undecodable:
    [result] = decode_group(profile, [("port-1", sentence)])
    return result


def fields(sentence: bytes, profile: Profile | None = EVERYTHING) -> dict[str, object]:
    result = one(sentence, profile)
    assert isinstance(result, list), result
    [reading] = result
    return dict(reading.fields)


def reason(sentence: bytes, profile: Profile | None = EVERYTHING) -> str:
    result = one(sentence, profile)
    assert isinstance(result, Undecodable), result
    assert result.decoder == "nmea0183"
    return result.reason


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        # Vaisala WMT700 user's guide, NMEA MWV data message: relative wind 045 degrees, 11.63 knots
        (b"$WIMWV,045,R,011.63,N,A*09", {"MWV.R.angle": 45.0, "MWV.R.speed": 11.63 * 1852 / 3600}),
        # km/h
        (b"$WIMWV,214.8,R,0.1,K,A*28", {"MWV.R.angle": 214.8, "MWV.R.speed": 0.027778}),
        # OpenCPN's documentation of XDR: a thermometer, a barometer in bar; a compass's attitude
        (b"$IIXDR,C,19.52,C,TempAir*19", {"XDR.TempAir": 19.52}),
        (b"$IIXDR,P,1.02481,B,Barometer*29", {"XDR.Barometer": 1024.81}),
        (
            b"$HCXDR,A,171,D,PITCH,A,-37,D,ROLL,G,367,,MAGX,G,2420,,MAGY,G,-8984,,MAGZ*41",
            {"XDR.PITCH": 171.0, "XDR.ROLL": -37.0, "XDR.MAGX": 367.0, "XDR.MAGY": 2420.0, "XDR.MAGZ": -8984.0},
        ),
        # a weather station that names no transducer and has a comma too many: it goes by its type
        (b"$WIXDR,C,022.0,C,,*52", {"XDR.C": 22.0}),
    ],
)
def test_sentences_from_manuals(sentence: bytes, expected: dict[str, float]) -> None:
    assert fields(sentence) == pytest.approx(expected, abs=2e-6)


def test_a_masts_sentences_become_the_profiles_fields() -> None:
    signal = MastSignal(seed=4)
    sentences = [signal.next(step * 200.0).strip() for step in range(5)]
    results = decode_group(MET_MAST, [("ttyUSB0", sentence) for sentence in sentences])
    readings = [reading for result in results if isinstance(result, list) for reading in result]
    assert {reading.device for reading in readings} == {"mast"}
    assert [sorted(reading.fields) for reading in readings] == [
        *[["wind_direction", "wind_speed"]] * 4,
        ["air_pressure", "air_temperature"],
    ]
    assert 900 < float(readings[-1].fields["air_pressure"] or 0) < 1100


def test_the_examples_in_the_profile_are_right() -> None:
    assert fields(b"$WIMWV,231.5,T,7.41,M,A*11", MET_MAST) == {"wind_direction": 231.5, "wind_speed": 7.41}
    assert fields(b"$WIXDR,C,11.32,C,AIRTEMP,P,1.01338,B,AIRPRES*53", MET_MAST) == {
        "air_temperature": 11.32,
        "air_pressure": 1013.38,
    }


def test_a_profile_takes_one_reference_and_scales() -> None:
    text = """
name = "true-wind"
format = "nmea0183"
[fields.speed_knots]
path = "MWV.T.speed"
scale = 2.0
"""
    profile = parse_profile(text, "true-wind.toml")
    assert fields(sealed("WIMWV,10,T,5,M,A"), profile) == {"speed_knots": 10.0}
    assert "MWV.R.angle, MWV.R.speed" in reason(sealed("WIMWV,10,R,5,M,A"), profile)


def test_the_device_is_the_profiles_or_the_port() -> None:
    for profile, device in ((MET_MAST, "mast"), (EVERYTHING, "port-1"), (None, "port-1")):
        result = one(sealed("WIMWV,10,R,5,M,A"), profile)
        assert isinstance(result, list)
        assert result[0].device == device


def test_an_empty_value_is_left_out_and_360_degrees_are_0() -> None:
    assert fields(sealed("WIMWV,360,R,,,A")) == {"MWV.R.angle": 0.0}
    assert fields(sealed("WIXDR,C,,C,A,H,55,P,B")) == {"XDR.B": 55.0}


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        (b"", "begins with $"),
        (b"WIMWV,10,R,5,M,A", "begins with $"),
        (b"$WIMWV,10,R,5,M,A", "no checksum"),
        (b"$WIMWV,10,R,5,M,A*", "two hexadecimal digits"),
        (b"$WIMWV,10,R,5,M,A*1", "two hexadecimal digits"),
        (b"$WIMWV,10,R,5,M,A*+1", "two hexadecimal digits"),
        (b"$WIMWV,10,R,5,M,A*00", "the checksum is "),
        (b"$WIMWV,045,R,011.64,N,A*09", "the checksum is 0E, the sentence says 09"),
        (sealed("WIMWV,10,R,5,M"), "5 fields, not 4"),
        (sealed("WIMWV,10,R,5,M,V"), "not valid (status V)"),
        (sealed("WIMWV,,R,,,A"), "holds no value"),
        (sealed("WIMWV,10,X,5,M,A"), "neither R nor T"),
        (sealed("WIMWV,10,R,5,Q,A"), "none of K, M, N"),
        (sealed("WIMWV,361,R,5,M,A"), "between 0 and 360"),
        (sealed("WIMWV,10,R,-5,M,A"), "negative"),
        (sealed("WIMWV,nan,R,5,M,A"), "no number"),
        (sealed("WIMWV,1e1,R,5,M,A"), "no number"),
        (sealed("WIXDR,C,1"), "in fours"),
        (sealed("WIXDR,P,1,X,"), "neither B nor P"),
        (sealed("WIXDR,C,,C,"), "holds no value"),
        (sealed("GPGSV,3,1,11"), "kind GSV are not known"),
        (sealed("MWV"), "no talker and formatter"),
    ],
)
def test_what_is_wrong_is_said(sentence: bytes, expected: str) -> None:
    assert expected in reason(sentence)


def test_one_bad_sentence_spoils_no_other() -> None:
    good = sealed("WIMWV,10,R,5,M,A")
    results = decode_group(EVERYTHING, [("p", good), ("p", b"junk"), ("p", good)])
    assert [type(result) for result in results] == [list, Undecodable, list]


def test_a_missing_checksum_may_be_allowed_but_a_wrong_one_never() -> None:
    lenient = Profile(name="old", format="nmea0183", options={"checksum": "optional"})
    assert fields(b"$WIMWV,10,R,5,M,A", lenient) == {"MWV.R.angle": 10.0, "MWV.R.speed": 5.0}
    assert "checksum" in reason(b"$WIMWV,10,R,5,M,A*00", lenient)


def test_the_registry_knows_the_format() -> None:
    assert decoder_for("nmea0183") is decode_group


@given(st.binary(max_size=100) | st.text(max_size=80).map(lambda body: b"$" + body.encode() + b"*00"))
def test_hostile_bytes_raise_nothing(noise: bytes) -> None:
    for sentence in (noise, b"$" + noise):
        assert isinstance(one(sentence, MET_MAST), list | Undecodable)


@given(st.lists(st.sampled_from(["WIMWV", "WIXDR", "C", "P", "R", "T", "A", "V", "", "1", "-1", "9" * 400, "é", "B"])))
def test_hostile_fields_under_a_right_checksum_raise_nothing(parts: list[str]) -> None:
    body = ",".join(parts).encode()
    checksum = reduce(lambda sum_, byte: sum_ ^ byte, body, 0)
    for profile in (MET_MAST, EVERYTHING):
        assert isinstance(one(b"$%s*%02X" % (body, checksum), profile), list | Undecodable)
