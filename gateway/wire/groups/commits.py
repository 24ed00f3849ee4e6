"""OffsetCommit, OffsetFetch and TxnOffsetCommit (APIs 8, 9, 28)."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping
from typing import Any

from gateway.wire.broker import Broker
from gateway.wire.compiler import Body
from gateway.wire.errors import ErrorCode
from gateway.wire.groups.group import NO_GENERATION, Committed, Group, Partition, State
from gateway.wire.groups.members import GROUP_ID_MAX, find_member
from gateway.wire.groups.records import encode_offset, encode_offset_key
from gateway.wire.internal_topics import OFFSETS_TOPIC
from gateway.wire.peer import Peer, Reply
from gateway.wire.session import Request

METADATA_MAX = 4096  # Kafka's offset.metadata.max.bytes
NO_OFFSET = -1
_TOPIC_BYTES = 512
_AS_WRITTEN = -100  # no error code of Kafka's: whatever comes of the write
_Outline = list[tuple[str, "array[int]", "array[int]"]]


def offset_commit(broker: Broker, request: Request, peer: Peer, reply: Reply) -> None:
    """Answered when the offsets are on disk. A consumer that is in no group's generation commits with generation -1."""
    body: dict[str, Any] = request.body or {}
    group, code = _group(broker, body, body["generation_id_or_member_epoch"])
    if group is not None and group.state is State.COMPLETING_REBALANCE and group.members and code is ErrorCode.NONE:
        code = ErrorCode.REBALANCE_IN_PROGRESS  # its partitions may be another's already
    _commit(broker, group, body, code, reply)


def txn_offset_commit(broker: Broker, request: Request, peer: Peer, reply: Reply) -> None:
    """Offsets that are seen when their transaction is committed (KIP-447: from the generation's members alone)."""
    body: dict[str, Any] = request.body or {}
    producer = (body["producer_id"], body["producer_epoch"])
    code = broker.transactions.check(body["transactional_id"], *producer, (OFFSETS_TOPIC, 0), peer)
    group = None
    if code is ErrorCode.NONE:
        group, code = _group(broker, body, body["generation_id"], in_transaction=True)
    _commit(broker, group, body, code, reply, producer=producer)


def _group(
    broker: Broker, body: dict[str, Any], generation: int, *, in_transaction: bool = False
) -> tuple[Group | None, ErrorCode]:
    """The group that a commit is for, made where a simple consumer needs one, and why it may not commit."""
    if len(body["group_id"].encode()) > GROUP_ID_MAX:
        return None, ErrorCode.INVALID_GROUP_ID
    group = broker.groups.all.get(body["group_id"])
    if group is None:
        if generation >= 0:
            return None, ErrorCode.ILLEGAL_GENERATION
        group = broker.groups.get_or_create(body["group_id"])
        return group, ErrorCode.NONE if group is not None else ErrorCode.GROUP_MAX_SIZE_REACHED
    anonymous = generation == NO_GENERATION and not body["member_id"] and body["group_instance_id"] is None
    if anonymous and (not group.members or in_transaction):
        return group, ErrorCode.NONE
    if anonymous:
        return group, ErrorCode.UNKNOWN_MEMBER_ID
    member, code = find_member(group, body["member_id"], body["group_instance_id"])
    if member is None:
        return group, code
    if generation != group.generation:
        return group, ErrorCode.ILLEGAL_GENERATION
    broker.groups.rebalances.alive(group, member)
    return group, ErrorCode.NONE


def _commit(
    broker: Broker,
    group: Group | None,
    body: dict[str, Any],
    code: ErrorCode,
    reply: Reply,
    *,
    producer: tuple[int, int] | None = None,
) -> None:
    now_ms = broker.clock.wall_ms()
    refused: dict[Partition, ErrorCode] = {}
    offsets: dict[Partition, Committed] = {}
    for topic in body["topics"]:
        for part in topic["partitions"]:
            where = (topic["name"], part["partition_index"])
            metadata = part["committed_metadata"] or ""
            if code is not ErrorCode.NONE:
                refused[where] = code
            elif broker.store.partition(*where) is None:
                refused[where] = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
            elif len(metadata) > METADATA_MAX:
                refused[where] = ErrorCode.OFFSET_METADATA_TOO_LARGE
            else:
                offsets[where] = Committed(part["committed_offset"], part["committed_leader_epoch"], metadata, now_ms)
    known = {} if group is None else group.offsets
    more = sum(each.size_bytes - (known[at].size_bytes if at in known else 0) for at, each in offsets.items())
    if not broker.groups.has_room(more):
        refused |= dict.fromkeys(offsets, ErrorCode.INVALID_COMMIT_OFFSET_SIZE)
        offsets = {}
    size_bytes = len(body["topics"]) * _TOPIC_BYTES + 2 * sum(each.size_bytes for each in offsets.values())
    if offsets and not broker.groups.may_wait(size_bytes):
        refused |= dict.fromkeys(offsets, ErrorCode.COORDINATOR_LOAD_IN_PROGRESS)  # clients ask again
        offsets = {}
    answer = _outline(body, refused)
    if group is None or not offsets:
        reply(_committed(answer, ErrorCode.NONE))
        return
    pairs = [(encode_offset_key(group.group_id, where), encode_offset(each)) for where, each in offsets.items()]
    broker.groups.commit(
        group,
        pairs,
        offsets,
        lambda code: reply(_committed(answer, code)),
        producer=producer,
        size_bytes=size_bytes,
    )


def _outline(body: dict[str, Any], refused: Mapping[Partition, ErrorCode]) -> _Outline:
    """What of a request its answer needs: a decoded one takes thirty times as much, and waits for the disk."""
    found = []
    for topic in body["topics"]:
        name, indexes = topic["name"], [part["partition_index"] for part in topic["partitions"]]
        codes = [refused.get((name, index), _AS_WRITTEN) for index in indexes]
        found.append((name, array("i", indexes), array("h", codes)))
    return found


def _committed(answer: _Outline, written: ErrorCode) -> Body:
    return {
        "topics": [
            {
                "name": name,
                "partitions": [
                    {"partition_index": index, "error_code": written if code == _AS_WRITTEN else code}
                    for index, code in zip(indexes, codes, strict=True)
                ],
            }
            for name, indexes, codes in answer
        ]
    }


def offset_fetch(broker: Broker, request: Request, peer: Peer) -> Body:
    """Committed offsets, of one group or, from version 8 on, of several; -1 where there is none."""
    body: dict[str, Any] = request.body or {}
    stable = body["require_stable"]
    if request.version < 8:
        return {"topics": _fetched(broker, body["group_id"], body["topics"], stable=stable), "error_code": 0}
    groups = [
        {
            "group_id": asked["group_id"],
            "topics": _fetched(broker, asked["group_id"], asked["topics"], stable=stable),
            "error_code": 0,
        }
        for asked in {each["group_id"]: each for each in body["groups"]}.values()
    ]
    return {"groups": groups}


def _fetched(
    broker: Broker, group_id: str, topics: list[dict[str, Any]] | None, *, stable: bool
) -> list[dict[str, Any]]:
    group = broker.groups.all.get(group_id)
    if topics is not None:
        # Once each: a commit's metadata is long, and a request may name one partition 100,000 times.
        partitions: Iterable[Partition] = {(each["name"], at) for each in topics for at in each["partition_indexes"]}
    else:
        partitions = group.offsets if group is not None else ()
    return [
        {"name": name, "partitions": [_offset(broker, group, (name, index), stable=stable) for index in indexes]}
        for name, indexes in _by_topic(partitions)
    ]


def _by_topic(partitions: Iterable[Partition]) -> list[tuple[str, list[int]]]:
    found: dict[str, list[int]] = {}
    for topic, index in sorted(partitions):
        found.setdefault(topic, []).append(index)
    return list(found.items())


def _offset(broker: Broker, group: Group | None, where: Partition, *, stable: bool) -> dict[str, Any]:
    answer = {"partition_index": where[1], "committed_offset": NO_OFFSET, "metadata": "", "error_code": 0}
    if group is None:
        return answer
    if stable and group.is_unstable(where):
        return {**answer, "error_code": ErrorCode.UNSTABLE_OFFSET_COMMIT}
    committed = group.offsets.get(where)
    if committed is None:
        return answer
    broker.groups.report(group, where, committed)
    return {
        **answer,
        "committed_offset": committed.offset,
        "committed_leader_epoch": committed.leader_epoch,
        "metadata": committed.metadata,
    }
