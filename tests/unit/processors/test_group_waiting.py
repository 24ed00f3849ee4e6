"""A member finds out which input partitions are to be waited for, from the group's offsets and the topics' ends."""

from __future__ import annotations

from typing import Any

from confluent_kafka import OFFSET_INVALID, TopicPartition

from processors.group.waiting import MARKERS_MAX, Waiting

RELAYS = {"g-w-repartition": "readings"}


class Group:
    """What a consumer is asked: committed offsets, starts and ends by partition of topic `p.readings`."""

    def __init__(self, *ranges: tuple[int, int]) -> None:
        self.ranges = ranges
        self.offsets: dict[int, int] = {}
        self.asked: list[int] = []

    def committed(self, sources: list[TopicPartition], answer_s_max: float) -> list[TopicPartition]:
        assert {at.topic for at in sources} == {"p.readings"}
        self.asked = [at.partition for at in sources]
        return [
            TopicPartition(at.topic, at.partition, self.offsets.get(at.partition, OFFSET_INVALID)) for at in sources
        ]

    def get_watermark_offsets(self, at: TopicPartition, answer_s_max: float) -> tuple[int, int]:
        return self.ranges[at.partition]


def waiting(group: Any, partitions: int) -> Waiting:
    made = Waiting("p.", RELAYS, answer_s_max=1)
    made.begin(group, {"readings": partitions, "g-w-repartition": 4})
    return made


def test_partitions_that_nobody_has_read_to_their_ends_are_told() -> None:
    group = Group((0, 100), (0, 0), (0, 100), (50, 50))
    group.offsets = {2: 100 - MARKERS_MAX}
    made = waiting(group, 4)
    assert made.due(group, 0) == {"g-w-repartition": [0]}
    group.offsets[0] = 99  # whoever reads it
    assert made.due(group, 1) == {"g-w-repartition": []}
    group.asked = []
    assert made.due(group, 2) == {}
    assert group.asked == [], "nobody is waited for: nothing is asked"


def test_what_expired_before_it_was_read_is_not_waited_for() -> None:
    group = Group((90, 91), (90, 190))
    group.offsets = {0: 10, 1: 10}
    made = waiting(group, 2)
    assert made.due(group, 0) == {"g-w-repartition": [1]}


def test_without_rules_over_groups_nothing_is_asked() -> None:
    made = Waiting("", {}, answer_s_max=1)
    made.begin(None, {"readings": 4})
    assert made.due(None, 0) == {}
