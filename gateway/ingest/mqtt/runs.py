"""The run of plain PUBLISH packets: the hot path of listener and client, with no call per packet. Sans-IO.

Plain is a PUBLISH of QoS 0 or 1 to a topic that is known, in MQTT 5 without properties. A run stops before anything
unusual (QoS 2, a new topic, an error), which the version's table then treats by the book.

Packets of one device often differ in nothing but identifier and payload, and the payloads in nothing but their digits.
What looks so is cut all at once, in a fifth of the loop's time. Bytes that only looked so cost as much for nothing, and
a client could send them on purpose: after that only half of what is left is looked at again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import chain
from struct import Struct, pack
from typing import TYPE_CHECKING, Any

from gateway.ingest.messages import Messages, Packed, numbers
from gateway.ingest.mqtt.state import QOS

if TYPE_CHECKING:
    from gateway.ingest.mqtt.state import Exchange

# the first byte of a PUBLISH with QoS 0 or 1 and every legal flag
PLAIN = frozenset({0x30, 0x31, 0x32, 0x33, 0x3A, 0x3B})
EQUAL_MIN = 4  # packets; fewer are as quick one by one


def read_run(x: Exchange, data: bytes, position: int, end: int, room: int, properties: int) -> tuple[int, int]:
    """The run at `position`; returns where it ends, and how many of its messages have an identifier: `room` at most.

    `properties`: the bytes that these take in a plain packet; 0 in MQTT 3.1.1, and 1, a length of 0, in MQTT 5.
    """
    x.unlike_bytes = x.unlike_bytes if position else 0
    names, messages, left = x.topics.names, x.messages, room
    length_max = x.settings.packet_bytes_max - 3  # one a byte or so larger is left to the table
    first = flags = number_bytes = 0  # of the packet before: the next is often the same
    name, head = "", b""  # its topic, and the bytes of that with their length
    ids: list[int] = []  # and of all from `began` on that were like it, not among `messages` yet
    payloads: list[bytes] = []
    began = position
    looked = 0 < x.unlike_bytes < 2 * (end - position)  # for packets of equal length
    while position + 4 <= end:
        length, body = data[position + 1], position + 2
        if length >= 0x80:
            high = data[body]
            if high >= 0x80 or (properties and not high):
                break
            length, body = length & 0x7F | high << 7, body + 1
        stop = body + length
        if stop > end or length > length_max:
            break
        if not head or data[position] != first or not data.startswith(head, body):
            if length < 4 or data[position] not in PLAIN:
                break
            topic_end = body + 2 + (data[body] << 8 | data[body + 1])
            if topic_end > stop or (known := names.get(data[body + 2 : topic_end])) is None:
                break
            if ids:
                messages.extend(name, payloads, pack(f">{len(ids)}H", *ids), flags, position - began)
                ids, payloads = [], []
            began = position
            first, name, head = data[position], known, data[body:topic_end]
            flags, number_bytes = first & 15, 2 if first & QOS else 0
        at = body + len(head)
        if at + 2 + properties > stop:
            break
        if not looked and (size := stop - position) * EQUAL_MIN <= end - position:
            looked, count = True, (end - position) // size
            equal = _equal_packets(data, position, size, at - position, count, number_bytes, properties)
            if equal is not None and (not number_bytes or count <= left):
                if ids:
                    messages.extend(name, payloads, pack(f">{len(ids)}H", *ids), flags, position - began)
                    ids, payloads = [], []
                messages.extend(name, equal[1], equal[0], flags, count * size)
                cut = _cutter(at - position, size, number_bytes + properties)
                x.alike = data[position:at], size, name, number_bytes, cut
                left -= count if number_bytes else 0
                began = position = position + count * size
                continue
            x.unlike_bytes = end - position
        packet_id = data[at] << 8 | data[at + 1] if number_bytes else 0
        if (number_bytes and (not packet_id or left < 1)) or (properties and data[at + number_bytes]):
            break
        left -= packet_id > 0
        ids.append(packet_id)
        payloads.append(data[at + number_bytes + properties : stop])
        position = stop
    if ids:
        messages.extend(name, payloads, pack(f">{len(ids)}H", *ids), flags, position - began)
    return position, room - left


def read_alike(x: Exchange, data: bytes, room: int, properties: int) -> Messages | None:
    """All of `data` at once, if every packet looks like the ones that were cut together before.

    `properties` as in `read_run`; `room` for those with an identifier.
    """
    if x.alike is None:
        return None
    head, size, name, number_bytes, cut = x.alike
    end = len(data)
    count, rest = divmod(end, size)
    if rest or count < EQUAL_MIN or (number_bytes and count > room):
        return None
    if not data.startswith(head) or not data.startswith(head, end - size):
        return None
    x.alike = None  # until it has been true again: what only looks so is cut in vain once
    columns = list(chain.from_iterable(cut(data)))
    if columns[::2].count(head) != count:
        return None
    ids, at = bytearray(2 * count), len(head)
    if number_bytes:
        ids[::2], ids[1::2] = data[at::size], data[at + 1 :: size]
        if b"\0\0" in ids and 0 in numbers(ids):
            return None
    if properties and data[at + number_bytes :: size].count(0) != count:
        return None
    x.alike = head, size, name, number_bytes, cut
    return Messages.alike(name, columns[1::2], ids, head[0] & 15, end)


def _equal_packets(
    data: bytes, position: int, size: int, head: int, count: int, number_bytes: int, properties: int
) -> tuple[Packed, list[bytes]] | None:
    """Identifiers and payloads of `count` packets of `size` bytes, or None when some differs in more than those.

    `head`: how many bytes stand before the identifier, and are the same in all of them.
    """
    stop = position + count * size
    same = data[position : position + head]
    if not data.startswith(same, stop - size):
        return None  # the last one is not where it would be
    if properties and data[position + head + number_bytes : stop : size].count(0) != count:
        return None
    columns = list(chain.from_iterable(_cutter(head, size, number_bytes + properties)(data[position:stop])))
    if columns[::2].count(same) != count:
        return None
    if not number_bytes:
        return bytes(2 * count), columns[1::2]
    ids = bytearray(2 * count)
    ids[::2], ids[1::2] = data[position + head : stop : size], data[position + head + 1 : stop : size]
    return None if b"\0\0" in ids and 0 in numbers(ids) else (ids, columns[1::2])


@lru_cache(maxsize=1_024)
def _cutter(head: int, size: int, skipped: int) -> Callable[[bytes], Iterator[tuple[Any, ...]]]:
    """Cuts packets of one layout into head and payload; `skipped` are the bytes between them."""
    return Struct(f"{head}s{skipped}x{size - head - skipped}s").iter_unpack
