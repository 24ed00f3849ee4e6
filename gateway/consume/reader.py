"""Reads topics of one node as columns, and writes records to them: the log seen through the Kafka protocol.

Record batches go from the wire straight to lists, a block per partition and poll; no object per record. With
`committed` a reader sees what a `read_committed` consumer sees: batches of aborted transactions and all control
batches are left out, `next_offset` passes over them (KIP-98, section "Fetch"; `aborted_transactions` of Fetch 4+).
Every partition is asked of the one node that was connected to. Reconnecting is the caller's business.

Raises `KafkaError` (the node answered with an error code), `PeerError` (bytes that are no protocol), `OSError` and
`TimeoutError` (the connection); after any of them the reader is closed and a new one with the old positions goes on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from gateway.consume.batches import Block, Decode, decode_fetched, one_by_one
from gateway.log.records import Record, encode_batch
from gateway.wire.channel import Channel
from gateway.wire.errors import ErrorCode, KafkaError
from gateway.wire.schema import ApiKey
from headwater.errors import PeerError
from headwater.net import Net

__all__ = ["EARLIEST", "LATEST", "Block", "Caller", "Reader", "decode_fetched"]

EARLIEST = -2  # ListOffsets' special timestamps
LATEST = -1
_READ_COMMITTED = 1
_PRODUCE_TIMEOUT_MS = 10_000


class Caller(Protocol):
    """The part of `gateway.wire.channel.Channel` that a reader needs."""

    async def call(self, api: ApiKey, body: dict[str, Any], *, timeout_ms: int | None = None) -> dict[str, Any]: ...
    def close(self) -> None: ...


class Reader:
    """Positions over partitions of one node.

    `ends` holds, for each partition polled so far, the end that the last answer named: the last stable offset for
    a committed reader, else the high watermark.
    """

    def __init__(
        self,
        channel: Caller,
        *,
        committed: bool = True,
        request_timeout_ms: int = 3000,
        decode: Decode = one_by_one,
    ) -> None:
        self._channel = channel
        self._decode = decode
        self._committed = committed
        self._request_timeout_ms = request_timeout_ms
        self._positions: dict[tuple[str, int], int] = {}
        self.ends: dict[tuple[str, int], int] = {}

    @classmethod
    async def connect(
        cls,
        net: Net,
        host: str,
        port: int,
        *,
        client_id: str,
        committed: bool = True,
        request_timeout_ms: int = 3000,
        decode: Decode = one_by_one,
    ) -> Reader:
        """Connect and negotiate versions. Raises `OSError`, `TimeoutError`, `PeerError`."""
        channel = await Channel.connect(net, host, port, client_id=client_id, request_timeout_ms=request_timeout_ms)
        return cls(channel, committed=committed, request_timeout_ms=request_timeout_ms, decode=decode)

    async def close(self) -> None:
        """Close the connection; a second call does nothing."""
        self._channel.close()

    # topics

    async def partitions(self, topic: str) -> int:
        """How many partitions a topic has; 0 when there is no such topic (none is made by asking)."""
        body = {"topics": [{"name": topic}], "allow_auto_topic_creation": False}
        answer = await self._channel.call(ApiKey.METADATA, body)
        for found in answer["topics"]:
            if found["name"] == topic:
                if found["error_code"] == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION:
                    return 0
                _check(found["error_code"], f"the partitions of topic {topic}")
                return len(found["partitions"])
        return 0

    async def ensure_topic(self, name: str, partitions: int, config: Mapping[str, str] | None = None) -> None:
        """Create a topic unless it is there already; one that is there is left as it is."""
        topic = {
            "name": name,
            "num_partitions": partitions,
            "replication_factor": 1,
            "configs": [{"name": key, "value": value} for key, value in (config or {}).items()],
        }
        body = {"topics": [topic], "timeout_ms": self._request_timeout_ms}
        answer = await self._channel.call(ApiKey.CREATE_TOPICS, body)
        for made in answer["topics"]:
            if made["error_code"] != ErrorCode.TOPIC_ALREADY_EXISTS:
                _check(made["error_code"], f"creating topic {name}", made.get("error_message"))

    async def offset(self, topic: str, partition: int, at: str | int) -> int:
        """The offset at "earliest", at "latest" (the end that this reader may read to) or of the first record whose
        timestamp is at or after `at` milliseconds (the end, when there is none).
        """
        if at == "earliest" or at == "latest":
            return await self._list_offset(topic, partition, EARLIEST if at == "earliest" else LATEST)
        if not isinstance(at, int):
            raise ValueError(f"an offset is asked by earliest, latest or milliseconds, not {at!r}")
        found = await self._list_offset(topic, partition, at)
        return found if found >= 0 else await self._list_offset(topic, partition, LATEST)

    async def _list_offset(self, topic: str, partition: int, timestamp: int) -> int:
        asked = {"partition_index": partition, "timestamp": timestamp}
        body = {
            "isolation_level": _READ_COMMITTED if self._committed else 0,
            "topics": [{"name": topic, "partitions": [asked]}],
        }
        answer = await self._channel.call(ApiKey.LIST_OFFSETS, body)
        for found in answer["topics"]:
            for part in found["partitions"]:
                _check(part["error_code"], f"an offset of {topic}/{partition}")
                return int(part["offset"])
        raise PeerError(f"the node answered without the offset of {topic}/{partition}")

    # reading

    def assign(self, positions: Mapping[tuple[str, int], int]) -> None:
        """What to read and from where: (topic, partition) to the next offset. Replaces what was assigned."""
        self._positions = dict(positions)

    def position(self, topic: str, partition: int) -> int:
        """The next offset to read of an assigned partition."""
        return self._positions[topic, partition]

    async def poll(self, *, max_wait_ms: int = 500, max_bytes: int = 1 << 20) -> list[Block]:
        """The next records, at most about `max_bytes` (one batch at least); [] when none came in `max_wait_ms`.

        A partition whose position is outside its log raises `KafkaError` with code OFFSET_OUT_OF_RANGE.
        """
        if not self._positions:
            raise ValueError("poll before assign: there is no partition to read")
        body = self._fetch_body(max_wait_ms, max_bytes)
        answer = await self._channel.call(ApiKey.FETCH, body, timeout_ms=max_wait_ms + self._request_timeout_ms)
        _check(answer.get("error_code", 0), "fetching")
        blocks = []
        for topic in answer["responses"]:
            for part in topic["partitions"]:
                block = self._block(topic["topic"], part)
                if block is not None:
                    blocks.append(block)
        for block in blocks:  # only now: an error above must not lose what came before it in the same answer
            self._positions[block.topic, block.partition] = block.next_offset
        return blocks

    def _fetch_body(self, max_wait_ms: int, max_bytes: int) -> dict[str, Any]:
        topics: dict[str, list[dict[str, int]]] = {}
        for (topic, partition), offset in self._positions.items():
            asked = {"partition": partition, "fetch_offset": offset, "partition_max_bytes": max_bytes}
            topics.setdefault(topic, []).append(asked)
        # A node fills its answer in the order of the request: the partition that was first goes last next time,
        # or a busy one would starve the others.
        if len(self._positions) > 1:
            first = next(iter(self._positions))
            self._positions[first] = self._positions.pop(first)
        return {
            "max_wait_ms": max_wait_ms,
            "min_bytes": 1,
            "max_bytes": max_bytes,
            "isolation_level": _READ_COMMITTED if self._committed else 0,
            "topics": [{"topic": topic, "partitions": asked} for topic, asked in topics.items()],
        }

    def _block(self, topic: str, part: Mapping[str, Any]) -> Block | None:
        where = (topic, part["partition_index"])
        if where not in self._positions:
            raise PeerError(f"the node sent {topic}/{where[1]}, which was not asked for")
        position = self._positions[where]
        _check(part["error_code"], f"reading {topic}/{where[1]} at offset {position}")
        self.ends[where] = part["last_stable_offset"] if self._committed else part["high_watermark"]
        data = part["records"]
        if not data:
            return None
        aborted = part["aborted_transactions"] or () if self._committed else ()
        places = [(a["producer_id"], a["first_offset"]) for a in aborted]
        block = decode_fetched(topic, where[1], position, data, places, decode=self._decode)
        return block if block.next_offset > position else None

    # writing

    async def init_producer(self) -> tuple[int, int]:
        """A new idempotent producer: (producer id, epoch)."""
        body = {"transactional_id": None, "transaction_timeout_ms": 60_000}
        answer = await self._channel.call(ApiKey.INIT_PRODUCER_ID, body)
        _check(answer["error_code"], "getting a producer id")
        return answer["producer_id"], answer["producer_epoch"]

    async def produce(
        self,
        topic: str,
        partition: int,
        records: Sequence[Record],
        *,
        producer: tuple[int, int] = (-1, -1),
        base_sequence: int = -1,
    ) -> int:
        """Append one batch; returns the offset of its first record once it is on disk.

        With `producer` and `base_sequence` (the sequence of the first record) a repeat is not appended twice; the
        offset of a repeat is the old one, or -1 when the node no longer knows it.
        """
        producer_id, producer_epoch = producer
        batch = encode_batch(
            records, producer_id=producer_id, producer_epoch=producer_epoch, base_sequence=base_sequence
        )
        data = {"name": topic, "partition_data": [{"index": partition, "records": batch}]}
        body = {"acks": -1, "timeout_ms": _PRODUCE_TIMEOUT_MS, "topic_data": [data]}
        timeout_ms = _PRODUCE_TIMEOUT_MS + self._request_timeout_ms
        answer = await self._channel.call(ApiKey.PRODUCE, body, timeout_ms=timeout_ms)
        for written in answer["responses"]:
            for part in written["partition_responses"]:
                _check(part["error_code"], f"writing to {topic}/{partition}", part.get("error_message"))
                return int(part["base_offset"])
        raise PeerError(f"the node answered without the result of writing to {topic}/{partition}")


def _check(code: int, what: str, message: str | None = None) -> None:
    if code != ErrorCode.NONE:
        raise KafkaError(code, f"{what} ({message})" if message else what)
