"""The topic `__consumer_offsets`: appended to, and read whole at the start.

It has one partition: each dirty file costs a sync.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from gateway.log.partition import Appended, PartitionLog
from gateway.log.records import NO_HEADERS, control_type, decode_batch, encode_batch, read_header, split_batches
from gateway.log.store import LogStore
from gateway.wire.internal_topics import OFFSETS_TOPIC
from headwater.clock import Clock
from headwater.errors import HeadwaterError

logger = logging.getLogger(__name__)

Pairs = Sequence[tuple[bytes, bytes | None]]
_READ_BYTES = 1 << 20
_BEFORE_ALL = -(1 << 62)


class Entry(NamedTuple):
    """One record, or a transaction's marker (`marker` True for commit; no key then).

    `position` is the record's offset; in a partition other than the first it is lower than any of the first's.
    """

    partition: int
    position: int
    key: bytes
    value: bytes | None
    producer_id: int  # -1 outside transactions
    marker: bool | None = None


class OffsetsLog:
    """Appends records and loads them."""

    def __init__(self, store: LogStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    def ready(self) -> PartitionLog:
        """The log, created when it is not there. Raises `StorageError`."""
        log = self._store.partition(OFFSETS_TOPIC, 0)
        if log is None:
            config = {"cleanup.policy": "compact"}
            log = self._store.create_topic(OFFSETS_TOPIC, partitions=1, config=config).partitions[0]
        return log

    def append(self, pairs: Pairs, *, producer: tuple[int, int] | None = None) -> Appended:
        """Write keys and values (None: forget the key) as one batch, in the transaction of `producer` (id, epoch).

        Raises the classes of `gateway.log.errors`.
        """
        now_ms = self._clock.wall_ms()
        records = [(now_ms, key, value, NO_HEADERS) for key, value in pairs]
        if producer is None:
            batch = encode_batch(records)
        else:
            batch = encode_batch(records, producer_id=producer[0], producer_epoch=producer[1], transactional=True)
        return self.ready().append(batch, now_ms=now_ms, verify=False, control=True)

    def when_synced(self, end_offset: int, durable: Callable[[], None], failed: Callable[[], None]) -> None:
        """Call `durable` once everything below `end_offset` is on disk, `failed` when it cannot be."""
        self.ready().when_synced(end_offset, durable, failed)

    def load(self) -> Iterator[Entry]:
        """Everything, oldest first.

        A directory that an Apache Kafka broker wrote has several partitions: each group is in one of them, and whatever
        was written here since is in the first.
        """
        topic = self._store.topics.get(OFFSETS_TOPIC)
        for log in reversed(topic.partitions) if topic is not None else ():
            yield from self._load(log)

    def _load(self, log: PartitionLog) -> Iterator[Entry]:
        offset = log.log_start_offset
        lift = _BEFORE_ALL if log.index else 0
        try:
            while offset < log.synced_offset:
                data = log.read(offset, _READ_BYTES).data
                if not data:
                    return
                for batch in split_batches(data):
                    header = read_header(batch)
                    offset = header.next_offset
                    if header.is_control:
                        position, commit = header.base_offset + lift, control_type(batch)
                        yield Entry(log.index, position, b"", None, header.producer_id, commit)
                        continue
                    producer_id = header.producer_id if header.is_transactional else -1
                    columns = decode_batch(batch)
                    for position, key, value in zip(columns.offsets, columns.keys, columns.values, strict=True):
                        yield Entry(log.index, position + lift, key or b"", value, producer_id)
        except (HeadwaterError, OSError) as error:
            # A node always starts; a group whose offset is not known is told so, and its clients' own rule applies.
            logger.error("%s can be read only up to offset %d: %s", OFFSETS_TOPIC, offset, error)
