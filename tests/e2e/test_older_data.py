"""Data directories that earlier code wrote, before files that exist now, and with files that had no checksum then.

A node of today starts on each, serves every record that was served then, names no damage, and goes on.
`scripts/older-data NAME COMMIT` made the archives: `first` (4e1901d) before the proof of a clean stop, copies and
sums of small files, sums of transaction indexes and the page's history; `unchecked` (dad37fc) before the checksums of
most small files and of the history's rows; `unproven` (the parent of 5d579af) before compaction noted
a hash chain of what it wrote.
"""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from gateway.replicate.journal import RunJournal
from headwater.disk import RealDisk
from tests.support import older_data
from tests.support.ports import reserved_port
from tests.support.tree import ROOT
from tests.torture.node import Node

NAMES = ["first", "unchecked", "unproven"]


@pytest.fixture(params=NAMES)
def known(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    with tarfile.open(ROOT / f"tests/golden/older/{request.param}.tar.xz") as archive:
        # Debian's 3.11.2 has no filter, and where there are some, later versions want one named.
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        archive.extractall(tmp_path)
    listed: dict[str, Any] = json.loads((tmp_path / "records.json").read_text())
    assert len(listed["t"]) == 26
    return listed


def served(address: str, topic: str, count: int) -> list[list[Any]]:
    """[offset, key, value] of the records that a client is shown, when there are so many."""
    consumer = Consumer(
        {"bootstrap.servers": address, "group.id": "g", "isolation.level": "read_committed", "check.crcs": True}
    )
    consumer.assign([TopicPartition(topic, 0, 0)])
    rows: list[list[Any]] = []
    while len(rows) < count:
        for message in consumer.consume(100, 0.1):
            assert message.error() is None
            rows.append([message.offset(), (message.key() or b"").decode(), (message.value() or b"").decode()])
    consumer.close()
    return rows


def test_a_node_of_today_goes_on_with_older_data(tmp_path: Path, known: dict[str, Any]) -> None:
    written = json.loads((tmp_path / "data/node/identity.json").read_text())
    with reserved_port() as port:
        node = Node(tmp_path, port)
        try:
            node.start()
            # Nothing is damaged, nothing is missing from the list of topics.
            assert [line for line in node.said().splitlines() if "takes nothing in" not in line] == []
            identity = json.loads((tmp_path / "data/node/identity.json").read_text())
            assert {name: identity[name] for name in written} == written
            rows = {topic: served(node.address, topic, len(known[topic])) for topic in ("t", "c")}
            assert rows == {topic: known[topic] for topic in ("t", "c")}
            producer = Producer({"bootstrap.servers": node.address, "enable.idempotence": True})
            producer.produce("t", b"of today", b"k")
            assert producer.flush(30) == 0
            node.kill()
            node.start()
            shown = served(node.address, "t", len(known["t"]) + 1)
            assert shown[:-1] == known["t"]
            assert shown[-1][1:] == ["k", "of today"]
        finally:
            node.close()


def test_what_lay_beside_the_log_is_known_still(tmp_path: Path, known: dict[str, Any]) -> None:
    journal = RunJournal(RealDisk(), str(tmp_path / "data/node"))
    assert journal.damaged == []
    assert [entry.run for entry in journal.runs] == [known["run"]]
    assert journal.remembered is not None
    assert journal.remembered.offset == 42
    if known["history"]:
        assert older_data.history(str(tmp_path / "data/work/history.db")) == known["history"]
