"""Windows of many panes are looked for in pieces, with the same results."""

from __future__ import annotations

import pytest

from processors.columns import Ints
from processors.processor import Output, PartitionProcessor
from processors.rules.model import Rules
from processors.windows import hopping
from processors.windows.hopping import HoppingWindows
from tests.support import river
from tests.support.river import Row

RULES = Rules(windows=(river.window(kind="hopping", size_s=60, every_s=5, allowed_lateness_s=600),))


def results() -> list[Output]:
    rows = [Row(f"d{second % 7}", second * 1000, {"t": second / 3}) for second in range(0, 400, 3)]
    rows += [Row("d1", 400_000, {"t": 1.0}, river.mark("n1", 399_000))]
    rows += [Row(f"d{second % 5}", second * 1000, {"t": 2.0}) for second in range(350, 100, -7)]  # late, out of order
    rows += [Row("d1", 900_000, {"t": 1.0}, river.mark("n1", 899_000))]
    return PartitionProcessor(RULES, "readings", 0, place="central").process(river.block(rows))


@pytest.mark.parametrize("places", [1, 30, 100])
def test_pieces_of_any_size_say_the_same(places: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = results()
    expanded: list[int] = []
    each = HoppingWindows._each

    def counted(self: HoppingWindows, first: Ints, counts: Ints) -> tuple[Ints, Ints]:
        found = each(self, first, counts)
        expanded.append(len(found[0]))
        return found

    monkeypatch.setattr(HoppingWindows, "_each", counted)
    monkeypatch.setattr(HoppingWindows, "_keep_told_of", lambda *_: None)  # of one block: it expands that only
    unlimited = results()
    most_of_all = max(expanded)
    expanded.clear()
    monkeypatch.setattr(hopping, "PLACES_MAX", places)
    assert results() == unlimited
    assert max(expanded) <= max(places, 12) < most_of_all
    monkeypatch.undo()
    monkeypatch.setattr(hopping, "PLACES_MAX", places)
    assert results() == whole != []
