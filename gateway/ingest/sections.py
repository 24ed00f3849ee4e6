"""Encoded header sections of the records that a commit group becomes, and its dead letters. Sans-IO."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence

from devices.reading import Undecodable
from gateway.ingest.lanes import Lane
from gateway.ingest.repeats import hw_m_sections
from gateway.ingest.sources import Entry, Source
from gateway.log.records import NO_HEADERS, Record, decode_headers, encode_headers
from gateway.log.rows import Rows


def message_sections(
    source: Source, payloads: Sequence[bytes], ids: Sequence[int], starts: Iterable[int], *, is_noted: bool
) -> list[bytes]:
    """Each message's own: `hw-m`, where its client may send it again. `starts` are the CRC-32 of its topic and NUL."""
    memory = source.memory
    if memory is None or not any(ids):
        return [NO_HEADERS] * len(ids)
    crcs = list(map(zlib.crc32, payloads, starts))
    if all(ids):
        if not is_noted:
            memory.use_all(list(ids), crcs)
        return hw_m_sections(ids, crcs, source.client)
    sections: list[bytes] = []
    for packet_id, crc in zip(ids, crcs, strict=True):
        if packet_id and not is_noted:
            memory.use(packet_id, crc)
        sections += hw_m_sections((packet_id,), (crc,), source.client) if packet_id else (NO_HEADERS,)
    return sections


def add_header(rows: Rows, name: str, value: bytes) -> None:
    """Put one more header on the last row."""
    rows.headers[-1] = joined(rows.headers[-1], encode_headers([(name, value)]))


def joined(section: bytes, more: bytes) -> bytes:
    """One section with the headers of both."""
    if section == NO_HEADERS or more == NO_HEADERS:
        return more if section == NO_HEADERS else section
    return encode_headers(decode_headers(section) + decode_headers(more))


def dead_letter(entry: Entry, lane: Lane, index: int, error: Undecodable) -> Record:
    """The record of a message that could not be decoded, its bytes as they came."""
    headers: list[tuple[str, bytes | None]] = [
        ("reason", error.reason.encode("utf-8", "replace")),
        ("decoder", error.decoder.encode()),
        ("source", entry.source.id.encode()),
        ("time", b"%d" % entry.arrival_ms),
        ("topic", lane.topics[index].encode()),
    ]
    return (
        entry.arrival_ms,
        entry.source.key,
        lane.payloads[index],
        encode_headers([*headers, *decode_headers(lane.sections[index])]),
    )
