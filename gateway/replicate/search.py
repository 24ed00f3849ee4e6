"""The way to the progress record: cluster, topics, coordinator, init_transactions, then the record and my last copy.

Sans-IO and without judgement: `gateway.replicate.start` decides about what is found here. The progress partition is
read at read_committed until the position reaches its end, asked for at read_uncommitted after init_transactions:
whatever this node had in flight is then either in what was read, or aborted for good.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import NamedTuple

from gateway.log.columns import Columns, decode_batch
from gateway.log.errors import CorruptBatch
from gateway.log.records import Compression
from gateway.replicate import requests
from gateway.replicate.actions import Action, Request, Send, Wait
from gateway.replicate.copies import identity_in
from gateway.replicate.gather import Producer
from gateway.replicate.journal import Remembered
from gateway.replicate.partitioner import partition_for
from gateway.replicate.progress import Progress, decode
from gateway.replicate.requests import READ_COMMITTED, READ_UNCOMMITTED, Address, Body, Cluster
from gateway.replicate.settings import UplinkSettings
from gateway.replicate.start import Found
from gateway.wire.errors import ErrorCode, KafkaError
from gateway.wire.schema import ApiKey
from headwater.errors import PeerError

PROGRESS_TOPIC = "headwater.progress"
PROGRESS_PARTITIONS = 16
PROGRESS_CONFIG = {
    "cleanup.policy": "compact",
    "segment.ms": "600000",
    "segment.bytes": "1048576",
    # The central's clock rolls segments, and a node whose own clock is wrong is not refused for it (KIP-937).
    "message.timestamp.type": "LogAppendTime",
}
TOPIC_CONFIG = {"devices": {"cleanup.policy": "compact"}}
"""Of topics of which the latest record of each key is all that counts; others have the central's defaults."""
TRANSACTIONAL_ID = "headwater.uplink."


class Stage(Enum):
    """How far the search is."""

    DISCOVER = "metadata"
    CREATE = "creating topics"
    COORDINATOR = "finding the coordinator"
    INIT = "init_transactions"
    ENDS = "the progress partition's end"
    READ = "reading progress"
    CHECK_ENDS = "ends of my partitions"
    CHECK_AT = "my last records there"
    DONE = "done"


class _Step(NamedTuple):
    ask: Callable[[Search, float], Action]
    heard: Callable[[Search, tuple[Body, ...]], Stage]


class Search:
    """One search after the other; knows the cluster in between."""

    def __init__(self, node: str, settings: UplinkSettings) -> None:
        self.stage = Stage.DISCOVER
        self.transactional_id = f"{settings.topic_prefix}{TRANSACTIONAL_ID}{node}"
        self.coordinator: Address = ("", 0)
        self.offset = -1  # of my last committed progress record, where it is known
        self._key = node.encode()
        self._settings = settings
        self._bootstrap = settings.addresses()
        self._cluster = Cluster("", {}, -1, {}, [])
        self._topics = tuple(dict.fromkeys((*settings.topics, PROGRESS_TOPIC)))
        self._held_until = 0.0
        self._producer = Producer(-1, -1, Compression.NONE)
        self._remembered: Remembered | None = None
        self._record: Progress | None = None
        self._position = self._end = 0
        self._checks: list[tuple[str, int, str]] = []
        self._at_problem = ""
        self._progress_id = ""

    # --- for the transaction ---------------------------------------------------------------------------------------

    @property
    def cluster_id(self) -> str:
        return self._cluster.cluster_id

    def target(self, topic: str) -> str:
        """The central's name of a topic of this node."""
        return self._settings.topic_prefix + topic

    def topic_id(self, topic: str) -> str:
        """Its id there, "" when the central has none."""
        return self._cluster.topics[self.target(topic)].topic_id if self.target(topic) in self._cluster.topics else ""

    def knows(self, topic: str) -> bool:
        """Whether the central has that topic."""
        return self.target(topic) in self._cluster.topics

    def committed(self, offset: int, record: Progress | None) -> None:
        """My progress record stands there now."""
        self.offset, self._record = offset, record

    def remembered(self, txn: int, done: dict[str, int]) -> Remembered:
        """What to keep in the journal about the record that was just committed."""
        return Remembered(
            cluster=self.cluster_id,
            topic_id=self.topic_id(PROGRESS_TOPIC),
            partition=self.partition(PROGRESS_TOPIC),
            offset=self.offset,
            txn=txn,
            done=done,
        )

    def partition(self, topic: str) -> int:
        """The one partition that all of this node's copies go to: as recorded, else by murmur2 of the node's name."""
        if topic == PROGRESS_TOPIC:
            known = self._remembered
            if known is not None and known.topic_id and known.topic_id == self.topic_id(topic):
                return known.partition
        elif self._record is not None and topic in self._record.to.topics and not self._moved(topic):
            return self._record.to.topics[topic][1]
        return partition_for(self._key, len(self._cluster.topics[self.target(topic)].leaders))

    def leader(self, topic: str) -> Address:
        """The address of the broker that leads that partition."""
        node_id = self._cluster.topics[self.target(topic)].leaders.get(self.partition(topic), -1)
        if node_id not in self._cluster.brokers:
            raise KafkaError(ErrorCode.LEADER_NOT_AVAILABLE, f"topic {self.target(topic)}")
        return self._cluster.brokers[node_id]

    def _moved(self, topic: str) -> bool:
        leaders = self._cluster.topics[self.target(topic)].leaders
        return self._record is None or self._record.to.topics[topic][1] not in leaders

    # --- the search ------------------------------------------------------------------------------------------------

    def from_discovery(self) -> None:
        """Begin with the cluster: after anything that may have changed it."""
        self.stage = Stage.DISCOVER
        self._forget()

    def from_init(self) -> None:
        """Begin with init_transactions: the cluster answered, our transaction failed."""
        self.stage = Stage.INIT
        self._forget()

    def rotate(self) -> None:
        """Ask another broker next time: one of those that were configured, or of those that Metadata named since."""
        asked, *others = dict.fromkeys([*self._bootstrap, *self._settings.addresses(), *self._cluster.brokers.values()])
        known = {*self._settings.addresses(), *self._cluster.brokers.values()}
        self._bootstrap = [address for address in (*others, asked) if address in known]

    def hold(self, until: float) -> None:
        """Ask the same again, but not before."""
        self._held_until = until

    def found(self) -> Found:
        """What the finished search found."""
        topics = {
            name: self._cluster.topics[self.target(name)]
            for name in dict.fromkeys((*self._topics, *(self._record.to.topics if self._record else ())))
            if self.target(name) in self._cluster.topics
        }
        return Found(self._record, self._cluster.cluster_id, topics, self._at_problem)

    def ask(self, now: float, producer: Producer, remembered: Remembered | None) -> Action:
        """The next request."""
        if now < self._held_until:
            return Wait(self._held_until)
        self._producer, self._remembered = producer, remembered
        return _TABLE[self.stage].ask(self, now)

    def heard(self, bodies: tuple[Body, ...], now: float, producer: Producer) -> bool:
        """Take the answer; True when done. Raises `KafkaError`, `PeerError`, `UnreadableProgressError`."""
        self._producer = producer
        self.stage = _TABLE[self.stage].heard(self, bodies)
        return self.stage is Stage.DONE

    def _forget(self) -> None:
        self._held_until = 0.0
        self._record = None
        self._at_problem = ""
        self._checks = []

    def _ask_metadata(self, now: float) -> Action:
        names = [self.target(topic) for topic in self._topics]
        return Send((Request(self._bootstrap[0], ApiKey.METADATA, requests.metadata(names)),))

    def _heard_metadata(self, bodies: tuple[Body, ...]) -> Stage:
        self._cluster = requests.read_metadata(bodies[0])
        if self._cluster.missing:
            return Stage.CREATE
        for name, topic in self._cluster.topics.items():
            if not topic.leaders or any(leader not in self._cluster.brokers for leader in topic.leaders.values()):
                raise KafkaError(ErrorCode.LEADER_NOT_AVAILABLE, f"topic {name}")
        if (known := self.topic_id(PROGRESS_TOPIC)) != self._progress_id:
            self._progress_id, self.offset = known, -1
        return Stage.COORDINATOR

    def _ask_create(self, now: float) -> Action:
        progress = self.target(PROGRESS_TOPIC)
        configs = {self.target(topic): config for topic, config in TOPIC_CONFIG.items()}
        wanted = {
            name: (PROGRESS_PARTITIONS, PROGRESS_CONFIG) if name == progress else (-1, configs.get(name, {}))
            for name in self._cluster.missing
        }
        address = self._cluster.brokers.get(self._cluster.controller, self._bootstrap[0])
        return Send((Request(address, ApiKey.CREATE_TOPICS, requests.create_topics(wanted, self._timeout_ms)),))

    def _heard_create(self, bodies: tuple[Body, ...]) -> Stage:
        requests.read_create_topics(bodies[0])
        return Stage.DISCOVER

    def _ask_coordinator(self, now: float) -> Action:
        body = requests.find_coordinator(self.transactional_id)
        return Send((Request(self._bootstrap[0], ApiKey.FIND_COORDINATOR, body),))

    def _heard_coordinator(self, bodies: tuple[Body, ...]) -> Stage:
        self.coordinator = requests.read_coordinator(bodies[0])[1]
        return Stage.INIT

    def _ask_init(self, now: float) -> Action:
        body = requests.init_producer_id(
            self.transactional_id,
            self._settings.transaction_timeout_ms,
            self._producer.id,
            self._producer.epoch,
        )
        return Send((Request(self.coordinator, ApiKey.INIT_PRODUCER_ID, body),))

    def _heard_init(self, bodies: tuple[Body, ...]) -> Stage:
        self._producer.id, self._producer.epoch = requests.read_producer_id(bodies[0])
        self._producer.sequences.clear()
        return Stage.ENDS

    def _ask_ends(self, now: float) -> Action:
        return Send((self._offsets(PROGRESS_TOPIC, requests.EARLIEST), self._offsets(PROGRESS_TOPIC, requests.LATEST)))

    def _heard_ends(self, bodies: tuple[Body, ...]) -> Stage:
        name = self.target(PROGRESS_TOPIC)
        earliest, self._end = requests.read_offsets(bodies[0])[name], requests.read_offsets(bodies[1])[name]
        self._position = max(self._hint() if self._hint() <= self._end else 0, earliest)
        return Stage.READ if self._position < self._end else self._after_read()

    def _hint(self) -> int:
        known = self._remembered
        if self.offset >= 0:
            return self.offset
        return known.offset if known is not None and known.topic_id == self.topic_id(PROGRESS_TOPIC) else 0

    def _ask_read(self, now: float) -> Action:
        name, partition = self.target(PROGRESS_TOPIC), self.partition(PROGRESS_TOPIC)
        body = requests.fetch(name, partition, self._position, isolation=READ_COMMITTED)
        return Send((Request(self.leader(PROGRESS_TOPIC), ApiKey.FETCH, body),))

    def _heard_read(self, bodies: tuple[Body, ...]) -> Stage:
        code, batches = requests.read_fetch(bodies[0])
        if code:
            raise KafkaError(code, "reading progress")
        for header, batch, counts in batches:
            if counts and header.next_offset > self._position:
                columns = _decoded(batch)
                for offset, key, value in zip(columns.offsets, columns.keys, columns.values, strict=True):
                    if key == self._key and value is not None and offset >= self._position:
                        self._record = decode(value)
                        self.offset = offset
            self._position = max(self._position, header.next_offset)
        return Stage.READ if self._position < self._end else self._after_read()

    def _after_read(self) -> Stage:
        if self._record is None or self._record.to.cluster != self._cluster.cluster_id:
            return Stage.DONE
        self._checks = [
            (topic, offset, mine)
            for topic, (offset, mine) in self._record.to.at.items()
            if self.target(topic) in self._cluster.topics
            and topic in self._record.to.topics
            and not self._moved(topic)
            and self.topic_id(topic) == self._record.to.topics[topic][0]
        ]
        return Stage.CHECK_ENDS if self._checks else Stage.DONE

    def _ask_check_ends(self, now: float) -> Action:
        return Send(
            tuple(
                self._offsets(topic, timestamp)
                for topic, _, _ in self._checks
                for timestamp in (requests.EARLIEST, requests.LATEST)
            )
        )

    def _heard_check_ends(self, bodies: tuple[Body, ...]) -> Stage:
        there = []
        for number, (topic, offset, mine) in enumerate(self._checks):
            name = self.target(topic)
            earliest = requests.read_offsets(bodies[2 * number])[name]
            latest = requests.read_offsets(bodies[2 * number + 1])[name]
            if latest <= offset:
                self._at_problem = f"{name} ends at {latest}, and my record {mine} was at {offset}"
            elif earliest <= offset:  # a log start above it is retention, no truncation
                there.append((topic, offset, mine))
        self._checks = there
        return Stage.CHECK_AT if there else Stage.DONE

    def _ask_check_at(self, now: float) -> Action:
        return Send(
            tuple(
                Request(
                    self.leader(topic),
                    ApiKey.FETCH,
                    requests.fetch(
                        self.target(topic), self.partition(topic), offset, isolation=READ_UNCOMMITTED, max_bytes=1
                    ),
                )
                for topic, offset, _ in self._checks
            )
        )

    def _heard_check_at(self, bodies: tuple[Body, ...]) -> Stage:
        for body, (topic, offset, mine) in zip(bodies, self._checks, strict=True):
            code, batches = requests.read_fetch(body)
            if code == ErrorCode.OFFSET_OUT_OF_RANGE:
                continue  # retention passed it since its bounds were asked
            if code:
                raise KafkaError(code, f"reading {self.target(topic)}")
            there = _identity_at([batch for header, batch, _ in batches if header.next_offset > offset], offset)
            if there != mine:
                self._at_problem = f"{self.target(topic)} has {there or 'nothing of mine'} at {offset}, not {mine}"
        return Stage.DONE

    def _offsets(self, topic: str, timestamp: int) -> Request:
        body = requests.list_offsets({self.target(topic): self.partition(topic)}, timestamp)
        return Request(self.leader(topic), ApiKey.LIST_OFFSETS, body)

    @property
    def _timeout_ms(self) -> int:
        return self._settings.request_timeout_ms


def _decoded(batch: memoryview) -> Columns:
    try:
        return decode_batch(batch)
    except CorruptBatch as error:
        raise PeerError(f"the central sent a damaged batch: {error.what}") from None


def _identity_at(batches: list[memoryview], offset: int) -> str | None:
    for batch in batches[:1]:
        columns = _decoded(batch)
        if offset in columns.offsets:
            try:
                return identity_in(columns.headers[columns.offsets.index(offset)])
            except CorruptBatch:
                return None
    return None


def _nothing(search: Search, now: float) -> Action:
    return Wait(now)


def _never(search: Search, bodies: tuple[Body, ...]) -> Stage:
    raise PeerError("an answer after the search")


_TABLE: dict[Stage, _Step] = {
    Stage.DISCOVER: _Step(Search._ask_metadata, Search._heard_metadata),
    Stage.CREATE: _Step(Search._ask_create, Search._heard_create),
    Stage.COORDINATOR: _Step(Search._ask_coordinator, Search._heard_coordinator),
    Stage.INIT: _Step(Search._ask_init, Search._heard_init),
    Stage.ENDS: _Step(Search._ask_ends, Search._heard_ends),
    Stage.READ: _Step(Search._ask_read, Search._heard_read),
    Stage.CHECK_ENDS: _Step(Search._ask_check_ends, Search._heard_check_ends),
    Stage.CHECK_AT: _Step(Search._ask_check_at, Search._heard_check_at),
    Stage.DONE: _Step(_nothing, _never),
}
