"""DescribeGroups, ListGroups and DeleteGroups (APIs 15, 16, 42)."""

from __future__ import annotations

from functools import partial
from typing import Any

from gateway.wire.broker import Broker
from gateway.wire.compiler import Body
from gateway.wire.errors import ErrorCode
from gateway.wire.groups.group import Group, State
from gateway.wire.peer import Peer, Reply
from gateway.wire.session import Request


def describe_groups(broker: Broker, request: Request, peer: Peer) -> Body:
    """Members and what each was assigned; an unknown group is Dead, and no error, before version 6."""
    # Once each: what members say of themselves may be a MiB a group, and a request may name one 100,000 times.
    names = dict.fromkeys((request.body or {})["groups"])
    return {"groups": [_described(group_id, broker.groups.all.get(group_id)) for group_id in names]}


def _described(group_id: str, group: Group | None) -> dict[str, Any]:
    described: dict[str, Any] = {
        "error_code": 0,
        "group_id": group_id,
        "group_state": State.DEAD,
        "protocol_type": "",
        "protocol_data": "",
        "members": [],
    }
    if group is None:
        return described
    stable = group.state is State.STABLE
    return described | {
        "group_state": group.state,
        "protocol_type": group.protocol_type or "",
        "protocol_data": (group.protocol or "") if stable else "",
        "members": [
            {
                "member_id": member.member_id,
                "group_instance_id": member.instance_id,
                "client_id": member.client_id,
                "client_host": member.client_host,
                "member_metadata": member.metadata(group.protocol) if stable else b"",
                "member_assignment": member.assignment if stable else b"",
            }
            for member in group.members.values()
        ],
    }


def list_groups(broker: Broker, request: Request, peer: Peer) -> Body:
    """All groups, or those in the states that are asked for (KIP-518)."""
    wanted = {state.lower() for state in (request.body or {})["states_filter"]}
    groups = [
        {"group_id": group.group_id, "protocol_type": group.protocol_type or "", "group_state": group.state}
        for group in broker.groups.all.values()
        if not wanted or group.state.lower() in wanted
    ]
    return {"error_code": 0, "groups": groups}


def delete_groups(broker: Broker, request: Request, peer: Peer, reply: Reply) -> None:
    """Answered when it is on disk that the groups are gone."""
    names = list(dict.fromkeys((request.body or {})["groups_names"]))
    codes: dict[str, ErrorCode] = {}

    def done(name: str, code: ErrorCode) -> None:
        codes[name] = code
        if len(codes) == len(names):
            reply({"results": [{"group_id": name, "error_code": codes[name]} for name in names]})

    if not names:
        reply({"results": []})
    for name in names:
        group = broker.groups.all.get(name)
        if group is None:
            done(name, ErrorCode.GROUP_ID_NOT_FOUND)
        elif group.state is not State.EMPTY or group.pending_offsets:
            done(name, ErrorCode.NON_EMPTY_GROUP)
        else:
            broker.groups.delete(group, partial(done, name))
