"""CBOR: the examples of RFC 8949, appendices A and F, objects written by cbor2, and bytes of a stranger."""

from __future__ import annotations

import math
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.cbor import CborError, loads
from devices.decoders.registry import decoder_for
from devices.profile_text import parse_profile
from devices.profiles import Profile
from devices.reading import Reading, Scalar, Undecodable

decode_group = decoder_for("cbor")
PLAIN = Profile(name="plain", format="cbor")

# RFC 8949, appendix A: (value, bytes)
APPENDIX_A: list[tuple[Any, str]] = [
    (0, "00"), (1, "01"), (10, "0a"), (23, "17"), (24, "1818"), (25, "1819"), (100, "1864"), (1000, "1903e8"),
    (1000000, "1a000f4240"), (1000000000000, "1b000000e8d4a51000"), (18446744073709551615, "1bffffffffffffffff"),
    (18446744073709551616, "c249010000000000000000"), (-18446744073709551616, "3bffffffffffffffff"),
    (-18446744073709551617, "c349010000000000000000"), (-1, "20"), (-10, "29"), (-100, "3863"), (-1000, "3903e7"),
    (0.0, "f90000"), (-0.0, "f98000"), (1.0, "f93c00"), (1.1, "fb3ff199999999999a"), (1.5, "f93e00"),
    (65504.0, "f97bff"), (100000.0, "fa47c35000"), (3.4028234663852886e38, "fa7f7fffff"),
    (1.0e300, "fb7e37e43c8800759c"), (5.960464477539063e-8, "f90001"), (0.00006103515625, "f90400"), (-4.0, "f9c400"),
    (-4.1, "fbc010666666666666"), (math.inf, "f97c00"), (-math.inf, "f9fc00"), (math.inf, "fa7f800000"),
    (False, "f4"), (True, "f5"), (None, "f6"), (None, "f7"),
    ("2013-03-21T20:04:00Z", "c074323031332d30332d32315432303a30343a30305a"), (1363896240, "c11a514b67b0"),
    (1363896240.5, "c1fb41d452d9ec200000"), (b"\1\2\3\4", "d74401020304"), (b"dIETF", "d818456449455446"),
    ("http://www.example.com", "d82076687474703a2f2f7777772e6578616d706c652e636f6d"), (b"", "40"),
    (b"\1\2\3\4", "4401020304"), ("", "60"), ("a", "6161"), ("IETF", "6449455446"), ('"\\', "62225c"),
    ("\u00fc", "62c3bc"), ("\u6c34", "63e6b0b4"), ("\U00010151", "64f0908591"), ([], "80"), ([1, 2, 3], "83010203"),
    ([1, [2, 3], [4, 5]], "8301820203820405"),
    (list(range(1, 26)), "98190102030405060708090a0b0c0d0e0f101112131415161718181819"), ({}, "a0"),
    ({1: 2, 3: 4}, "a201020304"), ({"a": 1, "b": [2, 3]}, "a26161016162820203"),
    (["a", {"b": "c"}], "826161a161626163"),
    ({"a": "A", "b": "B", "c": "C", "d": "D", "e": "E"}, "a56161614161626142616361436164614461656145"),
    (b"\1\2\3\4\5", "5f42010243030405ff"), ("streaming", "7f657374726561646d696e67ff"), ([], "9fff"),
    ([1, [2, 3], [4, 5]], "9f018202039f0405ffff"), ([1, [2, 3], [4, 5]], "9f01820203820405ff"),
    ([1, [2, 3], [4, 5]], "83018202039f0405ff"), ([1, [2, 3], [4, 5]], "83019f0203ff820405"),
    ({"a": 1, "b": [2, 3]}, "bf61610161629f0203ffff"), (["a", {"b": "c"}], "826161bf61626163ff"),
    ({"Fun": True, "Amt": -2}, "bf6346756ef563416d7421ff"),
    # section 3.4.4: 273.15 as a decimal fraction, 1.5 as a big float
    (273.15, "c48221196ab3"), (1.5, "c5822003"),
]  # fmt: skip


@pytest.mark.parametrize(("value", "data"), APPENDIX_A)
def test_the_examples_of_rfc_8949(value: object, data: str) -> None:
    got = loads(bytes.fromhex(data))
    assert (got, type(got)) == (value, type(value))
    assert repr(got) == repr(value)  # -0.0 and order of members


@pytest.mark.parametrize("data", ["f97e00", "fa7fc00000", "fb7ff8000000000000"])
def test_not_a_number(data: str) -> None:
    assert math.isnan(loads(bytes.fromhex(data)))


# RFC 8949, appendix F: not well-formed
END_OF_INPUT = (
    "18 19 1a 1b 1901 1a0102 1b01020304050607 38 58 78 98 9a01ff00 b8 d8 f8 f900 fa0000 fb000000 41 61 5affffffff00 "
    "5bffffffffffffffff010203 7affffffff00 7b7fffffffffffffff010203 81 818181818181818181 8200 a1 a20102 a100 a2000000 "
    "c0 5f4100 7f6100 9f 9f0102 bf bf01020102 819f 9f8000 9f9f9f9f9fffffffff 9f819f819f9fffffff"
)
ILL_FORMED = (
    "1c 1d 1e 3c 5d 7e 9c bd de fc fd fe f800 f801 f818 f81f 5f00ff 5f21ff 5f6100ff 5f80ff 5fa0ff 5fc000ff 5fe0ff "
    "7f4100ff 5f5f4100ffff 7f7f6100ffff ff 81ff 8200ff a1ff a1ff00 a100ff a20000ff 9f81ff 9f829f819f9fffffffff bf00ff "
    "bf000000ff 1f 3f df 61ff c0ff"
)


@pytest.mark.parametrize("data", (END_OF_INPUT + " " + ILL_FORMED).split())
def test_what_appendix_f_calls_not_well_formed(data: str) -> None:
    with pytest.raises(CborError) as caught:
        loads(bytes.fromhex(data))
    if data in END_OF_INPUT.split() and data not in ("a2000000", "bf01020102"):  # a key twice is noticed before
        assert "ends in the middle" in str(caught.value)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("0000", "bytes after the value: 1"),
        ("81" * 17 + "00", "nested deeper than 16"),
        ("9f" * 17 + "ff" * 17, "nested deeper than 16"),
        ("c1" * 17 + "00", "nested deeper than 16"),
        ("a1810000", "nested deeper"),
        ("a1410000", "byte 1: a map's key that is neither"),
        ("a1f500", "byte 1: a map's key that is neither"),
        ("a11b000000010000000000", "byte 1: a map's key that is neither"),
        ("a2616100616101", "byte 4: key 'a' twice"),
        ("c2" + "5841" + "00" * 65, "more than 64 bytes"),
        ("c201", "a big number"),
        ("c48201f5", "a fraction is an array"),
        ("c4821903e801", "too large"),
        ("c5821b7fffffffffffffff03", "too large"),
        ("61ff", "byte 1: a text that is not UTF-8"),
    ],
)
def test_what_a_stranger_may_send(data: str, said: str) -> None:
    with pytest.raises(CborError, match=said):
        loads(bytes.fromhex(data))


def test_time_is_linear_in_the_bytes() -> None:
    keys = b"".join(b"\x1b" + ((2**61 - 1) * n).to_bytes(8, "big") + b"\x00" for n in range(1, 8))
    with pytest.raises(CborError, match="32 bits"):
        loads(b"\xa7" + keys)
    started = time.process_time()
    with pytest.raises(CborError):
        loads(b"\x9f" + b"\x9b\x00\x00\x00\x00\x7f\xff\xff\xff" * 10_000)
    assert time.process_time() - started < 1


# written by cbor2 6.3:
# {"ts": 1735689600123, "wind_speed": 7.4, "n": -3, "ok": True, "in": {"1": 2}, 5: "x", "bad": math.nan}
FOREIGN = bytes.fromhex(
    "a76274731b000001941f297c7b6a77696e645f7370656564fb401d99999999999a616e22626f6bf562696ea161310205617863626164f97e00"
)


def one(payload: bytes, profile: Profile = PLAIN, topic: str = "t") -> list[Reading]:
    [result] = decode_group(profile, [(topic, payload)])
    assert isinstance(result, list), result
    return result


def test_an_objects_members_are_fields() -> None:
    fields: dict[str, Scalar] = {
        "ts": 1735689600123,
        "wind_speed": 7.4,
        "n": -3,
        "ok": True,
        "5": "x",
        "bad": None,
        "in.1": 2,
    }
    assert one(FOREIGN) == [Reading("t", fields)]


def test_a_profile_picks_and_scales() -> None:
    text = """
name = "c"
format = "cbor"
topics = ["c/{device}"]
natural_key = "n"
[timestamp]
path = "ts"
[fields.speed]
path = "wind_speed"
scale = 2.0
[fields.five]
path = "5"
"""
    fields: dict[str, Scalar] = {"speed": 14.8, "five": "x", "n": -3}
    assert one(FOREIGN, parse_profile(text, "c.toml"), "c/d1") == [Reading("d1", fields, 1735689600123, -3)]


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        (b"", "the message is empty"),
        (b"\xf6", "the message is null"),
        (b"\x80", "holds no value"),
        (b"\xa1aaA\x00", "field “a” holds bytes"),
        (b"\xa1aa\xc2\x49" + b"\x01" * 9, "“a” holds a number that does not fit 64 bits"),
        (b"\xa2a1\x00\x01\x00", "key '1' stands in a map both as a number and as a text"),
        (b"\xa0", "holds no value"),
        (b"\xa1aa", "no CBOR: it ends in the middle"),
    ],
)
def test_what_is_no_reading_says_why(payload: bytes, said: str) -> None:
    [result] = decode_group(PLAIN, [("t", payload)])
    assert isinstance(result, Undecodable)
    assert said in result.reason
    assert result.decoder == "cbor"


@given(st.binary(max_size=60))
def test_hostile_bytes_raise_only_our_error(noise: bytes) -> None:
    for data in (noise, b"\xbf" + noise, b"\x9f" + noise + b"\xff"):
        results = decode_group(PLAIN, [("t", data), ("t", b"\x01")])
        assert isinstance(results[0], list | Undecodable)
        assert results[1] == [Reading("t", {"value": 1})]
