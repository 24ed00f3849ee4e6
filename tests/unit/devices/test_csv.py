"""CSV: RFC 4180's own examples, what spreadsheets and loggers write, and everything that may be wrong."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.decoders.registry import decoder_for
from devices.profile_text import parse_profile
from devices.profiles import Profile
from devices.reading import Reading, Undecodable

decode_group = decoder_for("csv")
PLAIN = Profile(name="plain", format="csv")
NAMED = Profile(name="named", format="csv", options={"columns": ["a", "b", "c"]})


def one(payload: bytes, profile: Profile = PLAIN, topic: str = "t") -> list[Reading]:
    [result] = decode_group(profile, [(topic, payload)])
    assert isinstance(result, list), result
    return result


def reason(payload: bytes, profile: Profile = PLAIN) -> str:
    [result] = decode_group(profile, [("t", payload)])
    assert isinstance(result, Undecodable), result
    assert result.decoder == "csv"
    return result.reason


ROWS = [Reading("t", {"a": "aaa", "b": "bbb", "c": "ccc"}), Reading("t", {"a": "zzz", "b": "yyy", "c": "xxx"})]


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (b"aaa,bbb,ccc\r\nzzz,yyy,xxx\r\n", ROWS),  # RFC 4180, section 2, rule 1
        (b"aaa,bbb,ccc\r\nzzz,yyy,xxx", ROWS),  # rule 2: the last line break may be missing
        (b'"aaa","bbb","ccc"\r\nzzz,yyy,xxx', ROWS),  # rule 5
        (b'"aaa","b\r\nbb","ccc"\r\nzzz,yyy,xxx', [Reading("t", {**ROWS[0].fields, "b": "b\r\nbb"}), ROWS[1]]),  # 6
        (b'"aaa","b""bb","ccc"', [Reading("t", {**ROWS[0].fields, "b": 'b"bb'})]),  # rule 7
    ],
)
def test_the_examples_of_rfc_4180(payload: bytes, expected: list[Reading]) -> None:
    assert one(payload, NAMED) == expected


def test_rfc_4180_rule_3_a_header_names_the_columns() -> None:
    payload = b"field_name,field_name2,field_name3\r\naaa,bbb,ccc\r\nzzz,yyy,xxx\r\n"
    assert [list(reading.fields) for reading in one(payload)] == [["field_name", "field_name2", "field_name3"]] * 2


@pytest.mark.parametrize("cell", ["inf", "-Infinity", "+nan", "1e999", "1.#INF", "-1.#IND00", "1,5", "-1.234,5"])
def test_a_broken_number_is_refused_and_no_text(cell: str) -> None:
    semicolons = Profile(name="s", format="csv", options={"delimiter": ";"})
    said = reason(f"x;y\nword;1\nword;{cell}\n".encode(), semicolons)
    assert said.startswith(f"line 3: column “y”: “{cell}” is no number")
    assert ("decimal" in said) == ("," in cell)
    typed = parse_profile(
        'name = "t"\nformat = "csv"\n[fields.y]\ntype = "number"\n[fields.x]\ntype = "text"\n'
        '[options]\ndelimiter = ";"\ncolumns = ["x", "y"]\n',
        "t.toml",
    )
    assert "“y”" in reason(f"word;{cell}".encode(), typed)
    assert one(f"{cell};1".encode(), typed)[0].fields == {"y": 1, "x": cell}
    assert "should be a number and holds 'word'" in reason(b"1;word", typed)


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("7", 7),
        ("-7.50", -7.5),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("on", "on"),
        ("0x10", "0x10"),
        ("information", "information"),
        ("1.2.3", "1.2.3"),
        ("1_0", "1_0"),
    ],
)
def test_cells_that_read_as_numbers_are_numbers(cell: str, value: object) -> None:
    [reading] = one(f"x\n{cell}\n".encode())
    assert reading.fields == {"x": value}
    assert type(reading.fields["x"]) is type(value)


def test_a_loggers_file() -> None:
    profile = parse_profile(
        """
name = "logger"
format = "csv"
topics = ["log/{site}"]
device_path = "Serial"
[timestamp]
path = "Date"
time_path = "Time"
unit = "text"
format = "%d.%m.%Y %H:%M:%S"
zone = "Europe/Berlin"
[fields.temperature]
path = "T [°C]"
[fields.rain]
path = "Rain"
scale = 10.0
[fields.code]
type = "text"
[options]
delimiter = ";"
decimal = ","
comment = "#"
skip_lines = 1
""",
        "logger.toml",
    )
    text = (
        "Logger 3000, firmware 1.2\r\n# exported\r\nSerial;Date;Time;T [°C];Rain;code;other\r\n"
        "007;01.07.2024;12:00:00;-1,5;1.234,5;08;x\r\n007;01.07.2024;12:10:00;;0,2;;x\r\n"
    )
    assert one(b"\xef\xbb\xbf" + text.encode(), profile, "log/north") == [
        Reading("007", {"temperature": -1.5, "rain": 12345.0, "code": "08", "site": "north"}, 1719828000000),
        Reading("007", {"rain": 2.0, "site": "north"}, 1719828600000),
    ]


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        (b"", "the message is empty"),
        (b"\r\n\r\n", "the message is empty"),
        (b"a,b\n", "a header and no line of data"),
        (b"a,b\n1,2\n3\n", "line 3: 1 cells where 2 columns are named (a, b)"),
        (b"a,,c\n1,2,3\n", "line 1: column 2 of the header has no name"),
        (b"a,a\n1,2\n", "line 1: two columns of the header are called “a”"),
        (b'a\n"x\n', "line 2: unexpected end of data"),
        (b'a\n"x"y\n', "line 2: "),
        (b"a\n\xff\n", "byte 2 is not UTF-8"),
        (b"a\n\n,\n", "line 3: 2 cells"),
        (b"a\nNaN\n", "line 2: the message holds no value"),
        (b"a\n" + b"1\n" * 10_001, "more than 10000 lines"),
        (b"a\n" + b"x" * 200_000 + b"\n", "field larger than field limit"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(payload: bytes, said: str) -> None:
    assert said in reason(payload)


def test_lines_that_are_left_out_are_counted() -> None:
    profile = Profile(name="x", format="csv", options={"skip_lines": 2, "comment": "#"})
    assert "line 6: 1 cells" in reason(b"junk\njunk\na,b\n#\n1,2\n3\n", profile)


def test_a_byte_order_mark_belongs_to_no_name() -> None:
    assert one(b"\xef\xbb\xbfa\n1\n") == [Reading("t", {"a": 1})]


@given(
    st.lists(
        st.lists(st.integers(-(10**12), 10**12) | st.floats(-1e9, 1e9), min_size=3, max_size=3), min_size=1, max_size=4
    )
)
def test_what_pythons_csv_writes_comes_back(rows: list[list[float]]) -> None:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    readings = one(text.getvalue().encode(), NAMED)
    assert [list(reading.fields.values()) for reading in readings] == rows


@given(st.lists(st.binary(max_size=40), max_size=4))
def test_hostile_bytes_raise_nothing_and_spoil_no_neighbour(noise: list[bytes]) -> None:
    for profile in (PLAIN, NAMED):
        results = decode_group(profile, [*(("t", each) for each in noise), ("g", b"a,b,c\n1,2,3\n")])
        assert len(results) == len(noise) + 1
        assert all(isinstance(result, list | Undecodable) for result in results)
        assert isinstance(results[-1], list)
