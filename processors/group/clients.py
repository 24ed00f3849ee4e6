"""A member's librdkafka clients: the consumer holds its place in the group, the producer its transactions."""

from __future__ import annotations

from typing import Any

from confluent_kafka import Consumer, KafkaError, Producer
from confluent_kafka.admin import AdminClient

from processors.group.settings import GroupSettings

IDLE_MS_MAX = 10_000


def new_producer(settings: GroupSettings, instance: str) -> Any:
    """Raises `KafkaException` for what librdkafka refuses, as files of TLS that are no good."""
    # On an embedded central such a transaction is aborted as soon as its member is dead (docs/kafka-clients.md).
    name = f"{settings.topic_prefix}headwater.{settings.name}.{instance}"
    own = {
        "transactional.id": name,
        "transaction.timeout.ms": settings.transaction_timeout_ms,
        "compression.type": "zstd",
        "linger.ms": 0,
        "queue.buffering.max.messages": 1_000_000,
        "queue.buffering.max.kbytes": 1 << 20,
        # Since 2.10 librdkafka drops a broker that is gone from the cluster's metadata. When that one was the group's
        # coordinator, sending it the offsets waits, whatever time-out it was given, until some connection of this
        # producer comes up or goes down (its issues 5456 and 5511). Nothing else happens to them meanwhile, so one is
        # idle for this long, and is closed.
        "connections.max.idle.ms": IDLE_MS_MAX,
    }
    return Producer(settings.client() | own)


def new_consumer(settings: GroupSettings, instance: str) -> Any:
    """It is given nothing to read: that is the fetcher's work. Raises `KafkaException`, as above."""
    own = {
        "group.id": settings.group_id,
        "group.instance.id": instance,
        "session.timeout.ms": settings.session_timeout_ms,
        "heartbeat.interval.ms": max(300, min(3_000, settings.session_timeout_ms // 4)),
        # Not cooperative: a member that dies between giving up and joining again, and comes back under its instance,
        # has its part of the unfinished assignment at once and without a rebalance (KIP-345). The partitions on their
        # way to others (KIP-429) then have no owner for as long as nobody comes or goes.
        "partition.assignment.strategy": "roundrobin",
        "isolation.level": "read_committed",
        "enable.auto.commit": False,
    }
    return Consumer(settings.client() | own)


class Admin:
    """Asks about topics and groups. Why nobody answers is known here alone: the error of a request does not say it."""

    def __init__(self, settings: GroupSettings) -> None:
        self._cause = ""
        self.client: Any = AdminClient(settings.client() | {"error_cb": self._failed})

    def _failed(self, error: KafkaError) -> None:
        if error.code() != KafkaError._ALL_BROKERS_DOWN:
            _, _, said = error.str().partition(": ")  # behind the broker's name, and before what state it was in
            self._cause = said.partition(" (after ")[0]

    def cause(self, otherwise: str) -> str:
        """What was wrong with the last connection that failed since this was asked last."""
        self.client.poll(0)
        cause, self._cause = self._cause, ""
        return cause or otherwise
