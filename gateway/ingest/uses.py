"""Under which MQTT packet identifiers messages came, as the log keeps it: header `hw-m` (docs/records.md). Sans-IO.

A message alone has `<packet id>:<CRC-32>:<client id>`. Messages of one client that came together and went the same
way have one header for all of them, on the last of their records: a batch is in the log whole or not at all.
"""

from __future__ import annotations

import re
import sys
import zlib
from array import array
from binascii import hexlify
from collections.abc import Iterable, Sequence
from functools import lru_cache
from struct import pack
from typing import TYPE_CHECKING, NamedTuple

from gateway.log.records import NO_HEADERS
from gateway.log.varint import encode_varint

if TYPE_CHECKING:
    from gateway.ingest.messages import Messages
    from gateway.ingest.sources import Source

_ONE = re.compile(rb"([0-9]{1,5}):([0-9a-f]{8}):(.*)", re.DOTALL)
_MANY = re.compile(rb"\*((?:[0-9a-f]{4})+):((?:[0-9a-f]{8})+):(.*)", re.DOTALL)


PACKET_ID_MAX = 65_535


class Uses(NamedTuple):
    """Packet identifiers (array type H; 0: came without one) and CRCs (type I) of a client's messages, in order."""

    client: bytes
    ids: array[int]
    crcs: array[int]
    numbered: bool = False  # known: no identifier is 0

    def part(self, start: int, stop: int) -> Uses:
        """Of the messages from `start` to `stop`."""
        return Uses(self.client, self.ids[start:stop], self.crcs[start:stop], self.numbered)

    def of(self, indices: Iterable[int]) -> Uses:
        """Of some of the messages."""
        chosen = list(indices)
        ids = array("H", [self.ids[index] for index in chosen])
        return Uses(self.client, ids, array("I", [self.crcs[index] for index in chosen]))

    def each(self) -> list[bytes]:
        """A header section for each message."""
        if 0 not in self.ids:
            return hw_m_sections(self.ids, self.crcs, self.client)
        return [
            hw_m_sections((packet_id,), (crc,), self.client)[0] if packet_id else NO_HEADERS
            for packet_id, crc in zip(self.ids, self.crcs, strict=True)
        ]

    def together(self) -> bytes:
        """One header section for all of them."""
        ids, crcs, client = self.ids, self.crcs, self.client
        if not self.numbered and 0 in ids:
            _, ids, crcs, _ = self.of(index for index, packet_id in enumerate(ids) if packet_id)
            if not ids:
                return NO_HEADERS
        if len(ids) == 1:
            return hw_m_sections(ids, crcs, client)[0]
        if sys.byteorder == "little":
            ids, crcs = ids[:], crcs[:]
            ids.byteswap()
            crcs.byteswap()
        value = b"*%b:%b:%b" % (hexlify(ids.tobytes()), hexlify(crcs.tobytes()), client)
        return b"\x02\x08hw-m%b%b" % (encode_varint(len(value)), value)


def note_uses(source: Source, messages: Messages, starts: Iterable[int], *, is_noted: bool) -> Uses | None:
    """Under which identifiers they came, where the client may send them again: noted, unless they are already.

    `starts` are the CRC-32 of each one's topic and NUL.
    """
    ids, memory = messages.ids, source.memory
    if memory is None or not any(ids):
        return None
    crcs = array("I", pack(f"{len(ids)}I", *map(zlib.crc32, messages.payloads, starts)))
    uses = Uses(source.client, ids, crcs, messages.numbered)
    if is_noted:
        return uses
    if messages.numbered:
        memory.use_all(ids, uses.crcs)
    else:
        for packet_id, crc in zip(ids, uses.crcs, strict=True):
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
        ids = [int(match[1][at : at + 4], 16) for at in range(0, len(match[1]), 4)]
        crcs = [int(match[2][at : at + 8], 16) for at in range(0, len(match[2]), 8)]
        return list(zip(ids, crcs, strict=True)), match[3].decode()
    except UnicodeDecodeError:
        return None
