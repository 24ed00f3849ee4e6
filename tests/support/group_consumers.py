"""Foreign consumers in a group of a real node, and topics for them to read."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

from tests.support.kafka_node import KafkaNode

PARTITIONS = 6
RECORDS = 300
# What a commit may be told and is tried again after: a rebalance, a node that restarts.
PASSING = {"_NO_OFFSET", "REBALANCE_IN_PROGRESS", "_TRANSPORT", "_WAIT_COORD", "COORDINATOR_NOT_AVAILABLE"}


def make_topic(node: KafkaNode, name: str, partitions: int = PARTITIONS) -> None:
    from confluent_kafka.admin import AdminClient, NewTopic

    admin = AdminClient({"bootstrap.servers": node.address})
    admin.create_topics([NewTopic(name, partitions, 1)])[name].result(20)


def fill(node: KafkaNode, topic: str, start: int = 0, count: int = RECORDS) -> set[bytes]:
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": node.address, "linger.ms": 5})
    values = [b"%d" % number for number in range(start, start + count)]
    for number, value in enumerate(values):
        producer.produce(topic, value, partition=number % PARTITIONS)
    assert producer.flush(20) == 0
    return set(values)


class Consumer(threading.Thread):
    """One librdkafka member; it commits what it has been given, and counts it."""

    def __init__(
        self,
        node: KafkaNode,
        topic: str,
        group: str,
        seen: Counter[bytes],
        **settings: Any,
    ) -> None:
        from confluent_kafka import Consumer as Rd

        super().__init__()
        self.seen = seen
        self.assigned: set[int] = set()
        self.revoked = 0
        self.failed: list[object] = []
        self.uncommitted = False
        self.ending = False
        self.consumer = Rd(
            {
                "bootstrap.servers": node.address,
                "group.id": group,
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
                "partition.assignment.strategy": "cooperative-sticky",
                "session.timeout.ms": 6000,
                "heartbeat.interval.ms": 200,
                **settings,
            }
        )
        self.consumer.subscribe([topic], on_assign=self._assign, on_revoke=self._revoke, on_lost=self._revoke)
        self.start()

    def _assign(self, _: object, parts: list[Any]) -> None:
        self.assigned |= {part.partition for part in parts}

    def _revoke(self, _: object, parts: list[Any]) -> None:
        self.revoked += len(parts)
        self.assigned -= {part.partition for part in parts}

    def run(self) -> None:
        while not self.ending:
            for message in self.consumer.consume(50, 0.1):
                if message.error():
                    self.failed.append(message.error())
                else:
                    self.seen[message.value()] += 1
                    self.uncommitted = True
            self._commit()

    def _commit(self) -> None:
        from confluent_kafka import KafkaException

        if not self.uncommitted:
            return
        try:
            answers = self.consumer.commit(asynchronous=False)
        except KafkaException as error:
            name = error.args[0].name()
            self.uncommitted = name != "_NO_OFFSET"
            if name not in PASSING:
                self.failed.append(error)
        else:
            self.uncommitted = any(answer.error for answer in answers)
            errors = [answer.error for answer in answers if answer.error]
            self.failed += [error for error in errors if error.name() not in PASSING]

    def stop(self) -> None:
        """End without leaving the group, if it is a static member."""
        self.ending = True
        self.join(20)
        self.consumer.close()

    def leave(self) -> None:
        self.stop()
        assert not self.failed
        assert not self.uncommitted


def committed(node: KafkaNode, group: str, topic: str) -> dict[int, int]:
    from confluent_kafka import Consumer as Rd
    from confluent_kafka import TopicPartition

    reader = Rd({"bootstrap.servers": node.address, "group.id": group})
    try:
        found = reader.committed([TopicPartition(topic, index) for index in range(PARTITIONS)], timeout=20)
        return {each.partition: each.offset for each in found if each.offset >= 0}
    finally:
        reader.close()
