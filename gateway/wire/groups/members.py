"""JoinGroup, SyncGroup, Heartbeat and LeaveGroup (APIs 11, 14, 12, 13): what a member asks and is told."""

from __future__ import annotations

import logging
import uuid
from typing import Any

from gateway.wire.broker import Broker
from gateway.wire.compiler import Body
from gateway.wire.errors import ErrorCode
from gateway.wire.groups.group import MEMBER_BYTES, Answer, Group, Member, State
from gateway.wire.groups.rebalance import refuse_join, refuse_sync
from gateway.wire.peer import Peer, Reply
from gateway.wire.session import Request

logger = logging.getLogger(__name__)

GROUP_ID_MAX = 1_000
_NAME_MAX = 249
_PROTOCOLS_MAX = 50
_KNOWN_ID_SINCE = 4  # KIP-394: join a second time, with the id that was handed out
_SKIP_SINCE = 9  # KIP-814: a static leader that came back may leave the assignment as it is
_NAME_NULLABLE_SINCE = 7


def find_member(group: Group, member_id: str, instance_id: str | None) -> tuple[Member | None, ErrorCode]:
    """The member that a request speaks for, or why it may not."""
    if instance_id is not None:
        known = group.instances.get(instance_id)
        if known is None:
            return None, ErrorCode.UNKNOWN_MEMBER_ID
        if known != member_id:
            return None, ErrorCode.FENCED_INSTANCE_ID
    member = group.members.get(member_id)
    return member, ErrorCode.NONE if member is not None else ErrorCode.UNKNOWN_MEMBER_ID


def host_of(peer: Peer) -> str:
    """The address as Kafka shows it."""
    return "/" + peer.name.rpartition(":")[0]


def join(broker: Broker, request: Request, peer: Peer, reply: Reply) -> None:
    """JoinGroup: answered when the join phase is over."""
    body: dict[str, Any] = request.body or {}

    def answer(found: Body) -> None:
        if found["protocol_name"] is None and request.version < _NAME_NULLABLE_SINCE:
            found = {**found, "protocol_name": ""}
        reply(found)

    code = _refusal(broker, body)
    group = None
    if code is ErrorCode.NONE:
        group, code = _group_for(broker, body)
    if group is None or code is not ErrorCode.NONE:
        answer(refuse_join(code, body["member_id"]))
    elif body["member_id"] == "":
        _join_unknown(broker, group, request, peer, answer)
    else:
        _join_known(broker, group, request, peer, answer)
    if group is not None:
        broker.groups.note(group)


def _refusal(broker: Broker, body: dict[str, Any]) -> ErrorCode:
    settings = broker.settings
    names = [protocol["name"] for protocol in body["protocols"]]
    if not 0 < len(body["group_id"].encode()) <= GROUP_ID_MAX:
        return ErrorCode.INVALID_GROUP_ID
    if not settings.group_session_min_ms <= body["session_timeout_ms"] <= settings.group_session_max_ms:
        return ErrorCode.INVALID_SESSION_TIMEOUT
    if not names or len(names) > _PROTOCOLS_MAX or len(set(names)) != len(names):
        return ErrorCode.INCONSISTENT_GROUP_PROTOCOL
    if any(not 0 < len(name) <= _NAME_MAX for name in [*names, body["protocol_type"]]):
        return ErrorCode.INCONSISTENT_GROUP_PROTOCOL
    if body["group_instance_id"] is not None and not 0 < len(body["group_instance_id"]) <= _NAME_MAX:
        return ErrorCode.INVALID_REQUEST
    return ErrorCode.NONE


def _group_for(broker: Broker, body: dict[str, Any]) -> tuple[Group | None, ErrorCode]:
    member_id = body["member_id"]
    group = broker.groups.all.get(body["group_id"])
    size = sum(len(protocol["name"]) + len(protocol["metadata"]) for protocol in body["protocols"])
    if group is None:
        if member_id:
            return None, ErrorCode.UNKNOWN_MEMBER_ID
        if size > broker.settings.group_metadata_bytes_max or not broker.groups.has_room(size + MEMBER_BYTES):
            return None, ErrorCode.GROUP_MAX_SIZE_REACHED
        group = broker.groups.get_or_create(body["group_id"])
        return group, ErrorCode.GROUP_MAX_SIZE_REACHED if group is None else ErrorCode.NONE
    if not group.supports(body["protocol_type"], [protocol["name"] for protocol in body["protocols"]]):
        return group, ErrorCode.INCONSISTENT_GROUP_PROTOCOL
    known = group.members.get(member_id)
    new = known is None and member_id not in group.pending and body["group_instance_id"] not in group.instances
    full = new and len(group.members) + len(group.pending) >= broker.settings.group_members_max
    broker.groups.note(group)
    more = size - known.metadata_bytes if known is not None else size + MEMBER_BYTES
    size += group.metadata_bytes - (known.metadata_bytes if known is not None else 0)
    if full or size > broker.settings.group_metadata_bytes_max or not broker.groups.has_room(more):
        logger.warning(
            "group %s takes no further member: it has %d, whose metadata are %d bytes (kafka.group_members_max,"
            " kafka.group_metadata_bytes_max)",
            group.group_id,
            len(group.members),
            group.metadata_bytes,
        )
        return group, ErrorCode.GROUP_MAX_SIZE_REACHED
    return group, ErrorCode.NONE


def _member(request: Request, peer: Peer, member_id: str) -> Member:
    body: dict[str, Any] = request.body or {}
    member = Member(member_id, body["group_instance_id"], "", host_of(peer), 0, 0, [])
    _update(member, request)
    return member


def _update(member: Member, request: Request) -> None:
    body: dict[str, Any] = request.body or {}
    member.client_id = (request.client_id or "")[:_NAME_MAX]
    member.session_timeout_ms = body["session_timeout_ms"]
    asked_ms = body["rebalance_timeout_ms"]
    member.rebalance_timeout_ms = asked_ms if asked_ms >= 0 else member.session_timeout_ms
    member.protocols = [(protocol["name"], protocol["metadata"]) for protocol in body["protocols"]]


def _new_id(broker: Broker, prefix: str) -> str:
    return f"{prefix}-{uuid.UUID(int=broker.random.getrandbits(128), version=4)}"


def _join_unknown(broker: Broker, group: Group, request: Request, peer: Peer, answer: Answer) -> None:
    body: dict[str, Any] = request.body or {}
    instance_id = body["group_instance_id"]
    rebalances = broker.groups.rebalances
    if instance_id is not None:
        member_id = _new_id(broker, instance_id)
        known = group.members.get(group.instances.get(instance_id, ""))
        if known is None:
            rebalances.add(group, _member(request, peer, member_id), body["protocol_type"], answer, peer)
        else:
            _replace(broker, group, known, member_id, request, peer, answer)
        return
    member_id = _new_id(broker, (request.client_id or "")[:_NAME_MAX])
    if request.version >= _KNOWN_ID_SINCE:
        rebalances.hand_out(group, member_id, body["session_timeout_ms"])
        answer(refuse_join(ErrorCode.MEMBER_ID_REQUIRED, member_id))
    else:
        rebalances.add(group, _member(request, peer, member_id), body["protocol_type"], answer, peer)


def _replace(
    broker: Broker, group: Group, member: Member, member_id: str, request: Request, peer: Peer, answer: Answer
) -> None:
    """A static member came back without its id: the old id is fenced; a stable group goes on as it was (KIP-345)."""
    rebalances = broker.groups.rebalances
    old_leader = group.leader_id
    rebalances.dismiss(member, ErrorCode.FENCED_INSTANCE_ID)
    group.rename(member, member_id)
    _update(member, request)
    member.client_host = host_of(peer)
    rebalances.alive(group, member)
    if group.state is not State.STABLE or group.select_protocol() != group.protocol:
        rebalances.rejoin(group, member, answer, peer)
        return
    body = group.joined(member, skip_assignment=request.version >= _SKIP_SINCE and group.leader_id == member_id)
    if request.version < _SKIP_SINCE:
        # A leader of old would assign anew: it is told that another one leads, and syncs like a follower.
        body |= {"leader": old_leader or "", "members": []}

    def recorded(code: ErrorCode) -> None:
        answer(body if code is ErrorCode.NONE else refuse_join(code, member_id))

    broker.groups.record(group, recorded)


def _join_known(broker: Broker, group: Group, request: Request, peer: Peer, answer: Answer) -> None:
    body: dict[str, Any] = request.body or {}
    member_id, rebalances = body["member_id"], broker.groups.rebalances
    if member_id in group.pending and body["group_instance_id"] is None:
        rebalances.add(group, _member(request, peer, member_id), body["protocol_type"], answer, peer)
        return
    member, code = find_member(group, member_id, body["group_instance_id"])
    if member is None:
        answer(refuse_join(code, member_id))
        return
    same = member.protocols == [(protocol["name"], protocol["metadata"]) for protocol in body["protocols"]]
    leads = member_id == group.leader_id
    settled = group.state is State.COMPLETING_REBALANCE or (group.state is State.STABLE and not leads)
    if same and settled:
        # Its answer was lost, or it asks without need: nothing has changed.
        rebalances.alive(group, member)
        answer(group.joined(member))
        return
    _update(member, request)
    rebalances.rejoin(group, member, answer, peer)


def sync(broker: Broker, request: Request, peer: Peer, reply: Reply) -> None:
    """SyncGroup: answered when the leader's assignment is on disk."""
    body: dict[str, Any] = request.body or {}
    group = broker.groups.all.get(body["group_id"])
    if group is None:
        reply(refuse_sync(ErrorCode.UNKNOWN_MEMBER_ID))
        return
    member, code = find_member(group, body["member_id"], body["group_instance_id"])
    if member is None:
        reply(refuse_sync(code))
    elif body["generation_id"] != group.generation:
        reply(refuse_sync(ErrorCode.ILLEGAL_GENERATION))
    elif not _same_protocol(group, body):
        reply(refuse_sync(ErrorCode.INCONSISTENT_GROUP_PROTOCOL))
    elif group.state is State.PREPARING_REBALANCE:
        reply(refuse_sync(ErrorCode.REBALANCE_IN_PROGRESS))
    elif group.state is State.STABLE:
        broker.groups.rebalances.alive(group, member)
        reply(group.synced(member))
    elif group.state is State.COMPLETING_REBALANCE:
        broker.groups.rebalances.wait_for_part(group, member, reply, peer)
        if member.member_id == group.leader_id:
            given = {each["member_id"]: each["assignment"] for each in body["assignments"]}
            if broker.groups.has_room(sum(map(len, given.values()))):
                broker.groups.rebalances.assign(group, given)
            else:
                broker.groups.rebalances.refuse(group, ErrorCode.UNKNOWN_SERVER_ERROR)
    else:
        reply(refuse_sync(ErrorCode.UNKNOWN_MEMBER_ID))


def _same_protocol(group: Group, body: dict[str, Any]) -> bool:
    """KIP-559: what the member believes, where it says so."""
    return body["protocol_type"] in {None, group.protocol_type} and body["protocol_name"] in {None, group.protocol}


def heartbeat(broker: Broker, request: Request, peer: Peer) -> Body:
    """Heartbeat: also how a member hears of a rebalance."""
    body: dict[str, Any] = request.body or {}
    group = broker.groups.all.get(body["group_id"])
    if group is None:
        return {"error_code": ErrorCode.UNKNOWN_MEMBER_ID}
    member, code = find_member(group, body["member_id"], body["group_instance_id"])
    if member is None:
        return {"error_code": code}
    if body["generation_id"] != group.generation:
        return {"error_code": ErrorCode.ILLEGAL_GENERATION}
    broker.groups.rebalances.alive(group, member)
    preparing = group.state is State.PREPARING_REBALANCE
    return {"error_code": ErrorCode.REBALANCE_IN_PROGRESS if preparing else ErrorCode.NONE}


def leave(broker: Broker, request: Request, peer: Peer) -> Body:
    """LeaveGroup: one member, or from version 3 on several, also static ones by their instance alone."""
    body: dict[str, Any] = request.body or {}
    group = broker.groups.all.get(body["group_id"])
    if request.version < 3:
        return {"error_code": _leave(broker, group, body["member_id"], None, None)}
    members = [
        {
            "member_id": each["member_id"],
            "group_instance_id": each["group_instance_id"],
            "error_code": _leave(broker, group, each["member_id"], each["group_instance_id"], each["reason"]),
        }
        for each in body["members"]
    ]
    return {"error_code": 0, "members": members}


def _leave(
    broker: Broker, group: Group | None, member_id: str, instance_id: str | None, reason: str | None
) -> ErrorCode:
    if group is None:
        return ErrorCode.UNKNOWN_MEMBER_ID
    rebalances = broker.groups.rebalances
    if (timer := group.pending.pop(member_id, None)) is not None:
        timer.cancel()
        rebalances.try_complete(group)
        return ErrorCode.NONE
    if instance_id is not None and not member_id:
        member_id = group.instances.get(instance_id, "")
    member, code = find_member(group, member_id, instance_id)
    if member is not None:
        rebalances.remove(group, member, f"left ({reason[:200]})" if reason else "left")
    return code
