"""The messages of a commit group that one profile decodes, by columns, and what decoding makes of them. Sans-IO."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import msgspec

from devices.decoders.json_plain import PlainJson, PlainReadings
from devices.decoders.registry import DecodeGroup, decoder_for, plain_decoder_for
from devices.limits import Limits
from devices.profiles import EVENT_TIME_PAST_MAX_MS, Profile
from devices.reading import Reading, Undecodable, resolve
from devices.reporting import Reporter
from gateway.ingest.sources import Entry
from gateway.ingest.uses import Uses
from gateway.log.records import NO_HEADERS

_log = logging.getLogger("headwater.ingest")

# what the keys of one message's readings may weigh: so much, or so many times the message
_MESSAGE_KEYS_BYTES = 256 << 10
_MESSAGE_KEYS_FACTOR = 64
_RUN_MAX = 512  # messages: one header speaks of all of them
_encoder = msgspec.json.Encoder()

Results = list[list[Reading] | Undecodable]


class Run(msgspec.Struct):
    """Messages of one entry in a lane: its columns from `start` to `stop`, with what recognises them after a crash.

    `own`: an entry that was decoded elsewhere brings header sections of its own. `topic`: where it is one for all.
    """

    entry: Entry
    start: int
    stop: int
    uses: Uses | None
    own: list[bytes] | None = None
    topic: str | None = None

    def sections(self) -> list[bytes]:
        """A header section for each message."""
        if self.own is not None:
            return self.own
        return self.uses.each() if self.uses is not None else [NO_HEADERS] * (self.stop - self.start)


class Lane:
    """What a profile needs to be decoded, and the group's messages for it."""

    __slots__ = (
        "counts_from_arrival",
        "decode",
        "idle_ms",
        "limits",
        "past_max_ms",
        "payloads",
        "plain",
        "profile",
        "raw",
        "reporter",
        "results",
        "runs",
        "topic_keys",
        "topics",
    )

    def __init__(self, profile: Profile | None) -> None:
        self.profile = profile
        self.decode: DecodeGroup = decoder_for(profile.format if profile is not None else "json")
        self.counts_from_arrival = profile is not None and profile.format.startswith("senml")
        self.past_max_ms = profile.event_time_past_max_ms if profile is not None else EVENT_TIME_PAST_MAX_MS
        self.idle_ms = profile.idle_ms if profile is not None else None
        self.limits = Limits(profile)
        self.reporter = Reporter(profile)
        looks_at_fields = self.limits or self.reporter
        self.plain: PlainJson | None = plain_decoder_for(profile) if not looks_at_fields else None
        self.topic_keys: dict[str, bytes] = {}  # the key of plain messages, by their topic
        self.raw: Profile | None = None  # the profile of a lane whose messages are logged as they came
        self.results: Results | None = None  # of a lane that was decoded elsewhere
        self.clear()

    def clear(self) -> None:
        self.runs: list[Run] = []
        self.topics: list[str] = []
        self.payloads: list[bytes] = []
        if self.results is not None:
            self.results = []

    def add(
        self,
        entry: Entry,
        topics: Sequence[str],
        payloads: Sequence[bytes],
        uses: Uses | None,
        own: list[bytes] | None = None,
        topic: str | None = None,
    ) -> None:
        """One entry's messages, in order; `topic` where it is known to be one for all."""
        start = len(self.topics)
        self.topics += topics
        self.payloads += payloads
        stop = start + len(topics)
        if uses is None or len(topics) <= _RUN_MAX:
            self.runs.append(Run(entry, start, stop, uses, own, topic))
            return
        for first in range(0, len(topics), _RUN_MAX):
            last = min(first + _RUN_MAX, len(topics))
            self.runs.append(Run(entry, start + first, start + last, uses.part(first, last), None, topic))

    def decode_plain(self) -> PlainReadings | None:
        """All messages by columns, or None when some message needs another way."""
        if self.plain is None or self.results is not None:
            return None
        try:
            return self.plain.decode(self.payloads)
        except Exception:  # as in `decode_some`, which goes on with each message alone
            self._log_failure()
            return None

    def decode_some(self, start: int, stop: int) -> Results:
        """A result for each message from `start` to `stop`, where runs begin and end."""
        results = self._decoded(start, stop)
        if self.counts_from_arrival:
            for run in self.runs:
                if start <= run.start < stop:
                    sent_ms = None if run.entry.messages.copies else run.entry.arrival_ms
                    resolve(results[run.start - start : run.stop - start], sent_ms)
        return results

    def _decoded(self, start: int, stop: int) -> Results:
        if self.results is not None:
            return self.results[start:stop]
        messages = list(zip(self.topics[start:stop], self.payloads[start:stop], strict=True))
        try:
            return self.decode(self.profile, messages)
        except Exception:
            # A decoder that trips over one device's bytes is a bug, but the others' readings must not wait for its
            # mending.
            self._log_failure()
        results: Results = []
        for message in messages:
            try:
                results += self.decode(self.profile, [message])
            except Exception as error:  # as above: this message's bytes are kept as a dead letter
                results.append(Undecodable(f"the decoder failed: {error!r:.200}"))
        return results

    def _log_failure(self) -> None:
        _log.exception("the decoder of profile %s failed", self.profile.name if self.profile is not None else "none")

    def note_silent(self, results: Results, start: int) -> int:
        """How many messages say nothing that their profile wants: their sources were heard, and nothing is stored."""
        if self.results is not None or [] not in results:
            return 0
        for run in self.runs:
            if start <= run.start < start + len(results):
                run.entry.suppressed += results[run.start - start : run.stop - start].count([])
        return results.count([])

    def refuse_swollen(self, results: Results, start: int, node_bytes: int) -> None:
        """Each reading repeats its device's name as its key, and what stands beside an array: that fills the memory."""
        for index, result in enumerate(results):
            if type(result) is list and len(result) > 1:
                size_bytes = len(self.topics[start + index]) + len(self.payloads[start + index])
                bytes_max = max(_MESSAGE_KEYS_BYTES, _MESSAGE_KEYS_FACTOR * size_bytes)
                if sum([len(reading.device) for reading in result]) + node_bytes * len(result) > bytes_max:
                    results[index] = Undecodable(
                        f"{len(result)} readings whose keys weigh more than {bytes_max} bytes: use a shorter topic",
                        decoder="ingest",
                    )
                # so many at least it takes, for no reading has more text than its message; any of them may have its own
                elif len(result) > _MESSAGE_KEYS_FACTOR and sum(map(_text_chars, result)) > bytes_max:
                    results[index] = Undecodable(
                        f"{len(result)} readings that repeat a text: together more than {bytes_max} bytes",
                        decoder="ingest",
                    )


def _text_chars(reading: Reading) -> int:
    return sum([len(value) for value in reading.fields.values() if type(value) is str])


def encode_fields(fields: Sequence[Any]) -> list[bytes]:
    """The values to store, one a reading. Raises `ValueError`, `TypeError` or `OverflowError` for what is no JSON."""
    # JSON text holds no raw newline, so the lines are the values
    return _encoder.encode_lines(fields).split(b"\n")[:-1]


def encode_results(results: Results) -> list[bytes]:
    """The values of all readings, in order; a message whose fields are no JSON becomes a dead letter in `results`."""
    try:
        # decoders give one reading per message as a rule; a nested loop costs little then
        return encode_fields([reading.fields for result in results if type(result) is list for reading in result])
    except (ValueError, TypeError, OverflowError):
        values: list[bytes] = []
    for index, result in enumerate(results):
        if type(result) is list:
            try:
                values += [_encoder.encode(reading.fields) for reading in result]
            except (ValueError, TypeError, OverflowError) as error:
                results[index] = Undecodable(f"its fields cannot be stored: {error}")
    return values
