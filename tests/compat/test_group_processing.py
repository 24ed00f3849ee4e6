"""`headwater process` on a node and on a real Kafka: what is said equals what one undisturbed processor says."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions

from gateway.consume.reader import Block
from headwater.cli.aggregates_why import why
from headwater.cli.config import check
from headwater.cli.recompute import recompute
from processors.group.changelog import ChangelogView
from processors.processor import PartitionProcessor
from processors.rules.files import parse_rules
from tests.support import river
from tests.support.group_processing import SETTLED_S, UNTIL_S, Group, Said, feed, make_topic, said, until
from tests.support.kafka_node import KafkaNode
from tests.support.peers import Kafka
from tests.support.river import Row

PARTITIONS = 4
RULES = """
[[window]]
name = "w"
size_s = 10
fields = { t = ["count", "mean", "p95", "last"] }
[[alert]]
name = "hot"
window = "w"
field = "t"
fire_above = 85
clear_below = 75
for_s = 10
"""
SETTINGS = """
rules = ["rules.toml"]
session_timeout_ms = 6000
snapshot_every_ms = 500
"""
START_MS = (round(time.time()) // 3600 - 1) * 3_600_000
"""Of late: an Apache Kafka rolls a segment when a transaction's end, stamped now, is a week younger than its first
record, and then compacts it: of a window's revisions only the latest is left, and not all that was said can be told."""


def story(partition: int, begin: int, end: int) -> list[Row]:
    """Seconds [begin, end) of a node: a device that is hot now and then, a calm one, late readings, marks."""
    node, rows = f"n{partition}", []
    for second in range(begin, end):
        at = START_MS + second * 1000
        hot = 90.0 if second % 60 >= 20 else 60.0
        rows.append(Row("a", at, {"t": hot + second / 7 + partition}, None, node))
        if second % 17 == 16:
            rows.append(Row("b", at - 14_000, {"t": 51.5}, None, node))
        rows.append(Row("b", at + 500, {"t": 50, "x": second}, river.mark(node, at - 2000), node))
    return rows


def blocks(begin: int, end: int) -> list[Block]:
    """The story of all partitions; offsets are the topic's own affair."""
    return [river.block(story(partition, begin, end), partition=partition) for partition in range(PARTITIONS)]


def expected(end: int) -> dict[str, list[list[Said]]]:
    """What an undisturbed processor says of each partition, topic by topic."""
    rules = parse_rules([(RULES, "rules.toml")])
    found: dict[str, list[list[Said]]] = {"aggregates": [], "alerts": []}
    for partition in range(PARTITIONS):
        outputs = PartitionProcessor(rules, "readings", partition, place="central").process(
            river.block(story(partition, 0, end), partition=partition)
        )
        for topic, lists in found.items():
            records = [output.record for output in outputs if output.topic == topic]
            lists.append([(record[1] or b"", record[2] or b"", record[0]) for record in records])
    return found


def told(bootstrap: str) -> dict[str, list[list[Said]]]:
    """What the group has said, by the partition of its input (the node's name ends in its number)."""
    found: dict[str, list[list[Said]]] = {}
    for topic, node_at in (("aggregates", 0), ("alerts", 1)):
        found[topic] = [[] for _ in range(PARTITIONS)]
        for records in said(bootstrap, topic):
            for record in records:
                found[topic][int(record[0].split(b"/")[node_at][1:])].append(record)
    return found


@pytest.fixture
def node(tmp_path: Path) -> Iterator[KafkaNode]:
    node = KafkaNode(tmp_path)
    yield node
    node.kill()


@pytest.fixture
def group(tmp_path: Path, node: KafkaNode) -> Iterator[Group]:
    (tmp_path / "rules.toml").write_text(RULES)
    make_topic(node.address, "readings", PARTITIONS)
    group = Group(tmp_path, node.address, SETTINGS)
    yield group
    group.close()


def settled(group: Group, end: int, logs: dict[str, Path], *, within_s: float = UNTIL_S) -> None:
    wanted = expected(end)

    def all_said() -> bool:
        found = told(group.bootstrap)
        return all(
            len(found[topic][partition]) >= len(wanted[topic][partition])
            for topic in wanted
            for partition in range(PARTITIONS)
        )

    until(all_said, f"everything up to second {end} is said", logs, within_s=within_s)
    assert told(group.bootstrap) == wanted


def positions(group: Group) -> list[int]:
    """Where the group begins again in each partition: beyond what its last output needed, when all is read."""
    consumer = Consumer({"bootstrap.servers": group.bootstrap, "group.id": "farm"})
    try:
        asked = [TopicPartition("readings", partition) for partition in range(PARTITIONS)]
        return [at.offset for at in consumer.committed(asked, 10)]
    finally:
        consumer.close()


@pytest.mark.long("process")
@pytest.mark.timeout(300)
def test_members_come_go_and_die_and_the_group_says_what_one_processor_says(group: Group) -> None:
    logs = {name: group.log_of(name) for name in "ab"}
    feed(group.bootstrap, blocks(0, 60))
    group.start("a")
    settled(group, 60, {"a": logs["a"]})
    group.start("b")
    until(lambda: "took over" in logs["b"].read_text(), "b has partitions", logs)
    feed(group.bootstrap, blocks(60, 90))
    settled(group, 90, logs)
    group.kill("a")
    feed(group.bootstrap, blocks(90, 120))
    group.start("a")  # within its session: its partitions are its own again
    settled(group, 120, logs)
    assert group.stop("b") == 0  # a clean end leaves its partitions to the others once its session is over
    feed(group.bootstrap, blocks(120, 130))
    settled(group, 130, logs)
    assert group.stop("a") == 0


@pytest.mark.long("process-kills", count=300, full=1000)
@pytest.mark.timeout(900)
def test_members_killed_again_and_again_say_what_one_processor_says(group: Group, count: int) -> None:
    """SIGKILL of one of two members after the other, at any moment of its work; some stay away past their session."""
    random, logs = Random(count), {name: group.log_of(name) for name in "ab"}
    group.forked = True
    for name in "ab":
        group.start(name)
    for life in range(count):
        feed(group.bootstrap, blocks(3 * life, 3 * life + 3))
        time.sleep(random.random())
        victim = random.choice("ab")
        group.kill(victim)
        if random.random() < 0.02:
            time.sleep(7)  # longer than its session: the other one takes its partitions over
        group.start(victim)
    settled(group, 3 * count, logs, within_s=SETTLED_S)
    assert group.stop("a") == group.stop("b") == 0


@pytest.mark.long("process")
@pytest.mark.timeout(300)
def test_other_partition_counts_are_refused_with_the_way_out(group: Group) -> None:
    feed(group.bootstrap, blocks(0, 30))
    group.start("a")
    settled(group, 30, {"a": group.log_of("a")})
    assert group.stop("a") == 0
    admin = AdminClient({"bootstrap.servers": group.bootstrap})
    admin.create_partitions([NewPartitions("readings", PARTITIONS + 2)])["readings"].result(10)
    group.start("a")
    assert group.wait("a") == 2
    refusal = group.log_of("a").read_text()
    assert "--rebuild" in refusal
    group.start("a", "--rebuild")
    until(lambda: group.log_of("a").read_text().count("took over") == 2, "it begins again", {"a": group.log_of("a")})
    assert group.stop("a") == 0


def test_state_comes_back_from_the_changelog_not_from_the_start(
    group: Group, capsys: pytest.CaptureFixture[str]
) -> None:
    feed(group.bootstrap, blocks(0, 60))
    group.start("a")
    ends = [len(story(partition, 0, 60)) for partition in range(PARTITIONS)]
    until(lambda: positions(group) == ends, "everything is read", {"a": group.log_of("a")})
    assert group.stop("a") == 0
    views = [ChangelogView() for _ in range(PARTITIONS)]
    for view, records in zip(views, said(group.bootstrap, "farm-changelog"), strict=True):
        for key, value, _ in records:
            view.take(key, value)
    heads = [view.head(f"readings/{partition}") for partition, view in enumerate(views)]
    assert [head.offset for head in heads if head is not None] == ends
    rules = group.folder / "rules.toml"
    rules.write_text(RULES.replace('"count"', '"count", "slope"'))
    check(str(group.file))
    said_before = (
        "at the next start window w: fields changed: keeps its windows; slope of t: from the next whole window on"
    )
    assert said_before in capsys.readouterr().out.splitlines()
    rules.write_text(RULES)
    asyncio.run(why(str(group.file), "n1/a", at=f"{START_MS + 5_000}", rule="", as_json=True))
    [found] = json.loads(capsys.readouterr().out)
    assert (found["readings"], found["told"]["count"], found["held_by"]["kind"]) == (10, 10, "nothing")
    assert found["processors"] == ""  # it has read everything
    asyncio.run(why(str(group.file), "n1/a/w/" + str(START_MS + 50_000), at="", rule="", as_json=False))
    assert "held by     Its time is not over: mark 1 of n1 (readings/1, offset" in capsys.readouterr().out
    span = {"since": f"{START_MS}", "until": f"{START_MS + 60_000}"}
    asyncio.run(recompute(str(group.file), **span, rule="", dry_run=True, as_json=False))
    assert capsys.readouterr().out.splitlines()[0].endswith("as the log says, 0 would be revised")
    group.start("a")
    until(lambda: group.log_of("a").read_text().count("took over") == 2, "it is back")
    assert f"readings/0 from {ends[0]}" in group.log_of("a").read_text()
    assert group.stop("a") == 0


@pytest.mark.long("process")
@pytest.mark.peer("kafka")
@pytest.mark.timeout(300)
def test_on_a_real_kafka(tmp_path: Path, kafka: Kafka) -> None:
    (tmp_path / "rules.toml").write_text(RULES)
    prefix = f"t{time.time_ns()}."
    make_topic(kafka.bootstrap, f"{prefix}readings", PARTITIONS)
    group = Group(tmp_path, kafka.bootstrap, f'topic_prefix = "{prefix}"\n{SETTINGS}')
    try:
        feed(kafka.bootstrap, [block._replace(topic=f"{prefix}readings") for block in blocks(0, 60)])
        group.start("a")
        group.start("b")
        wanted = expected(60)

        def windows() -> list[Said]:
            return [record for records in said(kafka.bootstrap, f"{prefix}aggregates") for record in records]

        until(
            lambda: len(windows()) >= sum(map(len, wanted["aggregates"])),
            "all windows are said",
            {name: group.log_of(name) for name in "ab"},
        )
        found = windows()
        assert sorted(found) == sorted(record for records in wanted["aggregates"] for record in records)
        assert group.stop("a") == group.stop("b") == 0
    finally:
        group.close()
