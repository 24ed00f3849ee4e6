"""`headwater process` on three real brokers, each record on all of them, while one broker after the other is killed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compat.test_group_processing import PARTITIONS, RULES, blocks, settled
from tests.compat.test_kafka_cluster import Cluster
from tests.support.group_processing import Group, feed, make_topic, until
from tests.support.peers import kafka_kit

pytestmark = [pytest.mark.peer("kafka"), pytest.mark.long("process-cluster"), pytest.mark.timeout(800)]

SETTINGS = """
rules = ["rules.toml"]
session_timeout_ms = 6000
snapshot_every_ms = 500
replication_factor = 3
"""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path / "cluster")
    yield made
    for number in (1, 2, 3):
        if kafka_kit("status", str(made.directory / str(number))).strip() != "down":
            made.kill(number)


def test_a_group_says_what_one_processor_says_while_each_broker_is_killed_once(
    cluster: Cluster, tmp_path: Path
) -> None:
    """Leaders of inputs, outputs and changelog, and the coordinators of group and transactions: each broker is some."""
    (tmp_path / "rules.toml").write_text(RULES)
    make_topic(cluster.bootstrap, "readings", PARTITIONS)
    group = Group(tmp_path, cluster.bootstrap, SETTINGS)
    logs = {name: group.log_of(name) for name in "ab"}
    try:
        feed(group.bootstrap, blocks(0, 30))
        group.start("a")
        group.start("b")
        until(lambda: all("took over" in log.read_text() for log in logs.values()), "both have partitions", logs)
        settled(group, 30, logs)
        for number in (1, 2, 3):
            begin = 30 + 40 * (number - 1)
            feed(group.bootstrap, blocks(begin, begin + 20))
            cluster.kill(number)
            feed(group.bootstrap, blocks(begin + 20, begin + 40))
            settled(group, begin + 40, logs)  # on two brokers
            cluster.start()
        group.kill("a")
        feed(group.bootstrap, blocks(150, 170))
        lives = logs["a"].read_text().count("took over")
        group.start("a")  # its state comes from a changelog whose leaders have all been down
        until(lambda: logs["a"].read_text().count("took over") > lives, "a has partitions again", logs)
        settled(group, 170, logs)
        assert group.stop("a") == group.stop("b") == 0
    finally:
        group.close()
