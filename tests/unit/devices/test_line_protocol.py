"""InfluxDB line protocol: the examples of its reference, lines written by influxdb-client, and what may be wrong."""

from __future__ import annotations

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from devices.decoders.registry import decoder_for
from devices.profile_text import parse_profile
from devices.profiles import Profile
from devices.reading import Reading, Undecodable

decode_group = decoder_for("line-protocol")
PLAIN = Profile(name="plain", format="line-protocol")


def one(payload: bytes, profile: Profile = PLAIN) -> list[Reading]:
    [result] = decode_group(profile, [("t", payload)])
    assert isinstance(result, list), result
    return result


def reason(payload: bytes, profile: Profile = PLAIN) -> str:
    [result] = decode_group(profile, [("t", payload)])
    assert isinstance(result, Undecodable), result
    assert result.decoder == "line-protocol"
    return result.reason


T = 1465839830100
T_2019 = 1556813561098


@pytest.mark.parametrize(
    ("line", "fields", "event_ms"),
    [
        # the reference's sections “Line protocol syntax”, “Data types and format”, “Quotes”, “Special characters”
        (
            b'myMeasurement,tag1=value1,tag2=value2 fieldKey="fieldValue" 1556813561098000000',
            {"fieldKey": "fieldValue", "tag1": "value1", "tag2": "value2"},
            T_2019,
        ),
        (b"weather temperature=82 1465839830100400200", {"temperature": 82.0}, T),
        (b"weather,location=us-midwest temperature=82", {"temperature": 82.0, "location": "us-midwest"}, None),
        (b"myMeasurement fieldKey=-1.234456e+78", {"fieldKey": -1.234456e78}, None),
        (b"myMeasurement fieldKey=12485903i", {"fieldKey": 12485903}, None),
        (b"myMeasurement fieldKey=-12485903i", {"fieldKey": -12485903}, None),
        (b"myMeasurement fieldKey=12485903u", {"fieldKey": 12485903}, None),
        (b'myMeasurement fieldKey="this is a string"', {"fieldKey": "this is a string"}, None),
        (b'myMeasurement fieldKey="Launch \xf0\x9f\x9a\x80" 1556813561098000000', {"fieldKey": "Launch 🚀"}, T_2019),
        (b"myMeasurement a=true,b=F,c=t,d=FALSE", {"a": True, "b": False, "c": True, "d": False}, None),
        (b'weather,loc=us-midwest temperature="too warm"', {"temperature": "too warm", "loc": "us-midwest"}, None),
        (b'"weather" "temperature"=82', {'"temperature"': 82.0}, None),
        (b'weather temperature="too\\"hot\\""', {"temperature": 'too"hot"'}, None),
        (b"wea\\,ther,location=us-midwest temperature=82", {"temperature": 82.0, "location": "us-midwest"}, None),
        (b"my\\ Measurement,tag\\ Key1=tag\\ Value1 a=1i", {"a": 1, "tag Key1": "tag Value1"}, None),
        (b"weather temp\\=rature=82", {"temp=rature": 82.0}, None),
        (b"weather,location\\ place=us-midwest t=8", {"t": 8.0, "location place": "us-midwest"}, None),
        # in a text only the quote and the backslash are escaped; a line break is a part of it
        (b'm a="\\\\",b="\\\\\\""', {"a": "\\", "b": '\\"'}, None),
        (b'm a="\\n",b=1', {"a": "\\n", "b": 1.0}, None),
        (b'm a="two\nlines",b=1', {"a": "two\nlines", "b": 1.0}, None),
    ],
)  # fmt: skip
def test_the_examples_of_the_reference(line: bytes, fields: dict[str, object], event_ms: int | None) -> None:
    [reading] = one(line)
    assert reading == Reading("t", fields, event_ms)  # type: ignore[arg-type]
    assert {name: type(value) for name, value in reading.fields.items()} == {k: type(v) for k, v in fields.items()}


# written by influxdb-client 1.50 (Point.to_line_protocol)
FOREIGN = [
    (
        b'weather,location=us-midwest humidity=0.5,note="too \\"hot\\" \\\\ dry",ok=true,temperature=82i '
        b"1465839830100400200",
        {"humidity": 0.5, "note": 'too "hot" \\ dry', "ok": True, "temperature": 82, "location": "us-midwest"},
    ),
    (
        b'wea\\ ther\\,x=y,loc\\ ation=us\\,\\ mid\\=west s="a b,c=d",te\\ mp\\,\\==-1.5e-09 1465839830100',
        {"s": "a b,c=d", "te mp,=": -1.5e-9, "loc ation": "us, mid=west"},
    ),
]


@pytest.mark.parametrize(("line", "fields"), FOREIGN)
def test_lines_of_influxdb_client(line: bytes, fields: dict[str, object]) -> None:
    [reading] = one(line)
    assert reading.fields == fields


@pytest.mark.parametrize(("precision", "stamp"), [("ns", T * 10**6), ("us", T * 1000), ("ms", T), ("s", T // 1000)])
def test_precisions(precision: str, stamp: int) -> None:
    profile = parse_profile(f'name = "x"\nformat = "line-protocol"\n[options]\nprecision = "{precision}"\n', "x.toml")
    [reading] = one(b"m a=1 %d" % stamp, profile)
    assert reading.event_ms == (T if precision != "s" else T // 1000 * 1000)


def test_lines_comments_and_blanks() -> None:
    payload = b'# a comment, with = in it\r\nm a=1 1000000\r\n\r\n  m a="x\ny",b=2i  2000000  \n   \nm a=3'
    assert one(payload) == [
        Reading("t", {"a": 1.0}, 1),
        Reading("t", {"a": "x\ny", "b": 2}, 2),
        Reading("t", {"a": 3.0}, None),
    ]


PROFILE = parse_profile(
    """
name = "telegraf"
format = "line-protocol"
[options]
device_tag = "host"
[fields.idle]
path = "cpu.usage_idle"
unit = "%"
[fields.used]
path = "mem.used"
scale = 0.001
[fields.cpu]
""",
    "telegraf.toml",
)


def test_a_profile_tells_measurements_apart_and_takes_the_device_from_a_tag() -> None:
    payload = b"cpu,cpu=cpu0,host=pi-7 usage_idle=97.5 1000000\nmem,host=pi-8 used=2000i\n"
    assert one(payload, PROFILE) == [Reading("pi-7", {"idle": 97.5, "cpu": "cpu0"}, 1), Reading("pi-8", {"used": 2.0})]
    assert "line 1: no tag “host”" in reason(b"cpu usage_idle=1", PROFILE)
    assert "line 1: the message holds none of the profile's fields (it holds disk.x, x" in reason(
        b"disk,host=a x=1", PROFILE
    )


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        (b"", "the message is empty"),
        (b"# only\n", "the message is empty"),
        (b"weather", "line 1: no fields"),
        (b"weather\nm a=1", "line 1: no fields"),
        (b"weather,a temperature=1", "line 1: a tag is key=value"),
        (b"weather,a= temperature=1", "line 1: tag “a” has no value"),
        (b"m a=1\nweather temperature", "line 2: a field is key=value"),
        (b"m a=", "field “a”"),
        (b"m a=too warm", "“too” is no number, boolean or text in quotes"),
        (b"m a='x'", "is no number, boolean or text"),
        (b'm a="x', "the text of field “a” has no end"),
        (b'm a="x"y', "“y” after a field's value"),
        (b"m a=1 yesterday", "“yesterday” is no timestamp"),
        (b"m a=1 1 2", "“1 2” is no timestamp"),
        (b"m a=9223372036854775808i", "does not fit 64 bits"),
        (b"m a=-1u", "does not fit 64 bits"),
        (b"m a=1e999", "too large"),
        (b"m a=NaN", "“NaN” is no number"),
        (b"m a=1,", "a field is key=value"),
        (b'm a="1\n2"\n\nm a=x', "line 4: "),
        (b",a=1 b=2", "line 1: no measurement"),
        (b",a=1 b=2 5", "line 1: no measurement"),
        (b"m a=\xff", "byte 4 is not UTF-8"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_line(payload: bytes, said: str) -> None:
    assert said in reason(payload)


def test_a_line_of_blanks_takes_no_longer_than_its_length() -> None:
    started = time.process_time()
    assert one(b" " * 500_000 + b"m a=1") == [Reading("t", {"a": 1.0})]
    assert time.process_time() - started < 1


words = st.sampled_from(
    ["m", "a", "b=1", "c=2i", "t=x", "=", ",", " ", "\t", "\r", "1", "-5", "T", "1e999", "9" * 25, "é", "#"]
)


@given(st.lists(words, max_size=12).map("".join))
@example("m,m=")
@example("m b=1\r,")
@example("m b=1\r 5")
@example(", a=m")
@example(",t=x a=m")
def test_the_quick_way_is_the_long_way(line: str) -> None:
    # an escape in another line sends all of them the long way
    quick, long = (decode_group(PLAIN, [("t", (line + more).encode())])[0] for more in ("", "\n# \\"))
    assert str(quick) == str(long)


@given(st.lists(st.binary(max_size=30) | st.text('m ,=\\"\n#1i', max_size=30).map(str.encode), max_size=4))
def test_hostile_bytes_raise_nothing_and_spoil_no_neighbour(noise: list[bytes]) -> None:
    results = decode_group(PLAIN, [*(("t", each) for each in noise), ("g", b"m a=1")])
    assert [isinstance(result, list | Undecodable) for result in results] == [True] * (len(noise) + 1)
    assert results[-1] == [Reading("g", {"a": 1.0})]
