"""Messages of confluent-kafka as blocks: columns per partition, in the order in which they came."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from confluent_kafka import KafkaException, Message

from gateway.consume.reader import Block
from gateway.log.headers import NO_HEADERS, encode_headers
from gateway.log.varint import encode_varint

# What stands before the value of an only header `hw`, by that value's length.
_ONE_HW = [b"\x02\x04hw" + encode_varint(length) for length in range(256)]
_Pairs = list[tuple[str, bytes | None]]


def to_blocks(messages: Sequence[Any], prefix: str) -> list[Block]:
    """One block per partition. `prefix` is taken off the topics. Raises `KafkaException` for the first error."""
    # Methods are mapped over the messages by C: a call from Python for each costs three times as much.
    for error in map(Message.error, messages):
        if error is not None:
            raise KafkaException(error)
    topics, partitions = list(map(Message.topic, messages)), list(map(Message.partition, messages))
    if len(set(topics)) <= 1 and len(set(partitions)) <= 1:
        return [_block(messages, prefix)] if messages else []
    by_partition: dict[tuple[str, int], list[Any]] = {}
    for where, message in zip(zip(topics, partitions, strict=True), messages, strict=True):
        found = by_partition.get(where)
        if found is None:
            found = by_partition[where] = []
        found.append(message)
    return [_block(found, prefix) for found in by_partition.values()]


def _block(messages: Sequence[Any], prefix: str) -> Block:
    offsets = list(map(Message.offset, messages))
    return Block(
        messages[0].topic()[len(prefix) :],
        messages[0].partition(),
        offsets,
        [time for _, time in map(Message.timestamp, messages)],
        list(map(Message.key, messages)),
        list(map(Message.value, messages)),
        _headers(list(map(Message.headers, messages))),
        offsets[-1] + 1,
    )


def _headers(found: Sequence[_Pairs | None]) -> list[bytes]:
    """The sections as they stood in the records; nearly every record of a central has the one header `hw`."""
    ready = _ONE_HW
    return [
        ready[len(value)] + value
        if pairs and len(pairs) == 1 and (value := pairs[0][1]) is not None and len(value) < 256 and pairs[0][0] == "hw"
        else encode_headers(pairs)
        if pairs
        else NO_HEADERS
        for pairs in found
    ]
