"""A group of messages that is decoded at once is what its messages are one by one: readings, rejects and reasons."""

from __future__ import annotations

from struct import pack
from typing import Any

import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from devices.decoders.registry import decoder_for
from devices.profile_text import parse_profile
from devices.profiles import Profile
from headwater.errors import UserError

TIMED = '[timestamp]\npath = "ts"\n'
LISTED = '[fields.a]\n[fields.b]\npath = "c"\n'
SCALED = '[fields.a]\nscale = 0.1\n[fields.b]\ntype = "integer"\n'
HEADS = ["", 'natural_key = "seq"\n', 'natural_key = "ts"\n', 'device_path = "b"\n', 'device = "d"\n']
HEADS += ['topics = ["x/{device}/{site}"]\n', 'topics = ["x/{device}/{field}"]\n']
BODIES = ["", TIMED, LISTED, TIMED + LISTED, SCALED, TIMED + SCALED]
OPTIONS = {
    "csv": ['columns = ["ts", "seq", "a", "b"]', 'columns = ["a"]', 'columns = ["ts", "a", "c"]\nnull = ["-999", "x"]'],
    "line-protocol": ["", "tags = true", 'device_tag = "b"', "prefix_measurement = true", 'precision = "s"'],
    "cbor": [""],
}
WORDS = ["1", "-7", "0", "-0", "-0.0", "1.5", "007", "+1", ".5", "5.", "1e5", "1e00001", "1e999", "nan", "inf", "1,5"]
WORDS += ["", " 2 ", "on", "true", "t", "-999", "x", "12345678901234567", "123456789012345678", "18446744073709551616"]
WORDS += [
    "1i",
    "2u",
    "-1u",
    "99999999999999999999i",
    '"text"',
    "a b",
    "\u00e9",
    "\x00",
    "null",
    "1735689600123",
    "[1",
    "2]",
]
TOPICS = ["x/y/z", "x/y2/z", "other"]
words = st.one_of(st.sampled_from(WORDS), st.integers(-(10**9), 10**9).map(str), st.floats(allow_nan=False).map(str))
whole = st.integers(-(10**6), 10**13).map(str)
real = st.floats(-1e6, 1e6).map(lambda value: f"{value:.3f}")


def cbor(value: Any) -> bytes:
    """RFC 8949, as far as it is needed here."""
    if type(value) is float:
        return b"\xfb" + pack(">d", value)
    if type(value) is bool or value is None:
        return b"\xf6" if value is None else b"\xf5" if value else b"\xf4"
    if type(value) is int:
        return cbor_head(0, value) if value >= 0 else cbor_head(1, -1 - value)
    if type(value) is str:
        return cbor_head(3, len(value.encode())) + value.encode()
    members = value if type(value) is list else [one for pair in value.items() for one in pair]
    return cbor_head(4 if type(value) is list else 5, len(value)) + b"".join(map(cbor, members))


def cbor_head(major: int, number: int) -> bytes:
    if number < 24:
        return bytes([major << 5 | number])
    size = next(size for size in range(4) if number < 1 << (8 << size))
    return bytes([major << 5 | 24 + size]) + number.to_bytes(1 << size, "big")


def alike(draw: st.DrawFn) -> st.SearchStrategy[Any]:
    """Values of one kind, as a device sends them; now and then something else among them."""
    kind = draw(st.sampled_from([whole, real, words]))
    return kind if draw(st.integers(0, 3)) else st.one_of(kind, kind, kind, words)


@st.composite
def csv_lines(draw: st.DrawFn) -> list[bytes]:
    columns = [alike(draw) for _ in range(draw(st.integers(1, 4)))]
    end = draw(st.sampled_from([st.just(b""), st.just(b"\r\n"), st.sampled_from([b"", b"\n", b"\n\n", b"\n1,2,3,4"])]))
    return [",".join(map(draw, columns)).encode() + draw(end) for _ in range(draw(st.integers(2, 4)))]


@st.composite
def influx_lines(draw: st.DrawFn) -> list[bytes]:
    names = draw(
        st.sampled_from([("a", "b"), ("a", "b", "c"), ("a", "a"), ("ts", "seq", "c"), ("a.b", "+"), ("", "b")])
    )
    fields = [alike(draw) for _ in names]
    heads, ends = ["m", "m,b=1", "m,b=2,c=\u00e9"], ["", " 1735689600123000000", " -5"]
    odd_heads, odd_ends = (
        ["m,b", "m,b=1=2", "#m", " m", "\tm", "m\\ n"],
        [" x", " " + "9" * 20, "\n", " 1 2", "\nm a=1"],
    )
    head = st.sampled_from(heads if draw(st.integers(0, 3)) else heads + odd_heads)
    end = st.sampled_from([draw(st.sampled_from(ends))] if draw(st.integers(0, 3)) else ends + odd_ends)
    lines = []
    for _ in range(draw(st.integers(2, 4))):
        pairs = ",".join(f"{name}={draw(field)}" for name, field in zip(names, fields, strict=True))
        lines.append(f"{draw(head)} {pairs}{draw(end)}".encode())
    return lines


@st.composite
def cbor_maps(draw: st.DrawFn) -> list[bytes]:
    names = draw(
        st.sampled_from([("ts", "seq", "a", "b"), ("a",), ("a", "c"), ("a.b",), (1, "b"), ("1", "b"), ("x" * 30,)])
    )
    kinds = [st.integers(-30, 30), st.integers(100, 300), st.integers(-(2**64), 2**64 - 1), st.floats(), st.booleans()]
    kinds += [
        st.floats(allow_nan=False, allow_infinity=False),
        st.one_of(st.none(), st.text(max_size=3), st.just([1]), st.just({"d": 1})),
    ]
    values = [draw(st.sampled_from(kinds)) for _ in names]
    end = st.sampled_from([b"", b"", b"", b"\x00"]) if draw(st.integers(0, 7)) == 0 else st.just(b"")
    return [cbor(dict(zip(names, map(draw, values), strict=True))) + draw(end) for _ in range(draw(st.integers(2, 6)))]


MESSAGES = {"csv": csv_lines(), "line-protocol": influx_lines(), "cbor": cbor_maps()}


@st.composite
def profiles(draw: st.DrawFn, kind: str) -> Profile:
    head, body, options = (draw(st.sampled_from(each)) for each in (HEADS, BODIES, OPTIONS[kind]))
    text = f'name = "p"\nformat = "{kind}"\n{head}'
    try:
        return parse_profile(f"{text}[options]\n{options}\n{body}" if options else text + body, "p.toml")
    except UserError:  # a path that no column has
        reject()


@pytest.mark.parametrize("kind", list(MESSAGES))
@settings(max_examples=400)
@given(data=st.data())
def test_a_group_is_what_its_messages_are_one_by_one(kind: str, data: st.DataObject) -> None:
    profile = data.draw(profiles(kind))
    decode = decoder_for(kind)
    topics = st.sampled_from(TOPICS if data.draw(st.booleans()) else TOPICS[-1:])
    group = [(data.draw(topics), payload) for payload in data.draw(MESSAGES[kind])]
    alone = [decode(profile, [message])[0] for message in group]
    assert list(map(repr, decode(profile, group))) == list(map(repr, alone))


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        ("line-protocol", b"m a=-0"),
        ("line-protocol", b"m a=1e00001"),
        ("line-protocol", b"\tm a=1"),
        ("line-protocol", b"m a=1,a=2"),
        ("csv", b"1e00001"),
        ("csv", b"-0"),
        ("csv", b" \xef\xbb\xbf1"),
        ("csv", b"1,5"),
    ],
)
def test_what_numbers_of_json_would_read_differently(kind: str, payload: bytes) -> None:
    decode = decoder_for(kind)
    options: dict[str, Any] = {"columns": ["a"], "delimiter": ";"} if kind == "csv" else {}
    profile = Profile(name="p", format=kind, options=options)
    group = [("t", payload)] * 2
    assert list(map(repr, decode(profile, group))) == [repr(decode(profile, group[:1])[0])] * 2


@pytest.mark.parametrize("other", [b"m a,1=b=2", b"m b=1,b=2", b"m a=1", b"m a=1,c=2", b"m =1,b=2"])
def test_a_line_whose_fields_are_not_the_first_ones(other: bytes) -> None:
    decode = decoder_for("line-protocol")
    profile = Profile(name="p", format="line-protocol")
    alone = [decode(profile, [("t", payload)])[0] for payload in (b"m a=1,b=2", other)]
    assert list(map(repr, decode(profile, [("t", b"m a=1,b=2"), ("t", other)]))) == list(map(repr, alone))
