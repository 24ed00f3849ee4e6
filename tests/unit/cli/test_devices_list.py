"""`headwater devices list`: what is stale, by what the profile says or else by what was learnt."""

from __future__ import annotations

import pytest

from headwater.cli.devices import Seen, rows_of

T = 1_700_000_000_000
MINUTE = 60_000


@pytest.mark.parametrize(
    ("told", "silent_ms", "stale"),
    [
        ({}, 2 * MINUTE, False),
        ({}, 4 * MINUTE, True),
        ({"expected_interval_ms": 60 * MINUTE}, 4 * MINUTE, False),
        ({"expected_interval_ms": 1_000}, 9_000, False),  # not within 10 s, as on the page
        ({"expected_interval_ms": 1_000}, 11_000, True),
    ],
)
def test_a_device_is_stale_after_three_intervals(told: dict[str, object], silent_ms: int, stale: bool) -> None:
    seen = Seen()
    for turn in range(8):
        seen.spoke(T + turn * MINUTE)
    [row] = rows_of({"edge/t1": told} if told else {}, {"edge/t1": seen}, T + 7 * MINUTE + silent_ms)
    assert (row.stale, row.learnt_interval_ms, row.readings) == (stale, MINUTE, 8)


def test_who_never_spoke_often_enough_is_not_judged() -> None:
    seen = Seen()
    seen.spoke(T)
    [row] = rows_of({}, {"edge/t1": seen}, T + 24 * 60 * MINUTE)
    assert row.stale is None


def test_who_is_described_and_never_heard_is_stale_and_another_versions_record_is_listed() -> None:
    described = {
        "e/a": {"device": "a", "name": "A", "profile": "p", "expected_interval_ms": 5_000, "fields": {}},
        "e/b": {"device": "b", "expected_interval_ms": 5_000},
        "e/c": {"device": "c", "name": 5},
    }
    seen = {"e/a": Seen(), "e/c": Seen(), "f/d": Seen()}
    for device, *times in (("e/a", 5_000, 6_000, 7_000), ("e/c", 1), ("f/d", 8_000, 9_000)):
        for time_ms in times:
            seen[device].spoke(time_ms)
    rows = {row.device: row for row in rows_of(described, seen, 22_000)}
    assert [(name, rows[name].stale) for name in ("e/a", "e/b", "e/c", "f/d")] == [
        ("e/a", False),
        ("e/b", True),  # never heard of
        ("e/c", None),  # another version's record
        ("f/d", None),
    ]
    assert (rows["e/a"].name, rows["e/a"].last_ms, rows["e/a"].readings) == ("A", 7_000, 3)
    assert [row.device for row in rows_of(described, seen, 22_001)] == ["e/b", "e/c", "e/a", "f/d"]
    assert rows_of(described, seen, 22_001)[2].stale
