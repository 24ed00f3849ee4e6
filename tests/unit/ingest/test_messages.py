"""Messages by columns: what is known of all of them at once agrees with what each says."""

from __future__ import annotations

import pytest

from gateway.ingest.messages import Message, Messages, numbered, numbers


@pytest.mark.parametrize(
    ("messages", "topic", "ids"),
    [
        ([("a", b"1", 1, 2), ("a", b"2", 2, 2)], "a", [1, 2]),
        ([("a", b"1", 1, 2), ("b", b"2", 2, 2)], None, [1, 2]),
        ([("a", b"1", 1, 2), ("b", b"2", 2, 2), ("a", b"3", 3, 2)], None, [1, 2, 3]),
        ([("a", b"1", 0, 0), ("a", b"2", 300, 2)], "a", [300]),
        ([("a", b"1", 0, 0)], "a", []),
        ([], None, []),
    ],
)
def test_the_one_topic_and_the_identifiers(messages: list[Message], topic: str | None, ids: list[int]) -> None:
    one_by_one = Messages(messages)
    together = Messages()
    for name, payload, packet_id, flags in messages:
        together.extend(name, [payload], packet_id.to_bytes(2, "big"), flags, len(name) + len(payload))
    for made in (one_by_one, together):
        assert list(made) == messages
        assert made.topic == topic
        assert list(numbers(numbered(made))) == ids
        assert made.size_bytes() == sum(len(name) + len(payload) + 64 for name, payload, _, _ in messages)
