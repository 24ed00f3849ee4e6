"""What a client asks first: versions, metadata, coordinators. One node leads and coordinates everything."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any

from gateway.log.steps import Step
from gateway.log.store import Topic
from gateway.wire.broker import Broker
from gateway.wire.compiler import Body
from gateway.wire.errors import ErrorCode
from gateway.wire.internal_topics import INTERNAL_TOPICS
from gateway.wire.peer import Peer, Reply
from gateway.wire.schema import SERVED, ZERO_UUID, ApiKey
from gateway.wire.session import Request
from gateway.wire.topics import auto_create

_GROUP, _TRANSACTION = 0, 1
_CREATED_AT_ONCE_MAX = 20

# Produce is advertised from 0 though it is served from 3: see gateway.wire.produce.
ADVERTISED = {key: (0 if key is ApiKey.PRODUCE else low, high) for key, (low, high) in SERVED.items()}
_API_KEYS = [{"api_key": key, "min_version": low, "max_version": high} for key, (low, high) in ADVERTISED.items()]


def api_versions(broker: Broker, request: Request, peer: Peer) -> Body:
    """As `api_versions_body`."""
    return api_versions_body(request)


def api_versions_body(request: Request) -> Body:
    """The served ranges; for a version that is unknown here, the same with error 35 (KIP-511)."""
    code = ErrorCode.UNSUPPORTED_VERSION if request.body is None else ErrorCode.NONE
    return {"error_code": code, "api_keys": _API_KEYS}


def metadata(broker: Broker, request: Request, peer: Peer, reply: Reply) -> None:
    """Topics by name, by id (version 10) or all; may create what is not there, while others are served."""
    names = _to_create(broker, request)
    if names:
        broker.work(_created(broker, request, peer, names), peer, reply)
    else:
        reply(_metadata(broker, request, peer, {}))


def _to_create(broker: Broker, request: Request) -> list[str]:
    body: dict[str, Any] = request.body or {}
    if not (body["topics"] and body["allow_auto_topic_creation"] and broker.settings.auto_create_topics):
        return []
    named = dict.fromkeys(each["name"] for each in body["topics"] if each["topic_id"] == ZERO_UUID)
    store = broker.store
    return [name for name in named if not (name is None or name in store.topics or store.is_changing(name))]


def _created(broker: Broker, request: Request, peer: Peer, names: list[str]) -> Generator[Step, None, Body]:
    codes: dict[str, ErrorCode] = {}
    left = _CREATED_AT_ONCE_MAX
    for name in names:
        code = yield from auto_create(broker, name)
        if code is not ErrorCode.NONE:
            codes[name] = code
            yield None  # a request may name any number that may not be made
            continue
        left -= 1
        if not left:
            break
    return _metadata(broker, request, peer, codes)


def _metadata(broker: Broker, request: Request, peer: Peer, codes: Mapping[str, ErrorCode]) -> Body:
    """`codes`: why topics that were to be created are not there."""
    body: dict[str, Any] = request.body or {}
    asked = body["topics"]
    if asked is None or (request.version == 0 and not asked):
        topics = [_topic(broker, topic) for topic in broker.store.topics.values()]
    else:
        if body["allow_auto_topic_creation"] and broker.settings.auto_create_topics:
            missing = ErrorCode.LEADER_NOT_AVAILABLE  # it is being made, or will be when the client asks again
        else:
            missing = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        ids = {topic.topic_id: topic for topic in broker.store.topics.values()}
        # Once each, as Kafka does: the answer for one name is long, and a request may name 100,000.
        once = {(each["name"], each["topic_id"]): each for each in asked}.values()
        topics = [_asked(broker, request, topic, ids, codes.get(topic["name"], missing)) for topic in once]
    host, port = peer.advertised or broker.advertised
    return {
        "brokers": [{"node_id": broker.node_id, "host": host, "port": port}],
        "cluster_id": broker.store.cluster_id,
        "controller_id": broker.node_id,
        "topics": topics,
    }


def _asked(
    broker: Broker, request: Request, asked: dict[str, Any], ids: dict[bytes, Topic], missing: ErrorCode
) -> dict[str, Any]:
    """`missing`: what a topic of that name is told of when it is not there."""
    name = asked["name"]
    if name is None or asked["topic_id"] != ZERO_UUID:
        if (known := ids.get(asked["topic_id"])) is not None:
            return _topic(broker, known)
        return {
            "error_code": ErrorCode.UNKNOWN_TOPIC_ID,
            "name": None if request.version >= 12 else "",
            "topic_id": asked["topic_id"],
            "partitions": [],
        }
    found = broker.store.topics.get(name)
    return {"error_code": missing, "name": name, "partitions": []} if found is None else _topic(broker, found)


def _topic(broker: Broker, topic: Topic) -> dict[str, Any]:
    node = [broker.node_id]
    return {
        "error_code": 0,
        "name": topic.name,
        "topic_id": topic.topic_id,
        "is_internal": topic.name in INTERNAL_TOPICS,
        "partitions": [
            {
                "error_code": 0,
                "partition_index": log.index,
                "leader_id": broker.node_id,
                "leader_epoch": log.leader_epoch,
                "replica_nodes": node,
                "isr_nodes": node,
            }
            for log in topic.partitions
        ],
    }


def find_coordinator(broker: Broker, request: Request, peer: Peer) -> Body:
    """This node, for groups and for transactional ids."""
    body: dict[str, Any] = request.body or {}
    host, port = peer.advertised or broker.advertised
    found = {"node_id": broker.node_id, "host": host, "port": port, "error_code": 0, "error_message": None}
    if body["key_type"] not in {_GROUP, _TRANSACTION}:
        code, message = ErrorCode.INVALID_REQUEST, "unknown kind of coordinator"
        found = {"node_id": -1, "host": "", "port": -1, "error_code": code, "error_message": message}
    if request.version < 4:
        return found
    return {"coordinators": [{"key": key, **found} for key in body["coordinator_keys"]]}


def describe_cluster(broker: Broker, request: Request, peer: Peer) -> Body:
    """This node alone."""
    host, port = peer.advertised or broker.advertised
    return {
        "endpoint_type": (request.body or {})["endpoint_type"],
        "cluster_id": broker.store.cluster_id,
        "controller_id": broker.node_id,
        "brokers": [{"broker_id": broker.node_id, "host": host, "port": port}],
    }
