"""ListOffsets (API 2, versions 1-9): an offset by timestamp or by one of the special timestamps."""

from __future__ import annotations

from typing import Any

from gateway.log.partition import PartitionLog
from gateway.wire.broker import Broker
from gateway.wire.compiler import Body
from gateway.wire.epochs import epoch_of
from gateway.wire.errors import ErrorCode
from gateway.wire.fetch import check_epoch, unreadable
from gateway.wire.peer import Peer
from gateway.wire.session import Request
from headwater.errors import HeadwaterError

LATEST = -1
EARLIEST = -2
MAX_TIMESTAMP = -3  # KIP-734, version 7
EARLIEST_LOCAL = -4  # KIP-405, version 8
LATEST_TIERED = -5  # KIP-1005, version 9
_FIRST_VERSION = {MAX_TIMESTAMP: 7, EARLIEST_LOCAL: 8, LATEST_TIERED: 9}


def list_offsets(broker: Broker, request: Request, peer: Peer) -> Body:
    """Nothing past what a reader of the asked isolation may read is ever named."""
    body: dict[str, Any] = request.body or {}
    committed = body["isolation_level"] == 1
    answers = []
    seen = set()
    for topic in body["topics"]:
        parts = []
        for part in topic["partitions"]:
            answer = {"partition_index": part["partition_index"], "error_code": 0}
            log = broker.store.partition(topic["name"], part["partition_index"])
            again = (topic["name"], part["partition_index"]) in seen
            seen.add((topic["name"], part["partition_index"]))
            if again:  # as Kafka: a search by time reads the disk, and a request may name one partition 100,000 times
                answer["error_code"] = ErrorCode.INVALID_REQUEST
            elif log is None:
                answer["error_code"] = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
            elif (code := check_epoch(log, part["current_leader_epoch"])) != ErrorCode.NONE:
                answer["error_code"] = code
            elif request.version < _FIRST_VERSION.get(part["timestamp"], 0) or part["timestamp"] < LATEST_TIERED:
                answer["error_code"] = ErrorCode.UNSUPPORTED_VERSION
            else:
                try:
                    offset, timestamp = _find(log, part["timestamp"], committed=committed)
                except (HeadwaterError, OSError) as error:
                    answer["error_code"] = unreadable(broker, log, error)
                else:
                    answer |= {"offset": offset, "timestamp": timestamp, "leader_epoch": epoch_of(log, offset)}
            parts.append(answer)
        answers.append({"name": topic["name"], "partitions": parts})
    return {"topics": answers}


def _find(log: PartitionLog, timestamp: int, *, committed: bool) -> tuple[int, int]:
    """(offset, timestamp of its record or -1); (-1, -1) when there is no such record."""
    end = log.last_stable_offset if committed else log.synced_offset
    if timestamp == LATEST:
        return end, -1
    if timestamp in {EARLIEST, EARLIEST_LOCAL}:
        return log.log_start_offset, -1
    if timestamp == LATEST_TIERED:
        return -1, -1
    found = log.offset_for_timestamp(timestamp) if timestamp >= 0 else log.newest_timestamp()
    if found is None or found[0] >= end:
        return -1, -1
    return found
