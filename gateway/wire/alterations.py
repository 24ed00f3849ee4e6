"""CreatePartitions and IncrementalAlterConfigs (APIs 37, 44): topics change while they are in use."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Generator, Mapping
from typing import Any

from gateway.log.errors import InvalidTopic, LogFailed
from gateway.log.steps import Step
from gateway.log.topic_config import parse_config
from gateway.wire.broker import Broker
from gateway.wire.compiler import Body
from gateway.wire.errors import ErrorCode
from gateway.wire.internal_topics import INTERNAL_TOPICS
from gateway.wire.peer import Peer, Reply
from gateway.wire.session import Request
from gateway.wire.topics import TOPIC_RESOURCE, has_room

logger = logging.getLogger(__name__)

_SET, _DELETE, _APPEND, _SUBTRACT = 0, 1, 2, 3
Outcome = tuple[ErrorCode, str | None]


def create_partitions(broker: Broker, request: Request, peer: Peer, reply: Reply) -> None:
    """More partitions, each topic alone; existing records stay where they are, so a key's partition may change."""
    broker.work(_grown(broker, request.body or {}, peer), peer, reply)


def _grown(broker: Broker, body: dict[str, Any], peer: Peer) -> Generator[Step, None, Body]:
    named = Counter(asked["name"] for asked in body["topics"])
    results = []
    for asked in body["topics"]:
        once = named[asked["name"]] == 1
        code, message = yield from _grow(broker, asked, peer, once=once, validate_only=body["validate_only"])
        results.append({"name": asked["name"], "error_code": code, "error_message": message})
    return {"results": results}


def _grow(
    broker: Broker, asked: dict[str, Any], peer: Peer, *, once: bool, validate_only: bool
) -> Generator[Step, None, Outcome]:
    name, count = asked["name"], asked["count"]
    topic = broker.store.topics.get(name)
    if not once:
        return ErrorCode.INVALID_REQUEST, "the request names the topic twice"
    if name in INTERNAL_TOPICS:
        return ErrorCode.INVALID_TOPIC_EXCEPTION, "the topic is the broker's own"
    if topic is None:
        return ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"there is no topic {name}"
    more = count - len(topic.partitions)
    if more <= 0:
        return ErrorCode.INVALID_PARTITIONS, f"topic {name} has {len(topic.partitions)} partitions, and none goes away"
    if not has_room(broker, more):
        return ErrorCode.INVALID_PARTITIONS, f"this node holds at most {broker.settings.partitions_max} partitions"
    homes = asked["assignments"]
    if homes is not None and [tuple(home["broker_ids"]) for home in homes] != [(broker.node_id,)] * more:
        return ErrorCode.INVALID_REPLICA_ASSIGNMENT, f"each of {more} new partitions lives on node {broker.node_id}"
    if validate_only:
        return ErrorCode.NONE, None
    try:
        yield from broker.store.growing_topic(name, count)
    except InvalidTopic as error:
        return ErrorCode.INVALID_PARTITIONS, error.what
    except LogFailed as error:
        return ErrorCode.KAFKA_STORAGE_ERROR, error.what
    logger.info("topic %s has %d partitions now: %s asked for them", name, count, peer.name)
    return ErrorCode.NONE, None


def incremental_alter_configs(broker: Broker, request: Request, peer: Peer, reply: Reply) -> None:
    """Topic settings, each topic's changes all or none (KIP-339); the node's own are in its configuration file."""
    broker.work(_altered(broker, request.body or {}, peer), peer, reply)


def _altered(broker: Broker, body: dict[str, Any], peer: Peer) -> Generator[Step, None, Body]:
    responses = []
    for asked in body["resources"]:
        code, message = yield from _alter(broker, asked, peer, validate_only=body["validate_only"])
        responses.append(
            {
                "error_code": code,
                "error_message": message,
                "resource_type": asked["resource_type"],
                "resource_name": asked["resource_name"],
            }
        )
        yield None  # a request may name any number of those that are not there
    return {"responses": responses}


def _alter(broker: Broker, asked: dict[str, Any], peer: Peer, *, validate_only: bool) -> Generator[Step, None, Outcome]:
    name, changes = asked["resource_name"], asked["configs"]
    topic = broker.store.topics.get(name)
    if asked["resource_type"] != TOPIC_RESOURCE:
        return ErrorCode.INVALID_REQUEST, "only topics have settings that change here: edit the node's configuration"
    if name in INTERNAL_TOPICS:
        return ErrorCode.INVALID_TOPIC_EXCEPTION, "the topic is the broker's own"
    if topic is None:
        return ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"there is no topic {name}"
    keys = [change["name"] for change in changes]
    if len(set(keys)) != len(keys):
        return ErrorCode.INVALID_REQUEST, "a setting is named twice"
    for change in changes:
        operation = change["config_operation"]
        if operation != _DELETE and (change["value"] is None or operation not in {_SET, _APPEND, _SUBTRACT}):
            return ErrorCode.INVALID_REQUEST, f"{change['name']}: no value, or operation {operation} is unknown"
    try:
        parse_config(_altered_config(topic.config, changes))
        if not validate_only:
            yield from broker.store.configuring_topic(name, lambda config: _altered_config(config, changes))
    except InvalidTopic as error:
        if broker.store.topics.get(name) is not topic:
            return ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, error.what
        return ErrorCode.INVALID_CONFIG, error.what
    except LogFailed as error:
        return ErrorCode.KAFKA_STORAGE_ERROR, error.what
    if not validate_only:
        logger.info("topic %s: %s changed %s", name, peer.name, ", ".join(keys))
    return ErrorCode.NONE, None


def _altered_config(config: Mapping[str, str], changes: list[dict[str, Any]]) -> dict[str, str]:
    altered = dict(config)
    for change in changes:
        key, operation = change["name"], change["config_operation"]
        if operation == _DELETE:
            altered.pop(key, None)
        else:
            altered[key] = _changed(altered.get(key, ""), operation, change["value"])
    return altered


def _changed(old: str, operation: int, value: str) -> str:
    """A setting's new value; lists are words between commas."""
    if operation == _SET:
        return value
    words = [word for word in old.split(",") if word]
    given = value.split(",")
    if operation == _SUBTRACT:
        return ",".join(word for word in words if word not in given)
    return ",".join([*words, *(word for word in given if word not in words)])
