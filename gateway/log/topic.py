"""A topic with its logs, and what status says of topics and of what recovery found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from gateway.log.partition import PartitionLog
from gateway.log.recovery import Outcome, Recovery


class Topic(NamedTuple):
    """A topic and its partition logs, by number."""

    name: str
    topic_id: bytes
    config: dict[str, str]
    partitions: list[PartitionLog]


def topics_status(topics: Mapping[str, Topic]) -> dict[str, Any]:
    """Per topic its size, and per partition offsets, size and segments."""
    return {
        name: {
            "bytes": sum(log.size_bytes for log in topic.partitions),
            "partitions": [_partition_status(log) for log in topic.partitions],
        }
        for name, topic in topics.items()
    }


def _partition_status(log: PartitionLog) -> dict[str, int]:
    return {
        "start": log.log_start_offset,
        "end": log.log_end_offset,
        "synced": log.synced_offset,
        "bytes": log.size_bytes,
        "epoch": log.leader_epoch,
        "segments": log.segments_count,
    }


def findings(recovered: Iterable[Recovery]) -> list[dict[str, Any]]:
    """What recovery found that was not as a clean stop leaves it."""
    return [
        {**finding._asdict(), "outcome": finding.outcome.value}
        for finding in recovered
        if finding.outcome is not Outcome.CLEAN
    ]
