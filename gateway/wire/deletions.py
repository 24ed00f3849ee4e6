"""DeleteRecords (API 21): logs that begin later, for clients that have done with what is below (KIP-107).

Codes and conditions are those of Kafka's ReplicaManager.deleteRecords and UnifiedLog.maybeIncrementLogStartOffset. The
new start is durable before the answer; whole segments below it go with upkeep's next turns, which also tell of it.
"""

from __future__ import annotations

import logging
from collections.abc import Generator
from typing import Any

from gateway.log.errors import LogFailed
from gateway.log.steps import Step
from gateway.log.topic_config import lenient_config
from gateway.wire.broker import Broker
from gateway.wire.compiler import Body
from gateway.wire.errors import ErrorCode
from gateway.wire.internal_topics import INTERNAL_TOPICS
from gateway.wire.peer import Peer, Reply
from gateway.wire.session import Request

logger = logging.getLogger(__name__)

_HIGH_WATERMARK = -1
_NO_WATERMARK = -1
_Key = tuple[str, int]


def delete_records(broker: Broker, request: Request, peer: Peer, reply: Reply) -> None:
    """Each partition alone; a partition that is named twice is deleted up to the last offset that is given for it."""
    broker.work(_deleted(broker, request.body or {}, peer), peer, reply)


def _deleted(broker: Broker, body: dict[str, Any], peer: Peer) -> Generator[Step, None, Body]:
    asked = {
        (topic["name"], part["partition_index"]): part["offset"]
        for topic in body["topics"]
        for part in topic["partitions"]
    }
    found = {key: _start(broker, key, offset) for key, offset in asked.items()}
    starts = {key: start for key, (start, code) in found.items() if code is ErrorCode.NONE}
    before = {key: log.log_start_offset for key in starts if (log := broker.store.partition(*key)) is not None}
    refused = ErrorCode.NONE
    try:
        yield from broker.store.deleting_records(starts)
    except LogFailed as error:
        logger.error("%s", error.what)
        refused = ErrorCode.KAFKA_STORAGE_ERROR
    else:
        for (name, index), start in starts.items():
            if start > before[name, index]:
                logger.info("%s-%d begins at offset %d: %s deleted what is below", name, index, start, peer.name)
    by_topic: dict[str, list[Body]] = {}
    for key, (_, code) in found.items():
        log = broker.store.partition(*key)
        if code is ErrorCode.NONE:
            code = refused if log is not None else ErrorCode.UNKNOWN_TOPIC_OR_PARTITION  # deleted meanwhile
        low = log.log_start_offset if log is not None and code is ErrorCode.NONE else _NO_WATERMARK
        by_topic.setdefault(key[0], []).append({"partition_index": key[1], "low_watermark": low, "error_code": code})
    return {"topics": [{"name": name, "partitions": parts} for name, parts in by_topic.items()]}


def _start(broker: Broker, key: _Key, offset: int) -> tuple[int, ErrorCode]:
    """Where the log is to begin, and why it may not."""
    log = broker.store.partition(*key)
    if key[0] in INTERNAL_TOPICS:
        return 0, ErrorCode.INVALID_TOPIC_EXCEPTION
    if log is None:
        return 0, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    if not lenient_config(broker.store.topics[key[0]].config).delete:
        return 0, ErrorCode.POLICY_VIOLATION  # of each key the latest value is kept
    start = log.synced_offset if offset == _HIGH_WATERMARK else offset
    if not 0 <= start <= log.synced_offset:
        return 0, ErrorCode.OFFSET_OUT_OF_RANGE
    return start, ErrorCode.NONE
