"""What a message weighs: its topic too, of which nobody says that it is shorter than the payload."""

from __future__ import annotations

from gateway.ingest.pipeline import GROUP_BYTES
from tests.support.ingest import Edge

TOPIC_BYTES = 60_000


def test_long_topics_fill_a_group_and_the_node_as_payloads_do() -> None:
    edge = Edge()
    source = edge.attach("a")
    count = GROUP_BYTES // TOPIC_BYTES + 1
    for number in range(count):
        edge.take(source, (f"{number}/" + "t" * TOPIC_BYTES, b"1", number + 1, 2))
    log = edge.ingest.readings
    assert log.log_end_offset + edge.ingest.deadletter.log_end_offset == count  # appended before the pass is over
    assert edge.ingest.status()["waiting_bytes"] >= count * TOPIC_BYTES
