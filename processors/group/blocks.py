"""Messages of confluent-kafka as blocks: columns per partition, in the order in which they came."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from confluent_kafka import KafkaException, Message

from gateway.consume.reader import Block
from gateway.log.headers import NO_HEADERS, encode_headers
from gateway.log.varint import encode_varint

HANDFUL = 200
"""Messages taken at once: objects of so many stay in a processor's caches, which is a third less CPU than 10,000."""

# What stands before the value of an only header `hw`, by that value's length.
_ONE_HW = [b"\x02\x04hw" + encode_varint(length) for length in range(256)]
_Pairs = list[tuple[str, bytes | None]]


class BlockBuilder:
    """Messages that come by the handful, until there are enough for a block worth processing."""

    def __init__(self, prefix: str) -> None:
        """`prefix` is taken off the topics."""
        self._prefix = prefix
        self._blocks: dict[tuple[str, int], Block] = {}
        self.count = 0

    def add(self, messages: Sequence[Any]) -> None:
        """Raises `KafkaException` for the first error among them."""
        for block in to_blocks(messages, self._prefix):
            where = block.topic, block.partition
            if (before := self._blocks.get(where)) is not None:
                before.offsets.extend(block.offsets)
                before.timestamps.extend(block.timestamps)
                before.keys.extend(block.keys)
                before.values.extend(block.values)
                before.headers.extend(block.headers)
                block = before._replace(next_offset=block.next_offset)
            self._blocks[where] = block
        self.count += len(messages)

    def take(self) -> list[Block]:
        """What is there, one block per partition; nothing is left."""
        blocks = list(self._blocks.values())
        self.clear()
        return blocks

    def clear(self) -> None:
        """Partitions have been taken away: whoever has them next reads these records again."""
        self._blocks, self.count = {}, 0


def to_blocks(messages: Sequence[Any], prefix: str) -> list[Block]:
    """One block per partition. `prefix` is taken off the topics. Raises `KafkaException` for the first error."""
    # Methods are mapped over the messages by C: a call from Python for each costs three times as much.
    if any(map(Message.error, messages)):
        raise KafkaException(next(filter(None, map(Message.error, messages))))
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
