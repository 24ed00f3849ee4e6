"""Which input partitions the groups of a rule wait for, as a member of a group finds out (`processors.unread`).

Positions are the group's committed offsets, whoever reads a partition: what lies below them is in the relay topics.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from confluent_kafka import TopicPartition

from processors.unread import Source, UnreadInputs

MARKERS_MAX = 2
"""A partition that is read to its end may end in so many transaction markers, which no committed offset passes."""


class Waiting:
    """For one member. `relays`: relay topics, each with the topic that its first stage reads, without `prefix`."""

    def __init__(self, prefix: str, relays: Mapping[str, str], *, answer_s_max: float) -> None:
        self._prefix = prefix
        self._relays = relays
        self._answer_s_max = answer_s_max
        self._unread = UnreadInputs({})

    def begin(self, consumer: Any, partitions: Mapping[str, int]) -> None:
        """Before anything is relayed, with the first partitions and whenever they were shared out anew."""
        self._unread = UnreadInputs(self._relays)
        sources = [(topic, partition) for topic in self._unread.inputs for partition in range(partitions[topic])]
        committed = self._committed(consumer, sources)
        for source in sources:
            start, end = consumer.get_watermark_offsets(self._at(source), self._answer_s_max)
            self._unread.begin(source, max(start, committed.get(source, start)), end - MARKERS_MAX)

    def due(self, consumer: Any, now_s: float) -> dict[str, list[int]]:
        """What is to be told now, as `UnreadInputs.due`."""
        return self._unread.due(self._committed(consumer, sorted(self._unread.waiting)), now_s * 1000.0)

    def _committed(self, consumer: Any, sources: list[Source]) -> dict[Source, int]:
        if not sources:
            return {}
        found = consumer.committed([self._at(source) for source in sources], self._answer_s_max)
        return {(at.topic[len(self._prefix) :], at.partition): at.offset for at in found if at.offset >= 0}

    def _at(self, source: Source) -> TopicPartition:
        return TopicPartition(f"{self._prefix}{source[0]}", source[1])
