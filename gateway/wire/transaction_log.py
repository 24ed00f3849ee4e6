"""The topic `__transaction_state`: every transactional id's latest value, durable.

It is read whole at the start, so a long one would make starts slow: after LISTING_EVERY records all values are
written again in one batch, and its offset goes to `<data>/node/transaction-listing`, where the next start reads on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from gateway.log.partition import PartitionLog
from gateway.log.records import NO_HEADERS, decode_batch, encode_batch, read_header, split_batches
from gateway.log.store import LogStore
from gateway.wire.internal_topics import TRANSACTION_TOPIC
from gateway.wire.transactions import Snapshot, decode_key, decode_value, encode_key, encode_value
from headwater.clock import Clock
from headwater.disk import Disk, read_or_none
from headwater.errors import HeadwaterError, PeerError, StorageError
from headwater.sealed import seal_number, unseal_number

logger = logging.getLogger(__name__)

LISTING_EVERY = 10_000
_READ_BYTES = 1 << 20
_LISTING_RECORDS = 5_000


class TransactionLog:
    """Appends values and loads them. One partition: each dirty file costs an fsync."""

    def __init__(self, store: LogStore, clock: Clock, disk: Disk, listing_path: str) -> None:
        self._store = store
        self._clock = clock
        self._disk = disk
        self._path = listing_path
        self.records_since_listing = 0

    def _log(self) -> PartitionLog:
        log = self._store.partition(TRANSACTION_TOPIC, 0)
        if log is None:
            config = {"cleanup.policy": "compact"}
            log = self._store.create_topic(TRANSACTION_TOPIC, partitions=1, config=config).partitions[0]
        return log

    def append(
        self,
        transactional_id: str,
        snapshot: Snapshot | None,
        durable: Callable[[], None],
        failed: Callable[[], None] | None = None,
    ) -> None:
        """Write one value (None: forget the id); `durable` is called once it is on disk, `failed` when it cannot be.

        Raises `LogFailed`, and calls neither then.
        """
        value = None if snapshot is None else encode_value(snapshot)
        now_ms = self._clock.wall_ms()
        log = self._log()
        batch = encode_batch([(now_ms, encode_key(transactional_id), value, NO_HEADERS)])
        done = log.append(batch, now_ms=now_ms, verify=False)
        self.records_since_listing += 1
        log.when_synced(done.next_offset, durable, failed)

    def list_all(self, snapshots: Mapping[str, Snapshot]) -> None:
        """Write every value again, and remember where; a failure only leaves the next start slow."""
        self.records_since_listing = 0
        now_ms = self._clock.wall_ms()
        records = [(now_ms, encode_key(name), encode_value(value), NO_HEADERS) for name, value in snapshots.items()]
        try:
            log = self._log()
            start = end = log.log_end_offset
            for position in range(0, len(records), _LISTING_RECORDS):
                batch = encode_batch(records[position : position + _LISTING_RECORDS])
                end = log.append(batch, now_ms=now_ms, verify=False).next_offset
        except StorageError as error:
            logger.error("the listing of transactional ids is put off: %s", error.what)
            return
        log.when_synced(end, lambda: self._listed(start))

    def _listed(self, start: int) -> None:
        try:
            self._disk.replace_file(self._path, seal_number(start))
        except OSError as error:
            logger.error("%s: %s", self._path, error)

    def load(self) -> dict[str, Snapshot]:
        """The latest value of every id.

        A directory that an Apache Kafka broker wrote has several partitions: each id is in one of them, and whatever
        was written here since is in the first.
        """
        topic = self._store.topics.get(TRANSACTION_TOPIC)
        latest: dict[str, Snapshot] = {}
        for log in reversed(topic.partitions) if topic is not None else ():
            try:
                self._read(log, latest)
            except (HeadwaterError, OSError) as error:
                # A node always starts: what is not known is aborted as an orphan, and ids are never given twice.
                logger.error("%s can be read only in part: %s", TRANSACTION_TOPIC, error)
        return latest

    def _read(self, log: PartitionLog, latest: dict[str, Snapshot]) -> None:
        offset = log.log_start_offset if log.index else self._start(log)
        while offset < log.synced_offset:
            data = log.read(offset, _READ_BYTES).data
            if not data:
                break
            for batch in split_batches(data):
                offset = read_header(batch).next_offset
                columns = decode_batch(batch)
                self.records_since_listing += len(columns.keys)
                for key, value in zip(columns.keys, columns.values, strict=True):
                    _apply(latest, key, value)

    def _start(self, log: PartitionLog) -> int:
        try:
            start = unseal_number(read_or_none(self._disk, self._path) or b"")
        except ValueError as error:
            if self._disk.exists(self._path):
                logger.warning("%s is damaged (%s): all of %s is read", self._path, error, TRANSACTION_TOPIC)
            return log.log_start_offset
        return start if log.log_start_offset <= start <= log.synced_offset else log.log_start_offset


def _apply(latest: dict[str, Snapshot], key: bytes | None, value: bytes | None) -> None:
    try:
        name = decode_key(key or b"")
        if value is None:
            latest.pop(name, None)
        else:
            latest[name] = decode_value(value)
    except PeerError as error:
        logger.error("a record of %s is passed over: %s", TRANSACTION_TOPIC, error.what)
