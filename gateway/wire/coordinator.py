"""The transaction coordinator's requests: InitProducerId, AddPartitionsToTxn, AddOffsetsToTxn, EndTxn; and a check.

Sources: KIP-98, KIP-360 (a producer that hands its id and epoch back), KIP-588, KIP-890 part 1, and Kafka's
TransactionCoordinator, whose answers these are.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from gateway.wire.compiler import Body
from gateway.wire.errors import ErrorCode
from gateway.wire.internal_topics import INTERNAL_TOPICS, OFFSETS_TOPIC
from gateway.wire.lifecycle import ENLISTED_MAX, PREPARED, TRANSACTIONAL_ID_BYTES_MAX, Done, Lifecycle
from gateway.wire.peer import Peer, Reply
from gateway.wire.session import Request
from gateway.wire.transactions import EPOCH_MAX, NO_EPOCH, Partition, State, Transaction
from headwater.errors import StorageError

logger = logging.getLogger(__name__)

_FEW = 10  # partitions of a transaction; so many in each are within the limit of all


class Coordinator(Lifecycle):
    """Answers for all transactional ids of this node."""

    def init(self, request: Request, peer: Peer, reply: Reply) -> None:
        """InitProducerId (API 22)."""
        body: dict[str, Any] = request.body or {}
        name = body["transactional_id"]

        def refused(code: ErrorCode) -> None:
            reply(self._init_answer(request, code))

        if name is None:
            try:
                reply({"error_code": 0, "producer_id": self._ids.next(), "producer_epoch": 0})
            except OSError as error:
                self._no_ids(error, refused)
        elif not 0 < len(name.encode()) <= TRANSACTIONAL_ID_BYTES_MAX or (body["producer_id"] == -1) != (
            body["producer_epoch"] == -1
        ):
            refused(ErrorCode.INVALID_REQUEST)
        elif not 0 < body["transaction_timeout_ms"] <= self._settings.transaction_timeout_max_ms:
            refused(ErrorCode.INVALID_TRANSACTION_TIMEOUT)
        else:
            try:
                transaction = self._transactions.get(name) or self._new(name, body["transaction_timeout_ms"])
            except (OSError, StorageError) as error:
                self._no_ids(error, refused)
                return
            self._init(transaction, request, peer, reply)

    def add(self, request: Request, peer: Peer, reply: Reply) -> None:
        """AddPartitionsToTxn (API 24)."""
        body: dict[str, Any] = request.body or {}
        asked = [(topic["name"], index) for topic in body["topics"] for index in topic["partitions"]]
        unknown = {part for part in asked if part[0] in INTERNAL_TOPICS or self._store.partition(*part) is None}
        if unknown:
            reply(_added(body, lambda part: _MISSING if part in unknown else ErrorCode.OPERATION_NOT_ATTEMPTED))
            return

        def done(code: ErrorCode) -> None:
            code = self._counted(code, old_version=request.version < 2)
            reply(_added(body, lambda _: code))

        # One name for all transactions, not a copy from each request.
        self._enlist(body, [(self._store.topics[name].name, index) for name, index in asked], peer, done)

    def add_offsets(self, request: Request, peer: Peer, reply: Reply) -> None:
        """AddOffsetsToTxn (API 25): the partition of `__consumer_offsets` that holds the group's offsets."""
        body: dict[str, Any] = request.body or {}

        def done(code: ErrorCode) -> None:
            reply({"error_code": self._counted(code, old_version=request.version < 2)})

        try:
            self._groups.log.ready()
        except StorageError as error:
            logger.error("%s", error.what)
            done(ErrorCode.COORDINATOR_NOT_AVAILABLE)
            return
        self._enlist(body, [(OFFSETS_TOPIC, 0)], peer, done)

    def _enlist(self, body: dict[str, Any], asked: list[Partition], peer: Peer, done: Done) -> None:
        """Make partitions part of the producer's transaction, which begins with the first."""
        transaction, code = self._find(body, peer)
        if transaction is None or code is not ErrorCode.NONE:
            done(code)
            return
        now = transaction.now
        if now.state is State.ONGOING and now.partitions.issuperset(asked):
            done(ErrorCode.NONE)
            return
        now_ms = self._clock.wall_ms()
        begins = now.state is not State.ONGOING
        partitions = frozenset(asked) if begins else now.partitions.union(asked)
        if len(partitions) > _FEW and self._enlisted() + len(asked) > ENLISTED_MAX:
            logger.warning("transactions have %d partitions, and may take in no more", ENLISTED_MAX)
            done(ErrorCode.COORDINATOR_NOT_AVAILABLE)
            return
        started_ms = now_ms if begins else now.started_ms
        following = now.to(State.ONGOING, now_ms, partitions=partitions, started_ms=started_ms)
        if begins:
            self._arm(transaction, self._clock.monotonic_ms() + now.timeout_ms)
        self._write(transaction, following, done)

    def end(self, request: Request, peer: Peer, reply: Reply) -> None:
        """EndTxn (API 26)."""
        body: dict[str, Any] = request.body or {}

        def done(code: ErrorCode) -> None:
            reply({"error_code": self._counted(code, old_version=request.version < 2)})

        transaction, code = self._find(body, peer)
        if transaction is None or code is not ErrorCode.NONE:
            if (
                transaction is not None
                and transaction.now.state in PREPARED
                and code is ErrorCode.CONCURRENT_TRANSACTIONS
            ):
                wanted = State.PREPARE_COMMIT if body["committed"] else State.PREPARE_ABORT
                code = code if transaction.now.state is wanted else ErrorCode.INVALID_TXN_STATE
            done(code)
            return
        wanted = State.COMPLETE_COMMIT if body["committed"] else State.COMPLETE_ABORT
        if transaction.now.state is State.ONGOING:
            following = State.PREPARE_COMMIT if body["committed"] else State.PREPARE_ABORT
            self._finish(transaction, transaction.now.to(following, self._clock.wall_ms()), done)
        else:  # a repeat of the request that ended it is answered like the first
            done(ErrorCode.NONE if transaction.now.state is wanted else ErrorCode.INVALID_TXN_STATE)

    def check(self, name: str, producer_id: int, epoch: int, partition: Partition, peer: Peer) -> ErrorCode:
        """Whether a transactional batch may be appended: only inside the open transaction that named its partition
        (KIP-890, part 1), or it would hold the last stable offset back for good.
        """
        transaction = self._transactions.get(name)
        if transaction is None or transaction.now.producer_id != producer_id:
            return ErrorCode.INVALID_PRODUCER_ID_MAPPING
        now = transaction.now
        if epoch != now.epoch:
            return ErrorCode.INVALID_PRODUCER_EPOCH
        if transaction.peer is not peer:
            self._own(transaction, peer)
        ending = transaction.pending is not None and transaction.pending.state is not State.ONGOING
        if now.state is not State.ONGOING or ending or partition not in now.partitions:
            return ErrorCode.INVALID_TXN_STATE
        return ErrorCode.NONE

    # InitProducerId

    def _init(self, transaction: Transaction, request: Request, peer: Peer, reply: Reply) -> None:
        body: dict[str, Any] = request.body or {}

        def refused(code: ErrorCode) -> None:
            reply(self._init_answer(request, code))

        now = transaction.now
        given = (body["producer_id"], body["producer_epoch"])
        if transaction.pending is not None:
            refused(ErrorCode.CONCURRENT_TRANSACTIONS)
        elif given[0] != -1 and given[0] != now.producer_id and now.epoch != NO_EPOCH:
            refused(ErrorCode.PRODUCER_FENCED)
        elif now.state in PREPARED:
            refused(ErrorCode.CONCURRENT_TRANSACTIONS)
        elif given[0] != -1 and given[1] not in {now.epoch, transaction.last_epoch} and now.epoch != NO_EPOCH:
            refused(ErrorCode.PRODUCER_FENCED)
        elif now.state is State.ONGOING:
            self._own(transaction, peer)
            again = request._replace(body={**body, "producer_id": -1, "producer_epoch": -1})
            # The transaction is the old producer's: fence it, abort, then give out the next epoch.
            self._abort_and_fence(
                transaction,
                "aborted by its next producer",
                lambda code: (
                    refused(code) if code is not ErrorCode.NONE else self._init(transaction, again, peer, reply)
                ),
            )
        else:
            self._own(transaction, peer)
            self._bump(transaction, request, reply, given[1])

    def _bump(self, transaction: Transaction, request: Request, reply: Reply, given_epoch: int) -> None:
        now, last_epoch = transaction.now, NO_EPOCH
        producer_id, epoch = now.producer_id, now.epoch + 1
        if given_epoch != NO_EPOCH:
            last_epoch = now.epoch
            if given_epoch != now.epoch and given_epoch == transaction.last_epoch:
                epoch, last_epoch = now.epoch, transaction.last_epoch  # a repeat: its first answer was lost
        if epoch >= EPOCH_MAX:
            try:
                producer_id, epoch, last_epoch = self._ids.next(), 0, NO_EPOCH
            except OSError as error:
                self._no_ids(error, lambda code: reply(self._init_answer(request, code)))
                return
        following = now.to(
            State.EMPTY,
            self._clock.wall_ms(),
            producer_id=producer_id,
            epoch=epoch,
            timeout_ms=(request.body or {})["transaction_timeout_ms"],
            partitions=frozenset(),
            started_ms=-1,
        )

        def done(code: ErrorCode) -> None:
            if code is ErrorCode.NONE:
                transaction.last_epoch = last_epoch
                reply({"error_code": 0, "producer_id": producer_id, "producer_epoch": epoch})
            else:
                reply(self._init_answer(request, code))

        self._write(transaction, following, done)

    def _init_answer(self, request: Request, code: ErrorCode) -> Body:
        code = self._counted(code, old_version=request.version < 4)
        return {"error_code": code, "producer_id": -1, "producer_epoch": -1}

    def _no_ids(self, error: Exception, refused: Done) -> None:
        logger.error("no new producer id: %s", error)
        refused(ErrorCode.COORDINATOR_NOT_AVAILABLE)

    # shared steps

    def _find(self, body: dict[str, Any], peer: Peer) -> tuple[Transaction | None, ErrorCode]:
        """The transaction that a request speaks of, and why it may not."""
        if not body["transactional_id"]:
            return None, ErrorCode.INVALID_REQUEST
        transaction = self._transactions.get(body["transactional_id"])
        if transaction is None or transaction.now.producer_id != body["producer_id"]:
            return None, ErrorCode.INVALID_PRODUCER_ID_MAPPING
        if transaction.now.epoch != body["producer_epoch"]:
            return transaction, ErrorCode.PRODUCER_FENCED
        self._own(transaction, peer)
        if transaction.pending is not None or transaction.now.state in PREPARED:
            return transaction, ErrorCode.CONCURRENT_TRANSACTIONS
        return transaction, ErrorCode.NONE

    def _counted(self, code: ErrorCode, *, old_version: bool) -> ErrorCode:
        """Count fences; PRODUCER_FENCED is unknown to older versions of the requests (KIP-588)."""
        if code in {ErrorCode.PRODUCER_FENCED, ErrorCode.INVALID_PRODUCER_EPOCH}:
            self.fenced += 1
        return ErrorCode.INVALID_PRODUCER_EPOCH if old_version and code is ErrorCode.PRODUCER_FENCED else code


_MISSING = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


def _added(body: dict[str, Any], code_of: Callable[[Partition], ErrorCode]) -> Body:
    return {
        "results_by_topic": [
            {
                "name": topic["name"],
                "results_by_partition": [
                    {"partition_index": index, "partition_error_code": code_of((topic["name"], index))}
                    for index in topic["partitions"]
                ],
            }
            for topic in body["topics"]
        ]
    }
