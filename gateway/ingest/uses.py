"""Under which MQTT packet identifiers messages came, as the log keeps it: header `hw-m` (docs/records.md). Sans-IO.

A message alone has `<packet id>:<CRC-32>:<client id>`. Messages of one client that came together and went the same
way have one header for all of them, on the last of their records: a batch is in the log whole or not at all.
"""

from __future__ import annotations

import re
import zlib
from binascii import unhexlify
from collections.abc import Iterable, Sequence
from functools import lru_cache
from struct import pack
from typing import TYPE_CHECKING

import msgspec

from gateway.ingest.messages import Messages, Packed, numbers, pairs
from gateway.log.records import NO_HEADERS
from gateway.log.varint import encode_varint

if TYPE_CHECKING:
    from gateway.ingest.sources import Source

_ONE = re.compile(rb"([0-9]{1,5}):([0-9a-f]{8}):(.*)", re.DOTALL)
_MANY = re.compile(rb"\*((?:[0-9a-f]{4})+):((?:[0-9a-f]{8})+):(.*)", re.DOTALL)


PACKET_ID_MAX = 65_535


class Uses(msgspec.Struct, frozen=True, gc=False):
    """Packet identifiers (two bytes each; 0: came without one) and CRCs (four) of a client's messages, in order."""

    client: bytes
    ids: Packed
    crcs: Packed
    numbered: bool = False  # known: no identifier is 0

    def part(self, start: int, stop: int) -> Uses:
        """Of the messages from `start` to `stop`."""
        return Uses(self.client, self.ids[2 * start : 2 * stop], self.crcs[4 * start : 4 * stop], self.numbered)

    def of(self, indices: Iterable[int]) -> Uses:
        """Of some of the messages."""
        chosen = list(indices)
        ids = b"".join([self.ids[2 * index : 2 * index + 2] for index in chosen])
        return Uses(self.client, ids, b"".join([self.crcs[4 * index : 4 * index + 4] for index in chosen]))

    def each(self) -> list[bytes]:
        """A header section for each message."""
        ids, crcs = zip(*pairs(self.ids, self.crcs), strict=True)
        if 0 not in ids:
            return hw_m_sections(ids, crcs, self.client)
        return [
            hw_m_sections((packet_id,), (crc,), self.client)[0] if packet_id else NO_HEADERS
            for packet_id, crc in zip(ids, crcs, strict=True)
        ]

    def together(self) -> bytes:
        """One header section for all of them."""
        known = self
        if not self.numbered:
            known = self.of(index for index, packet_id in enumerate(numbers(self.ids)) if packet_id)
        if len(known.ids) > 2:
            value = f"*{known.ids.hex()}:{known.crcs.hex()}:".encode() + known.client
            return b"\x02\x08hw-m" + encode_varint(len(value)) + value
        return known.each()[0] if known.ids else NO_HEADERS


def note_uses(source: Source, messages: Messages, starts: Iterable[int], *, is_noted: bool) -> Uses | None:
    """Under which identifiers they came, where the client may send them again: noted, unless they are already.

    `starts` are the CRC-32 of each one's topic and NUL.
    """
    ids, memory, is_numbered = messages.ids, source.memory, messages.numbered
    if memory is None or not (is_numbered or any(ids)):
        return None
    payloads = messages.payloads
    crcs = pack(f">{len(payloads)}I", *map(zlib.crc32, payloads, starts))
    uses = Uses(source.client, ids, crcs, is_numbered)
    if is_noted:
        return uses
    if is_numbered:
        memory.use_all(ids, crcs)
    else:
        for packet_id, crc in pairs(ids, crcs):
            if packet_id:
                memory.use(packet_id, crc)
    return uses


def message_crc(topic: bytes, payload: bytes) -> int:
    """CRC-32 of topic, NUL, payload: what `hw-m` carries."""
    return zlib.crc32(payload, zlib.crc32(topic + b"\0"))


def hw_m(packet_id: int, crc: int, client_id: bytes) -> bytes:
    """The value of header `hw-m` of one message: `<packet id>:<CRC-32, 8 hex digits>:<client id>`."""
    return b"%d:%08x:%b" % (packet_id, crc, client_id)


def hw_m_sections(packet_ids: Sequence[int], crcs: Sequence[int], client_id: bytes) -> list[bytes]:
    """A header section with `hw-m` alone for each message of one client."""
    templates = _templates(client_id)
    digits = len(str(max(packet_ids)))
    if min(packet_ids) >= 10 ** (digits - 1):
        return list(map(templates[digits].__mod__, zip(packet_ids, crcs, strict=True)))
    return [templates[len(str(use[0]))] % use for use in zip(packet_ids, crcs, strict=True)]


@lru_cache(maxsize=1_024)
def _templates(client_id: bytes) -> list[bytes]:
    """The section for a packet identifier of as many digits as the index; its length depends on nothing else."""
    heads = [b"\x02\x08hw-m" + encode_varint(digits + len(b":01234567:") + len(client_id)) for digits in range(6)]
    tail = client_id.replace(b"%", b"%%")
    return [head.replace(b"%", b"%%") + b"%d:%08x:" + tail for head in heads]


def read_hw_m(value: bytes) -> tuple[list[tuple[int, int]], str] | None:
    """The packet ids and CRCs of an `hw-m` value, and its client id; None when it is none."""
    try:
        if (match := _ONE.fullmatch(value)) is not None:
            packet_id = int(match[1])
            return ([(packet_id, int(match[2], 16))], match[3].decode()) if packet_id <= PACKET_ID_MAX else None
        if (match := _MANY.fullmatch(value)) is None or len(match[2]) != 2 * len(match[1]):
            return None
        return pairs(unhexlify(match[1]), unhexlify(match[2])), match[3].decode()
    except UnicodeDecodeError:
        return None
