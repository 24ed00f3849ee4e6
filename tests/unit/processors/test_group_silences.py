"""A member of a group marks nodes as silent, in partitions that it has read to their end."""

from __future__ import annotations

import msgspec

from gateway.log.records import decode_headers
from processors.group.core import Source
from processors.group.silences import Silences
from processors.job import PartitionWork
from processors.marks import CENTRAL, parse_mark
from tests.support import river
from tests.support.river import Row, health

SOURCE = ("readings", 0)
WALL_MS = 1_700_000_000_000


def parts() -> dict[Source, PartitionWork]:
    """A node that made a mark, and a reading that waits for its next one."""
    one = river.processor()
    one.process(river.block([Row("a", 1000, {"x": 1}, hw=(0, 0, 0)), health(500, time=1000, hw=(0, 0, 1))]))
    return {SOURCE: one}


def told(silences: Silences, mine: dict[Source, PartitionWork], now_s: float, lag: int = 0) -> list[tuple[Source, str]]:
    found = silences.due(mine, {"readings/0": lag}, now_s=now_s, wall_ms=WALL_MS)
    for _, (_, _, value, headers) in found:
        assert msgspec.json.decode(value or b"") == {"silent_s": 60}
        assert parse_mark(dict(decode_headers(headers))["hw-mark"] or b"").by == CENTRAL
    return [(source, (record[1] or b"").decode()) for source, record in found]


def test_who_makes_no_mark_is_marked_once_the_time_is_over() -> None:
    silences, mine = Silences(60), parts()
    assert told(silences, mine, 0) == []
    assert told(silences, mine, 59) == []
    assert told(silences, mine, 60) == [(SOURCE, "n1/$gateway")]


def test_nothing_is_told_of_what_was_not_read() -> None:
    silences, mine = Silences(60), parts()
    assert told(silences, mine, 0) == []
    assert told(silences, mine, 60, lag=3) == []
    assert silences.due(mine, {}, now_s=60, wall_ms=WALL_MS) == [], "nobody has said yet how far the log goes"
    assert told(silences, mine, 60, lag=1) == [(SOURCE, "n1/$gateway")], "a transaction's marker is no record"


def test_who_is_not_told_to_writes_nothing() -> None:
    silences, mine = Silences(0), parts()
    assert told(silences, mine, 0) == told(silences, mine, 1e6) == []
