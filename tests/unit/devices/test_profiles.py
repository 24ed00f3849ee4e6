"""Profiles: what TOML may say, and what the errors name."""

from __future__ import annotations

from pathlib import Path

import pytest

from devices.profile_files import read_profiles, shipped_names
from devices.profile_text import load_profiles, parse_profile
from devices.topics import TopicMatcher
from headwater.errors import UserError


def refused(text: str) -> str:
    with pytest.raises(UserError) as caught:
        parse_profile(text, "mine.toml")
    return str(caught.value)


def test_every_shipped_profile_loads() -> None:
    assert "wind-turbine" in shipped_names()
    assert len(read_profiles(shipped_names())) == len(shipped_names())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('name = "x"\nnatural_ky = "seq"\n', ["line 2", "“natural_ky”", "Did you mean “natural_key”?"]),
        ('name = "x"\n\n[fields.power]\nunits = "kW"\n', ["line 4", "fields.power.units", "“unit”"]),
        ('name = "x"\n[timestamp]\npath = "t"\nunit = "min"\n', ["line 4", "timestamp.unit", "One of iso8601, ms, ns"]),
        ('name = "x"\n[timestamp]\npath = "t"\nunit = "text"\n', ["line 4", "timestamp.unit", "format"]),
        ('name = "x"\n[timestamp]\npath = "t"\nformat = "%d"\n', ["line 4", "timestamp.format", "“ms” has no format"]),
        ('name = "x"\n[timestamp]\npath = "t"\ntime_path = "u"\n', ["line 4", "timestamp.time_path"]),
        ('name = "x"\n[timestamp]\npath = "t"\nzone = "UTC"\n', ["line 4", "timestamp.zone", "no zone"]),
        (
            'name = "x"\n[timestamp]\npath = "t"\nunit = "iso8601"\nzone = "Berlin"\n',
            ["line 5", "timestamp.zone", "no time zone “Berlin”"],
        ),
        ('name = "x"\nformat = "jsom"\n', ["line 2", "format", "“jsom”", "Did you mean “json”?"]),
        ('name = "x"\n[options]\nchecksum = 1\n', ["line 3", "options.checksum", "unknown key", "Known here: none."]),
        (
            'name = "x"\nformat = "csv"\n[options]\ndelimeter = ";"\n',
            ["line 4", "options.delimeter", "Did you mean “delimiter”?"],
        ),
        (
            'name = "x"\nformat = "line-protocol"\n[options]\nprecision = "h"\n',
            ["line 4", "options.precision", "ms, ns, s, us"],
        ),
        ('name = "x"\neach = "a..b"\n', ["line 2", "each", "empty part"]),
        ('name = "x"\nformat = "csv"\neach = "a"\n', ["line 3", "each", "no arrays"]),
        ('name = "x"\ndevice_path = ".a"\n', ["line 2", "device_path", "empty part"]),
        ('name = "x"\nheartbeat_ms = -1\n', ["line 2", "heartbeat_ms", "positive"]),
        ('name = "x"\n[fields.a]\nmin = 5\nmax = 1\n', ["line 3", "fields.a.min", "above max"]),
        ('name = "x"\n[fields.b]\n[fields.a]\ndeadband = -1\n', ["line 4", "fields.a.deadband", "negative"]),
        ('name = "x"\n[fields.a]\nscale = inf\n', ["line 3", "fields.a.scale"]),
        ('name = "x"\n[fields.a]\nscale = 0\n', ["line 3", "fields.a.scale", "the same"]),
        ('name = "x"\n[fields.a]\ntype = "text"\nscale = 2\n', ["line 3", "fields.a.type", "cannot be scaled"]),
        ('name = "x"\n[fields.b]\n[fields.a]\ntype = "int"\n', ["line 4", "fields.a.type", "integer"]),
        ('name = "x"\n[fields.a]\nregister = { address = 1 }\n', ["line 3", "fields.a.register", "no registers"]),
        ('name = "x"\nformat = "modbus"\n[fields.a]\n', ["line 3", "fields.a", "needs its register"]),
        (
            'name = "x"\nformat = "modbus"\n[fields.a]\nregister = { adress = 1 }\n',
            ["line 4", "fields.a.register.adress", "Did you mean “address”?"],
        ),
        (
            'name = "x"\nformat = "modbus"\n[fields.a.register]\naddress = 65535\nencoding = "float32"\n',
            ["line 3", "fields.a.register", "behind register 65535"],
        ),
        (
            'name = "x"\nformat = "modbus"\n[fields.a.register]\naddress = 1\nbit = 10\nbits = 7\n',
            ["line 3", "behind bit 15"],
        ),
        (
            'name = "x"\nformat = "modbus"\n[fields.a.register]\naddress = 1\nencoding = "int16"\nbit = 1\n',
            ["line 3", "unsigned value, not int16"],
        ),
        ('name = "x"\n[fields.a]\npath = "b..c"\n', ["line 3", "fields.a.path", "empty part"]),
        ('name = "x"\nexpected_interval_ms = 0\n', ["line 2", "expected_interval_ms", "positive"]),
        ('name = "x"\ntopics = ["a/{a b}"]\n', ["line 2", "topics", "{a b}", "{device}"]),
        ('name = "x"\ntopics = ["a/{x}/{x}"]\n', ["line 2", "topics", "{x} twice"]),
        ('name = "x"\ntopics = ["a/{x}-{y}"]\n', ["line 2", "topics", "two placeholders"]),
        ('name = "x"\ntopics = ["{site}/a"]\n[fields.site]\n', ["line 2", "{site}", "name of a field"]),
        ('name = "x"\ntopics = ["a/b#"]\n', ["line 2", "stand alone"]),
        ('name = "a b"\n', ["line 1", "no profile name"]),
        ("name = \n", ["mine.toml", "line 1"]),
        ("description = 'x'\n", ["name"]),
    ],
)
def test_errors_name_file_line_and_key(text: str, said: list[str]) -> None:
    message = refused(text)
    assert all(part in message for part in ["mine.toml", *said]), message


def test_two_profiles_of_one_name() -> None:
    with pytest.raises(UserError, match=r"b\.toml.*defined in a\.toml"):
        load_profiles([("a.toml", 'name = "x"'), ("b.toml", 'name = "x"')])


@pytest.mark.parametrize(
    ("pattern", "topic", "device"),
    [
        ("farm/{device}/telemetry", "farm/t1/telemetry", "t1"),
        ("farm/{device}/telemetry", "farm/t1/x/telemetry", None),
        ("farm/{device}/telemetry", "farm//telemetry", None),
        ("site-{device}/x", "site-9/x", "9"),
        ("+/{device}/#", "a/b/c/d", "b"),
        ("a.b/{device}", "axb/c", None),
        ("ts/#", "ts", "ts"),
        ("ts/#", "tsx", None),
        ("#", "a/b", "a/b"),
        ("fixed/topic", "fixed/topic", "fixed/topic"),
    ],
)
def test_topics_capture_the_device(pattern: str, topic: str, device: str | None) -> None:
    profile = parse_profile(f'name = "x"\ntopics = ["{pattern}"]\n', "x.toml")
    matched, name = TopicMatcher([profile]).match(topic)
    assert (matched, name) == ((profile, device) if device is not None else (None, topic))


def test_topics_capture_field_and_labels() -> None:
    profile = parse_profile('name = "x"\ntopics = ["a/{site}/x-{device}/{field}", "a/{site}/#"]\n', "x.toml")
    matcher = TopicMatcher([profile])
    assert matcher.captured("a/north/x-p1/temp") == ("p1", "temp", {"site": "north"})
    assert matcher.captured("a/north") == ("a/north", "", {"site": "north"})  # the parent too (MQTT 5.0, 4.7.1.2)
    assert matcher.captured("a") is None
    assert matcher.captured("a/north/b") == ("a/north/b", "", {"site": "north"})


def test_a_path_is_read_beside_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "pump.toml").write_text('name = "pump"\n')
    assert [profile.name for profile in read_profiles(["wind-turbine", "pump.toml"], base=str(tmp_path))] == [
        "wind-turbine",
        "pump",
    ]
    with pytest.raises(UserError, match="no shipped profile is called “wind-turbin”"):
        read_profiles(["wind-turbin"])
    with pytest.raises(UserError, match="cannot be read"):
        read_profiles(["missing.toml"], base=str(tmp_path))
