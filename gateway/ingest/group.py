"""One commit group: messages of many sources become one batch of readings and one of dead letters. Sans-IO.

Everything is done by columns over the whole group: repeats, then one decode per profile, then one JSON encode per
profile, then times and headers. Nothing is made per message but the tuples that the batch is encoded from.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Sequence
from typing import Any

import msgspec

from devices.decoders.registry import DecodeGroup, decoder_for
from devices.limits import Limits
from devices.profiles import EVENT_TIME_PAST_MAX_MS, Profile, TopicMatcher
from devices.reading import Reading, Undecodable
from devices.reporting import Reporter
from gateway.ingest.counts import Counts
from gateway.ingest.eventtime import FUTURE_MAX_MS, record_time
from gateway.ingest.mqtt.state import DUP, HELD, REFUSED
from gateway.ingest.raw import Outcome, raw_record
from gateway.ingest.repeats import NaturalMemory, companion, hw_m
from gateway.ingest.sources import Entry, Source
from gateway.log.records import NO_HEADERS, Record, decode_headers, encode_headers

_log = logging.getLogger("headwater.ingest")

_ROUTES_MAX = 16_384
_KEYS_MAX = 16_384
# what the keys of one message's readings may weigh: so much, or so many times the message
_MESSAGE_KEYS_BYTES = 256 << 10
_MESSAGE_KEYS_FACTOR = 64
_encoder = msgspec.json.Encoder()

# what a lane keeps beside a message: its entry, and the header section with its hw-m, or NO_HEADERS
_Meta = tuple[Entry, bytes]


class _Lane:
    """The messages of a group that one profile decodes."""

    __slots__ = (
        "decode",
        "idle_ms",
        "limits",
        "messages",
        "metas",
        "past_max_ms",
        "profile",
        "qualities",
        "raw",
        "reporter",
        "results",
    )

    def __init__(self, profile: Profile | None) -> None:
        self.profile = profile
        self.decode: DecodeGroup = decoder_for(profile.format if profile is not None else "json")
        self.past_max_ms = profile.event_time_past_max_ms if profile is not None else EVENT_TIME_PAST_MAX_MS
        self.idle_ms = profile.idle_ms if profile is not None else None
        self.limits = Limits(profile)
        self.qualities: list[str] | None = None  # of the group's readings, in order; None where nobody asks
        self.reporter = Reporter(profile)
        self.raw: Profile | None = None  # the profile of a lane whose messages are logged as they came
        self.results: list[list[Reading] | Undecodable] | None = None  # of a lane that was decoded elsewhere
        self.messages: list[tuple[str, bytes]] = []
        self.metas: list[_Meta] = []


class GroupBuilder:
    """Turns entries into records. Keeps what outlives a group: routes by topic, natural keys, counts."""

    def __init__(self, node: str, profiles: Sequence[Profile], natural: NaturalMemory) -> None:
        self.counts = Counts()
        self.live_ms = 0  # the last mark's T: what is below it is late
        self.raw: list[Record] = []  # of the group that was built last, for topic `raw`
        self.raw_from: list[tuple[str, Source]] = []  # whose they are: (profile, source)
        self._node = node
        self._natural = natural
        self._matcher = TopicMatcher(profiles)
        self._lanes: dict[int, _Lane] = {}
        self._routes: dict[str, tuple[_Lane, int]] = {}  # topic → (lane, CRC-32 of topic and NUL)
        self._keys: dict[str, bytes] = {}

    def build(self, entries: list[Entry]) -> tuple[list[Record], list[Record]]:
        """(records of readings, records of dead letters); fills in each entry's `newest_ms` and `readings`."""
        readings: list[Record] = []
        dead: list[Record] = []
        self.raw, self.raw_from = [], []
        try:
            for entry in entries:
                if entry.outcomes is None:
                    self._sort_in(entry)
                else:
                    self._sort_in_outcomes(entry, entry.outcomes)
            for lane in self._lanes.values():
                if lane.messages:
                    self._lane_records(lane, readings, dead)
        finally:  # also of a group that was given up: its messages are no part of the next
            for lane in self._lanes.values():
                lane.messages, lane.metas = [], []
                if lane.results is not None:
                    lane.results = []
        self.counts.stored += len(readings)
        self.counts.dead_letters += len(dead)
        self.counts.raw += len(self.raw)
        return readings, dead

    def _sort_in(self, entry: Entry) -> None:
        """Each message to its lane, repeats by packet identifier left out."""
        source = entry.source
        self.counts.received += len(entry.messages)
        fixed = self._lane(source.profile) if source.profile is not None else None
        routes, memory, client = self._routes, source.memory, source.client
        plain = (entry, NO_HEADERS)
        for topic, payload, packet_id, flags in entry.messages:
            route = routes.get(topic)
            if route is None:
                route = self._route(topic)
            lane = fixed if fixed is not None else route[0]
            meta = plain
            if flags & (HELD | REFUSED):
                self._count_passed_over(flags)
                continue
            if memory is not None and packet_id:
                crc = zlib.crc32(payload, route[1])
                if flags & DUP and memory.is_repeat(packet_id, crc):
                    self.counts.dup_repeats += 1
                    continue
                memory.use(packet_id, crc)
                meta = (entry, _hw_m_headers(hw_m(packet_id, crc, client)))
            lane.messages.append((topic, payload))
            lane.metas.append(meta)

    def _count_passed_over(self, flags: int) -> None:
        if flags & REFUSED:
            self.counts.refused += 1
        else:
            self.counts.dup_repeats += 1

    def _lane(self, profile: Profile | None) -> _Lane:
        lane = self._lanes.get(id(profile))
        if lane is None:
            lane = self._lanes[id(profile)] = _Lane(profile)
            lane.raw = profile if profile is not None and profile.decoder else None
        return lane

    def _sort_in_outcomes(self, entry: Entry, outcomes: list[tuple[Outcome, bytes]]) -> None:
        """What was decoded elsewhere, to the lane of its profile that only has to store it."""
        profile = entry.source.profile
        lane = self._lanes.get(~id(profile))
        if lane is None:
            lane = self._lanes[~id(profile)] = _Lane(profile)
        if lane.results is None:
            lane.results = []
        for outcome, headers in outcomes:
            lane.messages.append((outcome.topic, outcome.payload))
            lane.metas.append((entry, headers))
            lane.results.append(outcome.result())

    def _route(self, topic: str) -> tuple[_Lane, int]:
        if len(self._routes) >= _ROUTES_MAX:
            self._routes.clear()
        profile, _ = self._matcher.match(topic)
        route = (self._lane(profile), zlib.crc32(topic.encode() + b"\0"))
        self._routes[topic] = route
        return route

    def _key(self, device: str) -> bytes:
        key = self._keys.get(device)
        if key is None:
            if len(self._keys) >= _KEYS_MAX:
                self._keys.clear()
            key = self._keys[device] = f"{self._node}/{device}".encode()
        return key

    def _lane_records(self, lane: _Lane, records: list[Record], dead: list[Record]) -> None:
        if lane.raw is not None:
            self._raw_records(lane, lane.raw)
            return
        results = lane.results if lane.results is not None else _decode(lane)
        _refuse_swollen(lane, results, len(self._node) + 1)
        if lane.reporter:
            self._suppress(lane, results)
        try:
            # decoders give one reading per message as a rule; a nested loop costs little then
            values = _encode([reading.fields for result in results if type(result) is list for reading in result])
        except (ValueError, TypeError, OverflowError):
            results, values = _encodable(results)
        if lane.limits:
            lane.qualities = [
                lane.limits.quality(reading.fields) for result in results if type(result) is list for reading in result
            ]
        start = taken = 0
        while start < len(results):
            # entries are whole runs of a lane: what is the same for all their messages is looked up once
            entry = lane.metas[start][0]
            stop = start + 1
            while stop < len(results) and lane.metas[stop][0] is entry:
                stop += 1
            taken = self._entry_records(lane, entry, results, range(start, stop), values, taken, records, dead)
            start = stop

    def _raw_records(self, lane: _Lane, profile: Profile) -> None:
        last: Entry | None = None
        for (topic, payload), (entry, own) in zip(lane.messages, lane.metas, strict=True):
            self.raw.append(raw_record(profile, entry.source, entry.arrival_ms, topic, payload, own))
            if entry is not last:
                self.raw_from.append((profile.name, entry.source))
                last = entry

    def _entry_records(
        self,
        lane: _Lane,
        entry: Entry,
        results: list[list[Reading] | Undecodable],
        run: range,
        values: list[bytes],
        taken: int,
        records: list[Record],
        dead: list[Record],
    ) -> int:
        """The records of one entry's messages, a message's `hw-m` on its last; returns how far `values` is used up."""
        arrival_ms, live_ms, newest_ms = entry.arrival_ms, self.live_ms, entry.newest_ms
        earliest_ms, latest_ms = arrival_ms - lane.past_max_ms, arrival_ms + FUTURE_MAX_MS
        keys, metas, is_repeat, qualities = self._keys, lane.metas, self._natural.is_repeat, lane.qualities
        before = len(records)
        for index in run:
            result = results[index]
            if not isinstance(result, list):
                dead.append(_dead_letter(entry, *lane.messages[index], metas[index][1], result))
                continue
            first = len(records)
            for device, _, claim_ms, natural_key in result:
                value = values[taken]
                taken += 1
                key = keys.get(device) or self._key(device)
                if natural_key is not None and is_repeat(key, natural_key, companion(claim_ms, value)):
                    self.counts.natural_repeats += 1
                    continue
                if claim_ms is None or earliest_ms <= claim_ms <= latest_ms:
                    timestamp_ms = arrival_ms if claim_ms is None else claim_ms
                    records.append((timestamp_ms, key, value, NO_HEADERS))
                    if newest_ms is None or timestamp_ms > newest_ms:
                        newest_ms = timestamp_ms
                    if timestamp_ms < live_ms:
                        self.counts.late += 1
                    entry.source.untrusted = False
                else:
                    records.append(self._untrusted(entry, key, value, claim_ms, lane.past_max_ms))
                if qualities is not None and (quality := qualities[taken - 1]):
                    add_header(records, "hw-q", quality.encode())
            if len(records) > first and (headers := metas[index][1]) != NO_HEADERS:
                records[-1] = _with_headers(records[-1], headers)
        self._note(lane, entry, newest_ms, len(records) - before)
        return taken

    def _suppress(self, lane: _Lane, results: list[list[Reading] | Undecodable]) -> None:
        """Report by exception: what says nothing new is counted and taken out; its source was heard all the same."""
        for index, result in enumerate(results):
            if not isinstance(result, list):
                continue
            entry = lane.metas[index][0]
            earliest_ms, latest_ms = entry.arrival_ms - lane.past_max_ms, entry.arrival_ms + FUTURE_MAX_MS
            news = []
            for reading in result:
                time_ms = entry.arrival_ms
                if reading.event_ms is not None and earliest_ms <= reading.event_ms <= latest_ms:
                    time_ms = reading.event_ms
                if lane.reporter.is_news(reading.device, reading.fields, time_ms):
                    news.append(reading)
                elif entry.newest_ms is None or time_ms > entry.newest_ms:
                    entry.newest_ms = time_ms
            entry.suppressed += len(result) - len(news)
            self.counts.suppressed += len(result) - len(news)
            results[index] = news

    def forget_reports(self) -> None:
        """The disk lost a group: what was taken for stored may not be."""
        for lane in self._lanes.values():
            lane.reporter.forget_all()

    def _untrusted(self, entry: Entry, key: bytes, value: bytes, claim_ms: int, past_max_ms: int) -> Record:
        """A claimed time that cannot be: kept beside the record."""
        entry.source.untrusted = True
        self.counts.untrusted_times += 1
        timestamp_ms, _ = record_time(claim_ms, entry.arrival_ms, past_max_ms)
        if timestamp_ms < self.live_ms:
            self.counts.late += 1
        return timestamp_ms, key, value, encode_headers([("hw-t", b"%d" % claim_ms)])

    def _note(self, lane: _Lane, entry: Entry, newest_ms: int | None, stored: int) -> None:
        entry.newest_ms = newest_ms
        entry.readings += stored
        if stored or entry.suppressed:
            entry.source.mark.idle_ms = lane.idle_ms
            entry.source.mark.recorded = lane.profile is not None and lane.profile.recorded


def _decode(lane: _Lane) -> list[list[Reading] | Undecodable]:
    try:
        return lane.decode(lane.profile, lane.messages)
    except Exception:
        # A decoder that trips over one device's bytes is a bug, but the others' readings must not wait for its mending.
        _log.exception("the decoder of profile %s failed", lane.profile.name if lane.profile is not None else "none")
    results: list[list[Reading] | Undecodable] = []
    for message in lane.messages:
        try:
            results += lane.decode(lane.profile, [message])
        except Exception as error:  # as above: this message's bytes are kept as a dead letter
            results.append(Undecodable(f"the decoder failed: {error!r:.200}"))
    return results


def _refuse_swollen(lane: _Lane, results: list[list[Reading] | Undecodable], node_bytes: int) -> None:
    """Each reading repeats its device's name as its key: a long topic over a long array would fill the memory."""
    for index, result in enumerate(results):
        if type(result) is list and len(result) > 1:
            topic, payload = lane.messages[index]
            bytes_max = max(_MESSAGE_KEYS_BYTES, _MESSAGE_KEYS_FACTOR * (len(topic) + len(payload)))
            if sum([len(reading.device) for reading in result]) + node_bytes * len(result) > bytes_max:
                results[index] = Undecodable(
                    f"{len(result)} readings whose keys weigh more than {bytes_max} bytes: use a shorter topic",
                    decoder="ingest",
                )


def add_header(records: list[Record], name: str, value: bytes) -> None:
    """Put one more header on the last record."""
    records[-1] = _with_headers(records[-1], encode_headers([(name, value)]))


def _with_headers(record: Record, headers: bytes) -> Record:
    timestamp_ms, key, value, own = record
    if own != NO_HEADERS:
        headers = encode_headers(decode_headers(own) + decode_headers(headers))
    return timestamp_ms, key, value, headers


def _hw_m_headers(value: bytes) -> bytes:
    """`encode_headers([("hw-m", value)])`, in one step for the usual length: a zigzag varint of one byte."""
    size = len(value)
    return b"\x02\x08hw-m%c%b" % (size << 1, value) if size < 64 else encode_headers([("hw-m", value)])


def _encode(fields: list[dict[str, Any]]) -> list[bytes]:
    # JSON text holds no raw newline, so the lines are the values
    return _encoder.encode_lines(fields).split(b"\n")[:-1]


def _encodable(
    results: list[list[Reading] | Undecodable],
) -> tuple[list[list[Reading] | Undecodable], list[bytes]]:
    """Something in the group is no JSON (a decoder's slip): only its own message goes to the dead letters."""
    kept: list[list[Reading] | Undecodable] = []
    values: list[bytes] = []
    for result in results:
        if isinstance(result, list):
            try:
                values += [_encoder.encode(reading.fields) for reading in result]
            except (ValueError, TypeError, OverflowError) as error:
                result = Undecodable(f"its fields cannot be stored: {error}")
        kept.append(result)
    return kept, values


def _dead_letter(entry: Entry, topic: str, payload: bytes, own: bytes, error: Undecodable) -> Record:
    headers: list[tuple[str, bytes | None]] = [
        ("reason", error.reason.encode("utf-8", "replace")),
        ("decoder", error.decoder.encode()),
        ("source", entry.source.id.encode()),
        ("time", b"%d" % entry.arrival_ms),
        ("topic", topic.encode()),
    ]
    return entry.arrival_ms, entry.source.key, payload, encode_headers([*headers, *decode_headers(own)])
