"""Messages as sources hand them over: by columns, because whatever is done to them is done to many at once. Sans-IO."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from struct import unpack

# (topic, payload, packet id or 0, flags): what a source gives; see `gateway.ingest.mqtt.state` for the flags.
# A serial source writes (port name, frame, 0, 0).
Message = tuple[str, bytes, int, int]

Packed = bytes | bytearray


class Messages:
    """Messages of one source in the order in which they came; all columns have the same length.

    `ids` are the packet identifiers as packets, acknowledgements and `hw-m` have them: two bytes each, high one first.
    `any_flags` are the flags that at least one of them has: most questions are answered by it alone. `copies`: a broker
    kept them for whoever subscribes, so they are stored only under a time that their device has said, and flagged.
    `topic` is the one topic of all of them, None with several or without a message; `numbered`: each has a packet
    identifier. What is known when they come is not looked for again in twenty of them at every step.
    """

    __slots__ = ("_bytes", "any_flags", "copies", "flags", "ids", "numbered", "payloads", "topic", "topics")

    def __init__(self, messages: Iterable[Message] = ()) -> None:
        self.topics: list[str] = []
        self.payloads: list[bytes] = []
        self.ids = bytearray()
        self.flags: list[int] = []
        self.any_flags = 0
        self.topic: str | None = None
        self.numbered = True
        self.copies = False
        self._bytes = 0
        for message in messages:
            self.append(message)

    @classmethod
    def alike(cls, topic: str, payloads: list[bytes], ids: bytearray, flags: int, size_bytes: int) -> Messages:
        """As `extend` says, into none; keeps both columns as they are."""
        messages, count = cls.__new__(cls), len(payloads)
        messages.topic, messages.topics, messages.payloads = topic, [topic] * count, payloads
        messages.ids, messages.numbered = ids, ids[:2] != b"\0\0"
        messages.flags, messages.any_flags = [flags] * count, flags
        messages.copies, messages._bytes = False, size_bytes
        return messages

    def append(self, message: Message) -> None:
        """One more."""
        topic, payload, packet_id, flags = message
        self.topic = topic if topic == self.topic or not self.topics else None
        if not packet_id:
            self.numbered = False
        self._bytes += len(topic) + len(payload)
        self.topics.append(topic)
        self.payloads.append(payload)
        self.ids += packet_id.to_bytes(2, "big")
        self.flags.append(flags)
        self.any_flags |= flags

    def extend(self, topic: str, payloads: Sequence[bytes], ids: Packed, flags: int, size_bytes: int) -> None:
        """More of one topic and with the same flags, that is, all with an identifier or none.

        `size_bytes` is what their topics and payloads weigh.
        """
        count = len(payloads)
        self.topic = topic if topic == self.topic or not self.topics else None
        self.numbered = self.numbered and ids[:2] != b"\0\0"
        self._bytes += size_bytes
        self.topics += [topic] * count
        self.payloads += payloads
        self.ids += ids
        self.flags += [flags] * count
        self.any_flags |= flags

    def where(self, keep: Callable[[Message], bool]) -> Messages:
        """Those for which `keep` says so."""
        return Messages(message for message in self if keep(message))

    def size_bytes(self) -> int:
        """About what they take in memory."""
        return self._bytes + 64 * len(self.topics)

    def __len__(self) -> int:
        return len(self.topics)

    def __iter__(self) -> Iterator[Message]:
        return zip(self.topics, self.payloads, numbers(self.ids), self.flags, strict=True)

    def __getitem__(self, index: int) -> Message:
        return list(self)[index]


def numbers(ids: Packed) -> tuple[int, ...]:
    """Packet identifiers as numbers."""
    return unpack(f">{len(ids) // 2}H", ids)


def pairs(ids: Packed, crcs: Packed) -> list[tuple[int, int]]:
    """Packet identifiers and the CRC-32 (four bytes each) of their messages, as numbers."""
    return list(zip(numbers(ids), unpack(f">{len(crcs) // 4}I", crcs), strict=True))


def numbered(messages: Messages) -> Packed:
    """The packet identifiers of those that have one."""
    if messages.numbered:
        return messages.ids
    return b"".join([packet_id.to_bytes(2, "big") for packet_id in numbers(messages.ids) if packet_id])
