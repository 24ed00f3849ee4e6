"""Revisions of a window never go back, whatever is forgotten meanwhile: for lateness, for want of memory, in restarts.

A consumer keeps the latest revision of each window: one that began again with its late readings alone would mislead it.
"""

from __future__ import annotations

from itertools import pairwise
from random import Random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processors.rules.model import WindowRule
from tests.support import river
from tests.support.random_rivers import some_river
from tests.support.river import Row, health

RULES = {
    "tumbling": river.window(allowed_lateness_s=15, windows_max=16),
    "hopping": river.window(kind="hopping", size_s=25, every_s=10, allowed_lateness_s=15, windows_max=16),
    "session": river.window(kind="session", size_s=None, gap_s=9, allowed_lateness_s=15, windows_max=16),
    "until backfill is done": river.window(allowed_lateness_s=0, lateness="backfill", windows_max=16),
}
LATENESS = [0.0, 5.0, 15.0, 100.0]
kinds = pytest.mark.parametrize("kind", RULES)


def revisions(rule: WindowRule, rows: list[Row], cuts: list[int], lateness: list[float]) -> dict[object, list[int]]:
    """What is told of each window, with a restart at each cut, where the rule's lateness changes."""
    one = river.processor(rule)
    found: dict[object, list[int]] = {}
    for turn, (begin, end) in enumerate(pairwise([0, *cuts, len(rows)])):
        for value in river.values(one.process(river.block(rows[begin:end], begin))):
            found.setdefault((value["group"], value["start"]), []).append(value["revision"])
        saved = msgspec.msgpack.decode(msgspec.msgpack.encode(one.snapshot()))
        one = river.processor(msgspec.structs.replace(rule, allowed_lateness_s=lateness[turn % len(lateness)]))
        one.restore(saved)
    return found


def check(kind: str, rows: list[Row], cuts: list[int], lateness: list[float]) -> int:
    """How many revisions there were beside the first ones."""
    found = revisions(RULES[kind], rows, cuts, lateness)
    for window, told in found.items():
        assert told == list(range(len(told))), window
    return sum(len(told) - 1 for told in found.values())


@kinds
@settings(max_examples=10)
@given(seed=st.integers(0, 1 << 32), data=st.data())
def test_no_revision_is_told_twice(kind: str, seed: int, data: st.DataObject) -> None:
    rows = some_river(seed, 100)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(rows)), max_size=3)))
    check(kind, rows, cuts, data.draw(st.lists(st.sampled_from(LATENESS), min_size=1, max_size=3)))


@pytest.mark.long("windows-revisions", count=1_500)
@kinds
def test_no_revision_is_told_twice_for_long(kind: str, count: int) -> None:
    more = 0
    for seed in range(count):
        chance = Random(~seed)
        rows = some_river(seed, chance.choice([30, 100, 300]))
        cuts = sorted(chance.sample(range(len(rows) + 1), chance.randrange(6)))
        more += check(kind, rows, cuts, [chance.choice(LATENESS) for _ in range(3)])
    assert more > count, "these rivers have late data"


def at(second: float) -> Row:
    return Row("a", round(second * 1000), {"x": 1})


def test_what_is_owed_only_after_a_window_was_forgotten_does_not_begin_it_again() -> None:
    one = river.processor(river.window(allowed_lateness_s=30))
    one.process(river.block([at(1), at(2), health(20_000), health(60_000)]))
    block = river.block([health(61_000, open=[[0, 5_000]]), at(3), health(62_000)])
    outputs = one.process(block)
    assert river.values(outputs) == []
    [late] = river.values(outputs, "late")
    assert (late["time"], late["start"], late["cause"]) == (3_000, 0, "device")


def test_a_session_does_not_begin_earlier_where_another_was_told_and_forgotten() -> None:
    one = river.processor(RULES["session"])
    one.process(river.block([at(0), at(14), at(21), health(60_000, open=[[28_004, 38_685]]), health(60_500)]))
    rows = [at(7), at(0), health(90_000)]
    told = [(value["start"], value["revision"]) for value in river.values(one.process(river.block(rows)))]
    assert told == []
    assert one.counters()["too_late"] == 2


def test_what_has_been_owed_since_before_its_time_was_over_may_come_however_late() -> None:
    one = river.processor(river.window(allowed_lateness_s=30))
    one.process(river.block([at(1), health(4_000), health(90_000, open=[[5_000, 70_000]]), at(6), at(33)]))
    rest = one.process(river.block([health(200_000, open=[[34_000, 70_000]]), at(37), health(201_000)]))
    told = [(value["start"], value["revision"], value["complete"], value["count"]) for value in river.values(rest)]
    assert told == [(0, 1, True, 2), (30_000, 0, False, 1), (30_000, 1, True, 2)]
