"""Modbus registers: the specification's examples, values encoded by pymodbus, every order of bytes, bit fields."""

from __future__ import annotations

from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.decoders.modbus import Block, Span, decode_blocks, spans, value_of
from devices.decoders.registry import decoder_for
from devices.profile_text import parse_profile
from devices.profiles import Profile, RegisterSpec
from devices.reading import Reading, Scalar, Undecodable

decode_group = decoder_for("modbus")


def register(**keys: object) -> RegisterSpec:
    return RegisterSpec(address=0, **keys)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("encoding", "order", "data", "value"),
    [
        # pymodbus 3.16, convert_to_registers(value, DATATYPE, word_order="big" and "little")
        ("int16", "ABCD", "fffe", -2),
        ("uint16", "ABCD", "fde8", 65000),
        ("int32", "ABCD", "fffe1dc0", -123456),
        ("int32", "CDAB", "1dc0fffe", -123456),
        ("uint32", "ABCD", "ee6b2800", 4000000000),
        ("uint32", "CDAB", "2800ee6b", 4000000000),
        ("int64", "ABCD", "ffee3c86c81f8000", -5000000000000000),
        ("int64", "CDAB", "8000c81f3c86ffee", -5000000000000000),
        ("uint64", "ABCD", "f9ccd8a1c5080000", 18000000000000000000),
        ("uint64", "CDAB", "0000c508d8a1f9cc", 18000000000000000000),
        ("float32", "ABCD", "41ac0000", 21.5),
        ("float32", "CDAB", "000041ac", 21.5),
        ("float64", "ABCD", "c0934a456d5cfaad", -1234.5678),
        ("float64", "CDAB", "faad6d5c4a45c093", -1234.5678),
        ("text", "ABCD", "57542d3033207800", "WT-03 x"),
        # the other two orders: bytes swapped in their words, and all turned round
        ("float32", "BADC", "ac410000", 21.5),
        ("float32", "DCBA", "0000ac41", 21.5),
        ("int16", "CDAB", "fffe", -2),
        ("int16", "BADC", "feff", -2),
        ("int16", "DCBA", "feff", -2),
        ("int64", "DCBA", "00801fc8863ceeff", -5000000000000000),
        ("text", "BADC", "5457302d20330078", "WT-03 x"),
        ("bool", "ABCD", "0000", False),
        ("bool", "ABCD", "0100", True),
    ],
)
def test_encodings_and_orders(encoding: str, order: str, data: str, value: object) -> None:
    got = value_of(register(encoding=encoding, order=order, length=len(data) // 4), bytes.fromhex(data))
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        ({"bit": 0}, True),
        ({"bit": 1}, False),
        ({"bit": 15}, True),
        ({"bits": 4}, 0x5),
        ({"bit": 4, "bits": 8}, 0x3C),
        ({"bit": 12, "bits": 4}, 0xA),
        ({"bits": 16}, 0xA3C5),
    ],
)
def test_bit_fields(keys: dict[str, int], value: object) -> None:
    got = value_of(register(**keys), bytes.fromhex("a3c5"))
    assert got == value
    assert type(got) is type(value)


METER = parse_profile(
    """
name = "meter"
format = "modbus"
topics = ["meters/{device}/registers"]
[options]
address = 107
[fields.first]
register = { address = 107 }
[fields.power]
unit = "kW"
scale = 0.1
offset = 1.0
register = { address = 108, encoding = "int32", order = "CDAB" }
[fields.alarm]
register = { address = 107, bit = 9 }
[fields.beyond]
register = { address = 109, encoding = "float32" }
[fields.pump]
register = { address = 19, table = "coil" }
[fields.valve]
register = { address = 37, table = "coil" }
""",
    "meter.toml",
)


def test_the_specifications_read_holding_registers() -> None:
    # section 6.3's example: registers 108-110 (addresses 107-109) hold 022B hex, 0 and 64 hex
    answer = bytes.fromhex("022B 0000 0064")
    [result] = decode_group(METER, [("meters/m1/registers", answer)])
    assert result == [Reading("m1", {"first": 555, "power": 655361.0, "alarm": True})]


def test_the_specifications_read_coils() -> None:
    # section 6.1's example: coils 20-38 (addresses 19-37) are CD 6B 05; the last, 38, is the third bit of 05
    reading = decode_blocks(METER, "m1", [Block("coil", 19, bytes.fromhex("CD6B05"))])
    assert reading == Reading("m1", {"pump": True, "valve": True})
    reading = decode_blocks(METER, "m1", [Block("coil", 18, bytes.fromhex("CD6B05"))])
    assert reading == Reading("m1", {"pump": False, "valve": False})


def test_several_blocks_make_one_reading() -> None:
    blocks = [Block("holding", 109, b"\0\0\0\0"), Block("input", 107, b"\1\1"), Block("coil", 19, b"\1")]
    assert decode_blocks(METER, "m", blocks) == Reading("m", {"beyond": 0.0, "pump": True})


def test_what_a_poller_must_ask_for() -> None:
    assert spans(METER) == {
        Span("holding", 107, 1): 1,
        Span("holding", 108, 2): 1,
        Span("holding", 109, 2): 1,
        Span("coil", 19, 1): 1,
        Span("coil", 37, 1): 1,
    }


def test_a_register_of_two_fields_is_asked_for_as_often_as_the_faster_one_wants() -> None:
    field = "[fields.{}]\nregister = {{ address = 9, every = {} }}\n"
    text = 'name = "x"\nformat = "modbus"\n' + field.format("a", 60) + field.format("b", 5) + field.format("c", 7)
    assert spans(parse_profile(text, "x.toml")) == {Span("holding", 9, 1): 5}


@pytest.mark.parametrize(
    ("profile", "payload", "said"),
    [
        (METER, b"", "the message is empty"),
        (METER, b"\1\2\3", "3 bytes are no whole number of registers"),
        (Profile(name="x", format="modbus"), b"\1\2", "say nothing without a profile that lists fields"),
        (
            parse_profile('name = "x"\nformat = "modbus"\n[fields.a]\nregister = { address = 9 }\n', "x.toml"),
            b"\1\2",
            "none of the profile's registers is in the message (holding from 0, 2 bytes)",
        ),
        (
            parse_profile('name = "x"\nformat = "modbus"\n[fields.a.register]\naddress = 0\nencoding = "text"\n', "x"),
            b"\xff\x00",
            "register 0: b'\\xff\\x00' is no ASCII text",
        ),
    ],
)
def test_what_is_wrong_is_said(profile: Profile, payload: bytes, said: str) -> None:
    [result] = decode_group(profile, [("t", payload)])
    assert isinstance(result, Undecodable)
    assert said in result.reason
    assert result.decoder == "modbus"


@given(st.sampled_from(["ABCD", "CDAB", "BADC", "DCBA"]), st.floats(allow_nan=False))
def test_every_order_finds_the_number_back(order: str, number: float) -> None:
    straight = pack(">d", number)
    pairs = [straight[at : at + 2] for at in (0, 2, 4, 6)]
    sent = {
        "ABCD": straight,
        "CDAB": b"".join(reversed(pairs)),
        "BADC": b"".join(pair[::-1] for pair in pairs),
        "DCBA": straight[::-1],
    }[order]
    assert value_of(register(encoding="float64", order=order), sent) == number


@given(st.lists(st.binary(max_size=20), max_size=3))
def test_any_bytes_give_a_result_each(payloads: list[bytes]) -> None:
    results = decode_group(METER, [("meters/m1/registers", payload) for payload in payloads])
    assert [isinstance(result, list | Undecodable) for result in results] == [True] * len(payloads)


def test_a_number_that_is_none_is_null() -> None:
    text = 'name = "x"\nformat = "modbus"\n[fields.a.register]\naddress = 0\nencoding = "float32"\n'
    fields: dict[str, Scalar] = {"a": None}
    assert decode_group(parse_profile(text, "x"), [("t", bytes.fromhex("7fc00000"))]) == [[Reading("t", fields)]]
