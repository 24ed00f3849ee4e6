"""`headwater aggregates recompute` for windows over groups of devices: from the readings of all nodes."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from headwater.cli.aggregates import chosen
from headwater.cli.recompute import compare, write
from processors.processor import AGGREGATES
from processors.recompute import Finding
from processors.rules.model import Rules, WindowRule
from tests.support import river
from tests.unit.cli.test_aggregates_why import NORTH, RELAY, T0, World, at, mark

DAY = 86_400
TENTHS = [0.1 * number for number in range(1, 40)]
FIELDS = {"x": ["count", "sum", "mean", "max", "p50", "distinct", "stddev"]}
KINDS = {
    "tumbling": river.window(group_by=["site"], allowed_lateness_s=60, fields=FIELDS),
    "hopping": river.window(group_by=["site"], kind="hopping", size_s=20, every_s=10, allowed_lateness_s=60),
    "session": river.window(group_by=["site"], kind="session", size_s=None, gap_s=15, allowed_lateness_s=60),
    "where": river.window(group_by=["site", "node"], where="x > 0.3", compute={"y": "x * 2"}, allowed_lateness_s=60),
}


def world_of(rule: WindowRule) -> World:
    world = World(rule)
    for partition, node in ((0, "n1"), (1, "n2")):
        world.feed(partition, at(0, node, says=NORTH), at(0.5, node, "b", says={"site": "south"}))
    for second, x in enumerate(TENTHS):
        for partition, node in ((0, "n1"), (1, "n2")):
            device = "ab"[second % 2]
            world.feed(partition, at(second, node, device, x))
            if second % 5 == 4:
                world.feed(partition, mark(second, node))
    finish(world, 100)
    return world


def finish(world: World, second: float) -> None:
    for partition, node in ((0, "n1"), (1, "n2")):
        world.feed(partition, mark(second, node))


def recompute(world: World, *, dry: bool = False) -> list[Finding]:
    async def run() -> list[Finding]:
        reader: Any = await world.node.connect()
        ends = {("readings", one): len(world.node.topics["readings"][one]) for one in (0, 1)}
        status = world.status()["work"]["report"]["processors"]
        found, _ = await compare(reader, world.rules.windows, (T0 - DAY * 1000, T0 + DAY * 1000), status, ends)
        if not dry:
            await write(reader, found)
        return found

    return asyncio.run(run())


def latest(world: World) -> dict[tuple[str, int], dict[str, Any]]:
    values = [msgspec.json.decode(record[2] or b"") for record in world.node.topics[AGGREGATES][0]]
    return {(value["group"], value["start"]): value for value in values}


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_processors_said_of_groups_is_what_the_log_says(kind: str) -> None:
    world = world_of(KINDS[kind])
    finish(world, DAY)
    assert latest(world)
    assert recompute(world) == []


@pytest.mark.parametrize("kind", KINDS)
def test_readings_that_came_too_late_for_a_group_make_a_revision_once(kind: str) -> None:
    world = world_of(KINDS[kind])
    finish(world, DAY)
    before = latest(world)
    world.feed(1, at(3, "n2", "a", 7.5))
    finish(world, DAY + 1)
    assert latest(world) == before
    found = recompute(world)
    assert found
    assert {one.verdict for one in found} == {"revised"}
    for one in found:
        value = latest(world)[one.group, one.start]
        assert (value["revision"], value["cause"]) == (before[one.group, one.start]["revision"] + 1, "recompute")
        assert value["count"] == before[one.group, one.start]["count"] + 1
        assert value["fields"]["x"]["max"] == 7.5
    assert recompute(world) == []


def test_windows_that_may_still_be_revised_or_wait_for_a_node_are_left() -> None:
    world = world_of(msgspec.structs.replace(KINDS["tumbling"], allowed_lateness_s=70))
    world.node.topics[AGGREGATES] = [[]]
    assert {one.verdict for one in recompute(world)} == {"open", "revised"}
    world.feed(0, mark(DAY), mark(DAY + 1, open=[[0, 50]]))
    world.node.topics[AGGREGATES] = [[]]
    world.feed(1, mark(DAY, "n2"))
    assert {one.verdict for one in recompute(world, dry=True)} == {"owed"}


def test_where_readings_of_any_node_have_expired_groups_are_left() -> None:
    world = world_of(KINDS["tumbling"])
    finish(world, DAY)
    world.node.starts["readings", 1] = 3
    world.node.topics[AGGREGATES] = [[]]
    assert {one.verdict for one in recompute(world)} == {"readings expired"}


def test_windows_of_before_the_rule_are_made_at_once() -> None:
    world = world_of(river.window(name="other"))
    world.node.topics[AGGREGATES] = [[]]
    rule = river.window(group_by=["site"], every_field=["count"])
    fresh = World(rule)
    for where, part in world.parts.items():
        fresh.parts[where].restore(part.snapshot())
    fresh.node = world.node
    finish(fresh, 101)
    found = recompute(fresh)
    assert {(one.verdict, (one.start - T0) // 1000) for one in found} == {("revised", one) for one in (0, 10, 20, 30)}
    assert len(found) == 8
    assert all(record[1].startswith(b"site/") for record in world.node.topics[AGGREGATES][0] if record[1])


def test_the_results_of_a_node_with_fewer_output_partitions_go_where_its_processors_write() -> None:
    world = World(river.window(allowed_lateness_s=60))
    world.feed(1, at(1, "n2"), mark(30, "n2"), mark(DAY, "n2"), at(50, "n2"), mark(DAY + 1, "n2"))
    assert [one.verdict for one in recompute(world)] == ["revised"]
    assert len(world.node.topics[AGGREGATES][0]) == 2


@pytest.mark.parametrize(("factor", "differing"), [(1 + 1e-12, 0), (1 + 1e-6, 1)])
def test_the_last_digits_of_a_groups_sum_are_no_difference(factor: float, differing: int) -> None:
    world = world_of(KINDS["tumbling"])
    finish(world, DAY)
    log = world.node.topics[AGGREGATES][0]
    time, key, value, headers = log[-1]
    told = msgspec.json.decode(value or b"")
    told["fields"]["x"]["sum"] *= factor
    log[-1] = (time, key, msgspec.json.encode(told), headers)
    assert len(recompute(world)) == differing


def test_rules_over_groups_are_chosen_as_others() -> None:
    assert [one.name for one in chosen(Rules(windows=(KINDS["where"],)), "")] == ["w"]
    assert RELAY == "processors-w-repartition"
