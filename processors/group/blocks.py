"""Messages of confluent-kafka as blocks: columns per partition, in the order in which they came."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from confluent_kafka import KafkaException

from gateway.consume.reader import Block
from gateway.log.headers import NO_HEADERS, encode_headers
from gateway.log.varint import encode_varint

_ONE_HW = b"\x02\x04hw"
_LENGTHS = [encode_varint(length) for length in range(256)]


def to_blocks(messages: Sequence[Any], prefix: str) -> list[Block]:
    """One block per partition. `prefix` is taken off the topics. Raises `KafkaException` for the first error."""
    for message in messages:
        if (error := message.error()) is not None:
            raise KafkaException(error)
    by_partition: dict[tuple[str, int], list[Any]] = {}
    for message in messages:
        where = (message.topic(), message.partition())
        found = by_partition.get(where)
        if found is None:
            found = by_partition[where] = []
        found.append(message)
    return [
        Block(
            topic[len(prefix) :],
            partition,
            [message.offset() for message in found],
            [message.timestamp()[1] for message in found],
            [message.key() for message in found],
            [message.value() for message in found],
            [_headers(message.headers()) for message in found],
            found[-1].offset() + 1,
        )
        for (topic, partition), found in by_partition.items()
    ]


def _headers(pairs: list[tuple[str, bytes | None]] | None) -> bytes:
    """The section as it stood in the record; nearly every record of a central has the one header `hw`."""
    if not pairs:
        return NO_HEADERS
    if len(pairs) == 1:
        name, value = pairs[0]
        if name == "hw" and value is not None and len(value) < 256:
            return b"%b%b%b" % (_ONE_HW, _LENGTHS[len(value)], value)
    return encode_headers(pairs)
