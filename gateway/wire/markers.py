"""Transaction markers: control batches that end a transaction in each of its partitions."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from functools import partial

from gateway.log.errors import InvalidProducerEpoch
from gateway.log.records import encode_control
from gateway.log.store import LogStore
from gateway.wire.timers import Timer, Timers
from gateway.wire.transactions import Partition, Snapshot, State, Transaction
from headwater.clock import Clock
from headwater.errors import HeadwaterError, StorageError

logger = logging.getLogger(__name__)

COORDINATOR_EPOCH = 0  # there has never been another coordinator for this log
_AGAIN_MS = 1_000


class Marking:
    """Writes one decision's markers until every one is on disk, then calls `done` once.

    A marker that the disk refused or a failed sync took back is written again after _AGAIN_MS, the others with it; a
    second marker of a transaction that is over changes nothing.
    """

    def __init__(
        self, store: LogStore, clock: Clock, timers: Timers, transaction: Transaction, done: Callable[[], None]
    ) -> None:
        self._store = store
        self._clock = clock
        self._timers = timers
        self._name = transaction.transactional_id
        self._decision = transaction.now
        self._left = set(transaction.now.partitions)
        self._done: Callable[[], None] | None = done
        self._timer: Timer | None = None

    def start(self) -> None:
        decision = self._decision
        now_ms = self._clock.wall_ms()
        for where in sorted(self._left):
            log = self._store.partition(*where)
            if log is None:
                self._left.discard(where)  # the topic was deleted meanwhile
                continue
            marker = encode_control(
                commit=decision.state is State.PREPARE_COMMIT,
                producer_id=decision.producer_id,
                producer_epoch=decision.epoch,
                coordinator_epoch=COORDINATOR_EPOCH,
                timestamp_ms=now_ms,
            )
            try:
                end = log.append(marker, now_ms=now_ms, verify=False, control=True).next_offset
            except InvalidProducerEpoch as error:
                # A newer producer has written here already, so its coordinator has ended this transaction before.
                logger.warning("transactional id %s: no marker in %s-%d: %s", self._name, *where, error.what)
                self._left.discard(where)
            except StorageError as error:
                logger.error("transactional id %s: no marker in %s-%d yet: %s", self._name, *where, error.what)
                self._again_later()
            else:
                log.when_synced(end, partial(self._synced, where), self._again_later)
        self._settle()

    def _synced(self, where: Partition) -> None:
        self._left.discard(where)
        self._settle()

    def _settle(self) -> None:
        if not self._left and self._done is not None:
            done, self._done = self._done, None
            done()

    def _again_later(self) -> None:
        if self._timer is None:
            self._timer = self._timers.at(self._clock.monotonic_ms() + _AGAIN_MS, self._again)

    def _again(self) -> None:
        self._timer = None
        if self._done is not None:
            self.start()


def abort_orphans(store: LogStore, clock: Clock, known: Iterable[Snapshot]) -> list[int]:
    """Abort transactions that a log has open and no transactional id knows of (`__transaction_state` was lost).

    Without it they would hold the last stable offset back for good. Returns their producer ids.
    """
    owned = {(snapshot.producer_id, where) for snapshot in known for where in snapshot.partitions}
    found = []
    for topic in store.topics.values():
        for log in topic.partitions:
            for producer_id, epoch, first_offset, _ in log.open_transactions():
                if (producer_id, (topic.name, log.index)) in owned:
                    continue
                found.append(producer_id)
                logger.warning(
                    "%s-%d: the transaction of producer %d from offset %d is aborted: no coordinator state knows it",
                    topic.name,
                    log.index,
                    producer_id,
                    first_offset,
                )
                now_ms = clock.wall_ms()
                marker = encode_control(
                    commit=False,
                    producer_id=producer_id,
                    producer_epoch=epoch,
                    coordinator_epoch=COORDINATOR_EPOCH,
                    timestamp_ms=now_ms,
                )
                try:
                    log.append(marker, now_ms=now_ms, verify=False, control=True)
                except HeadwaterError as error:  # a node starts whatever its disk says
                    logger.error("%s-%d: the marker is not written: %s", topic.name, log.index, error.what)
    return found
