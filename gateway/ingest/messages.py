"""Messages as sources hand them over: by columns, because whatever is done to them is done to many at once. Sans-IO."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence

# (topic, payload, packet id or 0, flags): what a source gives; see `gateway.ingest.mqtt.state` for the flags.
# A serial source writes (port name, frame, 0, 0).
Message = tuple[str, bytes, int, int]


class Messages:
    """Messages of one source in the order in which they came; all columns have the same length.

    `any_flags` are the flags that at least one of them has: most questions are answered by it alone. `copies`: a broker
    kept them for whoever subscribes, so they are stored only under a time that their device has said, and flagged.
    """

    __slots__ = ("any_flags", "copies", "flags", "ids", "payloads", "topics")

    def __init__(self, messages: Iterable[Message] = ()) -> None:
        self.topics: list[str] = []
        self.payloads: list[bytes] = []
        self.ids = array("H")
        self.flags: list[int] = []
        self.any_flags = 0
        self.copies = False
        for message in messages:
            self.append(message)

    def append(self, message: Message) -> None:
        """One more."""
        topic, payload, packet_id, flags = message
        self.topics.append(topic)
        self.payloads.append(payload)
        self.ids.append(packet_id)
        self.flags.append(flags)
        self.any_flags |= flags

    def extend(self, topic: str, payloads: Sequence[bytes], ids: Iterable[int], flags: int) -> None:
        """More of one topic and with the same flags."""
        count = len(payloads)
        self.topics += [topic] * count
        self.payloads += payloads
        self.ids.extend(ids)
        self.flags += [flags] * count
        self.any_flags |= flags

    def where(self, keep: Callable[[Message], bool]) -> Messages:
        """Those for which `keep` says so."""
        return Messages(message for message in self if keep(message))

    def size_bytes(self) -> int:
        """About what they take in memory."""
        return sum(map(len, self.topics)) + sum(map(len, self.payloads)) + 64 * len(self.topics)

    def __len__(self) -> int:
        return len(self.topics)

    def __iter__(self) -> Iterator[Message]:
        return zip(self.topics, self.payloads, self.ids, self.flags, strict=True)

    def __getitem__(self, index: int) -> Message:
        return self.topics[index], self.payloads[index], self.ids[index], self.flags[index]


def numbered(ids: array[int]) -> array[int]:
    """Those packet identifiers that are one."""
    return array("H", [packet_id for packet_id in ids if packet_id]) if 0 in ids else ids
