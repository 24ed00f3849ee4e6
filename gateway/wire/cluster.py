"""What a client asks first: versions, metadata, coordinators. One node leads and coordinates everything."""

from __future__ import annotations

from typing import Any

from gateway.log.store import Topic
from gateway.wire.broker import Broker
from gateway.wire.compiler import Body
from gateway.wire.errors import ErrorCode
from gateway.wire.internal_topics import INTERNAL_TOPICS
from gateway.wire.peer import Peer
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


def metadata(broker: Broker, request: Request, peer: Peer) -> Body:
    """Topics by name, by id (version 10) or all; may create what is not there."""
    body: dict[str, Any] = request.body or {}
    asked = body["topics"]
    if asked is None or (request.version == 0 and not asked):
        topics = [_topic(broker, topic) for topic in broker.store.topics.values()]
    else:
        topics = []
        before = len(broker.store.topics)
        ids = {topic.topic_id: topic for topic in broker.store.topics.values()}
        # Once each, as Kafka does: the answer for one name is long, and a request may name 100,000.
        for topic in {(each["name"], each["topic_id"]): each for each in asked}.values():
            # Each creation syncs a few files: the loop has others to serve.
            full = len(broker.store.topics) - before >= _CREATED_AT_ONCE_MAX
            topics.append(_asked(broker, request, topic, ids, create=body["allow_auto_topic_creation"], full=full))
    host, port = peer.advertised or broker.advertised
    return {
        "brokers": [{"node_id": broker.node_id, "host": host, "port": port}],
        "cluster_id": broker.store.cluster_id,
        "controller_id": broker.node_id,
        "topics": topics,
    }


def _asked(
    broker: Broker, request: Request, asked: dict[str, Any], ids: dict[bytes, Topic], *, create: bool, full: bool
) -> dict[str, Any]:
    name = asked["name"]
    if name is None or asked["topic_id"] != ZERO_UUID:
        if (known := ids.get(asked["topic_id"])) is not None:
            return _topic(broker, known)
        missing = None if request.version >= 12 else ""
        return {
            "error_code": ErrorCode.UNKNOWN_TOPIC_ID,
            "name": missing,
            "topic_id": asked["topic_id"],
            "partitions": [],
        }
    found = broker.store.topics.get(name)
    code = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    if found is None and create and broker.settings.auto_create_topics:
        found, code = (None, ErrorCode.LEADER_NOT_AVAILABLE) if full else auto_create(broker, name)
    if found is None:
        return {"error_code": code, "name": name, "partitions": []}
    return _topic(broker, found)


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
