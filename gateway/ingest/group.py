"""One commit group: messages of many sources become one batch of readings and one of dead letters. Sans-IO.

Everything is done by columns over the whole group: repeats, then one decode per profile, then one JSON encode per
profile, then times and headers. The usual messages (`devices.decoders.json_plain`) stay columns to the end, an entry at
a time; a group that holds any other goes reading by reading.
"""

from __future__ import annotations

import zlib
from bisect import bisect_right
from collections.abc import Sequence
from itertools import repeat
from operator import attrgetter

from devices.decoders.json_plain import PlainReadings
from devices.profiles import Profile
from devices.reading import Undecodable, is_reserved, refuse_reserved
from devices.topics import TopicMatcher
from gateway.ingest.counts import Counts
from gateway.ingest.devices import Devices, Met
from gateway.ingest.eventtime import FUTURE_MAX_MS
from gateway.ingest.lanes import Lane, Results, Run, encode_fields, encode_results
from gateway.ingest.messages import Message
from gateway.ingest.mqtt.state import DUP, HELD, REFUSED
from gateway.ingest.outcome import Outcome
from gateway.ingest.raw import raw_record
from gateway.ingest.repeats import NaturalMemory, companion
from gateway.ingest.sections import add_header, dead_letter, joined
from gateway.ingest.sources import Entry, Source
from gateway.ingest.uses import note_uses
from gateway.log.records import NO_HEADERS, Record, encode_headers
from gateway.log.rows import Rows

_ROUTES_MAX = 16_384
_KEYS_MAX = 16_384
_START = attrgetter("start")

# where a topic's messages go, and the CRC-32 of topic and NUL, with which their own begins
_Route = tuple[Lane, int]


class GroupBuilder:
    """Turns entries into records. Keeps what outlives a group: routes by topic, natural keys, counts."""

    def __init__(
        self, node: str, profiles: Sequence[Profile], natural: NaturalMemory, devices: Devices | None = None
    ) -> None:
        self.counts = Counts()
        self.live_ms = 0  # the last mark's T: what is below it is late
        self.raw: list[Record] = []  # of the group that was built last, for topic `raw`
        self.raw_from: list[tuple[str, Source]] = []  # whose they are: (profile, source)
        self.met: list[Met] = []  # devices of that group which may be new
        self._screen = devices.screen if devices is not None and devices.is_strict else None
        self._node = node
        self._natural = natural
        self._matcher = TopicMatcher(profiles)
        self._lanes: dict[int, Lane] = {}
        self._routes: dict[str, _Route] = {}
        self._keys: dict[str, bytes] = {}

    def build(self, entries: list[Entry]) -> tuple[Rows, list[Record]]:
        """(readings, records of dead letters); fills in each entry's `newest_ms` and `readings`."""
        rows = Rows()
        dead: list[Record] = []
        self.raw, self.raw_from, self.met = [], [], []
        try:
            for entry in entries:
                if entry.outcomes is not None:
                    self.counts.received += len(entry.messages)  # what was logged as raw was counted then
                    self._sort_in_outcomes(entry, entry.outcomes)
                elif entry.messages.payloads:
                    self._sort_in(entry)
            for lane in self._lanes.values():
                if lane.runs:
                    self._lane_records(lane, rows, dead)
        finally:  # also of a group that was given up: its messages are no part of the next
            for lane in self._lanes.values():
                lane.clear()
        self.counts.stored += len(rows)
        self.counts.dead_letters += len(dead)
        self.counts.raw += len(self.raw)
        return rows, dead

    # --- who decodes what

    def _sort_in(self, entry: Entry) -> None:
        """Each message to its lane, repeats by packet identifier left out."""
        messages, source = entry.messages, entry.source
        self.counts.received += len(messages.payloads)
        is_noted = messages.any_flags >= DUP
        if is_noted:  # something among them is to be looked at one by one
            messages = messages.where(lambda message: self._is_new(source, message))
            if not messages:
                return
        topics, payloads = messages.topics, messages.payloads
        if (topic := messages.topic) is not None:  # as nearly always
            lane, start = self._routes.get(topic) or self._route(topic)
            uses = note_uses(source, messages, repeat(start), is_noted=is_noted)
            lane = lane if source.profile is None else self._lane(source.profile)
            lane.add(entry, topics, payloads, uses, None, topic)
            return
        routes = [self._routes.get(topic) or self._route(topic) for topic in topics]
        uses = note_uses(source, messages, [start for _, start in routes], is_noted=is_noted)
        lanes = [lane if source.profile is None else self._lane(source.profile) for lane, _ in routes]
        if lanes.count(lanes[0]) == len(lanes):
            lanes[0].add(entry, topics, payloads, uses)
            return
        for lane in dict.fromkeys(lanes):
            mine = [index for index, other in enumerate(lanes) if other is lane]
            lane.add(
                entry,
                [topics[index] for index in mine],
                [payloads[index] for index in mine],
                uses.of(mine) if uses is not None else None,
            )

    def _is_new(self, source: Source, message: Message) -> bool:
        """Whether to store it; then it is noted as its packet identifier's latest use."""
        topic, payload, packet_id, flags = message
        if flags & REFUSED:
            self.counts.refused += 1
            return False
        if flags & HELD:
            self.counts.dup_repeats += 1
            return False
        if source.memory is not None and packet_id:
            crc = zlib.crc32(payload, self._route(topic)[1])
            if flags & DUP and source.memory.is_repeat(packet_id, crc):
                self.counts.dup_repeats += 1
                return False
            source.memory.use(packet_id, crc)
        return True

    def replayed(self, profile: Profile | None, count: int) -> None:
        """So many dead letters were decoded by a profile that was read for them alone."""
        self._lanes.pop(~id(profile), None)
        self.counts.replayed += count

    def _sort_in_outcomes(self, entry: Entry, outcomes: list[tuple[Outcome, bytes]]) -> None:
        """What was decoded elsewhere, to the lane of its profile that only has to store it."""
        profile = entry.source.profile
        lane = self._lanes.get(~id(profile))
        if lane is None:
            lane = self._lanes[~id(profile)] = Lane(profile)
        if lane.results is None:
            lane.results = []
        nothing = sum([not outcome.readings and not outcome.reason for outcome, _ in outcomes])
        entry.suppressed += nothing  # the decoder found nothing worth saying
        self.counts.suppressed += nothing
        lane.results += [outcome.result() for outcome, _ in outcomes]
        lane.add(
            entry,
            [outcome.topic for outcome, _ in outcomes],
            [outcome.payload for outcome, _ in outcomes],
            None,
            [section for _, section in outcomes],
        )

    def _lane(self, profile: Profile | None) -> Lane:
        lane = self._lanes.get(id(profile))
        if lane is None:
            lane = self._lanes[id(profile)] = Lane(profile)
            lane.raw = profile if profile is not None and profile.decoder else None
        return lane

    def _route(self, topic: str) -> _Route:
        if (route := self._routes.get(topic)) is not None:
            return route
        if len(self._routes) >= _ROUTES_MAX:
            self._routes.clear()
        profile, _ = self._matcher.match(topic)
        route = self._routes[topic] = (self._lane(profile), zlib.crc32(topic.encode() + b"\0"))
        return route

    def _key(self, device: str, profile: Profile | None) -> bytes:
        key = self._keys.get(device)
        if key is None:
            if len(self._keys) >= _KEYS_MAX:
                self._keys.clear()
            key = self._keys[device] = f"{self._node}/{device}".encode()
            self.met.append((device, profile))
        return key

    # --- records

    def _lane_records(self, lane: Lane, rows: Rows, dead: list[Record]) -> None:
        if lane.raw is not None:
            self._raw_records(lane, lane.raw)
        elif (
            self._screen
            or any(run.entry.messages.copies for run in lane.runs)
            or (plain := lane.decode_plain()) is None
            or not self._plain_records(lane, plain, rows, dead)
        ):
            self._any_records(lane, lane.runs, rows, dead)

    def _raw_records(self, lane: Lane, profile: Profile) -> None:
        for run in lane.runs:
            if run.entry.messages.copies:  # decoded later, they would pass for new
                self.counts.undated_copies += run.stop - run.start
                continue
            entry, here = run.entry, slice(run.start, run.stop)
            self.raw_from.append((profile.name, entry.source))
            self.raw += [
                raw_record(profile, entry.source, entry.arrival_ms, *message)
                for message in zip(lane.topics[here], lane.payloads[here], run.sections(), strict=True)
            ]

    def _plain_records(self, lane: Lane, plain: PlainReadings, rows: Rows, dead: list[Record]) -> bool:
        """The usual way, an entry at a time; False for a group that cannot go it, of which nothing is taken."""
        try:
            values = encode_fields(plain.fields)
        except (ValueError, TypeError, OverflowError):
            return False
        if b"{}" in values:
            return False
        known = lane.topic_keys
        keys: list[bytes] = []
        try:
            for run in lane.runs:
                here = slice(run.start, run.stop)
                if (topic := run.topic) is not None:
                    keys += [known.get(topic) or self._topic_key(lane, topic)] * (run.stop - run.start)
                else:
                    keys += [known.get(each) or self._topic_key(lane, each) for each in lane.topics[here]]
        except Undecodable:
            return False
        arrivals = [run.entry.arrival_ms for run in lane.runs]
        earliest_ms, latest_ms = max(0, max(arrivals) - lane.past_max_ms), min(arrivals) + FUTURE_MAX_MS
        if plain.claims is None or (min(plain.claims) >= earliest_ms and max(plain.claims) <= latest_ms):
            self._plain_runs(lane, lane.runs, plain, keys, values, rows)
            return True
        for run in lane.runs:  # somebody's clock is off
            times = (plain.claims or ())[run.start : run.stop]
            past_ms, future_ms = run.entry.arrival_ms - lane.past_max_ms, run.entry.arrival_ms + FUTURE_MAX_MS
            if min(times) >= max(0, past_ms) and max(times) <= future_ms:
                self._plain_runs(lane, [run], plain, keys, values, rows)
            else:
                self._any_records(lane, [run], rows, dead)
        return True

    def _topic_key(self, lane: Lane, topic: str) -> bytes:
        if len(lane.topic_keys) >= _KEYS_MAX:
            lane.topic_keys.clear()
        device = lane.plain.device(topic) if lane.plain is not None else topic
        if is_reserved(device):
            raise Undecodable("told for each message")
        key = lane.topic_keys[topic] = self._key(device, lane.profile)
        return key

    def _plain_runs(
        self, lane: Lane, runs: Sequence[Run], plain: PlainReadings, keys: list[bytes], values: list[bytes], rows: Rows
    ) -> None:
        """Neighbouring runs whose times can be trusted; `keys` and `values` are the lane's."""
        whole = slice(runs[0].start, runs[-1].stop)
        keys, values = keys[whole], values[whole]
        if plain.claims is None:
            times = [run.entry.arrival_ms for run in runs for _ in range(run.start, run.stop)]
        else:
            times = plain.claims[whole]
        stop = 0
        counts = [run.stop - run.start for run in runs]
        if plain.naturals is not None:
            companions = times if plain.claims is not None else [companion(None, value) for value in values]
            repeats = self._natural.repeats(keys, plain.naturals[whole], companions)
            self.counts.natural_repeats += len(repeats)
            for index in reversed(repeats):
                del times[index], keys[index], values[index]
                counts[bisect_right(runs, index + whole.start, key=_START) - 1] -= 1
        sections: list[bytes] = []
        for run, count in zip(runs, counts, strict=True):
            if count:
                sections += [NO_HEADERS] * (count - 1)
                sections.append(run.uses.together() if run.uses is not None else NO_HEADERS)
        rows.extend(times, keys, values, sections)
        if times and min(times) < self.live_ms:
            self.counts.late += sum([time_ms < self.live_ms for time_ms in times])
        for run, count in zip(runs, counts, strict=True):
            entry = run.entry
            start, stop = stop, stop + count
            newest_ms = entry.newest_ms
            if count:
                newest_ms = max(times[start:stop]) if newest_ms is None else max(newest_ms, *times[start:stop])
                entry.source.untrusted = False
            self._note(lane, entry, newest_ms, count)

    def _any_records(self, lane: Lane, runs: Sequence[Run], rows: Rows, dead: list[Record]) -> None:
        """Neighbouring runs of a lane, reading by reading."""
        base = runs[0].start
        results = lane.decode_some(base, runs[-1].stop)
        self.counts.suppressed += lane.note_silent(results, base)
        refuse_reserved(results)
        lane.refuse_swollen(results, base, len(self._node) + 1)
        if self._screen and not runs[0].entry.replayed:  # who replays has asked, by the node's file as it is now
            self._screen(results)
        if lane.reporter:
            for run in runs:
                if not run.entry.messages.copies:
                    self._suppress(lane, run, results, base)
        values = encode_results(results)
        taken = 0
        for run in runs:
            taken = self._run_records(lane, run, results[run.start - base : run.stop - base], values, taken, rows, dead)

    def _run_records(
        self,
        lane: Lane,
        run: Run,
        results: Results,
        values: list[bytes],
        taken: int,
        rows: Rows,
        dead: list[Record],
    ) -> int:
        """The records of one entry's messages, a message's `hw-m` on its last; returns how far `values` is used up."""
        entry, own = run.entry, run.sections()
        arrival_ms, newest_ms = entry.arrival_ms, entry.newest_ms
        earliest_ms, latest_ms = arrival_ms - lane.past_max_ms, arrival_ms + FUTURE_MAX_MS
        keys, is_repeat, limits = self._keys, self._natural.is_repeat, lane.limits
        before = len(rows)
        for index, result in enumerate(results):
            if isinstance(result, Undecodable):
                dead.append(dead_letter(entry, lane, run.start + index, own[index], result))
                continue
            first = len(rows)
            for device, fields, claim_ms, natural_key in result:
                value = values[taken]
                taken += 1
                if entry.messages.copies and (claim_ms is None or not earliest_ms <= claim_ms <= latest_ms):
                    self.counts.undated_copies += 1
                    continue
                key = keys.get(device) or self._key(device, lane.profile)
                if natural_key is not None and is_repeat(key, natural_key, companion(claim_ms, value)):
                    self.counts.natural_repeats += 1
                    continue
                time_ms = arrival_ms if claim_ms is None else claim_ms
                if claim_ms is None or earliest_ms <= claim_ms <= latest_ms:
                    rows.add(time_ms, key, value, NO_HEADERS)
                    if newest_ms is None or time_ms > newest_ms:
                        newest_ms = time_ms
                    entry.source.untrusted = False
                else:  # a claimed time that cannot be: kept beside the record
                    time_ms = arrival_ms
                    rows.add(time_ms, key, value, encode_headers([("hw-t", b"%d" % claim_ms)]))
                    self.counts.untrusted_times += 1
                    entry.source.untrusted = True
                self.counts.late += time_ms < self.live_ms
                quality = limits.quality(fields) if limits else ""
                if entry.messages.copies:
                    quality = f"retained,{quality}" if quality else "retained"
                if quality:
                    add_header(rows, "hw-q", quality.encode())
            if len(rows) > first:
                rows.headers[-1] = joined(rows.headers[-1], own[index])
        self._note(lane, entry, newest_ms, len(rows) - before)
        return taken

    def _suppress(self, lane: Lane, run: Run, results: Results, base: int) -> None:
        """Report by exception: what says nothing new is counted and taken out; its source was heard all the same."""
        entry = run.entry
        earliest_ms, latest_ms = entry.arrival_ms - lane.past_max_ms, entry.arrival_ms + FUTURE_MAX_MS
        for index in range(run.start - base, run.stop - base):
            result = results[index]
            if not isinstance(result, list):
                continue
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

    def forget_devices(self) -> None:
        """Each device is met anew with its next reading."""
        self._keys.clear()
        for lane in self._lanes.values():
            lane.topic_keys.clear()

    def forget_reports(self) -> None:
        """The disk lost a group: what was taken for stored may not be, nor what its readings said of their devices."""
        self.forget_devices()
        for lane in self._lanes.values():
            lane.reporter.forget_all()

    def _note(self, lane: Lane, entry: Entry, newest_ms: int | None, stored: int) -> None:
        entry.newest_ms = newest_ms
        entry.readings += stored
        if stored or entry.suppressed:
            mark = entry.source.mark
            if lane.idle_ms is not None and (mark.idle_ms is None or mark.idle_ms < lane.idle_ms):
                mark.idle_ms = lane.idle_ms  # of several profiles the most patient: which spoke last says nothing
            mark.recorded = lane.profile is not None and lane.profile.recorded
