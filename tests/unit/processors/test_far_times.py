"""Times that lie far apart: what windows cost depends on how many there are, never on the time between them."""

from __future__ import annotations

from typing import Any

import pytest

from processors.columns import KeyTable
from processors.marks import Mark, WatermarkTracker
from processors.processor import PartitionProcessor
from processors.windows.hopping import HoppingWindows
from tests.support import river
from tests.support.river import Row, health

NOW, YEAR_2300, YEAR_1 = 1_795_000_000_000, 10_413_792_000_000, -62_135_596_800_000
FAR = [0, YEAR_1, NOW, YEAR_2300]
DAY = 86_400_000
KINDS: dict[str, dict[str, Any]] = {
    "tumbling": {},
    "hopping": {"kind": "hopping", "size_s": 20, "every_s": 10},
    "session": {"kind": "session", "size_s": None, "gap_s": 9},
    "month": {"kind": "calendar", "size_s": None, "calendar": "month"},
}


@pytest.mark.parametrize("first", [0, NOW, YEAR_2300])
def test_a_node_of_which_nothing_has_come_may_make_its_first_mark_at_any_time(first: int) -> None:
    windows, marks = HoppingWindows(river.window(**KINDS["hopping"]), KeyTable()), WatermarkTracker()
    for live in (first, first + DAY):
        mark = Mark(node="n1", live=live)
        marks.apply(mark, copied=True)
        assert list(windows.close(mark, marks.nodes["n1"])) == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("later", FAR)
@pytest.mark.parametrize("earlier", FAR)
def test_readings_and_marks_of_far_times(kind: str, earlier: int, later: int) -> None:
    one = river.processor(river.window(**KINDS[kind]))
    for offset, time in enumerate((earlier, later, earlier, later)):
        feed(one, 2 * offset, Row("a", time, {"x": 1}), health(time, time=time))
    feed(one, 8, Row("b", earlier, {"x": 1}), Row("b", later, {"x": 1}))
    feed(one, 10, health(max(earlier, later, 0) + 40 * DAY))
    counts = one.counters()
    assert (counts["windows_emitted"] > 0) is (max(earlier, later) >= 0)
    assert (counts["refused"] > 0) is (min(earlier, later) < 0)  # no record's time lies before 1970
    assert counts["overflow"] == 0


def feed(one: PartitionProcessor, base: int, *rows: Row) -> None:
    one.process(river.block(rows, base))
