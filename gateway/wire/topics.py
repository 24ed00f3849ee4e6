"""CreateTopics, DeleteTopics, DescribeConfigs, and topics that a Metadata request creates."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Generator
from typing import Any

from gateway.log.errors import InvalidTopic, LogFailed, TopicExists
from gateway.log.steps import Step
from gateway.log.store import Topic
from gateway.wire.broker import Broker
from gateway.wire.compiler import Body
from gateway.wire.errors import ErrorCode
from gateway.wire.internal_topics import INTERNAL_TOPICS
from gateway.wire.peer import Peer, Reply
from gateway.wire.schema import ZERO_UUID
from gateway.wire.session import Request
from headwater.errors import HeadwaterError

logger = logging.getLogger(__name__)

_NAME = re.compile(r"[a-zA-Z0-9._-]{1,249}\Z")
TOPIC_RESOURCE, _BROKER = 2, 4  # DescribeConfigs' resource types
_FROM_TOPIC, _DEFAULT, _STATIC = 1, 5, 4  # its config sources

# Kafka's defaults of the topic settings that tools look at.
_DEFAULTS = {
    "cleanup.policy": "delete",
    "compression.type": "producer",
    "message.timestamp.type": "CreateTime",
    "min.insync.replicas": "1",
    "retention.bytes": "-1",
    "retention.ms": "-1",
}


def is_name(name: str) -> bool:
    """Whether Kafka allows a topic of that name."""
    return _NAME.match(name) is not None and name not in {".", ".."}


def has_room(broker: Broker, partitions: int) -> bool:
    """Whether so many more partitions fit under `kafka.partitions_max`."""
    have = sum(len(topic.partitions) for topic in broker.store.topics.values())
    return have + broker.store.partitions_coming + partitions <= broker.settings.partitions_max


def _partitions_of(broker: Broker, name: str) -> int:
    return broker.settings.partitions.get(name, broker.settings.partitions_default)


def auto_create(broker: Broker, name: str) -> Generator[Step, None, ErrorCode]:
    """Create a topic that a client asked about; why not, when it may not be."""
    if not is_name(name) or name in INTERNAL_TOPICS:
        return ErrorCode.INVALID_TOPIC_EXCEPTION
    count = _partitions_of(broker, name)
    if not has_room(broker, count):
        logger.warning("topic %s is not created: there are kafka.partitions_max partitions already", name)
        return ErrorCode.INVALID_PARTITIONS
    try:
        yield from broker.store.creating_topic(name, partitions=count, config={})
    except TopicExists:
        return ErrorCode.LEADER_NOT_AVAILABLE  # somebody else is having it made: ask again
    except HeadwaterError as error:
        logger.warning("topic %s is not created: %s", name, error.what)
        return ErrorCode.KAFKA_STORAGE_ERROR if isinstance(error, LogFailed) else ErrorCode.INVALID_TOPIC_EXCEPTION
    logger.info("topic %s created with %d partitions: a client asked for it", name, count)
    return ErrorCode.NONE


def create_topics(broker: Broker, request: Request, peer: Peer, reply: Reply) -> None:
    """Each topic alone; one that cannot be created does not hinder the others, and others than this client go on."""
    broker.work(_created(broker, request.body or {}, peer), peer, reply)


def _created(broker: Broker, body: dict[str, Any], peer: Peer) -> Generator[Step, None, Body]:
    named = Counter(asked["name"] for asked in body["topics"])
    answers = []
    for asked in body["topics"]:
        code, message = ErrorCode.NONE, None
        count = _count(broker, asked)
        if named[asked["name"]] > 1:
            code, message = ErrorCode.INVALID_REQUEST, "the request names the topic twice"
        else:
            code, message = _refusal(broker, asked, count)
        topic = None
        if code is ErrorCode.NONE and not body["validate_only"]:
            topic, code, message = yield from _create(broker, asked, count, peer)
        answers.append(
            {
                "name": asked["name"],
                "topic_id": topic.topic_id if topic else ZERO_UUID,
                "error_code": code,
                "error_message": message,
                "num_partitions": count if code is ErrorCode.NONE else -1,
                "replication_factor": 1 if code is ErrorCode.NONE else -1,
                "configs": _created_configs(asked) if code is ErrorCode.NONE else [],
            }
        )
    return {"topics": answers}


def _count(broker: Broker, asked: dict[str, Any]) -> int:
    if asked["assignments"]:
        return len(asked["assignments"])
    count: int = asked["num_partitions"]
    return _partitions_of(broker, asked["name"]) if count == -1 else count


def _refusal(broker: Broker, asked: dict[str, Any], count: int) -> tuple[ErrorCode, str | None]:
    name = asked["name"]
    if not is_name(name):
        return ErrorCode.INVALID_TOPIC_EXCEPTION, "a topic name has 1 to 249 letters, digits, dots, _ and -"
    if name in INTERNAL_TOPICS:
        return ErrorCode.INVALID_TOPIC_EXCEPTION, "the name is reserved for the broker"
    if name in broker.store.topics:
        return ErrorCode.TOPIC_ALREADY_EXISTS, f"topic {name} already exists"
    if count < 1:
        return ErrorCode.INVALID_PARTITIONS, "a topic has at least one partition"
    if not has_room(broker, count):
        return ErrorCode.INVALID_PARTITIONS, f"this node holds at most {broker.settings.partitions_max} partitions"
    if asked["assignments"]:
        indexes = sorted(part["partition_index"] for part in asked["assignments"])
        homes = {tuple(part["broker_ids"]) for part in asked["assignments"]}
        if indexes != list(range(count)) or homes != {(broker.node_id,)}:
            return ErrorCode.INVALID_REPLICA_ASSIGNMENT, f"every partition lives on node {broker.node_id} alone"
    elif asked["replication_factor"] not in {-1, 1}:
        return ErrorCode.INVALID_REPLICATION_FACTOR, "this node is the only one: the replication factor is 1"
    return ErrorCode.NONE, None


def _create(
    broker: Broker, asked: dict[str, Any], count: int, peer: Peer
) -> Generator[Step, None, tuple[Topic | None, ErrorCode, str | None]]:
    config = {entry["name"]: entry["value"] for entry in asked["configs"] if entry["value"] is not None}
    try:
        topic = yield from broker.store.creating_topic(asked["name"], partitions=count, config=config)
    except TopicExists as error:
        return None, ErrorCode.TOPIC_ALREADY_EXISTS, error.what
    except InvalidTopic as error:
        return None, ErrorCode.INVALID_CONFIG, error.what
    except LogFailed as error:
        return None, ErrorCode.KAFKA_STORAGE_ERROR, error.what
    logger.info("topic %s created with %d partitions by %s", asked["name"], count, peer.name)
    return topic, ErrorCode.NONE, None


def _created_configs(asked: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "name": entry["name"],
            "value": entry["value"],
            "read_only": False,
            "config_source": _FROM_TOPIC,
            "is_sensitive": False,
        }
        for entry in asked["configs"]
    ]


def delete_topics(broker: Broker, request: Request, peer: Peer, reply: Reply) -> None:
    """By name, or by id from version 6 on; each alone, and others than this client go on in between."""
    broker.work(_deleted(broker, request.body or {}, peer, request.version), peer, reply)


def _deleted(broker: Broker, body: dict[str, Any], peer: Peer, version: int) -> Generator[Step, None, Body]:
    asked = body["topics"] or [{"name": name, "topic_id": ZERO_UUID} for name in body["topic_names"]]
    answers = []
    for topic in asked:
        name = topic["name"]
        if name is None:
            known = (each.name for each in broker.store.topics.values() if each.topic_id == topic["topic_id"])
            name = next(known, None)
        code = ErrorCode.UNKNOWN_TOPIC_ID
        if name is not None:
            code = yield from _delete(broker, name, peer)
        shown = name if name is not None or version >= 6 else ""
        answers.append({"name": shown, "topic_id": topic["topic_id"], "error_code": code})
    return {"responses": answers}


def _delete(broker: Broker, name: str, peer: Peer) -> Generator[Step, None, ErrorCode]:
    if name not in broker.store.topics:
        yield None  # a request may name any number of those
        return ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    if name in INTERNAL_TOPICS:
        return ErrorCode.INVALID_TOPIC_EXCEPTION
    try:
        yield from broker.store.deleting_topic(name)
    except InvalidTopic:
        return ErrorCode.UNKNOWN_TOPIC_OR_PARTITION  # somebody else is deleting it
    except LogFailed as error:
        logger.error("topic %s is not deleted: %s", name, error.what)
        return ErrorCode.KAFKA_STORAGE_ERROR
    broker.groups.forget_topic(name)
    logger.warning("topic %s deleted by %s", name, peer.name)
    return ErrorCode.NONE


def describe_configs(broker: Broker, request: Request, peer: Peer) -> Body:
    """A topic's settings, and the few of the broker's own that clients look at."""
    body: dict[str, Any] = request.body or {}
    results = []
    # Once each: a long answer to a short name, asked for again and again, would fill the memory.
    for asked in {(each["resource_type"], each["resource_name"]): each for each in body["resources"]}.values():
        kind, name = asked["resource_type"], asked["resource_name"]
        configs: dict[str, tuple[str, int]] = {}
        code, message = ErrorCode.NONE, None
        if kind == TOPIC_RESOURCE and name in broker.store.topics:
            configs = {key: (value, _DEFAULT) for key, value in _DEFAULTS.items()}
            configs["max.message.bytes"] = (str(broker.settings.batch_bytes_max), _DEFAULT)
            configs |= {key: (value, _FROM_TOPIC) for key, value in broker.store.topics[name].config.items()}
        elif kind == TOPIC_RESOURCE:
            code, message = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"there is no topic {name}"
        elif kind == _BROKER:
            configs = {key: (value, _STATIC) for key, value in _broker_configs(broker).items()}
        else:
            code, message = ErrorCode.INVALID_REQUEST, f"resources of type {kind} have no settings here"
        wanted = asked["configuration_keys"]
        results.append(
            {
                "error_code": code,
                "error_message": message,
                "resource_type": kind,
                "resource_name": name,
                "configs": [
                    {
                        "name": key,
                        "value": value,
                        "read_only": kind == _BROKER,
                        "config_source": source,
                        "is_sensitive": False,
                        "documentation": None,
                    }
                    for key, (value, source) in sorted(configs.items())
                    if wanted is None or key in wanted
                ],
            }
        )
    return {"results": results}


def _broker_configs(broker: Broker) -> dict[str, str]:
    settings = broker.settings
    return {
        "auto.create.topics.enable": str(settings.auto_create_topics).lower(),
        "message.max.bytes": str(settings.batch_bytes_max),
        "num.partitions": str(settings.partitions_default),
        "socket.request.max.bytes": str(settings.frame_bytes_max),
        "transaction.max.timeout.ms": str(settings.transaction_timeout_max_ms),
    }
