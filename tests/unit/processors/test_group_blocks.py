"""Messages of confluent-kafka as blocks: by the handful or all at once, they are the same."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, Message

from gateway.log.headers import NO_HEADERS, decode_headers, encode_headers
from processors.group.blocks import BlockBuilder, to_blocks


def message(partition: int, offset: int, headers: Any = None, error: KafkaError | None = None) -> Message:
    key = f"n{partition}/d".encode()
    return Message(
        topic="t.readings", partition=partition, offset=offset, key=key, value=b"%d" % offset, headers=headers,
        timestamp=(1, 1000 + offset), error=error,
    )  # fmt: skip


MESSAGES = [
    message(offset % 3, 10 + offset, [("hw", b"n1/1/%d" % offset)] if offset % 2 else None) for offset in range(9)
]


def test_columns_of_each_partition_in_order() -> None:
    first, *others = to_blocks(MESSAGES, "t.")
    assert [block.partition for block in others] == [1, 2]
    assert (first.topic, first.partition, first.next_offset) == ("readings", 0, 17)
    assert (first.offsets, first.timestamps) == ([10, 13, 16], [1010, 1013, 1016])
    assert (first.keys, first.values) == ([b"n0/d"] * 3, [b"10", b"13", b"16"])
    assert first.headers == [NO_HEADERS, encode_headers([("hw", b"n1/1/3")]), NO_HEADERS]


@pytest.mark.parametrize(
    "headers", [[("hw", b"n/1/2")], [("hw", b"x" * 300)], [("a", None), ("hw", b"")], [("hw", None)]]
)
def test_headers_are_as_they_stood(headers: list[tuple[str, bytes | None]]) -> None:
    [block] = to_blocks([message(0, 1, headers)], "")
    assert list(decode_headers(block.headers[0])) == headers


@pytest.mark.parametrize("size", [1, 2, 4, 9])
def test_a_pile_of_handfuls_is_what_comes_at_once(size: int) -> None:
    builder = BlockBuilder("t.")
    for begin in range(0, len(MESSAGES), size):
        builder.add(MESSAGES[begin : begin + size])
    assert builder.count == len(MESSAGES)
    assert builder.take() == to_blocks(MESSAGES, "t.")
    assert (builder.count, builder.take()) == (0, [])


def test_nothing_stays_of_partitions_that_were_taken_away() -> None:
    builder = BlockBuilder("t.")
    builder.add(MESSAGES[:4])
    builder.clear()
    builder.add(MESSAGES[4:])
    assert builder.take() == to_blocks(MESSAGES[4:], "t.")


def test_the_first_error_is_raised() -> None:
    error = KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)
    with pytest.raises(KafkaException) as caught:
        BlockBuilder("t.").add(
            [*MESSAGES, message(0, 99, error=error), message(0, 100, error=KafkaError(KafkaError._TRANSPORT))]
        )
    assert caught.value.args[0].code() == KafkaError.TOPIC_AUTHORIZATION_FAILED
