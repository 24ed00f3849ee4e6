"""SIGKILL of a real node under load, again and again; the ledger is this process, the client is librdkafka.

Every record that was acknowledged is there once, in its order, and so is every one that the idempotent producer sent
again until it was.
"""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from random import Random

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from tests.support.ports import reserved_port
from tests.torture.node import PARTITIONS, TOPIC, Load, Node, read_back


def kill_and_compare(directory: Path, count: int) -> str:
    with reserved_port() as port:
        return _kill_and_compare(Node(directory, port), count)


def _kill_and_compare(node: Node, count: int) -> str:
    random = Random(count)
    try:
        node.start()
        admin = AdminClient({"bootstrap.servers": node.address})
        for future in admin.create_topics([NewTopic(TOPIC, PARTITIONS)]).values():
            future.result(30)
        load = Load(node.address)
        for number in range(count):
            before = len(load.acked)
            while number % 2 and len(load.acked) == before:  # one that nobody has reached has nothing to lose
                assert not load.failed, load.failed[:5]
                time.sleep(0.001)
            time.sleep(random.uniform(0.0, 0.12))
            node.kill()
            node.start()
        load.stop()
        assert not load.failed, load.failed[:5]
        rows = read_back(node.address)
        numbers = [[number for _, number in partition] for partition in rows]
        counted = Counter(number for partition in numbers for number in partition)
        assert not [number for number, times in counted.items() if times > 1], "records twice"
        assert not set(load.acked) - set(counted), "acknowledged records lost"
        assert set(counted) == set(range(load.sent)), "records that nobody sent, or that were sent and never came"
        assert all(partition == sorted(partition) for partition in numbers), "another order"
        where = {number: (p, offset) for p, partition in enumerate(rows) for offset, number in partition}
        known = {number: place for number, place in load.acked.items() if place[1] >= 0}
        assert {number: where[number] for number in known} == known, "at another offset than acknowledged"
    finally:
        node.close()
    return f"{count} SIGKILLs, {load.sent} records: 0 lost, 0 twice; slowest start {node.slowest_s * 1_000:.0f} ms"


def test_a_sample_of_kills_under_load(tmp_path: Path) -> None:
    kill_and_compare(tmp_path, 12)


@pytest.mark.long("sigkill", count=1_000)
def test_kills_under_load(tmp_path: Path, count: int) -> None:
    print(kill_and_compare(tmp_path, count))
