"""`headwater profiles`: list, show, and test with its ways of giving messages."""

from __future__ import annotations

import base64
import io
import json
import sys
from pathlib import Path
from typing import NamedTuple, Protocol

import pytest

from devices.profile_files import shipped_names
from devices.profiles import Profile
from headwater.cli.entry import main
from headwater.cli.profiles import example_topic

GOOD = b'{"ts":1735689600123,"seq":1,"power":812.0}'


class Ended(NamedTuple):
    status: int
    out: str
    err: str


class Profiles(Protocol):
    def __call__(self, *arguments: str, stdin: bytes = b"") -> Ended: ...


@pytest.fixture
def profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Profiles:
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, stdin: bytes = b"") -> Ended:
        monkeypatch.setattr(sys, "argv", ["headwater", "profiles", *arguments])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with pytest.raises(SystemExit) as ended:
            main()
        return Ended(int(ended.value.code or 0), *capsys.readouterr())

    return run


def test_list_names_what_ships(profiles: Profiles) -> None:
    listed = profiles("list")
    assert listed.status == 0
    assert all(name in listed.out for name in shipped_names())
    assert [row["name"] for row in json.loads(profiles("list", "--json").out)] == shipped_names()


@pytest.mark.parametrize("name", shipped_names())
def test_what_show_prints_is_a_profile_of_ones_own(profiles: Profiles, tmp_path: Path, name: str) -> None:
    (tmp_path / "mine.toml").write_text(profiles("show", name).out, encoding="utf-8")
    assert profiles("test", "mine.toml", "-").status == 0
    assert profiles("show", "mine.toml").out == profiles("show", name).out


def test_a_file_of_messages(profiles: Profiles, tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(GOOD + b"\r\n\n" + b"x\x1b[2J\n")
    ended = profiles("test", "wind-turbine", "m")
    assert ended == (
        1,
        "line 1: device  2025-01-01 00:00:00.123  seq=1  power=812.0 kW\n"
        "line 3: REJECTED by json: no JSON: JSON is malformed: invalid character (byte 0)\n"
        "2 messages: 1 reading, 1 rejected\n",
        "",
    )


def test_bytes_of_strangers_move_no_cursor(profiles: Profiles, tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text('name = "p"\n')
    ended = profiles("test", "p.toml", "-", stdin=b'{"a\\u001b[2J":"\\u202e\\u0007"}')
    assert ended.status == 0
    assert "\x1b" not in ended.out
    assert "\u202e" not in ended.out


@pytest.mark.parametrize(
    ("option", "encode"), [("--hex", bytes.hex), ("--base64", lambda b: base64.b64encode(b).decode())]
)
def test_binary_messages(profiles: Profiles, option: str, encode: object) -> None:
    assert callable(encode)
    ended = profiles("test", "wind-turbine", "-", option, stdin=f"{encode(GOOD)}\nzz!\n".encode())
    assert ended.status == 1
    assert "power=812.0 kW" in ended.out
    assert f"line 2: REJECTED by {option[2:]}: the line is no {option[2:]}" in ended.out


def test_topics_in_the_lines_and_json(profiles: Profiles) -> None:
    lines = b"farm/t7/telemetry " + GOOD + b"\nfarm/t8/telemetry {}\n"
    ended = profiles("test", "wind-turbine", "-", "--with-topics", "--json", stdin=lines)
    good, bad = [json.loads(line) for line in ended.out.splitlines()]
    assert good == {
        "line": 1,
        "device": "t7",
        "time_ms": 1735689600123,
        "fields": {"seq": 1, "power": 812.0},
        "natural_key": 1,
        "quality": None,
    }
    assert (bad["topic"], bad["decoder"]) == ("farm/t8/telemetry", "json")
    assert "none of the profile's fields" in bad["rejected"]


def test_a_file_that_is_one_message(profiles: Profiles, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text('name = "c"\nformat = "csv"\n')
    ended = profiles("test", "c.toml", "-", "--whole", stdin=b"a,b\n1,2\n3,4\n")
    assert ended.out.splitlines()[-1] == "1 message: 2 readings, 0 rejected"
    assert ended.status == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("wind-turbin", "-"), "no shipped profile is called “wind-turbin”"),
        (("wind-turbine", "missing"), "cannot read missing"),
        (("wind-turbine", "-", "--topic", "a/b"), "topic a/b matches no pattern of profile wind-turbine"),
        (("wind-turbine", "-", "--hex", "--base64"), "exclude each other"),
        (("bad.toml", "-"), "bad.toml, line 2: formt: unknown key “formt”"),
    ],
)
def test_mistakes_are_one_message(profiles: Profiles, tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    (tmp_path / "bad.toml").write_text('name = "x"\nformt = "csv"\n')
    ended = profiles("test", *arguments)
    assert ended.status == 2
    assert said in ended.err
    assert "Traceback" not in ended.err


def test_a_line_without_end(profiles: Profiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headwater.cli.profiles._MESSAGE_BYTES_MAX", 100)
    ended = profiles("test", "wind-turbine", "-", stdin=b"x" * 200)
    assert (ended.status, "a line of more than" in ended.err) == (2, True)


def test_topics_made_up_from_patterns() -> None:
    assert example_topic(Profile(name="x")) == "test"
    assert example_topic(Profile(name="x", topics=("a/+/{device}-x/#",))) == "a/x/device-x/x"
