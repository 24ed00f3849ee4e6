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
