"""Guards of consumer groups and of the offsets that they commit."""

from __future__ import annotations

from typing import Any

from gateway.wire.acl import Kind, Operation, Rights
from gateway.wire.broker import Broker
from gateway.wire.compiler import Body
from gateway.wire.errors import ErrorCode
from gateway.wire.guards.verdict import Rest, Verdict, divide, in_transaction
from gateway.wire.session import Request

_NO_TOPIC = ErrorCode.TOPIC_AUTHORIZATION_FAILED
_NO_GROUP = ErrorCode.GROUP_AUTHORIZATION_FAILED


def _may_join(rights: Rights, request: Request) -> bool:
    return rights.may(Operation.READ, Kind.GROUP, (request.body or {})["group_id"])


def member(rights: Rights, request: Request, broker: Broker) -> Verdict:
    """READ on the group: Heartbeat, LeaveGroup."""
    return None if _may_join(rights, request) else {"error_code": _NO_GROUP}


def sync(rights: Rights, request: Request, broker: Broker) -> Verdict:
    """READ on the group."""
    return None if _may_join(rights, request) else {"error_code": _NO_GROUP, "assignment": b""}


def join(rights: Rights, request: Request, broker: Broker) -> Verdict:
    """READ on the group."""
    if _may_join(rights, request):
        return None
    return {
        "error_code": _NO_GROUP,
        "protocol_name": None if request.version >= 7 else "",
        "leader": "",
        "member_id": (request.body or {})["member_id"],
        "members": [],
    }


# --- offsets


def offset_commit(rights: Rights, request: Request, broker: Broker) -> Verdict:
    """READ on the group and on each topic."""
    return _commit(rights, request, ErrorCode.NONE)


def txn_offset_commit(rights: Rights, request: Request, broker: Broker) -> Verdict:
    """And WRITE on the transactional id."""
    return _commit(rights, request, in_transaction(rights, (request.body or {})["transactional_id"]))


def _commit(rights: Rights, request: Request, code: ErrorCode) -> Verdict:
    body: dict[str, Any] = request.body or {}
    topics = body["topics"]
    if code is ErrorCode.NONE and not _may_join(rights, request):
        code = _NO_GROUP
    if code is not ErrorCode.NONE:
        return {"topics": _committed(topics, code)}
    rest, refused = divide(topics, lambda topic: rights.may(Operation.READ, Kind.TOPIC, topic["name"]))
    if not refused:
        return None
    answers = _committed(refused, _NO_TOPIC)
    if not rest:
        return {"topics": answers}
    return Rest({**body, "topics": rest}, lambda answer: {"topics": [*answer["topics"], *answers]})


def _committed(topics: list[dict[str, Any]], code: ErrorCode) -> list[Body]:
    return [
        {
            "name": topic["name"],
            "partitions": [
                {"partition_index": part["partition_index"], "error_code": code} for part in topic["partitions"]
            ],
        }
        for topic in topics
    ]


def offset_fetch(rights: Rights, request: Request, broker: Broker) -> Verdict:
    """DESCRIBE on each group and topic; where all topics are asked for, those that one may not see are left out."""
    body: dict[str, Any] = request.body or {}
    if request.version >= 8:
        return _fetch_groups(rights, body)
    if not rights.may(Operation.DESCRIBE, Kind.GROUP, body["group_id"]):
        return {"error_code": _NO_GROUP, "topics": _fetched(body["topics"] or [], _NO_GROUP)}
    rest, answers = _visible(rights, body["topics"])
    if body["topics"] is not None and not answers:
        return None
    return Rest(
        {**body, "topics": rest}, lambda answer: {**answer, "topics": _shown(rights, answer["topics"], answers)}
    )


def _fetch_groups(rights: Rights, body: Body) -> Verdict:
    seen, refused = divide(body["groups"], lambda each: rights.may(Operation.DESCRIBE, Kind.GROUP, each["group_id"]))
    denied = [{"group_id": each["group_id"], "topics": [], "error_code": _NO_GROUP} for each in refused]
    rest, hidden = [], {}
    for each in seen:
        topics, hidden[each["group_id"]] = _visible(rights, each["topics"])
        rest.append({**each, "topics": topics})

    def patch(answer: Body) -> Body:
        shown = [
            {**each, "topics": _shown(rights, each["topics"], hidden[each["group_id"]])} for each in answer["groups"]
        ]
        return {"groups": shown + denied}

    plain = not refused and not any(hidden.values()) and all(each["topics"] is not None for each in body["groups"])
    return None if plain else Rest({**body, "groups": rest}, patch)


def _visible(rights: Rights, topics: list[dict[str, Any]] | None) -> tuple[list[dict[str, Any]] | None, list[Body]]:
    if topics is None:
        return None, []
    rest, refused = divide(topics, lambda topic: rights.may(Operation.DESCRIBE, Kind.TOPIC, topic["name"]))
    return rest, _fetched(refused, _NO_TOPIC)


def _shown(rights: Rights, topics: list[dict[str, Any]], answers: list[Body]) -> list[Any]:
    seen = [topic for topic in topics if rights.may(Operation.DESCRIBE, Kind.TOPIC, topic["name"])]
    return [*seen, *answers]


def _fetched(topics: list[dict[str, Any]], code: ErrorCode) -> list[Body]:
    return [
        {
            "name": topic["name"],
            "partitions": [
                {"partition_index": index, "committed_offset": -1, "metadata": "", "error_code": code}
                for index in topic["partition_indexes"]
            ],
        }
        for topic in topics
    ]


# --- lists


def describe_groups(rights: Rights, request: Request, broker: Broker) -> Verdict:
    """DESCRIBE on each group."""
    names = (request.body or {})["groups"]
    rest, refused = divide(names, lambda name: rights.may(Operation.DESCRIBE, Kind.GROUP, name))
    if not refused:
        return None
    answers = [
        {
            "error_code": _NO_GROUP,
            "group_id": name,
            "group_state": "",
            "protocol_type": "",
            "protocol_data": "",
            "members": [],
        }
        for name in refused
    ]
    return Rest({**(request.body or {}), "groups": rest}, lambda answer: {"groups": [*answer["groups"], *answers]})


def list_groups(rights: Rights, request: Request, broker: Broker) -> Verdict:
    """All of them with DESCRIBE on the cluster, else those that one may describe."""
    if rights.may(Operation.DESCRIBE, Kind.CLUSTER):
        return None

    def patch(answer: Body) -> Body:
        groups = [each for each in answer["groups"] if rights.may(Operation.DESCRIBE, Kind.GROUP, each["group_id"])]
        return {**answer, "groups": groups}

    return Rest(request.body or {}, patch, refuses=False)


def delete_groups(rights: Rights, request: Request, broker: Broker) -> Verdict:
    """DELETE on each group."""
    names = (request.body or {})["groups_names"]
    rest, refused = divide(names, lambda name: rights.may(Operation.DELETE, Kind.GROUP, name))
    if not refused:
        return None
    answers = [{"group_id": name, "error_code": _NO_GROUP} for name in dict.fromkeys(refused)]
    return Rest({"groups_names": rest}, lambda answer: {"results": [*answer["results"], *answers]})
