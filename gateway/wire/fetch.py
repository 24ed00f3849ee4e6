"""Fetch (API 1, versions 4-12): whole batches out of the log, with a long poll; sessions (KIP-227) are declined.

Nobody reads past the fsynced end, and a `read_committed` reader not past the last stable offset. The first batch of an
answer is sent whole whatever the limits say (KIP-74).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from gateway.log.errors import OffsetOutOfRange
from gateway.log.partition import PartitionLog
from gateway.wire.broker import Broker
from gateway.wire.compiler import Body
from gateway.wire.errors import ErrorCode
from gateway.wire.peer import Peer, Reply
from gateway.wire.session import Request
from gateway.wire.timers import Timer
from headwater.errors import HeadwaterError

logger = logging.getLogger(__name__)

_WAIT_MAX_MS = 60_000
# A poll of more partitions than this looks once for all that one round of syncs brings, not once for each.
_LOOKS_MAX = 8
# Each look reads anew what the one before it has found. With more than this it is not taken at every sync.
_QUICK_BYTES = 64 << 10
_PAUSE_MS = 20


def fetch(broker: Broker, request: Request, peer: Peer, reply: Reply) -> None:
    """Answer now when `min_bytes` are there or anything is wrong, else when they are or `max_wait_ms` is over."""
    body: dict[str, Any] = request.body or {}
    if body["session_id"] != 0:
        # We never open a session (the answer's session id is 0), so nobody can have one.
        reply({"error_code": ErrorCode.FETCH_SESSION_ID_NOT_FOUND, "responses": []})
        return
    poll = _Poll(broker, body, peer, reply)
    answer, enough = poll.read()
    if enough or body["max_wait_ms"] <= 0:
        broker.fetched_bytes += poll.size
        reply(answer)
        return
    poll.wait(broker.clock.monotonic_ms() + min(body["max_wait_ms"], _WAIT_MAX_MS))


class _Poll:
    """One Fetch; it subscribes to its logs while it waits."""

    def __init__(self, broker: Broker, body: Body, peer: Peer, reply: Reply) -> None:
        self._broker = broker
        self._body = body
        self._peer = peer
        self._reply = reply
        self._unsubscribe: list[Callable[[], None]] = []
        self._timer: Timer | None = None
        self._look: Timer | None = None
        self._committed = body["isolation_level"] == 1
        self.size = 0

    def wait(self, deadline_ms: float) -> None:
        # Kept for a minute: without the names that nothing is asked of, of which a request may have 300,000.
        self._body = {**self._body, "topics": [topic for topic in self._body["topics"] if topic["partitions"]]}
        self._timer = self._broker.timers.at(deadline_ms, self._answer)
        self._peer.on_close(self, self._end)
        for topic in self._body["topics"]:
            for part in topic["partitions"]:
                log = self._broker.store.partition(topic["topic"], part["partition"])
                if log is not None:
                    self._unsubscribe.append(log.subscribe(self._advanced))

    def _advanced(self) -> None:
        if self._timer is None:
            return  # answered while the log was telling its subscribers
        if len(self._unsubscribe) <= _LOOKS_MAX and self.size <= _QUICK_BYTES:
            self._answer_enough()
        elif self._look is None:
            pause_ms = 0 if self.size <= _QUICK_BYTES else _PAUSE_MS
            self._look = self._broker.timers.at(self._broker.clock.monotonic_ms() + pause_ms, self._answer_enough)

    def _answer_enough(self) -> None:
        self._look = None
        answer, enough = self.read()
        if enough:
            self._finish(answer)

    def _answer(self) -> None:
        if self._timer is not None:
            self._finish(self.read()[0])

    def _finish(self, answer: Body) -> None:
        self._end()
        self._peer.forget(self)
        self._broker.fetched_bytes += self.size
        self._reply(answer)

    def _end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._look is not None:
            self._look.cancel()
            self._look = None
        unsubscribe, self._unsubscribe = self._unsubscribe, []
        for stop in unsubscribe:
            stop()

    def read(self) -> tuple[Body, bool]:
        """The answer as things are, and whether it need not wait."""
        body = self._body
        left = min(body["max_bytes"], self._broker.settings.fetch_bytes_max, max(self._broker.answer_bytes_max(), 0))
        least = min(body["min_bytes"], max(left, 1))  # else it would wait for what no answer may hold
        self.size = 0
        failed = False
        responses = []
        seen = set()
        for topic in body["topics"]:
            parts = []
            for part in topic["partitions"]:
                key = topic["topic"], part["partition"]
                if key in seen:  # Kafka's clients do not; reading it again and again would hold everybody up
                    answer = _failed(part, ErrorCode.INVALID_REQUEST)
                else:
                    answer = self._partition(topic["topic"], part, left - self.size)
                seen.add(key)
                failed = failed or answer["error_code"] != 0
                self.size += len(answer["records"])
                parts.append(answer)
            responses.append({"topic": topic["topic"], "partitions": parts})
        empty = not any(topic["partitions"] for topic in body["topics"])
        return {"responses": responses}, failed or empty or self.size >= least

    def _partition(self, topic: str, part: dict[str, Any], left: int) -> dict[str, Any]:
        log = self._broker.store.partition(topic, part["partition"])
        if log is None:
            return _failed(part, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
        if (code := check_epoch(log, part["current_leader_epoch"])) != ErrorCode.NONE:
            return _failed(part, code)
        limit = min(part["partition_max_bytes"], left)
        if self.size and limit <= 0:
            return _answer(part, log, b"", None)
        try:
            found = log.read(part["fetch_offset"], max(limit, 1), committed=self._committed)
        except OffsetOutOfRange:
            return _failed(part, ErrorCode.OFFSET_OUT_OF_RANGE, log)
        except (HeadwaterError, OSError) as error:
            return _failed(part, unreadable(self._broker, log, error), log)
        if self.size and len(found.data) > left:
            return _answer(part, log, b"", None)  # one batch larger than what is left: only the first may be
        aborted = None
        if self._committed:
            aborted = [{"producer_id": pid, "first_offset": first} for pid, first in found.aborted]
        return _answer(part, log, found.data, aborted)


def unreadable(broker: Broker, log: PartitionLog, error: Exception) -> ErrorCode:
    """What to answer when stored batches cannot be read; said once per partition, for clients ask again and again."""
    if (log.topic, log.index) not in broker.unreadable:
        broker.unreadable.add((log.topic, log.index))
        logger.error("%s-%d cannot be read: %s", log.topic, log.index, error)
    return ErrorCode.KAFKA_STORAGE_ERROR


def check_epoch(log: PartitionLog, epoch: int) -> ErrorCode:
    """KIP-320: whether the client's idea of the leader epoch is ours; -1 is no idea."""
    if epoch < 0 or epoch == log.leader_epoch:
        return ErrorCode.NONE
    return ErrorCode.FENCED_LEADER_EPOCH if epoch < log.leader_epoch else ErrorCode.UNKNOWN_LEADER_EPOCH


def _answer(
    part: dict[str, Any], log: PartitionLog, data: bytes, aborted: list[dict[str, int]] | None
) -> dict[str, Any]:
    return {
        "partition_index": part["partition"],
        "error_code": 0,
        "high_watermark": log.synced_offset,
        "last_stable_offset": log.last_stable_offset,
        "log_start_offset": log.log_start_offset,
        "aborted_transactions": aborted,
        "records": data,
    }


def _failed(part: dict[str, Any], code: ErrorCode, log: PartitionLog | None = None) -> dict[str, Any]:
    return {
        "partition_index": part["partition"],
        "error_code": code,
        "high_watermark": -1 if log is None else log.synced_offset,
        "log_start_offset": -1 if log is None else log.log_start_offset,
        "aborted_transactions": None,
        "records": b"",
    }
