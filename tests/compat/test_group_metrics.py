"""`headwater process --metrics-port`: a member that runs tells Prometheus how it is."""

from __future__ import annotations

import urllib.request
from pathlib import Path

import pytest

from tests.compat.test_group_processing import PARTITIONS, RULES, SETTINGS, blocks
from tests.support.group_processing import Group, feed, make_topic, until
from tests.support.kafka_node import KafkaNode
from tests.support.ports import reserved_port


@pytest.mark.long("process")
@pytest.mark.timeout(120)
def test_a_running_member_tells_what_it_has_read_and_how_far_it_is_behind(tmp_path: Path) -> None:
    node = KafkaNode(tmp_path)
    (tmp_path / "rules.toml").write_text(RULES)
    make_topic(node.address, "readings", PARTITIONS)
    group = Group(tmp_path, node.address, SETTINGS)
    feed(node.address, blocks(0, 60))
    told = ""

    def read() -> bool:
        nonlocal told
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                told = answer.read().decode()
        except OSError:  # refused, reset, or too slow for once
            return False
        wanted = f"headwater_processors_readings_total {sum(len(one.keys) for one in blocks(0, 60))}.0"
        return wanted in told and "headwater_processors_lag_records 0.0" in told

    try:
        with reserved_port() as port:
            group.start("a", "--metrics-port", str(port))
            until(read, "it has read everything and says so", {"a": group.log_of("a")})
        assert told.count("headwater_processors_partition_lag_records{") == PARTITIONS
        assert "headwater_processors_up 1.0" in told
        assert group.stop("a") == 0
    finally:
        group.close()
        node.kill()
