"""`headwater process` on three real brokers, each record on all of them; brokers and members are killed in turn."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from tests.compat.test_group_processing import PARTITIONS, RULES, blocks, settled
from tests.compat.test_kafka_cluster import Cluster
from tests.support.group_processing import Group, feed, make_topic, until
from tests.support.peers import kafka_kit

pytestmark = [pytest.mark.peer("kafka")]

SETTINGS = """
rules = ["rules.toml"]
session_timeout_ms = 6000
snapshot_every_ms = 500
replication_factor = 3
"""
WITHIN_S = 120.0  # a broker is gone for the others after 2 s, and a small machine runs three of them


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path / "cluster")
    yield made
    for number in (1, 2, 3):
        if kafka_kit("status", str(made.directory / str(number))).strip() != "down":
            made.kill(number)


@pytest.mark.long("process-cluster", count=14)
@pytest.mark.timeout(890)
def test_a_group_says_what_one_processor_says_while_brokers_and_members_are_killed(
    cluster: Cluster, tmp_path: Path, count: int
) -> None:
    """Each broker leads some inputs, outputs and changelogs, and coordinates the group or the members' transactions.

    A broker is killed, then a member while that broker is down, which finds its state on the other two; then the broker
    comes back, and the next one is killed a moment later, whether the first has caught up or not.
    """
    random = Random(count)
    (tmp_path / "rules.toml").write_text(RULES)
    make_topic(cluster.bootstrap, "readings", PARTITIONS)
    group = Group(tmp_path, cluster.bootstrap, SETTINGS)
    logs = {name: group.log_of(name) for name in "ab"}
    try:
        feed(group.bootstrap, blocks(0, 20))
        for name in "ab":
            group.start(name)
        until(lambda: all("took over" in log.read_text() for log in logs.values()), "both have partitions", logs)
        for kill in range(count):
            begin = 20 * (kill + 1)
            feed(group.bootstrap, blocks(begin, begin + 10))
            time.sleep(random.random())
            if kill % 2 == 0:
                cluster.kill(kill // 2 % 3 + 1)
            else:
                group.kill(victim := "ab"[kill // 2 % 2])
                group.start(victim)
            feed(group.bootstrap, blocks(begin + 10, begin + 20))
            settled(group, begin + 20, logs, within_s=WITHIN_S)  # two brokers are enough
            if kill % 2:
                cluster.start()
        cluster.start()
        settled(group, 20 * (count + 1), logs, within_s=WITHIN_S)
        assert group.stop("a") == group.stop("b") == 0
    finally:
        group.close()
