"""A member of `headwater process` that fails between its outputs and their commit: nothing of it counts."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from headwater.errors import HeadwaterError
from processors.group.driver import GroupProcessor
from processors.group.settings import GroupSettings
from processors.rules.files import parse_rules
from tests.compat.test_group_processing import PARTITIONS, RULES, blocks, expected, story, told
from tests.support.group_processing import feed, make_topic, until
from tests.support.kafka_node import KafkaNode


class Failing(GroupProcessor):
    """Fails once, with outputs in its transaction and their positions not committed."""

    failed = False

    def _write(self, outputs: Any, partition: int) -> None:
        super()._write(outputs, partition)
        if not self.failed:
            self.failed = True
            assert self._producer.flush(20) == 0  # they are at the broker: the abort finds nothing to purge
            raise HeadwaterError("a fault")


@pytest.mark.timeout(120)
def test_outputs_of_an_aborted_transaction_are_said_again(tmp_path: Path) -> None:
    """Closing a consumer takes its partitions away, which is otherwise an occasion to commit positions."""
    node = KafkaNode(tmp_path)
    try:
        make_topic(node.address, "readings", PARTITIONS)
        feed(node.address, blocks(0, 60))
        settings = GroupSettings(
            name="farm", bootstrap_servers=node.address, rules=(), session_timeout_ms=6000, commit_every_ms=10_000
        )
        member = Failing(settings, parse_rules([(RULES, "rules.toml")]), instance="a")
        thread = threading.Thread(target=member.run)
        thread.start()
        try:
            ends = {f"readings/{partition}": len(story(partition, 0, 60)) for partition in range(PARTITIONS)}
            until(
                lambda: member.status().get("restarts", 0) >= 1 and member.status().get("positions") == ends,
                "it is back, and has read everything",
            )
        finally:
            member.stop()
            thread.join(60)
        assert told(node.address) == expected(60)
    finally:
        node.kill()
