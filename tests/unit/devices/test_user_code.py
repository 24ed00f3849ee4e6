"""A user's own decoder: found by its path, bounded by its profile, and blamed by file and line."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from devices.profile_files import check_decoder, read_profiles
from devices.profile_text import parse_profile
from devices.profiles import Profile
from devices.user_code import Message, Result, UserDecoder
from headwater.api import Reading, Reject, read
from headwater.cli.new import write_decoder
from headwater.errors import UserError

HEAD = "from headwater.api import Message, Reading, Reject\nfrom datetime import datetime\n"


def profile(folder: Path, code: str, more: str = "") -> Profile:
    (folder / "own.py").write_text(HEAD + code)
    (folder / "own.toml").write_text(f'name = "own"\ndecoder = "./own.py:decode"\ntopics = ["own/{{device}}"]\n{more}')
    [found] = read_profiles([str(folder / "own.toml")])
    return found


def result(folder: Path, code: str, more: str = "", payload: bytes = b"\x07") -> Result:
    decoder = UserDecoder(profile(folder, f"def decode(message):\n{code}\n", more))
    return decoder.result(Message("own/d1", payload, 1_700_000_000_000, "mqtt:a"))


MANY = "    yield Reading({'a': {'b': 1.5}}, device='x', time=datetime(2024, 1, 1))\n    yield {'a.b': 2}"


def test_it_may_give_readings_or_dicts_one_or_many(tmp_path: Path) -> None:
    first, second = result(tmp_path, MANY).readings
    assert (first.device, first.fields) == ("x", {"a.b": 1.5})
    assert first.event_ms == datetime(2024, 1, 1, tzinfo=UTC).timestamp() * 1000
    assert (second.device, second.fields, second.event_ms) == ("d1", {"a.b": 2}, None)
    assert result(tmp_path, "    return {'t': message.payload[0]}").readings[0].fields == {"t": 7}
    assert result(tmp_path, "    return None").readings == []
    assert result(tmp_path, "    return Reading({'t': message.arrival_ms}, time=5)").readings[0].event_ms == 5


def test_the_profile_does_the_rest(tmp_path: Path) -> None:
    more = (
        'natural_key = "n"\n[timestamp]\npath = "at"\nunit = "s"\n[fields.t]\npath = "raw.t"\nscale = 0.1\n'
        "[options]\nfactor = 3\n"
    )
    code = "    return {'raw': {'t': message.payload[0] * message.options['factor']}, 'n': 4, 'at': 9}"
    [reading] = result(tmp_path, code, more).readings
    assert (reading.fields, reading.event_ms, reading.natural_key) == ({"t": 2.1, "n": 4}, 9000, 4)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("    return {}['x']", "own.py, line 4: KeyError: 'x'"),
        ("    raise SystemExit(3)", "own.py, line 4: SystemExit: 3"),
        ("    int('x' + message.payload.hex())", "own.py, line 4: ValueError: invalid literal"),
        ("    return 5", "the decoder returned an int, no Reading"),
        ("    return [5]", "TypeError: the decoder gave an int; it should give Reading or dict"),
        ("    return Reading({'t': 1}, time='now')", "TypeError: time is 'now'; it should be milliseconds"),
        ("    while True: yield {'t': 1}", "more than 10000 readings in one message"),
        ("    return [{'t': 1}, {}['y']]", "own.py, line 4: KeyError: 'y'"),
    ],
)
def test_what_it_does_wrong_is_told_with_file_and_line(tmp_path: Path, code: str, reason: str) -> None:
    found = result(tmp_path, code)
    assert (found.readings, found.failed) == ([], True)
    assert reason in found.reason


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("    raise Reject('too short')", "too short"),
        ("    return {'t': object()}", "field “t” holds object, which is no single value"),
        ("    return {}", "the message holds no value"),
    ],
)
def test_a_message_that_is_no_good_is_not_the_decoders_fault(tmp_path: Path, code: str, reason: str) -> None:
    assert result(tmp_path, code) == Result([], reason, failed=False)


@pytest.mark.parametrize(
    ("code", "what"),
    [
        ("def decode(message)\n    pass", "own.py, line 3: expected ':'"),
        ("import nothing_of_that_name", "own.py, line 3: ModuleNotFoundError"),
        ("1 / 0", "own.py, line 3: ZeroDivisionError"),
        ("decide = None", "own.py defines no decode"),
        ("decode = 5", "decode is no function"),
    ],
)
def test_a_file_that_cannot_be_loaded_is_told(tmp_path: Path, code: str, what: str) -> None:
    with pytest.raises(UserError, match=what.replace("(", r"\(")):
        UserDecoder(profile(tmp_path, code + "\n"))


def test_it_is_checked_without_being_run(tmp_path: Path) -> None:
    assert check_decoder(profile(tmp_path, "1 / 0\ndef decode(message): pass\n")) == "own.py:decode"
    with pytest.raises(UserError, match=r"own\.py, line 3: "):
        check_decoder(profile(tmp_path, "def decode(:\n"))
    with pytest.raises(UserError, match=r"own\.py defines no decode") as told:
        check_decoder(profile(tmp_path, "def decoded(message): pass\n"))
    assert told.value.hint == "Did you mean decoded?"
    one = profile(tmp_path, "")
    (tmp_path / "own.py").unlink()
    with pytest.raises(UserError, match=r"own.py cannot be read"):
        check_decoder(one)


@pytest.mark.parametrize(
    ("key", "what"),
    [
        ('decoder = "mine"', "line 2: decoder: “mine” names no decoder"),
        ('decoder = "a.py:f"\nformat = "csv"', "line 3: format: a profile has a format or a decoder, not both"),
        ('decoder = "a.py:f"\neach = "x"', "line 3: each: a decoder yields"),
    ],
)
def test_a_profile_that_names_it_wrongly_is_told_by_line(key: str, what: str) -> None:
    with pytest.raises(UserError, match=what):
        parse_profile(f'name = "own"\n{key}\n', "own.toml")


def test_an_entry_point_that_is_not_there_is_told() -> None:
    with pytest.raises(UserError, match="no installed package has the decoder “gauge”"):
        UserDecoder(parse_profile('name = "own"\ndecoder = "entry:gauge"\n', "own.toml"))


def test_a_new_decoder_passes_its_own_test(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_decoder("rain_gauge", str(tmp_path))
    assert "test_rain_gauge.py" in capsys.readouterr().out
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(tmp_path),
        str(tmp_path),
    ]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "2 passed" in ended.stdout, ended.stdout
    here = str(tmp_path / "rain_gauge.toml")
    assert read(here, b"\x00\xd7", topic="rain_gauge/roof") == [Reading({"temperature": 21.5}, device="roof")]
    with pytest.raises(Reject, match="1 bytes"):
        read(here, b"\x00", topic="rain_gauge/roof")
    with pytest.raises(UserError, match="is there already"):
        write_decoder("rain_gauge", str(tmp_path))
    with pytest.raises(UserError, match="cannot name a decoder"):
        write_decoder("Rain-Gauge", str(tmp_path))
