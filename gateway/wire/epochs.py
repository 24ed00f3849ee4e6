"""OffsetForLeaderEpoch (API 23, versions 2-4): where an epoch ended, by which a client finds out about a truncation.

A log begins a new epoch when its disk lost what was written (KIP-320, KIP-101): a client whose offset lies past the end
of the epoch that it read in has read what is no more.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Any

from gateway.log.partition import PartitionLog
from gateway.wire.broker import Broker
from gateway.wire.compiler import Body
from gateway.wire.errors import ErrorCode
from gateway.wire.fetch import check_epoch
from gateway.wire.peer import Peer
from gateway.wire.session import Request

UNDEFINED = (-1, -1)
_FIRST = 0  # of a pair: the epoch; its start offset comes second


def epoch_of(log: PartitionLog, offset: int) -> int:
    """The epoch in which the record at `offset` was written, or would be."""
    starts = [start for _, start in log.epochs]
    return log.epochs[max(bisect_right(starts, offset) - 1, 0)][_FIRST]


def end_of(log: PartitionLog, epoch: int) -> tuple[int, int]:
    """(the largest epoch up to `epoch` that the log has, its end offset), as LeaderEpochFileCache.endOffsetFor."""
    latest = log.epochs[-1][_FIRST]
    if epoch == latest:
        return epoch, log.synced_offset  # nobody reads past it
    if epoch < 0 or epoch > latest:
        return UNDEFINED
    later = next(index for index, (known, _) in enumerate(log.epochs) if known > epoch)
    return log.epochs[later - 1][_FIRST] if later else epoch, log.epochs[later][1]


def offset_for_leader_epoch(broker: Broker, request: Request, peer: Peer) -> Body:
    """Each partition alone."""
    answers = []
    for topic in (request.body or {})["topics"]:
        parts = [_answer(broker, topic["topic"], part) for part in topic["partitions"]]
        answers.append({"topic": topic["topic"], "partitions": parts})
    return {"topics": answers}


def _answer(broker: Broker, topic: str, part: dict[str, Any]) -> dict[str, Any]:
    log = broker.store.partition(topic, part["partition"])
    code = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION if log is None else check_epoch(log, part["current_leader_epoch"])
    epoch, end_offset = UNDEFINED if log is None or code is not ErrorCode.NONE else end_of(log, part["leader_epoch"])
    return {"error_code": code, "partition": part["partition"], "leader_epoch": epoch, "end_offset": end_offset}
