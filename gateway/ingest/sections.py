"""Encoded header sections of the records that a commit group becomes, and its dead letters. Sans-IO."""

from __future__ import annotations

from devices.reading import Undecodable
from gateway.ingest.lanes import Lane
from gateway.ingest.sources import Entry
from gateway.log.records import NO_HEADERS, Record, decode_headers, encode_headers
from gateway.log.rows import Rows


def add_header(rows: Rows, name: str, value: bytes) -> None:
    """Put one more header on the last row."""
    rows.headers[-1] = joined(rows.headers[-1], encode_headers([(name, value)]))


def joined(section: bytes, more: bytes) -> bytes:
    """One section with the headers of both."""
    if section == NO_HEADERS or more == NO_HEADERS:
        return more if section == NO_HEADERS else section
    return encode_headers(decode_headers(section) + decode_headers(more))


def dead_letter(entry: Entry, lane: Lane, index: int, own: bytes, error: Undecodable) -> Record:
    """The record of a message that could not be decoded, its bytes as they came; `own` is its own header section."""
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
        encode_headers([*headers, *decode_headers(own)]),
    )
