from __future__ import annotations

import pytest

from headwater.cli import words


@pytest.mark.parametrize(
    ("ms", "text"),
    [(-5, "0 s"), (59_999, "59 s"), (250_000, "4 min 10 s"), (3_000_000, "50 min"), (7_500_000, "2 h 5 min")],
)
def test_durations(ms: int, text: str) -> None:
    assert words.duration(ms) == text
    assert words.duration(3 * 86_400_000 + 4 * 3_600_000) == "3 d 4 h"


def test_sizes_and_counts() -> None:
    assert [words.size(one) for one in (0, 999, 1_500, 2_000_000, 3e9, 4e12)] == [
        "0 B",
        "999 B",
        "1.5 kB",
        "2.0 MB",
        "3.0 GB",
        "4.0 TB",
    ]
    assert (words.count(1, "record"), words.count(1234, "record")) == ("1 record", "1,234 records")


def test_ago() -> None:
    assert [words.ago(then, 100_000) for then in (None, 0, 200_000, 99_500, 95_000)] == [
        "never",
        "never",
        "just now",
        "just now",
        "5 s ago",
    ]
