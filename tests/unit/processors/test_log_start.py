"""Records have left the log before anybody read them: no window that may lack any is told, in both drivers."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import msgspec
import pytest

from processors.group.core import Member
from processors.processor import PartitionProcessor
from processors.rules.model import Rules, WindowRule
from tests.support import river
from tests.support.river import Row
from tests.unit.processors.test_inline import World

HOUR = 3_600_000
KINDS = {
    "tumbling": river.window(size_s=6 * 3600, every_field=["count"]),
    "hopping": river.window(kind="hopping", size_s=6 * 3600, every_s=3600, every_field=["count"]),
    "calendar": river.window(kind="calendar", calendar="day", zone="Europe/Berlin", every_field=["count"]),
    "session": river.window(kind="session", gap_s=9000, every_field=["count"]),
}


def story() -> list[Row]:
    """Four days of two nodes, each hour a reading and a mark of each; at night nothing but marks."""
    rows = []
    for hour in range(96):
        for node in ("n1", "n2"):
            if hour % 24 > 5:
                rows.append(Row("a", hour * HOUR - (node == "n2") * 600_000 + 700_000, {"x": hour}, node=node))
            rows.append(river.health(hour * HOUR + 500, node, time=hour * HOUR + 600))
    return rows


ROWS = story()


def told(rule: WindowRule, start: int, *, restarts: bool = False) -> list[dict[str, Any]]:
    member = Member(Rules(windows=(rule,), alerts=()), place="central")
    member.begin(("readings", 0), None, partitions=1, committed=None, start=start)
    if not restarts:
        return river.values(member.process(river.block(ROWS[start:], start)))
    one = PartitionProcessor(Rules(windows=(rule,), alerts=()), "readings", 0, place="central")
    one.lost_before(start)
    outputs = []
    for begin, end in pairwise([*range(start, len(ROWS), 9), len(ROWS)]):
        outputs += one.process(river.block(ROWS[begin:end], begin))
        state = msgspec.msgpack.decode(msgspec.msgpack.encode(one.snapshot()))
        one = PartitionProcessor(Rules(windows=(rule,), alerts=()), "readings", 0, place="central")
        one.restore(state)
    return river.values(outputs)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_told_from_an_expired_start_is_what_the_whole_log_says(kind: str) -> None:
    rule = KINDS[kind]
    whole = {(value["group"], value["start"]): value for value in told(rule, 0)}
    assert whole
    for start in range(1, 170, 39):
        found = told(rule, start)
        assert found, start
        assert all(value == whole[value["group"], value["start"]] for value in found), start
        assert len(found) >= len(whole) - 2 * (24 if kind == "hopping" else 4) * (1 + start // 48), start


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_same_in_any_blocks_and_after_any_restart(kind: str) -> None:
    assert told(KINDS[kind], 40, restarts=True) == told(KINDS[kind], 40)


def test_a_node_that_falls_silent_before_its_first_mark_is_not_told() -> None:
    one = river.processor(river.window())
    one.lost_before(3)
    silent = river.health(90_000, time=90_000, by="central")
    assert one.process(river.block([Row("a", 1_000, {"x": 1}), silent], 3)) == []


def test_a_node_that_is_new_long_after_loses_no_window() -> None:
    one = river.processor(river.window(every_field=["count"]))
    one.lost_before(3)
    day = 86_400_000
    rows = [river.health(1_000), Row("a", 2 * day, {"x": 1}, node="n9"), river.health(2 * day + 20_000, "n9")]
    assert [value["start"] for value in river.values(one.process(river.block(rows, 3)))] == [2 * day]


def test_inline_begins_the_same() -> None:
    rules = Rules(windows=(KINDS["tumbling"],), alerts=())
    world = World(0)
    world.node.topics["readings"] = [[]]
    world.node.feed(0, river.block(ROWS))
    world.node.starts["readings", 0] = 40
    world.run(rules)
    assert world.values("aggregates") == told(KINDS["tumbling"], 40)
    assert world.status["log_begins"] == {"readings/0": {"offset": 40, "time": 13 * HOUR + 1_000_000}}
    [line] = world.status["changes"]
    assert "readings/0 was read from offset 40 on" in line


def test_what_expired_in_the_middle_is_not_told_either() -> None:
    rules = Rules(windows=(KINDS["tumbling"],), alerts=())
    before = Member(rules, place="central")
    before.begin(("readings", 0), None, partitions=1, committed=None, start=0)
    outputs = before.process(river.block(ROWS[:30]))
    whole = [value for value in told(KINDS["tumbling"], 0) if value not in river.values(outputs)]
    one = PartitionProcessor(rules, "readings", 0, place="central")
    one.process(river.block(ROWS[:30]))
    one.lost_before(42)
    found = river.values(one.process(river.block(ROWS[42:], 42)))
    assert found
    assert all(value in whole for value in found)
    assert min(value["start"] for value in found) >= 12 * HOUR
