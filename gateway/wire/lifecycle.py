"""The life of transactional ids, from value to durable value: decisions, markers, time-outs, and what a restart finds.

Sources: KIP-98, Kafka's TransactionCoordinator and TransactionMetadata. A decision is durable in `__transaction_state`
before any marker is written, and the markers are durable before the producer is answered. Time is the monotonic
clock's: a transaction that a restart found open gets its whole time-out again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from gateway.log.store import LogStore
from gateway.wire.errors import ErrorCode
from gateway.wire.groups.registry import Groups
from gateway.wire.holders import stable_holders
from gateway.wire.markers import Marking, abort_orphans
from gateway.wire.peer import Peer
from gateway.wire.producer_ids import GIVEN_MAX, ProducerIds
from gateway.wire.settings import KafkaSettings
from gateway.wire.timers import Timers
from gateway.wire.transaction_log import LISTING_EVERY, TransactionLog
from gateway.wire.transactions import EPOCH_MAX, NO_EPOCH, Snapshot, State, Transaction
from headwater.clock import Clock
from headwater.errors import StorageError

logger = logging.getLogger(__name__)

OWN_PREFIX = "headwater."
TRANSACTIONAL_ID_BYTES_MAX = 1_000
ENLISTED_MAX = 100_000  # partitions in all transactions that are open, together
_RETRY_MS = 500

PREPARED = frozenset({State.PREPARE_COMMIT, State.PREPARE_ABORT})
_OVER = frozenset({State.EMPTY, State.COMPLETE_COMMIT, State.COMPLETE_ABORT})
Done = Callable[[ErrorCode], None]


class Lifecycle:
    """All transactional ids of this node; `Coordinator` adds the requests.

    `groups` are told of each end: offsets that were committed in a transaction are seen or forgotten with it.
    """

    def __init__(self, store: LogStore, clock: Clock, timers: Timers, settings: KafkaSettings, groups: Groups) -> None:
        self._store = store
        self._clock = clock
        self._timers = timers
        self._settings = settings
        self._groups = groups
        self._log = TransactionLog(store, clock, store.disk, f"{store.data_dir}/node/transaction-listing")
        self._transactions = {name: Transaction(name, snapshot) for name, snapshot in self._log.load().items()}
        self._last_aborted: dict[str, Any] | None = None
        orphans = abort_orphans(store, clock, [each.now for each in self._transactions.values()])
        logs = [log for topic in store.topics.values() for log in topic.partitions]
        known = {each.now.producer_id for each in self._transactions.values()}
        known.update(orphans, *(log.last_offsets() for log in logs))
        self._ids = ProducerIds(
            store.disk,
            f"{store.data_dir}/node/producer-ids",
            at_least=max((each for each in known if each < GIVEN_MAX), default=-1) + 1,
            fresh=not any(log.log_end_offset for log in logs),
        )
        self.fenced = 0
        self._committed = 0
        self._aborted = 0
        self._timed_out = 0
        self._abandoned = 0
        self._orphans = len(orphans)
        for transaction in self._transactions.values():
            self._recover(transaction)

    def status(self) -> dict[str, Any]:
        """Counters since the start, how many are open, who holds last stable offsets, what was ended last for whom."""
        states = [each.now.state for each in self._transactions.values()]
        return {
            "ids": len(states),
            "open": states.count(State.ONGOING),
            "ending": sum(state in PREPARED for state in states),
            "committed": self._committed,
            "aborted": self._aborted,
            "timed_out": self._timed_out,
            "abandoned": self._abandoned,
            "orphans": self._orphans,
            "fenced": self.fenced,
            "held_back": stable_holders(self._store, self._transactions, self._clock.wall_ms()),
            "last_aborted": self._last_aborted,
        }

    def holding(self, topic: str) -> set[int]:
        """Producer ids whose transaction is not over and takes in a partition of `topic`."""
        every = [each.now for each in self._transactions.values()]
        return {
            now.producer_id for now in every if now.state not in _OVER and topic in {name for name, _ in now.partitions}
        }

    def disconnected(self, peer: Peer) -> None:
        """Abort our own producers' transactions a little after their connection ended: nobody will end them."""
        for name in peer.transactional_ids:
            transaction = self._transactions.get(name)
            if transaction is not None and transaction.peer is peer and name.startswith(OWN_PREFIX):
                self._abandon_later(transaction, peer, self._settings.abandoned_transaction_ms)

    # steps

    def _new(self, name: str, timeout_ms: int) -> Transaction:
        """Raises `StorageError` where there is no room."""
        if len(self._transactions) >= self._settings.transactional_ids_max and not self._forget_oldest():
            raise StorageError(
                f"there are {len(self._transactions)} transactional ids with open transactions"
                " (kafka.transactional_ids_max)"
            )
        transaction = Transaction(name, Snapshot(self._ids.next(), NO_EPOCH, timeout_ms, State.EMPTY))
        self._transactions[name] = transaction
        return transaction

    def _forget_oldest(self) -> bool:
        idle = [each for each in self._transactions.values() if each.now.state in _OVER and each.pending is None]
        if idle:
            oldest = min(idle, key=lambda each: each.now.updated_ms)
            del self._transactions[oldest.transactional_id]
            if oldest.peer is not None:
                oldest.peer.transactional_ids.discard(oldest.transactional_id)
            self._log.append(oldest.transactional_id, None, lambda: None)
        return bool(idle)

    def _enlisted(self) -> int:
        """How many partitions open transactions have, together."""
        return sum(len((each.pending or each.now).partitions) for each in self._transactions.values())

    def _own(self, transaction: Transaction, peer: Peer) -> None:
        if transaction.peer is not None and transaction.peer is not peer:
            transaction.peer.transactional_ids.discard(transaction.transactional_id)
        transaction.peer = peer
        peer.transactional_ids.add(transaction.transactional_id)

    def _write(self, transaction: Transaction, following: Snapshot, done: Done) -> None:
        """Make `following` durable, then current; `done` hears how it went."""

        def durable() -> None:
            transaction.pending, transaction.now = None, following
            done(ErrorCode.NONE)

        def failed() -> None:
            transaction.pending = None
            done(ErrorCode.COORDINATOR_NOT_AVAILABLE)

        transaction.pending = following
        try:
            self._log.append(transaction.transactional_id, following, durable, failed)
        except StorageError as error:
            logger.error("transactional id %s: %s", transaction.transactional_id, error.what)
            failed()
            return
        if self._log.records_since_listing >= LISTING_EVERY:
            written = {each.transactional_id: each.pending or each.now for each in self._transactions.values()}
            self._log.list_all({name: snapshot for name, snapshot in written.items() if snapshot.epoch != NO_EPOCH})

    def _finish(self, transaction: Transaction, decision: Snapshot, done: Done) -> None:
        """Make the decision durable, then its markers, then tell."""

        def decided(code: ErrorCode) -> None:
            if code is ErrorCode.NONE:
                self._mark(transaction, lambda: done(ErrorCode.NONE))
            else:
                done(code)

        self._write(transaction, decision, decided)

    def _mark(self, transaction: Transaction, then: Callable[[], None]) -> None:
        if transaction.timer is not None:
            transaction.timer.cancel()
            transaction.timer = None

        def marked() -> None:
            now = transaction.now
            commit = now.state is State.PREPARE_COMMIT
            state = State.COMPLETE_COMMIT if commit else State.COMPLETE_ABORT
            transaction.now = now.to(state, self._clock.wall_ms(), partitions=frozenset())
            if commit:
                self._committed += 1
            else:
                self._aborted += 1
            try:
                # Not waited for: without it the next start writes the same markers again, which changes nothing.
                self._log.append(transaction.transactional_id, transaction.now, lambda: None)
            except StorageError as error:
                logger.error("transactional id %s: %s", transaction.transactional_id, error.what)
            self._groups.ended(now.producer_id, commit=commit)
            then()

        Marking(self._store, self._clock, self._timers, transaction, marked).start()

    def _abort_and_fence(self, transaction: Transaction, why: str, done: Done) -> None:
        """Abort with the next epoch: the old one cannot go on (TransactionMetadata.prepareFenceProducerEpoch)."""
        now = transaction.now
        epoch = min(now.epoch + 1, EPOCH_MAX)
        logger.warning(
            "transactional id %s %s: producer %d, epoch %d is fenced by epoch %d",
            transaction.transactional_id,
            why,
            now.producer_id,
            now.epoch,
            epoch,
        )
        transaction.last_epoch = NO_EPOCH
        self._finish(transaction, now.to(State.PREPARE_ABORT, self._clock.wall_ms(), epoch=epoch), done)

    # time

    def _arm(self, transaction: Transaction, when_ms: float) -> None:
        if transaction.timer is not None:
            transaction.timer.cancel()
        transaction.timer = self._timers.at(when_ms, lambda: self._time_out(transaction))

    def _time_out(self, transaction: Transaction) -> None:
        transaction.timer = None
        if transaction.pending is not None:
            self._arm(transaction, self._clock.monotonic_ms() + _RETRY_MS)
        elif transaction.now.state is State.ONGOING:
            self._timed_out += 1
            why = f"aborted by time-out after {transaction.now.timeout_ms} ms"
            self._last_aborted = {"id": transaction.transactional_id, "at_ms": self._clock.wall_ms(), "why": why}
            self._abort_and_fence(transaction, why, lambda code: self._again(transaction, code))

    def _again(self, transaction: Transaction, code: ErrorCode) -> None:
        if code is not ErrorCode.NONE:  # the disk refused: the transaction is open still
            self._arm(transaction, self._clock.monotonic_ms() + _RETRY_MS)

    def _abandon_later(self, transaction: Transaction, peer: Peer | None, wait_ms: float) -> None:
        when_ms = self._clock.monotonic_ms() + wait_ms
        self._timers.at(when_ms, lambda: self._abandon(transaction, peer))

    def _abandon(self, transaction: Transaction, peer: Peer | None) -> None:
        if transaction.peer is not peer:
            return  # another connection speaks for it now
        if transaction.pending is not None:
            self._abandon_later(transaction, peer, _RETRY_MS)
        elif transaction.now.state is State.ONGOING:
            self._abandoned += 1
            wait_ms = self._settings.abandoned_transaction_ms
            why = f"aborted, its connection ended {wait_ms} ms ago"
            self._abort_and_fence(transaction, why, lambda code: self._again(transaction, code))

    def _recover(self, transaction: Transaction) -> None:
        """Go on where the last run stopped."""
        now = transaction.now
        if now.state in PREPARED:
            logger.info("transactional id %s: %s is finished now", transaction.transactional_id, now.state.name)
            self._mark(transaction, lambda: None)
        elif now.state is State.ONGOING:
            self._arm(transaction, self._clock.monotonic_ms() + now.timeout_ms)
            if transaction.transactional_id.startswith(OWN_PREFIX):
                self._abandon_later(transaction, None, self._settings.abandoned_transaction_ms)
