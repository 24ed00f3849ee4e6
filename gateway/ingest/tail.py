"""What the log itself remembers for a restart: marks, MQTT packet identifiers, natural keys.

All of it is in the last records of `readings` and `deadletter`, fsynced with the readings that it speaks of, so a power
cut cannot part them. Read once, before anything is taken in; bounded by `TAIL_BYTES` per topic.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence

import msgspec

from devices.profiles import Profile
from gateway.ingest.marks import MarkMaker
from gateway.ingest.mqtt.sessions import Use
from gateway.ingest.raw import MARK_PREFIX, RAW_HEADER, RawSources
from gateway.ingest.repeats import NaturalMemory, companion
from gateway.ingest.sources import SOURCES_MAX
from gateway.ingest.uses import read_hw_m
from gateway.log.errors import CorruptBatch
from gateway.log.own_headers import read_own_mark, read_whole
from gateway.log.partition import PartitionLog
from gateway.log.records import Columns, decode_batch, decode_headers, read_header, split_batches
from headwater.errors import UNREADABLE, PeerError

_log = logging.getLogger("headwater.ingest")

TAIL_BYTES = 8 << 20
_READ_BYTES = 1 << 20
_SOURCE_BYTES_MAX = 300


def tail_columns(log: PartitionLog, tail_bytes: int) -> Iterator[Columns]:
    """The decoded batches that make up about the last `tail_bytes` of a partition."""
    start, end = log.log_start_offset, log.synced_offset
    if end <= start:
        return
    records_per_byte = (end - start) / max(log.size_bytes, 1)
    yield from tail_columns_from(log, end - max(1, round(tail_bytes * records_per_byte)))


def tail_columns_from(log: PartitionLog, offset: int) -> Iterator[Columns]:
    """The decoded batches of a partition from that of `offset` on."""
    offset, end = max(log.log_start_offset, offset), log.synced_offset
    while offset < end:
        data = log.read(offset, _READ_BYTES).data
        if not data:
            return
        for view in split_batches(data):
            header = read_header(view)
            offset = header.next_offset
            if not header.is_control:
                yield decode_batch(view)


class TailReader:
    """Collects from the tail of both logs."""

    def __init__(self, profiles: Sequence[Profile], marks: MarkMaker, natural: NaturalMemory, raw: RawSources) -> None:
        self._raw = raw
        self.uses: dict[str, dict[int, Use]] = {}
        self._marks = marks
        self._natural = natural
        with_key = [profile for profile in profiles if profile.natural_key is not None]
        self._natural_fields = sorted({field for profile in with_key if (field := profile.natural_field) is not None})
        self._time_is_key = any(profile.natural_field is None for profile in with_key)
        self._has_claims = any(profile.timestamp is not None for profile in with_key)
        self._arrival_ms = 0
        self._senders: dict[str, int | None] = {}  # of dead letters

    def read(
        self,
        readings: PartitionLog,
        deadletter: PartitionLog,
        raw: PartitionLog | None = None,
        tail_bytes: int = TAIL_BYTES,
    ) -> None:
        """Damage in the tail ends the reading of that topic: what is known less is stored twice, never lost."""
        take: Callable[[str, Columns], None]
        for log, take in ((readings, self._readings), (deadletter, self._deadletters), (raw, self._raws)):
            if log is None:
                continue
            self._arrival_ms = 0
            try:
                for columns in tail_columns(log, tail_bytes):
                    take(log.topic, columns)
            except PeerError as error:
                _log.warning("the tail of %s could not be read for repeats: %s", log.topic, error)

    def heard(self) -> Iterator[tuple[str, int | None]]:
        """Who spoke, as far as the tail goes: (source id, event or arrival time of its newest message)."""
        for source in self._marks.sources.values():
            yield source.id.removeprefix(MARK_PREFIX), source.newest_ms
        yield from self._senders.items()
        for client_id, uses in self.uses.items():
            source_id = client_id if client_id.startswith("broker:") else f"mqtt:{client_id}"
            yield source_id, max((use.arrival_ms for use in uses.values()), default=0) or None

    def _readings(self, topic: str, columns: Columns) -> None:
        for offset, timestamp_ms, key, value, blob in zip(
            columns.offsets, columns.timestamps, columns.keys, columns.values, columns.headers, strict=True
        ):
            claim_ms = timestamp_ms
            if len(blob) > 1:
                headers = headers_of(blob)
                # a copy's mark speaks of another log, even where its node has the name of this one
                if "hw-mark" in headers and "hw" not in headers:
                    self._mark(headers["hw-mark"])
                if RAW_HEADER in headers and "hw" not in headers:
                    self._raw.learn(headers[RAW_HEADER])
                if "hw-m" in headers:
                    self._use(topic, offset, headers["hw-m"])
                if (claim := read_whole(headers.get("hw-t", b""))) is not None:
                    claim_ms = claim
            if key is not None and value is not None:
                self._reading(bytes(key), bytes(value), claim_ms)

    def _mark(self, content: bytes) -> None:
        mark = read_own_mark(content)
        if mark is not None and (mark.node, mark.partition) == (self._marks.node, self._marks.partition):
            self._marks.resume(mark)
            self._arrival_ms = mark.clock

    def _reading(self, key: bytes, value: bytes, claim_ms: int) -> None:
        if not self._natural_fields and not self._time_is_key:
            return
        if self._time_is_key:
            self._natural.is_repeat(key, claim_ms, claim_ms)
        if self._natural_fields:
            try:
                fields = msgspec.json.decode(value)
            except UNREADABLE:
                return
            for field in self._natural_fields:
                if isinstance(fields, dict) and isinstance(number := fields.get(field), int | str):
                    self._natural.is_repeat(key, number, companion(claim_ms if self._has_claims else None, value))

    def _deadletters(self, topic: str, columns: Columns) -> None:
        for offset, timestamp_ms, blob in zip(columns.offsets, columns.timestamps, columns.headers, strict=True):
            self._arrival_ms = timestamp_ms
            told = headers_of(blob)
            if (content := told.get("hw-m")) is not None:
                self._use(topic, offset, content)
            if (content := told.get(RAW_HEADER)) is not None:
                self._raw.learn(content)
            self._sender(told.get("source", b""), timestamp_ms)

    def _sender(self, source_id: bytes, timestamp_ms: int) -> None:
        sender = source_id[:_SOURCE_BYTES_MAX].decode("utf-8", "replace")
        if sender.startswith(("mqtt:", "serial:", "modbus:", "broker:")) and len(self._senders) < SOURCES_MAX:
            self._senders[sender] = timestamp_ms

    def _raws(self, topic: str, columns: Columns) -> None:
        """Topic `raw`, after the others: what its messages came to is known by then."""
        for offset, timestamp_ms, key, blob in zip(
            columns.offsets, columns.timestamps, columns.keys, columns.headers, strict=True
        ):
            self._arrival_ms = timestamp_ms
            told = headers_of(blob)
            if (content := told.get("hw-m")) is not None:
                self._use(topic, offset, content)
            self._raw.waits(key, told, offset)
            self._sender((key or b"").partition(b"/")[2], timestamp_ms)

    def _use(self, topic: str, offset: int, content: bytes) -> None:
        if (found := read_hw_m(content)) is None:
            return
        together, client_id = found
        uses = self.uses.setdefault(client_id, {})
        for packet_id, crc in together:
            old = uses.get(packet_id)
            if old is None or old.arrival_ms <= self._arrival_ms:
                uses[packet_id] = Use(crc, topic, offset, self._arrival_ms)


def headers_of(blob: bytes) -> dict[str, bytes]:
    """What can be read of one record's headers: another producer's odd section must not cost its neighbours theirs."""
    try:
        return {name: content for name, content in decode_headers(bytes(blob)) if content is not None}
    except CorruptBatch:
        return {}
