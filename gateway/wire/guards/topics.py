"""Guards of what changes topics, and of settings."""

from __future__ import annotations

from typing import Any

from gateway.wire.acl import Kind, Operation, Rights
from gateway.wire.broker import Broker
from gateway.wire.compiler import Body
from gateway.wire.errors import ErrorCode, error_name
from gateway.wire.guards.verdict import Rest, Verdict, divide, may_create
from gateway.wire.schema import ZERO_UUID
from gateway.wire.session import Request
from gateway.wire.topics import TOPIC_RESOURCE

_NO_TOPIC = ErrorCode.TOPIC_AUTHORIZATION_FAILED
_NO_CLUSTER = ErrorCode.CLUSTER_AUTHORIZATION_FAILED


def create_topics(rights: Rights, request: Request, broker: Broker) -> Verdict:
    """CREATE on the cluster, or on each topic."""
    body: dict[str, Any] = request.body or {}
    rest, refused = divide(body["topics"], lambda asked: may_create(rights, asked["name"]))
    if not refused:
        return None
    answers = [
        {
            "name": asked["name"],
            "topic_id": ZERO_UUID,
            "error_code": _NO_TOPIC,
            "error_message": error_name(_NO_TOPIC),
            "num_partitions": -1,
            "replication_factor": -1,
            "configs": [],
        }
        for asked in refused
    ]
    return Rest({**body, "topics": rest}, lambda answer: {"topics": [*answer["topics"], *answers]})


def delete_topics(rights: Rights, request: Request, broker: Broker) -> Verdict:
    """DELETE on each; an id of a topic that one may not describe is the id of none."""
    body: dict[str, Any] = request.body or {}
    asked = body["topics"] or [{"name": name, "topic_id": ZERO_UUID} for name in body["topic_names"]]
    names = {topic.topic_id: topic.name for topic in broker.store.topics.values()}
    rest, answers = [], []
    for topic in asked:
        name = topic["name"] if topic["name"] is not None else names.get(topic["topic_id"])
        if name is None or rights.may(Operation.DELETE, Kind.TOPIC, name):
            rest.append(topic)
            continue
        hidden = topic["name"] is None and not rights.may(Operation.DESCRIBE, Kind.TOPIC, name)
        code = ErrorCode.UNKNOWN_TOPIC_ID if hidden else _NO_TOPIC
        answers.append({"name": None if hidden else name, "topic_id": topic["topic_id"], "error_code": code})
    if not answers:
        return None
    by_name = [topic["name"] for topic in rest if topic["name"] is not None]
    left = {**body, "topics": rest, "topic_names": by_name}
    return Rest(left, lambda answer: {"responses": [*answer["responses"], *answers]})


def delete_records(rights: Rights, request: Request, broker: Broker) -> Verdict:
    """DELETE on each topic."""
    body: dict[str, Any] = request.body or {}
    rest, refused = divide(body["topics"], lambda asked: rights.may(Operation.DELETE, Kind.TOPIC, asked["name"]))
    if not refused:
        return None
    answers = [
        {
            "name": asked["name"],
            "partitions": [
                {"partition_index": part["partition_index"], "low_watermark": -1, "error_code": _NO_TOPIC}
                for part in asked["partitions"]
            ],
        }
        for asked in refused
    ]
    return Rest({**body, "topics": rest}, lambda answer: {"topics": [*answer["topics"], *answers]})


def create_partitions(rights: Rights, request: Request, broker: Broker) -> Verdict:
    """ALTER on each topic."""
    body: dict[str, Any] = request.body or {}
    rest, refused = divide(body["topics"], lambda asked: rights.may(Operation.ALTER, Kind.TOPIC, asked["name"]))
    if not refused:
        return None
    text = error_name(_NO_TOPIC)
    answers = [{"name": asked["name"], "error_code": _NO_TOPIC, "error_message": text} for asked in refused]
    return Rest({**body, "topics": rest}, lambda answer: {"results": [*answer["results"], *answers]})


def describe_configs(rights: Rights, request: Request, broker: Broker) -> Verdict:
    """DESCRIBE on a topic, or on the cluster for the node's own settings."""
    return _resources(rights, request, Operation.DESCRIBE, "results")


def alter_configs(rights: Rights, request: Request, broker: Broker) -> Verdict:
    """ALTER, likewise."""
    return _resources(rights, request, Operation.ALTER, "responses")


def _resources(rights: Rights, request: Request, operation: Operation, key: str) -> Verdict:
    body: dict[str, Any] = request.body or {}
    rest, refused = divide(body["resources"], lambda asked: _may(rights, operation, asked))
    if not refused:
        return None
    answers = [_refusal(asked) for asked in refused]
    return Rest({**body, "resources": rest}, lambda answer: {key: [*answer[key], *answers]})


def _may(rights: Rights, operation: Operation, asked: Body) -> bool:
    if asked["resource_type"] == TOPIC_RESOURCE:
        return rights.may(operation, Kind.TOPIC, asked["resource_name"])
    return rights.may(operation, Kind.CLUSTER)


def _refusal(asked: Body) -> Body:
    code = _NO_TOPIC if asked["resource_type"] == TOPIC_RESOURCE else _NO_CLUSTER
    return {
        "error_code": code,
        "error_message": error_name(code),
        "resource_type": asked["resource_type"],
        "resource_name": asked["resource_name"],
        "configs": [],
    }
