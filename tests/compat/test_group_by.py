"""Windows over devices of many nodes in `headwater process`: on a node and on a real Kafka, through kills."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest

from gateway.consume.reader import Block
from tests.support import river
from tests.support.group_processing import SETTLED_S, UNTIL_S, Group, feed, make_topic, said, until
from tests.support.kafka_node import KafkaNode
from tests.support.peers import Kafka
from tests.support.river import Row

PARTITIONS = 4
SITES = ("north", "south")
STATES = ("run", "stop", "zurück", "w" * 200)
RELAY = "farm-site-repartition"
START_MS = (round(time.time()) // 3600 - 1) * 3_600_000
"""Of late: a Kafka deletes results by their times, which are those of the windows."""
RULES = """
[[window]]
name = "site"
size_s = 10
group_by = ["site"]
where = "t >= 0"
every_field = []
fields = { t = ["count", "sum"], state = ["count", "last", "distinct", "durations"] }
[[window]]
name = "device"
size_s = 30
"""
SETTINGS = """
rules = ["rules.toml"]
session_timeout_ms = 6000
snapshot_every_ms = 500
"""


def state(at: int) -> str:
    """What all devices do at a time: which of two nodes comes first in a relay topic is chance."""
    return STATES[at // 9_000 % len(STATES)]


def story(partition: int, begin: int, end: int) -> list[Row]:
    """Seconds [begin, end) of a node with a device at each site, some readings negative or late, a mark a second."""
    node, rows = f"n{partition}", []
    for second in range(begin, end):
        at = START_MS + second * 1000
        for site in SITES:
            says = {"site": site} if second % 60 == 0 else None
            fields = {"t": second % 7 - 1 + partition, "state": state(at)}
            rows.append(Row(site[0], at, fields, None, node, says=says))
        if second % 17 == 16:
            rows.append(Row("n", at - 14_000, {"t": 100, "state": state(at - 14_000)}, None, node))
        rows.append(river.health(at - 2000, node, at))
    return rows


def blocks(begin: int, end: int) -> list[Block]:
    return [river.block(story(partition, begin, end), partition=partition) for partition in range(PARTITIONS)]


Told = dict[tuple[str, int], tuple[int, float, dict[str, Any]]]


def expected(end: int) -> Told:
    """(site, window) -> readings, their sum and their states, of the windows that every node's marks have passed."""
    found: dict[tuple[str, int], list[int]] = {}
    for row in (row for partition in range(PARTITIONS) for row in story(partition, 0, end)):
        if row.device in "ns" and row.fields["t"] >= 0:
            site = next(site for site in SITES if site[0] == row.device)
            found.setdefault((f"site/{site}", row.time - row.time % 10_000), []).append(row.fields["t"])
    last = START_MS + (end - 1) * 1000 - 2000
    return {
        key: (len(values), float(sum(values)), states(key[1], len(values)))
        for key, values in found.items()
        if key[1] + 10_000 <= last
    }


def states(start: int, count: int) -> dict[str, Any]:
    """Some reading of each site has passed the filter in each second of each window."""
    each = [state(at) for at in range(start, start + 10_000, 1000)]
    durations = {name: float(each.count(name)) for name in sorted(set(each))}
    return {"count": count, "last": each[-1], "distinct": len(durations), "durations": durations}


def told(bootstrap: str, prefix: str = "") -> Told:
    """The latest complete revision of each window."""
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for records in said(bootstrap, f"{prefix}aggregates"):
        for _, value, _ in records:
            one = msgspec.json.decode(value)
            key = (one["group"], one["start"])
            if one["rule"] == "site":
                assert key not in found or found[key]["revision"] + 1 == one["revision"], "a gap, or said twice"
                found[key] = one
    return {
        key: (one["count"], one["fields"]["t"]["sum"], one["fields"]["state"])
        for key, one in found.items()
        if one["complete"] and "t" in one["fields"]
    }


def settled(group: Group, end: int, prefix: str = "", *, within_s: float = UNTIL_S) -> None:
    wanted = expected(end)
    logs = {name: group.log_of(name) for name in "ab" if group.log_of(name).exists()}
    try:
        until(
            lambda: told(group.bootstrap, prefix) == wanted,
            f"every site's windows up to second {end}",
            logs,
            within_s=within_s,
        )
    except AssertionError:
        assert told(group.bootstrap, prefix) == wanted
        raise
    readings = [key for records in said(group.bootstrap, f"{prefix}{RELAY}") for key, _, _ in records]
    count = sum(
        row.device in "ns" and row.fields["t"] >= 0 for part in range(PARTITIONS) for row in story(part, 0, end)
    )
    assert sum(key.startswith(b"site/") for key in readings) == count, "each reading is relayed once"


@pytest.fixture
def group(tmp_path: Path) -> Iterator[Group]:
    node = KafkaNode(tmp_path)
    (tmp_path / "rules.toml").write_text(RULES)
    make_topic(node.address, "readings", PARTITIONS)
    group = Group(tmp_path, node.address, SETTINGS)
    yield group
    group.close()
    node.kill()


@pytest.mark.long("process")
@pytest.mark.timeout(120)
def test_sites_have_the_readings_of_all_nodes_also_after_a_kill(group: Group) -> None:
    feed(group.bootstrap, blocks(0, 40))
    group.start("a")
    settled(group, 40)
    feed(group.bootstrap, blocks(40, 70))
    group.kill("a")
    group.start("a")
    settled(group, 70)


@pytest.mark.long("process")
@pytest.mark.timeout(300)
def test_a_rebuild_relays_every_reading_once(group: Group) -> None:
    feed(group.bootstrap, blocks(0, 40))
    group.start("a")
    settled(group, 40)
    assert group.stop("a") == 0
    group.start("a", "--rebuild")
    until(lambda: group.log_of("a").read_text().count("took over") == 2, "it begins again", {"a": group.log_of("a")})
    readings = 0

    def relayed_again() -> bool:
        nonlocal readings
        keys = [key for records in said(group.bootstrap, RELAY) for key, _, _ in records]
        readings = sum(key.startswith(b"site/") for key in keys)
        return readings >= 300

    until(relayed_again, "every reading is relayed", {"a": group.log_of("a")})
    count = sum(row.device in "ns" and row.fields["t"] >= 0 for part in range(PARTITIONS) for row in story(part, 0, 40))
    assert readings == count
    assert group.stop("a") == 0


@pytest.mark.long("process")
@pytest.mark.timeout(120)
def test_the_first_complete_results_have_the_nodes_of_all_partitions(group: Group) -> None:
    """They are read one after the other, and until the last one was heard of, nothing is complete."""
    for partition in range(PARTITIONS):
        rows = [row for row in story(partition, 0, 40) if row.device in "ns$gateway" and row.time % 1000 == 0]
        on_time = [row for row in rows if row.device == "$gateway" or row.fields["t"] != 100]
        feed(group.bootstrap, [river.block(on_time, partition=partition)])
    group.start("a")
    wanted = {start for (_, start), _ in expected(40).items()}

    def firsts() -> dict[int, set[tuple[int, int]]]:
        found: dict[int, set[tuple[int, int]]] = {}
        for records in said(group.bootstrap, "aggregates"):
            for one in (msgspec.json.decode(value) for _, value, _ in records):
                if one["rule"] == "site" and one["complete"] and one["start"] in wanted:
                    found.setdefault(one["start"], set()).add((one["revision"], one["count"]))
        return found

    until(lambda: firsts().keys() == wanted, "every window is told", {"a": group.log_of("a")})
    readings = 10 * PARTITIONS
    assert all({revision for revision, _ in told} == {0} for told in firsts().values())
    assert all(count > readings * 3 / 4 for told in firsts().values() for _, count in told)
    assert group.stop("a") == 0


DEAD_MAN = """
[[alert]]
name = "quiet"
window = "device"
silent_after_s = 3600
"""


@pytest.mark.long("process")
@pytest.mark.timeout(120)
def test_a_group_tells_of_a_gateway_that_fell_silent(group: Group) -> None:
    (group.folder / "rules.toml").write_text(RULES + DEAD_MAN)
    group.file.write_text(group.file.read_text() + "silent_after_s = 2\n")
    copies = [row._replace(hw=(0, 0, offset)) for offset, row in enumerate(story(0, 0, 40))]
    feed(group.bootstrap, [river.block(copies, partition=0)])
    group.start("a")

    def alerts() -> list[tuple[str, str]]:
        values = [msgspec.json.decode(value) for records in said(group.bootstrap, "alerts") for _, value, _ in records]
        return [(value["instance"], value["state"]) for value in values]

    until(lambda: bool(alerts()), "the gateway is told", {"a": group.log_of("a")})
    assert alerts() == [("n0/$gateway", "firing")]
    silent = [key for records in said(group.bootstrap, "readings") for key, value, _ in records if b"silent_s" in value]
    assert silent == [b"n0/$gateway"]
    assert group.stop("a") == 0


DIES = """
import os, signal
from headwater.cli.main import app
from processors.group.driver import GroupProcessor
GroupProcessor._revoked = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
app()
"""


@pytest.mark.long("process")
@pytest.mark.timeout(200)
def test_a_member_that_dies_while_it_gives_up_leaves_no_partition_without_an_owner(group: Group) -> None:
    """It comes back within its session, under its instance: the group does not stay at half an assignment."""
    feed(group.bootstrap, blocks(0, 20))
    group.start("a", program=[sys.executable, "-c", DIES])
    until(lambda: "took over" in group.log_of("a").read_text(), "a has all", {"a": group.log_of("a")})
    group.start("b")
    assert group.wait("a") == -signal.SIGKILL
    group.start("a")
    feed(group.bootstrap, blocks(20, 60))
    settled(group, 60)
    assert group.stop("a") == group.stop("b") == 0


@pytest.mark.long("process-groups", count=40, full=300)
@pytest.mark.timeout(900)
def test_members_killed_again_and_again_lose_and_repeat_no_reading_of_a_site(group: Group, count: int) -> None:
    random = Random(count)
    group.forked = True
    for name in "ab":
        group.start(name)
    for life in range(count):
        feed(group.bootstrap, blocks(3 * life, 3 * life + 3))
        time.sleep(random.random())
        victim = random.choice("ab")
        group.kill(victim)
        if random.random() < 0.05:
            time.sleep(7)  # longer than its session: the other one takes its partitions over
        group.start(victim)
    settled(group, 3 * count, within_s=SETTLED_S)
    assert group.stop("a") == group.stop("b") == 0


@pytest.mark.long("process")
@pytest.mark.peer("kafka")
@pytest.mark.timeout(300)
def test_on_a_real_kafka(tmp_path: Path, kafka: Kafka) -> None:
    (tmp_path / "rules.toml").write_text(RULES)
    prefix = f"t{time.time_ns()}."
    make_topic(kafka.bootstrap, f"{prefix}readings", PARTITIONS)
    group = Group(tmp_path, kafka.bootstrap, f'topic_prefix = "{prefix}"\n{SETTINGS}')
    try:
        feed(kafka.bootstrap, [block._replace(topic=f"{prefix}readings") for block in blocks(0, 40)])
        group.start("a")
        group.start("b")
        settled(group, 40, prefix)
        feed(kafka.bootstrap, [block._replace(topic=f"{prefix}readings") for block in blocks(40, 80)])
        group.kill("a")
        group.start("a")
        settled(group, 80, prefix)
        assert group.stop("a") == group.stop("b") == 0
    finally:
        group.close()
