"""Ranges, deadbands with a heartbeat, the rate cap: what is marked and what is not stored."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.limits import Limits
from devices.profile_text import parse_profile
from devices.profiles import Profile
from devices.reading import Scalar
from devices.reporting import Reporter

RANGES = parse_profile('name = "r"\n[fields.a]\nmin = 0\nmax = 10.5\n[fields.b]\nmax = 5\n[fields.c]\n', "r.toml")


@pytest.mark.parametrize(
    ("fields", "quality"),
    [
        ({"a": 0, "b": 5, "c": 1e9}, ""),
        ({"a": 10.5, "b": -1e300}, ""),
        ({"a": -0.1}, "out-of-range:a"),
        ({"a": 10.6, "b": 6}, "out-of-range:a,b"),
        ({"a": None, "b": "x"}, ""),
        ({"a": True}, ""),
    ],
)
def test_numbers_outside_their_range_are_named(fields: dict[str, Scalar], quality: str) -> None:
    assert Limits(RANGES)
    assert Limits(RANGES).quality(fields) == quality


def test_a_profile_without_any_asks_nothing() -> None:
    for profile in (None, Profile(name="x")):
        assert not Limits(profile)
        assert not Reporter(profile)


def told(text: str, *readings: tuple[int, dict[str, Any]]) -> list[bool]:
    reporter = Reporter(parse_profile('name = "r"\nnatural_key = "n"\n' + text, "r.toml"))
    assert reporter
    return [reporter.is_news("d", fields, time_ms) for time_ms, fields in readings]


DEADBAND = "heartbeat_ms = 1000\n[fields.a]\ndeadband = 0.5\n[fields.b]\n[fields.n]\n"


def test_a_deadband_is_measured_from_the_last_value_stored() -> None:
    readings = [(at, {"a": a, "n": at}) for at, a in enumerate([10, 10.5, 9.5, 10.6, 10.2, 11.2])]
    assert told(DEADBAND, *readings) == [True, False, False, True, False, True]


def test_a_field_without_a_deadband_is_news_when_it_differs() -> None:
    values: list[Any] = ["on", "on", "off", None, True, 1]
    assert told(DEADBAND, *((at, {"a": 1, "b": b}) for at, b in enumerate(values))) == [True, False] + [True] * 4


def test_a_value_that_goes_or_comes_back_is_news() -> None:
    assert told(DEADBAND, (0, {"a": 1}), (1, {"a": None}), (2, {"a": None}), (3, {"a": 1})) == [True, True, False, True]


def test_the_heartbeat_stores_what_has_not_moved() -> None:
    assert told(DEADBAND, *((at, {"a": 1}) for at in (0, 999, 1000, 1999, 2000))) == [True, False, True, False, True]
    by_default = "[fields.a]\ndeadband = 1\n"
    assert told(by_default, *((at, {"a": 1}) for at in (0, 59_999, 60_000))) == [True, False, True]


def test_messages_that_hold_different_fields_are_compared_each_with_its_own() -> None:
    readings: list[tuple[int, dict[str, Any]]] = [
        (0, {"a": 1}),
        (1, {"b": 7}),
        (2, {"a": 1.2}),
        (3, {"b": 7}),
        (4, {"b": 8}),
    ]
    assert told(DEADBAND, *readings) == [True, True, False, False, True]


def test_the_rate_cap() -> None:
    assert told("interval_min_ms = 100\n", *((at, {"a": at}) for at in (0, 99, 100, 150, 250))) == [
        True,
        False,
        True,
        False,
        True,
    ]


def test_late_readings_are_let_through_and_change_nothing() -> None:
    assert told(DEADBAND, (500, {"a": 1}), (100, {"a": 1}), (600, {"a": 1})) == [True, True, False]


def test_devices_are_apart_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("devices.reporting._DEVICES_MAX", 2)
    reporter = Reporter(parse_profile('name = "r"\n' + DEADBAND, "r.toml"))
    assert [reporter.is_news(device, {"a": 1}, 0) for device in "ababcb a".replace(" ", "")] == [
        *(True, True, False, False),
        *(True, False, True),
    ]
    reporter.forget_all()
    assert reporter.is_news("a", {"a": 1}, 0)


@given(st.lists(st.tuples(st.integers(0, 400), st.floats(-3, 3)), max_size=30))
def test_no_stored_value_is_ever_further_off_than_its_deadband(steps: list[tuple[int, float]]) -> None:
    reporter = Reporter(parse_profile('name = "r"\n' + DEADBAND, "r.toml"))
    now, stored, stored_at = 0, 0.0, 0
    for number, (wait, value) in enumerate(steps):
        now += wait
        if reporter.is_news("d", {"a": value}, now):
            stored, stored_at = value, now
        else:
            assert number
        assert abs(value - stored) <= 0.5
        assert now - stored_at < 1000
