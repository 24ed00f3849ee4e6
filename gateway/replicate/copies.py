"""Upstream copies of a node's records: same key, value and timestamp, and the record's identity in a header.

The copy carries `hw` = `<node>/<epoch>/<partition>/<offset>`, where epoch is the leader epoch of the record's own batch
(or the epoch that a restored card was raised to). `hw-m`, `hw-raw` and `hw-replay` stay at the edge. A mark is copied
with `open: []` and `lost: []`: one lane owes nothing to anybody. Header sections are spliced as bytes; nothing else is
decoded.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from gateway.log.columns import Columns
from gateway.log.errors import CorruptBatch
from gateway.log.records import Record
from gateway.log.varint import decode_varint, encode_varint
from headwater.errors import UNREADABLE

IDENTITY = b"hw"
MQTT_MESSAGE = b"hw-m"
MARK = b"hw-mark"
_STAY = (MQTT_MESSAGE, b"hw-raw", b"hw-replay", IDENTITY)

# A section with one header whose key is `hw-m`: nearly every reading that came over MQTT.
_ONLY_MQTT = b"\x02" + encode_varint(len(MQTT_MESSAGE)) + MQTT_MESSAGE
_ONLY_MQTT_BYTES = len(_ONLY_MQTT)
_NONE = b"\x00"
_ONE_IDENTITY = b"\x02" + encode_varint(len(IDENTITY)) + IDENTITY
_IDENTITY = _ONE_IDENTITY[1:]


def identity(node: str, epoch: int, partition: int, offset: int) -> str:
    """The value of header `hw`."""
    return f"{node}/{epoch}/{partition}/{offset}"


def copy_records(columns: Columns, *, node: str, partition: int, epoch: int, start: int, end: int) -> list[Record]:
    """Copies of the records of one batch with offsets in [start, end). Raises `CorruptBatch` for damaged headers."""
    prefix = f"{node}/{epoch}/{partition}/".encode()
    width = len(prefix)
    copies: list[Record] = []
    append = copies.append
    only, count = _ONLY_MQTT, _ONLY_MQTT_BYTES
    digits, length = -1, b""
    for offset, timestamp, key, value, section in zip(
        columns.offsets, columns.timestamps, columns.keys, columns.values, columns.headers, strict=True
    ):
        if start <= offset < end:
            number = b"%d" % offset
            if len(number) != digits:
                digits = len(number)
                length = encode_varint(width + digits)
            if section == _NONE or (section[:count] == only and _has_one(section)):
                append((timestamp, key, value, b"%b%b%b%b" % (_ONE_IDENTITY, length, prefix, number)))
            else:
                own = b"%b%b%b%b" % (_IDENTITY, length, prefix, number)
                append((timestamp, key, value, _spliced(section, own)))
    return copies


def _has_one(section: bytes) -> bool:
    try:
        size, position = decode_varint(section, _ONLY_MQTT_BYTES)
    except IndexError:
        return False  # cut short: `split_section` says so
    return position + max(size, 0) == len(section)


def _spliced(section: bytes, own: bytes) -> bytes:
    """A header section without what stays and any older `hw`, marks widened, and `own` at its end."""
    kept = [
        _widened(value) if key == MARK and value is not None else raw
        for key, value, raw in split_section(section)
        if key not in _STAY
    ]
    return encode_varint(len(kept) + 1) + b"".join(kept) + own


def split_section(section: bytes) -> list[tuple[bytes, bytes | None, bytes]]:
    """The headers of an encoded section as (key, value, the bytes of both). Raises `CorruptBatch`."""
    try:
        count, position = decode_varint(section, 0)
        if not 0 <= count <= len(section):
            raise CorruptBatch(f"Record with {count} headers in {len(section)} bytes")
        headers: list[tuple[bytes, bytes | None, bytes]] = []
        for _ in range(count):
            begin = position
            size, position = decode_varint(section, position)
            key = section[position : position + size]
            position += size
            size, position = decode_varint(section, position)
            value = None if size < 0 else section[position : position + size]
            position += max(size, 0)
            headers.append((key, value, section[begin:position]))
    except IndexError:
        raise CorruptBatch("Record with damaged headers") from None
    if position != len(section):
        raise CorruptBatch("Record with damaged headers")
    return headers


def identity_in(section: bytes) -> str | None:
    """The value of header `hw` in an encoded section, or None."""
    for key, value, _ in split_section(section):
        if key == IDENTITY and value is not None:
            return value.decode("utf-8", "replace")
    return None


def _widened(mark: bytes) -> bytes:
    try:
        fields = msgspec.json.decode(mark, type=dict[str, object])
    except UNREADABLE:
        value = mark  # not a mark that anybody can read: it is copied as it came
    else:
        value = msgspec.json.encode({**fields, "open": [], "lost": []})
    return encode_varint(len(MARK)) + MARK + encode_varint(len(value)) + value


def source_bytes(records: Iterable[Record]) -> int:
    """Bytes of keys, values and headers: what a batch of these weighs before compression."""
    return sum(len(key or b"") + len(value or b"") + len(headers) + 8 for _, key, value, headers in records)


def epoch_for(batch_epoch: int, offset: int, raised: Sequence[tuple[int, int]]) -> int:
    """The epoch of a record's identity: its batch's, or more where a restored card was raised above it."""
    return max([batch_epoch, *(epoch for start, epoch in raised if offset >= start)])
