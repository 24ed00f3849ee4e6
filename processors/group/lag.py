"""How far a member is behind, per partition: what the last fetches said of the ends, without asking again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from confluent_kafka import KafkaException, TopicPartition


def lags(consumer: Any, prefix: str, positions: Mapping[str, int]) -> dict[str, int]:
    """Records not read yet by `<topic>/<partition>`; partitions whose end no fetch has told yet are left out.

    Offsets of transaction markers count, so that a partition that is read to its end may be behind by one or two.
    """
    found = {}
    for name, position in positions.items():
        topic, _, partition = name.rpartition("/")
        try:
            _, end = consumer.get_watermark_offsets(TopicPartition(f"{prefix}{topic}", int(partition)), cached=True)
        except KafkaException:
            continue
        if end >= 0:
            found[name] = max(0, end - position)
    return found
