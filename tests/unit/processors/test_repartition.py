"""Windows over groups of devices of many nodes: two stages with a relay topic between them."""

from __future__ import annotations

from random import Random
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.consume.reader import Block
from gateway.log.records import Record
from processors.budget import NO_LIMITS
from processors.group.core import _part
from processors.job import PartitionWork, RuleJob
from processors.processor import Output
from processors.rules.model import Rules, WindowRule
from tests.support import river
from tests.support.memory_log import Killed
from tests.support.river import Row
from tests.unit.processors.test_inline import World

RELAY = "job-w-repartition"
SITES = ("north", "south", "we/st", None)
SUMS = {"fields": {"t": ["count", "sum", "max"]}, "every_field": ["sum"]}


def rule(**more: Any) -> WindowRule:
    return river.window(**{"group_by": ["site"], "where": "t >= 0", "compute": {"u": "t * 2"}, **SUMS, **more})


class Cluster:
    """Partitions of `readings` and of the relay topic, each with its processor, which can be made anew any time."""

    def __init__(self, rules: Rules, inputs: list[Block], partitions: int = 3) -> None:
        self.job = RuleJob(rules, place="central", name="job")
        self.job.know({"readings": len(inputs), RELAY: partitions})
        self.logs: dict[tuple[str, int], list[Block]] = {
            ("readings", number): [one] for number, one in enumerate(inputs)
        }
        self.relay: list[list[Record]] = [[] for _ in range(partitions)]
        self.parts: dict[tuple[str, int], PartitionWork] = {}
        self.at: dict[tuple[str, int], int] = {}
        for topic, count in (("readings", len(inputs)), (RELAY, partitions)):
            for partition in range(count):
                self.parts[topic, partition] = self.job.begin(topic, partition, NO_LIMITS)
                self.at[topic, partition] = 0
        self.inputs = inputs
        self.said: list[Output] = []

    def block(self, where: tuple[str, int]) -> Block:
        if where[0] == "readings":
            return self.inputs[where[1]]
        records = self.relay[where[1]]
        columns = [list(column) for column in zip(*records, strict=True)] if records else [[], [], [], []]
        return Block(*where, list(range(len(records))), *columns, len(records))  # type: ignore[call-arg, arg-type]

    def step(self, where: tuple[str, int], count: int) -> bool:
        block, at = self.block(where), self.at[where]
        end = min(len(block.offsets), at + count)
        for output in self.parts[where].process(_part(block, at, end)) if end > at else ():
            if output.topic == RELAY:
                assert output.partition is not None
                self.relay[output.partition].append(output.record)
            else:
                assert output.partition is None
                self.said.append(output)
        self.at[where] = end
        return end > at

    def again(self, where: tuple[str, int]) -> None:
        """Its processor dies behind a snapshot, and another takes over."""
        kept = msgspec.msgpack.decode(msgspec.msgpack.encode(self.parts[where].snapshot()))
        self.parts[where] = self.job.begin(*where, NO_LIMITS)
        assert self.parts[where].restore(kept) == []

    def run(self) -> None:
        more = True
        while more:
            more = False
            for where in self.parts:
                more |= self.step(where, 1 << 20)

    def values(self) -> list[dict[str, Any]]:
        return river.values(self.said)

    def latest(self) -> dict[tuple[str, int], dict[str, Any]]:
        found: dict[tuple[str, int], dict[str, Any]] = {}
        for value in self.values():
            key = (value["group"], value["start"])
            assert key not in found or found[key]["revision"] < value["revision"]
            found[key] = value
        return found


def story(node: int, seconds: int, random: Random) -> list[Row]:
    """A node with four devices at sites, some readings late, some below 0, which `where` leaves out, and marks."""
    rows = []
    for second in range(seconds):
        for device, site in enumerate(SITES):
            says = {"site": site} if second == 0 else None
            rows.append(
                Row(f"d{device}", second * 1000 + device, {"t": random.randrange(-2, 50)}, None, f"n{node}", says=says)
            )
        if random.random() < 0.1:
            rows.append(Row("d0", max(0, second - 15) * 1000, {"t": 7}, None, f"n{node}"))
        rows.append(river.health(second * 1000 - 1500, f"n{node}", second * 1000))
    rows.append(river.health(seconds * 1000 + 60_000, f"n{node}", seconds * 1000))
    return rows


def naive(stories: list[list[Row]]) -> dict[tuple[str, int], tuple[int, dict[str, Any]]]:
    """(site, window) -> readings and fields, from all readings."""
    found: dict[tuple[str, int], list[int]] = {}
    for row in (row for rows in stories for row in rows if row.device.startswith("d") and row.fields["t"] >= 0):
        if (site := SITES[int(row.device[1:])]) is not None:
            key = (f"site/{site.replace('/', '%2F')}", row.time - row.time % 10_000)
            found.setdefault(key, []).append(row.fields["t"])
    return {
        key: (
            len(values),
            {
                "t": {"count": len(values), "sum": float(sum(values)), "max": float(max(values))},
                "u": {"sum": 2.0 * sum(values)},
            },
        )
        for key, values in found.items()
    }


@settings(max_examples=3, deadline=None)
@given(seed=st.integers(0, 1 << 32))
def test_whatever_the_order_of_the_work_each_group_has_all_readings_of_all_nodes(seed: int) -> None:
    random = Random(seed)
    stories = [story(node, 21, random) for node in range(3)]
    cluster = Cluster(Rules(windows=(rule(),)), [river.block(rows, partition=at) for at, rows in enumerate(stories)])
    places = list(cluster.parts)
    for _ in range(20):
        where = random.choice(places)
        cluster.step(where, random.randrange(1, 90))
        if random.random() < 0.3:
            cluster.again(where)
    cluster.run()
    told = {key: (value["count"], value["fields"]) for key, value in cluster.latest().items()}
    assert told == naive(stories)
    assert all(value["complete"] for value in cluster.latest().values())
    # A group is in one partition of the relay topic, every mark in all of them.
    keys = [{record[1] for record in log if not (record[1] or b"").endswith(b"$mark")} for log in cluster.relay]
    assert sum(map(len, keys)) == len(set().union(*keys)) == 3


def test_the_same_relay_topic_gives_the_same_bytes_however_it_is_read() -> None:
    random = Random(4)
    inputs = [river.block(story(node, 45, random), partition=node) for node in range(2)]
    one = Cluster(
        Rules(windows=(rule(),), alerts=(river.alert(fire_above=30, clear_below=20, aggregate="max"),)), inputs
    )
    one.run()
    assert {output.topic for output in one.said} == {"aggregates", "alerts"}
    for partition in range(3):
        again, made = one.job.begin(RELAY, partition, NO_LIMITS), list[Output]()
        block = one.block((RELAY, partition))
        for at in range(0, len(block.offsets), 7):
            made += again.process(_part(block, at, min(at + 7, len(block.offsets))))
        own = f"/{partition}/".encode()
        assert made == [output for output in one.said if own in output.record[3]]


def test_windows_wait_for_the_slowest_node() -> None:
    cluster = Cluster(Rules(windows=(rule(),)), [river.block([], partition=at) for at in range(2)])

    def feed(partition: int, *rows: Row) -> list[tuple[int, int, bool, str]]:
        done = len(cluster.inputs[partition].offsets)
        before = len(cluster.said)
        block = river.block([*rows], done, partition)
        was = cluster.inputs[partition]
        joined = [[*old, *new] for old, new in zip(was[2:7], block[2:7], strict=True)]
        cluster.inputs[partition] = Block(*was[:2], *joined, block.next_offset)  # type: ignore[call-arg, arg-type]
        cluster.run()
        told = river.values(cluster.said[before:])
        return [(one["start"], one["count"], one["complete"], one["cause"]) for one in told]

    def reading(node: str, time: int) -> Row:
        return Row("a", time, {"t": 1}, None, node, says={"site": "x"})

    assert feed(0, reading("n0", 1000), river.health(0, "n0")) == []
    assert feed(1, reading("n1", 2000), river.health(0, "n1")) == []
    assert feed(0, reading("n0", 9000), river.health(30_000, "n0")) == []
    assert feed(1, river.health(10_000, "n1")) == [(0, 3, True, "close")]
    # n1 is silent: the central says so in its name, and what there is of the windows is told, once and incomplete
    assert feed(0, reading("n0", 11_000), river.health(40_000, "n0", open=[[12_000, 13_000]])) == []
    assert feed(1, river.health(30_000, "n1", by="central")) == [(10_000, 1, False, "silent")]
    assert feed(0, river.health(41_000, "n0", open=[[12_000, 13_000]])) == []
    # it is there again: its own mark lets the window close, but that n0 owes something of it
    assert feed(1, reading("n1", 12_000), river.health(41_000, "n1")) == []
    assert feed(0, river.health(42_000, "n0")) == [(10_000, 2, True, "backfill")]


def test_a_rule_that_is_new_in_the_middle_of_a_log_tells_whole_windows_only() -> None:
    random = Random(1)
    rows = story(0, 60, random)
    block = river.block(rows)
    before = Cluster(Rules(windows=(river.window(name="other"),)), [block])
    before.step(("readings", 0), 100)  # some 20 seconds
    cluster = Cluster(Rules(windows=(river.window(name="other"), rule())), [block])
    fresh = cluster.parts["readings", 0].restore(before.parts["readings", 0].snapshot())
    assert [version.partition("@")[0] for version in fresh] == ["w"] * 3
    cluster.at["readings", 0] = 100
    cluster.run()
    told = {key: value["count"] for key, value in cluster.latest().items() if key[0].startswith("site/")}
    begin = min(start for _, start in told)
    assert begin == 20_000
    assert told == {key: found[0] for key, found in naive([rows]).items() if key[1] >= begin}


def test_groups_by_several_labels_and_by_node() -> None:
    rows = [
        Row("a", 1000, {"t": 1}, says={"site": "x", "labels": {"line": "1"}}),
        Row("b", 1000, {"t": 1}, says={"site": "x", "labels": {"line": "2"}}),
        Row("c", 1000, {"t": 1}, says={"site": "x"}),
        Row("a", 1500, {"t": 1}),
        river.health(20_000),
    ]
    cluster = Cluster(Rules(windows=(rule(group_by=["site", "labels.line"]),)), [river.block(rows)])
    cluster.run()
    assert {value["group"]: value["count"] for value in cluster.values()} == {
        "site+labels.line/x/1": 2,
        "site+labels.line/x/2": 1,
    }
    cluster = Cluster(Rules(windows=(rule(group_by=["node"], devices=["a", "c"]),)), [river.block(rows)])
    cluster.run()
    assert {value["group"]: value["count"] for value in cluster.values()} == {"node/n1": 3}


# --- the inline driver


def test_texts_go_with_their_readings() -> None:
    rows = [
        Row("a", 1000, {"state": "run", "motor": {"mode": "eco"}, "t": 1}),
        Row("b", 5000, {"state": 2, "t": "no number"}),
        Row("a", 6000, {"state": None, "motor": {"mode": "max"}}),
        river.health(20_000),
    ]
    fields = {"state": ["durations", "last"], "motor.mode": ["last"], "t": ["count", "max"]}
    cluster = Cluster(Rules(windows=(rule(group_by=["node"], where="", fields=fields),)), [river.block(rows)])
    cluster.run()
    [value] = cluster.values()
    assert value["fields"]["state"] == {"durations": {"2": 5.0, "run": 5.0}, "last": 2.0}
    assert value["fields"]["motor.mode"] == {"last": "max"}
    assert value["fields"]["t"] == {"count": 1, "max": 1.0}


GROUPED = Rules(windows=(river.window(), rule(name="g", group_by=["node"], where=""), rule(name="all", where="")))


def latest(world: World) -> dict[tuple[str, str, int], Any]:
    found: dict[tuple[str, str, int], Any] = {}
    for value in world.values("aggregates"):
        found[value["rule"], value["group"], value["start"]] = (value["count"], value["fields"], value["complete"])
    return found


def relayed(world: World) -> list[int]:
    """What each partition of the relay topic has of readings and marks."""
    logs = world.node.topics["processors-g-repartition"]
    return [sum(b"hw-out" in headers for _, _, _, headers in log) for log in logs]


def test_inline_a_failure_at_any_call_loses_and_repeats_nothing() -> None:
    whole = World()
    whole.node.records_per_poll = 25
    whole.run(GROUPED)
    wanted = latest(whole)
    assert {rule for rule, _, _ in wanted} == {"w", "g"}  # no device says a site
    relay = relayed(whole)
    assert sum(relay) > 100
    for call in range(1, whole.node.calls + 1, 1 + whole.node.calls // 4):
        world = World()
        world.node.records_per_poll = 25
        world.node.fail_at, world.node.how = call, ("before", "after")[call // 4 % 2]
        try:
            world.run(GROUPED)
        except Killed:
            world.disk.power_cut()
            world.run(GROUPED)
        assert latest(world) == wanted, call
        assert relayed(world) == relay, call
        for numbered in world.outputs().values():
            assert [number for number, _ in numbered] == list(range(len(numbered)))
