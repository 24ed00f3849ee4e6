"""Guards of reading, writing, transactions, and what a client asks first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gateway.wire.acl import Kind, Operation, Rights
from gateway.wire.broker import Broker
from gateway.wire.compiler import Body
from gateway.wire.errors import ErrorCode, error_name
from gateway.wire.guards.verdict import Rest, Verdict, divide, in_transaction, may_create
from gateway.wire.schema import ApiKey
from gateway.wire.session import Request
from headwater.errors import PeerError

_Part = dict[str, Any]


def _topics(
    key: str, list_key: str, answer_key: str, operation: Operation, denied: Callable[[_Part], Body]
) -> Callable[[Rights, Request, Broker], Verdict]:
    """A guard of a list of topics: those that are not allowed are answered with `denied` for each partition."""
    request_key, topic_key = list_key, key

    def guard(rights: Rights, request: Request, broker: Broker) -> Verdict:
        body: dict[str, Any] = request.body or {}
        rest, refused = divide(body[request_key], lambda each: rights.may(operation, Kind.TOPIC, each[topic_key]))
        if not refused:
            return None
        answers = [
            {topic_key: each[topic_key], "partitions": [denied(part) for part in each["partitions"]]}
            for each in refused
        ]
        # A long poll for the rest would keep the refusal from its client.
        at_once = {"max_wait_ms": 0} if request.api is ApiKey.FETCH else {}
        return Rest(
            {**body, request_key: rest, **at_once},
            lambda answer: {**answer, answer_key: [*answer[answer_key], *answers]},
        )

    return guard


_DENIED = ErrorCode.TOPIC_AUTHORIZATION_FAILED


def _no_fetch(part: _Part) -> Body:
    return {
        "partition_index": part["partition"],
        "error_code": _DENIED,
        "high_watermark": -1,
        "aborted_transactions": None,
        "records": b"",
    }


def _no_epoch(part: _Part) -> Body:
    return {"error_code": _DENIED, "partition": part["partition"], "leader_epoch": -1, "end_offset": -1}


fetch = _topics("topic", "topics", "responses", Operation.READ, _no_fetch)
list_offsets = _topics(
    "name",
    "topics",
    "topics",
    Operation.DESCRIBE,
    lambda part: {"partition_index": part["partition_index"], "error_code": _DENIED},
)
epochs = _topics("topic", "topics", "topics", Operation.DESCRIBE, _no_epoch)


def _no_produce(topics: list[_Part], code: ErrorCode) -> list[Body]:
    return [
        {
            "name": topic["name"],
            "partition_responses": [
                {"index": part["index"], "error_code": code, "base_offset": -1} for part in topic["partition_data"]
            ],
        }
        for topic in topics
    ]


def produce(rights: Rights, request: Request, broker: Broker) -> Verdict:
    """WRITE on each topic, and on the transactional id of a transaction."""
    body: dict[str, Any] = request.body or {}
    name = body["transactional_id"]
    topics, code = body["topic_data"], _DENIED
    if name is not None and not rights.may(Operation.WRITE, Kind.TRANSACTIONAL_ID, name):
        nothing: list[Any] = []
        rest, refused, code = nothing, topics, ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED
    elif name is not None:
        rest, refused = divide(topics, lambda topic: rights.may_in_transactions(topic["name"]))
    else:
        rest, refused = divide(topics, lambda topic: rights.may(Operation.WRITE, Kind.TOPIC, topic["name"]))
    if not refused:
        return None
    if body["acks"] == 0:
        broker.denied += 1
        raise PeerError(f"a batch sent with acks 0 was refused: {error_name(code)}")
    answers = _no_produce(refused, code)
    return Rest({**body, "topic_data": rest}, lambda answer: {"responses": [*answer["responses"], *answers]})


# --- what a client asks first


def metadata(rights: Rights, request: Request, broker: Broker) -> Verdict:
    """Topics that one may not describe are not there; one that is not there is made for those who may create it."""
    body: dict[str, Any] = request.body or {}
    asked = body["topics"]

    def may_see(name: str) -> bool:
        return rights.may(Operation.DESCRIBE, Kind.TOPIC, name)

    if asked is None or (request.version == 0 and not asked):
        return Rest(
            body,
            lambda answer: {**answer, "topics": [each for each in answer["topics"] if may_see(each["name"])]},
            refuses=False,
        )
    names = {topic.topic_id: topic.name for topic in broker.store.topics.values()}
    rest, answers = [], []
    for topic in asked:
        name = topic["name"]
        if name is not None and not may_see(name):
            answers.append(_unseen(name, _DENIED, None))
        elif name is None or topic["topic_id"] != _NO_ID:  # as the handler finds it
            known = names.get(topic["topic_id"])
            if known is None or may_see(known):
                rest.append(topic)
            else:
                hidden = None if request.version >= 12 else ""
                answers.append(_unseen(hidden, ErrorCode.UNKNOWN_TOPIC_ID, topic["topic_id"]))
        elif _would_create(broker, body, name) and not may_create(rights, name):
            answers.append(_unseen(name, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, None))
        else:
            rest.append(topic)
    if not answers:
        return None
    if not rest and request.version == 0:  # an empty list would mean all of them
        return Rest(
            {**body, "topics": [{"name": "", "topic_id": _NO_ID}]}, lambda answer: {**answer, "topics": answers}
        )
    return Rest({**body, "topics": rest}, lambda answer: {**answer, "topics": [*answer["topics"], *answers]})


_NO_ID = bytes(16)


def _unseen(name: str | None, code: ErrorCode, topic_id: bytes | None) -> Body:
    return {"error_code": code, "name": name, "topic_id": topic_id or _NO_ID, "partitions": []}


def _would_create(broker: Broker, body: Body, name: str) -> bool:
    return name not in broker.store.topics and body["allow_auto_topic_creation"] and broker.settings.auto_create_topics


_COORDINATED = {
    0: (Kind.GROUP, ErrorCode.GROUP_AUTHORIZATION_FAILED),
    1: (Kind.TRANSACTIONAL_ID, ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED),
}


def find_coordinator(rights: Rights, request: Request, broker: Broker) -> Verdict:
    """DESCRIBE on the group or the transactional id."""
    body: dict[str, Any] = request.body or {}
    if body["key_type"] not in _COORDINATED:
        return None
    kind, code = _COORDINATED[body["key_type"]]
    keys = [body["key"]] if request.version < 4 else body["coordinator_keys"]
    rest, refused = divide(keys, lambda key: rights.may(Operation.DESCRIBE, kind, key))
    if not refused:
        return None
    nowhere = {"error_code": code, "error_message": error_name(code), "node_id": -1, "host": "", "port": -1}
    if request.version < 4:
        return nowhere
    answers = [{"key": key, **nowhere} for key in refused]
    return Rest({**body, "coordinator_keys": rest}, lambda answer: {"coordinators": answer["coordinators"] + answers})


# --- transactions


def init_producer_id(rights: Rights, request: Request, broker: Broker) -> Verdict:
    """WRITE on the transactional id; without one, a topic to write to (KIP-679) or IDEMPOTENT_WRITE."""
    name = (request.body or {})["transactional_id"]
    code = ErrorCode.NONE
    if name is not None:
        if not rights.may(Operation.WRITE, Kind.TRANSACTIONAL_ID, name):
            code = ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED
    elif not rights.may(Operation.IDEMPOTENT_WRITE, Kind.CLUSTER) and not rights.may_write_somewhere():
        code = ErrorCode.CLUSTER_AUTHORIZATION_FAILED
    return None if code is ErrorCode.NONE else {"error_code": code, "producer_id": -1, "producer_epoch": -1}


def add_partitions(rights: Rights, request: Request, broker: Broker) -> Verdict:
    """WRITE on the transactional id and on all of the topics, or nothing is added."""
    body: dict[str, Any] = request.body or {}
    if not rights.may(Operation.WRITE, Kind.TRANSACTIONAL_ID, body["transactional_id"]):
        return _added(body, lambda _: ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED)
    refused = {topic["name"] for topic in body["topics"] if not rights.may_in_transactions(topic["name"])}
    if not refused:
        return None
    return _added(body, lambda name: _DENIED if name in refused else ErrorCode.OPERATION_NOT_ATTEMPTED)


def _added(body: Body, code_of: Callable[[str], ErrorCode]) -> Body:
    return {
        "results_by_topic": [
            {
                "name": topic["name"],
                "results_by_partition": [
                    {"partition_index": index, "partition_error_code": code_of(topic["name"])}
                    for index in topic["partitions"]
                ],
            }
            for topic in body["topics"]
        ]
    }


def add_offsets(rights: Rights, request: Request, broker: Broker) -> Verdict:
    """WRITE on the transactional id, READ on the group."""
    body: dict[str, Any] = request.body or {}
    code = in_transaction(rights, body["transactional_id"])
    if code is ErrorCode.NONE and not rights.may(Operation.READ, Kind.GROUP, body["group_id"]):
        code = ErrorCode.GROUP_AUTHORIZATION_FAILED
    return None if code is ErrorCode.NONE else {"error_code": code}


def end_txn(rights: Rights, request: Request, broker: Broker) -> Verdict:
    """WRITE on the transactional id."""
    code = in_transaction(rights, (request.body or {})["transactional_id"])
    return None if code is ErrorCode.NONE else {"error_code": code}
