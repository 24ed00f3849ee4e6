"""The Kafka requests of the uplink and what their answers say. Bodies are those of `gateway.wire` (plain dicts).

Requests are written so that any version in the negotiated range can be encoded from them. An answer with an error code
raises `KafkaError`; one that lacks what was asked for raises `PeerError`.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from gateway.log.errors import CorruptBatch
from gateway.replicate.committed import settled_batches
from gateway.wire.errors import ErrorCode, KafkaError
from headwater.errors import PeerError

Body = dict[str, Any]
Address = tuple[str, int]

EARLIEST = -2
LATEST = -1
READ_UNCOMMITTED = 0
READ_COMMITTED = 1
FETCH_BYTES = 1 << 20
FETCH_WAIT_MS = 500
# Produce 12 is KIP-890's second transaction protocol, which needs EndTxn 5 with it: stay below, as Java's client does.
PRODUCE_VERSION_MAX = 11


class Topic(NamedTuple):
    """A topic of the central: id (empty when the central has none), and its partitions' leaders (-1: none just now)."""

    topic_id: str
    leaders: dict[int, int]


class Cluster(NamedTuple):
    """What Metadata said."""

    cluster_id: str
    brokers: dict[int, Address]
    controller: int
    topics: dict[str, Topic]
    missing: list[str]


def metadata(topics: Iterable[str]) -> Body:
    """Ask for these topics, creating none."""
    return {
        "topics": [{"name": name} for name in topics],
        "allow_auto_topic_creation": False,
    }


def read_metadata(body: Body) -> Cluster:
    """The cluster; topics that it does not have are in `missing`."""
    topics, missing = {}, []
    for topic in body["topics"]:
        code = topic["error_code"]
        if code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION:
            missing.append(topic["name"])
        elif code not in (ErrorCode.NONE, ErrorCode.LEADER_NOT_AVAILABLE):
            raise KafkaError(code, f"topic {topic['name']}")
        else:
            leaders = {p["partition_index"]: p["leader_id"] for p in topic["partitions"]}
            topics[topic["name"]] = Topic(_id_text(topic["topic_id"]), leaders)
    brokers = {broker["node_id"]: (broker["host"], broker["port"]) for broker in body["brokers"]}
    return Cluster(body.get("cluster_id") or "", brokers, body.get("controller_id", -1), topics, missing)


def _id_text(topic_id: bytes) -> str:
    """As Kafka's tools print a topic id: 22 characters of URL-safe base64."""
    return base64.urlsafe_b64encode(topic_id).decode().rstrip("=") if any(topic_id) else ""


def create_topics(topics: Mapping[str, tuple[int, Mapping[str, str]]], timeout_ms: int) -> Body:
    """Create topics: name -> (partitions, -1 for the central's default; configuration); replicas by its default."""
    return {
        "topics": [
            {
                "name": name,
                "num_partitions": partitions,
                "replication_factor": -1,
                "assignments": [],
                "configs": [{"name": key, "value": value} for key, value in config.items()],
            }
            for name, (partitions, config) in topics.items()
        ],
        "timeout_ms": timeout_ms,
        "validate_only": False,
    }


def read_create_topics(body: Body) -> None:
    """Fine when each topic is there now."""
    for topic in body["topics"]:
        _check(topic["error_code"], f"creating topic {topic['name']}", also=(ErrorCode.TOPIC_ALREADY_EXISTS,))


def find_coordinator(transactional_id: str) -> Body:
    """Who coordinates this transactional id."""
    return {"key": transactional_id, "key_type": 1, "coordinator_keys": [transactional_id]}


def read_coordinator(body: Body) -> tuple[int, Address]:
    """Its node id and address."""
    found = body["coordinators"][0] if body.get("coordinators") else body
    _check(found["error_code"], "finding the transaction coordinator")
    return found["node_id"], (found["host"], found["port"])


def init_producer_id(transactional_id: str, timeout_ms: int, producer_id: int, epoch: int) -> Body:
    """A new epoch; with a known id and epoch (KIP-360) the answer tells whether somebody bumped it meanwhile."""
    return {
        "transactional_id": transactional_id,
        "transaction_timeout_ms": timeout_ms,
        "producer_id": producer_id,
        "producer_epoch": epoch,
    }


def read_producer_id(body: Body) -> tuple[int, int]:
    """(producer id, epoch)."""
    _check(body["error_code"], "init_transactions")
    return body["producer_id"], body["producer_epoch"]


def list_offsets(partitions: Mapping[str, int], timestamp: int) -> Body:
    """Earliest or latest offset (read_uncommitted) of one partition of each topic."""
    return {
        "replica_id": -1,
        "isolation_level": READ_UNCOMMITTED,
        "topics": [
            {"name": name, "partitions": [{"partition_index": partition, "timestamp": timestamp}]}
            for name, partition in partitions.items()
        ],
    }


def read_offsets(body: Body) -> dict[str, int]:
    """The offset per topic."""
    offsets = {}
    for topic in body["topics"]:
        for partition in topic["partitions"]:
            _check(partition["error_code"], f"asking for the end of {topic['name']}")
            offsets[topic["name"]] = partition["offset"]
    return offsets


def fetch(topic: str, partition: int, offset: int, *, isolation: int, max_bytes: int = FETCH_BYTES) -> Body:
    """Batches from the one that holds `offset`; waits a little for some when there are none."""
    return {
        "replica_id": -1,
        "max_wait_ms": FETCH_WAIT_MS,
        "min_bytes": 1,
        "max_bytes": max_bytes,
        "isolation_level": isolation,
        "session_id": 0,
        "session_epoch": -1,
        "topics": [
            {
                "topic": topic,
                "partitions": [{"partition": partition, "fetch_offset": offset, "partition_max_bytes": max_bytes}],
            }
        ],
        "forgotten_topics_data": [],
        "rack_id": "",
    }


def read_fetch(body: Body) -> tuple[int, list[tuple[Any, memoryview, bool]]]:
    """(error code, batches as `committed.settled_batches` gives them); a damaged answer raises `PeerError`."""
    _check(body.get("error_code", 0), "reading from the central")
    try:
        answer = body["responses"][0]["partitions"][0]
    except (IndexError, KeyError):
        raise PeerError("the central answered a fetch without the partition that was asked for") from None
    aborted = [(entry["producer_id"], entry["first_offset"]) for entry in answer["aborted_transactions"] or ()]
    try:
        return answer["error_code"], list(settled_batches(answer["records"] or b"", aborted))
    except CorruptBatch as error:
        raise PeerError(f"the central sent a damaged batch: {error.what}") from None


def add_partitions(transactional_id: str, producer: tuple[int, int], partitions: Mapping[str, int]) -> Body:
    """Open the transaction, or widen it."""
    return {
        "transactional_id": transactional_id,
        "producer_id": producer[0],
        "producer_epoch": producer[1],
        "topics": [{"name": name, "partitions": [partition]} for name, partition in partitions.items()],
    }


def read_add_partitions(body: Body) -> None:
    """Fine when every partition was added."""
    for topic in body["results_by_topic"]:
        for partition in topic["results_by_partition"]:
            code = partition["partition_error_code"]
            if code != ErrorCode.OPERATION_NOT_ATTEMPTED:  # another partition's error is the reason
                _check(code, f"adding {topic['name']} to the transaction")


def produce(transactional_id: str, topic: str, partition: int, data: bytes | bytearray, timeout_ms: int) -> Body:
    """One batch for one partition, acknowledged by all replicas."""
    return {
        "transactional_id": transactional_id,
        "acks": -1,
        "timeout_ms": timeout_ms,
        "topic_data": [{"name": topic, "partition_data": [{"index": partition, "records": memoryview(data)}]}],
    }


def read_produce(body: Body) -> int:
    """The offset of the batch's first record (-1 when the central does not say)."""
    try:
        topic = body["responses"][0]
        answer = topic["partition_responses"][0]
    except (IndexError, KeyError):
        raise PeerError("the central answered a produce request without its partition") from None
    reason = answer.get("error_message")
    _check(answer["error_code"], f"producing to {topic['name']}" + (f" ({reason})" if reason else ""))
    base: int = answer["base_offset"]
    return base


def end_transaction(transactional_id: str, producer: tuple[int, int]) -> Body:
    """Commit."""
    return {
        "transactional_id": transactional_id,
        "producer_id": producer[0],
        "producer_epoch": producer[1],
        "committed": True,
    }


def read_end(body: Body) -> None:
    """Fine when the commit is decided."""
    _check(body["error_code"], "committing")


def _check(code: int, what: str, *, also: tuple[int, ...] = ()) -> None:
    if code != ErrorCode.NONE and code not in also:
        raise KafkaError(code, what)
