"""One transaction: its requests in order, what their answers mean, and the progress record that it commits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from gateway.log.records import NO_HEADERS, read_header
from gateway.replicate import requests
from gateway.replicate.actions import Request, Send
from gateway.replicate.gather import Load, Outgoing, Producer, Source
from gateway.replicate.progress import Destination, Part, Progress, Run, encode
from gateway.replicate.requests import Body
from gateway.replicate.search import PROGRESS_TOPIC, Search
from gateway.wire.schema import ApiKey

IN_FLIGHT_MAX = 4  # batches to one partition; a broker remembers the last five


class Author(NamedTuple):
    """What a progress record says about its writer."""

    node: str
    version: str
    log_id: str
    runs: Sequence[Run]
    epoch: int


class Transaction:
    """`load` on its way. `at`: my last record per topic, this transaction included as far as it is acknowledged."""

    def __init__(
        self,
        load: Load,
        search: Search,
        producer: Producer,
        sources: Mapping[str, Source],
        author: Author,
        before: Progress | None,
        *,
        txn: int,
        at: Mapping[str, tuple[int, str]],
        timeout_ms: int,
    ) -> None:
        self.load = load
        self.txn = txn
        self.at = dict(at)
        self.refused: Outgoing | None = None
        self.record: Progress | None = None
        self.offset = -1  # of the progress record
        self._search = search
        self._producer = producer
        self._sources = sources
        self._author = author
        self._before = before
        self._timeout_ms = timeout_ms
        self._sent = 0

    def add(self) -> Send:
        """Open it: every partition that it will write to."""
        topics = dict.fromkeys([*(batch.topic for batch in self.load.batches), PROGRESS_TOPIC])
        partitions = {self._search.target(topic): self._search.partition(topic) for topic in topics}
        body = requests.add_partitions(self._search.transactional_id, self._identity, partitions)
        return Send((Request(self._search.coordinator, ApiKey.ADD_PARTITIONS_TO_TXN, body),))

    def produce(self) -> Send:
        """The next batches, as many as a broker keeps in order."""
        group = self.load.batches[self._sent : self._sent + IN_FLIGHT_MAX]
        return Send(tuple(self._produce(batch.topic, batch.data) for batch in group))

    def heard_produce(self, bodies: tuple[Body, ...]) -> bool:
        """True when all data is acknowledged. Raises `KafkaError`; `refused` is then the batch that it is about."""
        for body, batch in zip(bodies, self.load.batches[self._sent :], strict=False):
            self.refused = batch
            base = requests.read_produce(body)
            self.refused = None
            if base >= 0:
                self.at[batch.topic] = (base + batch.records - 1, batch.last_identity)
        self._sent += len(bodies)
        return self._sent >= len(self.load.batches)

    def progress(self, wall_ms: int) -> Send:
        """The record that replaces the state."""
        self.record = self._draft()
        records = [(wall_ms, self._author.node.encode(), encode(self.record), NO_HEADERS)]
        return Send((self._produce(PROGRESS_TOPIC, self._producer.batch(PROGRESS_TOPIC, records)),))

    def heard_progress(self, bodies: tuple[Body, ...]) -> None:
        self.offset = requests.read_produce(bodies[0])

    def commit(self) -> Send:
        body = requests.end_transaction(self._search.transactional_id, self._identity)
        return Send((Request(self._search.coordinator, ApiKey.END_TXN, body),))

    @property
    def _identity(self) -> tuple[int, int]:
        return self._producer.id, self._producer.epoch

    def _produce(self, topic: str, data: bytearray) -> Request:
        target, partition = self._search.target(topic), self._search.partition(topic)
        body = requests.produce(self._search.transactional_id, target, partition, data, self._timeout_ms)
        return Request(self._search.leader(topic), ApiKey.PRODUCE, body)

    def _draft(self) -> Progress:
        author, sources = self._author, self._sources
        # What is not replicated just now keeps its place for when it is again.
        parts = dict(self._before.parts) if self._before is not None else {}
        parts |= {
            key: Part(
                done=position.done,
                end=sources[key].synced_offset,
                oldest_unsent=_oldest_unsent(sources[key], position.done),
                ranges=position.ranges,
                gone=position.gone,
                chain=position.chain,
            )
            for key, position in self.load.positions.items()
            if key in sources
        }
        # A topic stands here from its first record on: where its copies go is chosen once.
        known = self._before.to.topics if self._before is not None else {}
        names = [name for name in dict.fromkeys([*known, *self.at]) if self._search.knows(name)]
        return Progress(
            node=author.node,
            version=author.version,
            log=author.log_id,
            epoch=max([author.epoch, *(source.leader_epoch for source in sources.values())]),
            txn=self.txn,
            runs=[(run, {key: first[key] for key in parts if key in first}) for run, first in author.runs],
            parts=parts,
            to=Destination(
                cluster=self._search.cluster_id,
                topics={name: (self._search.topic_id(name), self._search.partition(name)) for name in names},
                at=dict(self.at),
            ),
        )


def _oldest_unsent(source: Source, done: int) -> int | None:
    if not source.log_start_offset <= done < source.last_stable_offset:
        return None
    data = source.read(done, 1, committed=True).data
    return read_header(data).base_timestamp if len(data) else None
