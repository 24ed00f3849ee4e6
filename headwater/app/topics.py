"""The topics that a node makes at its start, so that readers and the page find them before the first record."""

from __future__ import annotations

import logging

from gateway.log.store import LogStore
from headwater.settings.model import Settings

_CONFIG = {"events": {"retention.ms": str(90 * 24 * 3_600_000)}}
"""A node's life is told for people, who ask late; on an edge the rest goes a day after the central has it."""

log = logging.getLogger(__name__)


def make_topics(store: LogStore, settings: Settings) -> None:
    """Make what is missing; what is there keeps its partitions, since keys have been spread over them."""
    wanted = {"readings": settings.topics.readings_partitions, "deadletter": 1, "events": 1}
    for name, partitions in wanted.items():
        topic = store.topics.get(name)
        if topic is None:
            store.create_topic(name, partitions=partitions, config=_CONFIG.get(name))
        elif name == "readings" and len(topic.partitions) != partitions:
            log.warning(
                "topic readings keeps its %d partitions: [topics] readings_partitions counts at the first start only",
                len(topic.partitions),
            )
