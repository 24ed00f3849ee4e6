"""What is written before a log changes hands, through librdkafka, and what a `read_committed` reader must then find."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
ROWS = 60


@dataclass
class Story:
    """Values by (topic, partition): `committed` in order, `aborted` those that nobody may see at read_committed."""

    committed: dict[tuple[str, int], list[bytes]] = field(default_factory=dict)
    aborted: dict[tuple[str, int], list[bytes]] = field(default_factory=dict)

    @property
    def topics(self) -> dict[str, int]:
        """Topic to how many partitions."""
        found: dict[str, int] = {}
        for topic, partition in self.committed:
            found[topic] = max(found.get(topic, 0), partition + 1)
        return found

    def add(self, more: Story) -> None:
        """What was written afterwards."""
        for mine, theirs in ((self.committed, more.committed), (self.aborted, more.aborted)):
            for place, values in theirs.items():
                mine.setdefault(place, []).extend(values)

    def note(self, topic: str, partition: int, values: list[bytes], *, committed: bool) -> None:
        where = self.committed if committed else self.aborted
        where.setdefault((topic, partition), []).extend(values)


def create(bootstrap: str, topics: Mapping[str, int], config: Mapping[str, str] | None = None) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    new = [NewTopic(name, partitions, 1, config=dict(config or {})) for name, partitions in topics.items()]
    for future in admin.create_topics(new).values():
        future.result(20)


def write(bootstrap: str, topics: Mapping[str, int], *, rounds: int = 3, tag: str = "") -> Story:
    """Idempotent, committed and aborted batches with every codec in each partition."""
    story = Story()
    for codec in CODECS:
        common = {"bootstrap.servers": bootstrap, "compression.type": codec, "linger.ms": 200}
        plain = Producer({**common, "enable.idempotence": True})
        transactional = Producer({**common, "transactional.id": f"story-{codec}{tag}"})
        transactional.init_transactions(30)
        for turn in range(rounds):
            for producer, kind in ((plain, "plain"), (transactional, "aborted"), (transactional, "committed")):
                if producer is transactional:
                    transactional.begin_transaction()
                for topic, partition in _places(topics):
                    values = [b"%s %s%s %d %d: reading" % (kind.encode(), codec.encode(), tag.encode(), turn, n)
                              for n in range(ROWS)]  # fmt: skip
                    for value in values:
                        producer.produce(topic, value * 3, b"k", partition, on_delivery=_delivered)
                    story.note(topic, partition, [value * 3 for value in values], committed=kind != "aborted")
                assert producer.flush(30) == 0  # an aborted record that never left the client would prove nothing
                if kind == "aborted":
                    transactional.abort_transaction(30)
                elif kind == "committed":
                    transactional.commit_transaction(30)
    return story


def _places(topics: Mapping[str, int]) -> Iterator[tuple[str, int]]:
    return ((topic, number) for topic, count in topics.items() for number in range(count))


def _delivered(error: KafkaError | None, message: Any) -> None:
    assert error is None, error


def read(bootstrap: str, topics: Mapping[str, int], *, committed: bool = True) -> dict[tuple[str, int], list[bytes]]:
    """Values of each partition in order, CRCs checked, up to the end that this reader may read to."""
    level = "read_committed" if committed else "read_uncommitted"
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "judge",
            "enable.auto.commit": False,
            "check.crcs": True,
            "enable.partition.eof": True,
            "isolation.level": level,
        }
    )
    values: dict[tuple[str, int], list[bytes]] = {place: [] for place in _places(topics)}
    ended: set[tuple[str, int]] = set()
    consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for topic, number in values])
    try:
        while len(ended) < len(values):
            messages = consumer.consume(10_000, 5.0)
            assert messages, f"nothing within 5 s; at their ends: {sorted(ended)}"
            for message in messages:
                place = (message.topic(), message.partition())
                if message.error() is None:
                    values[place].append(message.value())
                else:
                    assert message.error().code() == KafkaError._PARTITION_EOF, message.error()
                    ended.add(place)
    finally:
        consumer.close()
    return values
