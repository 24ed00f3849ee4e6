"""`headwater aggregates why` with filters and over groups of devices: it explains what the processors have seen."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from gateway.consume.reader import Block
from headwater.cli.aggregates import blocks
from headwater.cli.aggregates_why import explain, text
from headwater.clock import ManualClock
from headwater.errors import UserError
from processors.budget import NO_LIMITS
from processors.job import RuleJob
from processors.processor import AGGREGATES, LATE, PartitionProcessor
from processors.rules.model import Rules, WindowRule
from processors.unread import unread_record
from tests.support import river
from tests.support.memory_log import MemoryNode
from tests.support.river import Row

T0 = 1_700_000_000_000
RELAY = "processors-w-repartition"
NORTH = {"site": "north"}


def at(second: float, node: str = "n1", device: str = "a", x: float = 1, **more: Any) -> Row:
    return Row(device, T0 + round(second * 1000), {"x": x}, node=node, **more)


def mark(second: float, node: str = "n1", **more: Any) -> Row:
    time = T0 + round(second * 1000)
    base: dict[str, Any] = {"clock": time, "src": {"mqtt:plc": ["connected", T0 + 1]}}
    for name in {"open", "lost"} & more.keys():
        more[name] = [[T0 + first * 1000, T0 + last * 1000, *count] for first, last, *count in more[name]]
    return river.health(time, node, time, more.pop("hw", None), **{**base, **more})


class World:
    """A central with two partitions of readings, of which each `feed` is processed at once, through both stages."""

    def __init__(self, *rules: WindowRule) -> None:
        self.rules = Rules(windows=rules)
        self.node = MemoryNode(ManualClock())
        self.node.topics = {"readings": [[], []], AGGREGATES: [[]], RELAY: [[], []], LATE: [[]]}
        self.job = RuleJob(self.rules, place="central", name="processors")
        self.job.know({"readings": 2, RELAY: 2})
        topics = ("readings", RELAY) if any(rule.group_by for rule in rules) else ("readings",)
        self.parts = {(topic, one): self.job.begin(topic, one, NO_LIMITS) for topic in topics for one in (0, 1)}

    def feed(self, partition: int, *rows: Row) -> None:
        block = river.block(rows, len(self.node.topics["readings"][partition]), partition)
        self.node.feed(partition, block)
        self._process(block)

    def _process(self, block: Block) -> None:
        for output in self.parts[block.topic, block.partition].process(block):
            log = self.node.topics[output.topic][output.partition or 0]
            log.append(output.record)
            if output.topic == RELAY:
                columns = [[column] for column in output.record]
                offset = len(log) - 1
                self._process(Block(RELAY, output.partition or 0, [offset], *columns, offset + 1))  # type: ignore[call-arg, arg-type]

    def status(self) -> dict[str, Any]:
        report = {"state": "up", "lag_records": 0, **self.job.about(self.parts.values())}
        return {"work": {"report": {"processors": report}}}

    def why(self, key: str = "site/north", second: float | None = 5, *, now: float = 20) -> dict[str, Any]:
        async def ask() -> list[dict[str, Any]]:
            reader: Any = await self.node.connect()
            time, now_ms = None if second is None else T0 + round(second * 1000), T0 + round(now * 1000)
            return await explain(reader, self.rules, key, time, rule="", status=self.status(), now_ms=now_ms)

        [found] = asyncio.run(ask())
        return found


# --- filters


def test_readings_that_the_filter_drops_explain_nothing() -> None:
    world = World(river.window(where="x > 0 and device.site == 'north'"))
    world.feed(0, at(1, says=NORTH), at(2, x=-1), mark(12), at(3, x=-1), at(4), mark(13))
    found = world.why("n1/a")
    assert (found["readings"], found["left_out"], found["told"]["count"]) == (2, 2, 2)
    assert [late["offset"] for late in found["late"]] == [4]
    assert "readings    2 in the log; where leaves out 2 more" in text(found)


def test_what_a_device_is_may_have_been_said_long_before_the_window() -> None:
    world = World(river.window(where="device.site == 'north'"))
    world.feed(0, at(-500, says=NORTH), at(1), mark(12))
    assert (world.why("n1/a")["readings"], world.why("n1/a")["left_out"]) == (1, 0)
    world.feed(0, at(2, says={"site": "south"}), mark(13))
    assert (world.why("n1/a")["readings"], world.why("n1/a")["left_out"]) == (1, 1)


def test_the_newest_window_is_one_that_the_filter_lets_be() -> None:
    world = World(river.window(where="x > 0"))
    world.feed(0, at(1), at(25, x=-1), mark(40))
    assert world.why("n1/a", None)["start"] == T0
    with pytest.raises(UserError, match="no reading of n1/b that its rule's where lets through"):
        world.why("n1/b", None)


# --- groups

GROUPED = river.window(group_by=["site"], where="x > 0")


def two_nodes() -> World:
    """Two nodes, one in each partition, both at the site north; and one that no rule takes."""
    world = World(river.window(group_by=["site"], where="x > 0", nodes=["n*"]))
    world.feed(0, at(1, says=NORTH), at(2, x=-1), at(2, "other", says=NORTH), mark(2, "other"), mark(3))
    world.feed(1, at(1, "n2", "b", says=NORTH), mark(3, "n2"))
    return world


def test_of_a_group_the_node_that_is_the_furthest_behind_is_named() -> None:
    world = two_nodes()
    world.feed(0, at(11), mark(30))
    found = world.why(now=5)
    assert (found["group"], found["readings"], found["left_out"], found["told"]) == ("site/north", 2, 1, None)
    assert (found["held_by"]["kind"], found["held_by"]["node"], found["held_by"]["partition"]) == ("time", "n2", 1)
    assert "mark 1 of n2 (readings/1, offset 1) says 2023-11-14T22:13:23Z, 7 s short of its end" in found["reason"]
    found = world.why(now=100)
    assert (found["held_by"]["kind"], found["held_by"]["silent_ms"]) == ("silent", 97_000)
    assert found["reason"].startswith("n2 is silent: the last, mark 1 of n2")


def test_of_a_group_a_device_that_holds_its_node_is_named() -> None:
    world = two_nodes()
    world.feed(0, mark(30))
    far = {"mqtt:b": ["connected", T0 + 4_000], "mqtt:plc": ["gone", T0]}
    world.feed(1, mark(4, "n2", src=far, clock=T0 + 30_000))
    assert world.why(now=30)["reason"].startswith("Source mqtt:b of n2 is the furthest behind")


def test_of_a_group_the_link_that_owes_data_is_named() -> None:
    world = two_nodes()
    world.feed(0, mark(30, open=[[2, 3]]))
    world.feed(1, mark(31, "n2"))
    found = world.why(now=31)
    assert (found["held_by"]["kind"], found["held_by"]["node"]) == ("backfill", "n1")
    assert found["held_by"]["owed"] == [(T0 + 2000, T0 + 3000)]
    assert found["told"]["complete"] is False


def test_of_a_group_that_has_closed_the_mark_and_late_readings_are_named() -> None:
    world = two_nodes()
    world.feed(0, mark(12, n=7), at(4, x=5))
    world.feed(1, mark(13, "n2", n=9), at(6, "n2", "b"), mark(14, "n2", n=10))
    found = world.why()
    assert found["reason"] == (
        "Nothing: mark 9 of n2 (readings/1, offset 2) said that all nodes had passed 2023-11-14T22:13:30Z."
    )
    assert [(late["key"], late["partition"], late["after_close"]) for late in found["late"]] == [
        ("n2/b", 1, True),
        ("n1/a", 0, False),
    ]
    assert found["late_reasons"][0].startswith(
        "readings/1 offset 3 (n2/b): its time 2023-11-14T22:13:26Z was 7 s behind"
    )
    assert (found["readings"], found["told"]["count"], found["told"]["cause"]) == (4, 4, "late")


def test_of_a_group_the_partitions_that_nobody_has_read_yet_are_named() -> None:
    world = World(GROUPED)
    for target in (0, 1):
        time, key, value, headers = record = unread_record([1])
        world.node.topics[RELAY][target].append(record)
        world.parts[RELAY, target].process(Block(RELAY, target, [0], [time], [key], [value], [headers], 1))
    world.feed(0, at(1, says=NORTH), mark(30))
    found = world.why()
    assert (found["held_by"], found["told"]) == ({"kind": "unread", "partitions": [1]}, None)
    assert found["reason"].startswith("The processors have still to read what is in readings/1, and have heard of no")
    world.feed(1, at(1, "n2", says=NORTH), mark(30, "n2"))
    found = world.why()
    assert (found["held_by"]["kind"], found["told"]["count"]) == ("nothing", 2)


def test_a_node_that_has_been_silent_since_long_before_the_window_holds_it() -> None:
    world = two_nodes()
    world.feed(0, at(5_001), mark(5_020))
    found = world.why(second=5_005, now=5_030)
    assert found["held_by"] == {"kind": "silent", "node": "n2", "live": T0 + 3_000, "missing_ms": 5_007_000}
    assert found["reason"].startswith("n2 is silent, and the group waits for it: its last mark says")


def test_a_rule_that_takes_nothing_of_a_key_keeps_no_other_from_being_explained() -> None:
    of_devices = [river.window(name="hot", where="x > 90"), river.window(name="any")]
    world = World(*of_devices, river.window(group_by=["site"]))
    world.feed(0, at(1, says=NORTH), mark(12))
    assert (world.why("site/north", None)["rule"], world.why("site/north")["rule"]) == ("w", "w")
    assert world.why("n1/a", None)["rule"] == "any"


def test_keys_of_groups_and_mistakes() -> None:
    world = two_nodes()
    world.feed(0, mark(12))
    world.feed(1, mark(12, "n2"))
    assert world.why(f"site/north/w/{T0}", None)["start"] == T0
    assert world.why("site/north", None)["start"] == T0
    with pytest.raises(UserError) as caught:
        world.why("n1/a")
    assert "These windows are over groups of devices: w (site/…)" in caught.value.hint
    with pytest.raises(UserError, match="no reading of site/south"):
        world.why("site/south", None)


def test_a_rule_that_no_processor_has_run_yet_is_explained_by_the_marks_alone() -> None:
    world = World(GROUPED)
    block = river.block([at(1, says=NORTH), mark(3)])
    world.node.feed(0, block)
    world.node.topics[RELAY] = []
    assert world.why(now=4)["held_by"]["kind"] == "time"
    assert PartitionProcessor(world.rules, "readings", 0, place="central").names == []


class Long:
    """A topic of five million records, one a millisecond; of what is read, only the beginning is of interest here."""

    def __init__(self) -> None:
        self.begun: dict[tuple[str, int], int] = {}

    async def partitions(self, topic: str) -> int:
        return 1

    async def offset(self, topic: str, partition: int, at: str | int) -> int:
        return {"earliest": 0, "latest": 5_000_000}[at] if isinstance(at, str) else at - T0

    def assign(self, positions: Mapping[tuple[str, int], int]) -> None:
        self.begun = dict(positions)

    async def poll(self, *, max_wait_ms: int = 500, max_bytes: int = 1 << 20) -> list[Block]:
        return [Block("readings", 0, [], [], [], [], [], 5_000_000)]

    async def close(self) -> None:
        pass


def test_a_window_is_read_from_its_time_on_however_much_came_since() -> None:
    log = Long()

    async def read(**where: Any) -> int:
        async for _ in blocks(log, "readings", **where):
            raise AssertionError("nothing is in it")
        return log.begun["readings", 0]

    assert asyncio.run(read(since=T0 + 1000)) == 1000
    assert asyncio.run(read(back=3)) == 4_999_997
