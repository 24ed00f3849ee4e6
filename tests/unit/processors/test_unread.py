"""Windows over groups wait for what is still to be read, also of nodes nobody has heard of yet; and not for ever."""

from __future__ import annotations

from typing import Any

from processors.rules.model import Rules
from processors.unread import RECORDS_MAX, STALLED_MS, TELL_EVERY_MS, UnreadInputs, unread_record
from tests.support import river
from tests.support.river import Row
from tests.unit.processors.test_inline import World
from tests.unit.processors.test_repartition import RELAY, Cluster, rule

RULES = Rules(windows=(rule(where="", compute={}, every_field=[], fields={"t": ["count"]}),))
SITE = {"site": "x"}
SECONDS = 60
WHOLE = dict.fromkeys(range(0, 50000, 10000), 10)


def rows(node: str, device: str = "a") -> list[Row]:
    """A reading a second, and a mark with it."""
    return [
        Row(device, second * 1000, {"t": 1}, river.mark(node, max(0, second - 1) * 1000), node, says=SITE)
        for second in range(SECONDS)
    ]


def cluster_of(*stories: list[Row]) -> Cluster:
    return Cluster(RULES, [river.block(story, partition=at) for at, story in enumerate(stories)], partitions=1)


def tell(cluster: Cluster, unread: list[int]) -> None:
    """As a driver does; the second stage reads on."""
    cluster.relay[0].append(unread_record(unread))
    read(cluster)


def read(cluster: Cluster) -> None:
    while cluster.step((RELAY, 0), 1 << 20):
        pass


def told(cluster: Cluster) -> list[tuple[int, int, int, bool, str]]:
    return [(one["start"], one["revision"], one["count"], one["complete"], one["cause"]) for one in cluster.values()]


def test_no_window_closes_before_each_partition_with_records_ahead_was_heard_of() -> None:
    cluster = cluster_of(rows("n0"), rows("n1"), [])
    tell(cluster, [0, 1])
    cluster.step(("readings", 0), SECONDS - 1)
    read(cluster)
    assert told(cluster) == []
    assert cluster.job.about(cluster.parts.values())["groups"]["w"]["unread"] == [1]
    cluster.again((RELAY, 0))  # a later owner waits as well
    cluster.step(("readings", 0), 1)
    read(cluster)
    assert told(cluster) == []
    cluster.step(("readings", 1), 1)
    read(cluster)
    assert told(cluster) == [], "n1 is heard of, and has nothing to say yet"
    cluster.step(("readings", 1), SECONDS)
    read(cluster)
    assert told(cluster) == [(start, 0, 2 * count, True, "close") for start, count in WHOLE.items()]
    cluster.again((RELAY, 0))
    assert cluster.job.about(cluster.parts.values())["groups"]["w"]["unread"] == []


def test_a_partition_that_was_read_without_a_mark_is_waited_for_no_longer() -> None:
    cluster = cluster_of(rows("n0"), [Row("a", 0, {"t": 1}, None, "foreign")])
    tell(cluster, [0, 1])
    cluster.run()
    assert told(cluster) == []
    tell(cluster, [])
    assert told(cluster) == [(start, 0, count, True, "close") for start, count in WHOLE.items()], "without another mark"


def test_a_partition_that_was_heard_of_is_not_waited_for_again() -> None:
    cluster = cluster_of(rows("n0"), rows("n1"))
    cluster.run()
    count = len(told(cluster))
    tell(cluster, [0, 1])  # its readers began again, and are a little behind
    tell(cluster, [])
    assert len(told(cluster)) == count
    assert cluster.job.about(cluster.parts.values())["groups"]["w"]["unread"] == []


def test_what_is_held_for_a_partition_is_not_told_as_silent() -> None:
    cluster = cluster_of([*rows("n0")[:8], river.health(30_000, "n0", by="central")], rows("n1"))
    tell(cluster, [1])
    cluster.step(("readings", 0), SECONDS)
    read(cluster)
    assert told(cluster) == []


# --- which are waited for, and how long


def test_who_has_records_ahead_is_waited_for_until_they_are_read() -> None:
    unread = UnreadInputs({"relay": "readings"})
    for partition, (position, end) in enumerate([(0, 0), (5, 9), (7, 7), (0, 3)]):
        unread.begin(("readings", partition), position, end)
    unread.begin(("other", 0), 0, 9)
    at = {("readings", 1): 5, ("readings", 3): 0}
    assert unread.due(at, 0) == {"relay": [1, 3]}
    assert unread.due(at, 1000) == {}
    assert unread.due(at | {("readings", 3): 3}, 2000) == {"relay": [1]}
    assert unread.due({("readings", 1): 9}, 3000) == {"relay": []}
    assert unread.due({}, 4000) == {}


def test_every_life_tells_its_list_though_nobody_is_waited_for() -> None:
    unread = UnreadInputs({"relay": "readings"})
    assert unread.due({}, 0) == {"relay": []}, "what another life has told may still stand"
    assert unread.due({}, TELL_EVERY_MS - 1) == {}
    assert unread.due({}, TELL_EVERY_MS) == {"relay": []}


def test_nobody_is_waited_for_for_ever() -> None:
    unread, where = UnreadInputs({"relay": "readings"}), ("readings", 0)
    unread.begin(where, 10, 10 * RECORDS_MAX)
    assert unread.due({where: 10}, 0) == {"relay": [0]}
    assert unread.due({where: 9 + RECORDS_MAX}, 1) == {}
    assert unread.due({where: 10 + RECORDS_MAX}, 2) == {"relay": []}, "all that without a mark"
    unread.begin(where, 10, 20)
    assert unread.due({where: 10}, 0) == {"relay": [0]}
    assert unread.due({where: 11}, STALLED_MS - 1) == {}
    assert unread.due({where: 11}, 2 * STALLED_MS - 2) == {"relay": [0]}
    assert unread.due({where: 11}, 2 * STALLED_MS - 1) == {"relay": []}, "nobody reads it"


# --- the inline driver


def first_results(world: World) -> dict[int, tuple[int, int]]:
    """Per window the revision and the count of its first complete result."""
    found: dict[int, tuple[int, int]] = {}
    for value in world.values("aggregates"):
        if value["complete"]:
            found.setdefault(value["start"], (value["revision"], value["count"]))
    return found


def world_of(*stories: list[Row]) -> World:
    world = World(partitions=len(stories))
    world.node.topics["readings"] = [[] for _ in stories]
    for partition, story in enumerate(stories):
        world.node.feed(partition, river.block(story))
    world.node.records_per_poll = 1000  # the first partition is relayed as a whole before the second one
    return world


def test_inline_the_first_complete_result_of_a_rebuild_has_the_nodes_of_all_partitions() -> None:
    world = world_of(rows("n0"), rows("n1"), [], rows("n3"))
    world.run(RULES)
    assert first_results(world) == dict.fromkeys(WHOLE, (0, 30))


def test_inline_a_node_that_came_while_nobody_read_is_waited_for() -> None:
    world = world_of(rows("n0")[:20], [])
    world.run(RULES)
    assert first_results(world) == {0: (0, 10)}
    for partition, story in ((0, rows("n0")[20:]), (1, rows("n1")[20:])):
        world.node.feed(partition, river.block(story))
    world.run(RULES)
    more: dict[int, Any] = dict.fromkeys((20000, 30000, 40000), (0, 20))
    assert first_results(world) == {0: (0, 10), 10_000: (0, 10), **more}
