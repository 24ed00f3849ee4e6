"""Sources whose decoder is a user's own code: logged as they came, decoded elsewhere, stored here.

Such a message is acknowledged as a record of topic `raw`. The work process decodes it (`headwater.app.decoders`) and
hands back what became of it, an `Outcome` each; those go through the same pipeline as any reading, so natural keys,
event times, limits, deadbands and marks are this process's alone, and no code of a user's runs here.

Exactly once: the last record that came of a raw message, and its dead letter, carry

    hw-raw    <profile>/<offset in raw>/<first offset of its batch>

A decoder's batches come one after the other, each only when the one before is on disk. So whatever lies below the
highest first offset that is found is settled, and above it the offsets that are found are: `Progress`. Sans-IO.

Marks: a raw source has a mark of its own, `raw:<source id>`. Its newest time is that of its decoded readings, and
while one of its messages waits to be decoded it is not idle and holds T; for `skew_max_ms` at most, like any source
that is behind.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from devices.profiles import Profile
from gateway.ingest.marks import MarkMaker, MarkSource
from gateway.ingest.messages import Messages
from gateway.ingest.outcome import Outcome
from gateway.ingest.replays import REPLAY_HEADER
from gateway.ingest.sources import Done, Entry, Source, Sources
from gateway.log.records import Record, decode_headers, encode_headers
from headwater.clock import Clock

RAW_TOPIC = "raw"
RAW_HEADER = "hw-raw"
MARK_PREFIX = "raw:"
OUTCOMES_MAX = 2_000
"""How many messages one batch of a decoder may settle."""
_MARKS_MAX = 10_000
_VALUE = re.compile(rb"([A-Za-z0-9._-]{1,64})/([0-9]{1,16})/([0-9]{1,16})")


def with_decoder(profiles: Iterable[Profile]) -> list[Profile]:
    """Those that have a user's own decoder, one of each name: ports may have set another device in theirs."""
    return list({profile.name: profile for profile in profiles if profile.decoder}.values())


class Progress:
    """How far one decoder is: everything below `start` is settled, and of what is above it the offsets `found`."""

    __slots__ = ("found", "start")

    def __init__(self) -> None:
        self.start = 0
        self.found: set[int] = set()

    def learn(self, offset: int, first: int) -> None:
        """A record was found that came of the message at `offset`, in a batch that began at `first`."""
        if first > self.start:
            self.settled(first)
        if offset >= self.start:
            self.found.add(offset)

    def settled(self, offset: int) -> None:
        """Everything below an offset is settled."""
        if offset > self.start:
            self.start = offset
            self.found = {one for one in self.found if one >= offset}


class RawSources:
    """What waits to be decoded, by decoder and by source."""

    def __init__(self, profiles: Iterable[Profile], marks: MarkMaker, node: str) -> None:
        self.profiles = {profile.name: profile for profile in with_decoder(profiles)}
        self.progress = {name: Progress() for name in self.profiles}
        self._marks = marks
        self._node = node
        self._waiting: dict[str, dict[str, tuple[MarkSource, int]]] = {name: {} for name in self.profiles}
        self._table: Sources | None = None
        self._sources: dict[str, Source] = {}  # for decoded readings, by source id

    def bind(self, table: Sources) -> None:
        """The node's sources, once they are known."""
        self._table = table
        for waiting in self._waiting.values():
            for source_id, (mark, _) in waiting.items():
                if (row := table.rows.get(source_id)) is not None:
                    row.raw_mark = mark

    # --- learning from the log's tail

    def learn(self, value: bytes) -> None:
        """The value of an `hw-raw` header, oldest first."""
        if (found := _VALUE.fullmatch(value)) is not None:
            name, offset, first = found[1].decode(), int(found[2]), int(found[3])
            if name in self.progress and first <= offset:
                self.progress[name].learn(offset, first)

    def waits(self, key: bytes | None, headers: dict[str, bytes], offset: int) -> None:
        """A record of topic `raw` from an earlier run: its source holds T unless it is known to be settled."""
        name = headers.get("profile", b"").decode("utf-8", "replace")
        source_id = (key or b"").decode("utf-8", "replace").partition("/")[2]
        progress = self.progress.get(name)
        if progress is None or not source_id or offset < progress.start or offset in progress.found:
            return
        mark = self._mark(source_id)
        self._marks.waits(mark, self._marks.started_ms)
        self._put(name, source_id, mark, offset)

    # --- messages that were taken in

    def taken(self, source: Source, now_ms: float) -> None:
        """A commit group holds raw messages of a source: before its mark is made."""
        row = source.row
        if row.raw_mark is None:
            row.raw_mark = self._mark(row.id)
            self._marks.connected(row.raw_mark)
        self._marks.waits(row.raw_mark, now_ms)

    def logged(self, taken: Sequence[tuple[str, Source]], next_offset: int) -> None:
        """That group was appended: its messages are below `next_offset`."""
        for name, source in taken:
            if (mark := source.row.raw_mark) is not None:
                self._put(name, source.row.id, mark, next_offset - 1)

    def lost(self, end: int) -> None:
        """The disk lost what was appended from offset `end` on."""
        for waiting in self._waiting.values():
            for source_id, (mark, last) in list(waiting.items()):
                waiting[source_id] = (mark, min(last, end - 1))
        for name, progress in self.progress.items():
            self._pop(name, progress.start)

    def _put(self, name: str, source_id: str, mark: MarkSource, last: int) -> None:
        waiting = self._waiting[name]
        waiting.pop(source_id, None)  # the order is that of the offsets
        if len(waiting) >= _MARKS_MAX:
            oldest = next(iter(waiting))
            self._release(oldest, waiting.pop(oldest)[0])
        waiting[source_id] = (mark, last)

    def _mark(self, source_id: str) -> MarkSource:
        return self._marks.source(MARK_PREFIX + source_id)

    # --- outcomes that come back

    def entries(self, profile: Profile, outcomes: Sequence[Outcome], first: int, done: Done) -> list[Entry]:
        """One entry for each run of a source and arrival; `done` is the last one's."""
        sources = {one.source: self._source(one.source, profile) for one in outcomes}
        headers = [raw_header(profile.name, one.offset, first) for one in outcomes]
        return _entries(sources, outcomes, headers, done)

    def replayed(self, profile: Profile | None, outcomes: Sequence[Outcome], done: Done) -> list[Entry]:
        """As `entries`, of dead letters: they count in their sources' rows, and marks know nothing of them."""
        assert self._table is not None  # noqa: S101 - bound at once
        sources: dict[str, Source] = {}
        for source_id in {one.source for one in outcomes}:
            row = self._table.row(source_id, source_id.partition(":")[0])
            sources[source_id] = source = Source(source_id, row.kind, MarkSource(source_id), self._node, row)
            source.profile = profile
        headers = [encode_headers([(REPLAY_HEADER, b"%d" % one.offset)]) for one in outcomes]
        entries = _entries(sources, outcomes, headers, done)
        for entry in entries:
            entry.replayed = True
        return entries

    def _source(self, source_id: str, profile: Profile) -> Source:
        """A source of its own: it counts in the row that `status` shows, and its marks are its own."""
        source = self._sources.get(source_id)
        if source is None:
            assert self._table is not None  # noqa: S101 - bound at once
            if len(self._sources) >= _MARKS_MAX:
                self._sources.clear()
            row = self._table.row(source_id, source_id.partition(":")[0])
            if row.raw_mark is None:
                row.raw_mark = self._mark(source_id)
            source = self._sources[source_id] = Source(source_id, row.kind, row.raw_mark, self._node, row)
        source.profile = profile
        return source

    def settled(self, name: str, next_offset: int, *, clock: Clock, arrival_ms: int | None) -> None:
        """Everything of a decoder below `next_offset` is on disk, decoded; `arrival_ms` is the newest one's arrival."""
        self.progress[name].settled(next_offset)
        self._pop(name, next_offset)
        waiting = self._waiting[name]
        if arrival_ms is not None and waiting:
            since_ms = clock.monotonic_ms() - max(0, clock.wall_ms() - arrival_ms)  # what still waits came after that
            for mark, _ in waiting.values():
                if mark.waits_since_ms is not None and mark.waits_since_ms < since_ms:
                    mark.waits_since_ms = since_ms

    def _pop(self, name: str, next_offset: int) -> None:
        waiting = self._waiting[name]
        while waiting:
            source_id = next(iter(waiting))
            mark, last = waiting[source_id]
            if last >= next_offset:
                break
            del waiting[source_id]
            self._release(source_id, mark)

    def _release(self, source_id: str, mark: MarkSource) -> None:
        if not any(source_id in waiting for waiting in self._waiting.values()):
            self._marks.waits(mark, None)

    def decoded_below(self, end: int) -> int:
        """The offset of topic `raw`, which ends at `end`, below which nothing waits to be decoded any more."""
        return min([self.progress[name].start for name, waiting in self._waiting.items() if waiting], default=end)


def raw_header(name: str, offset: int, first: int) -> bytes:
    """The encoded header section of what came of a raw message."""
    return encode_headers([(RAW_HEADER, f"{name}/{offset}/{first}".encode())])


def raw_record(profile: Profile, source: Source, arrival_ms: int, topic: str, payload: bytes, own: bytes) -> Record:
    """A message as topic `raw` keeps it; `own` is its `hw-m` section."""
    headers: list[tuple[str, bytes | None]] = [("topic", topic.encode()), ("profile", profile.name.encode())]
    if profile.device is not None:
        headers.append(("device", profile.device.encode()))
    return arrival_ms, source.key, payload, encode_headers([*headers, *decode_headers(own)])


def _entries(
    sources: Mapping[str, Source], outcomes: Sequence[Outcome], headers: Sequence[bytes], done: Done
) -> list[Entry]:
    entries: list[Entry] = []
    at = 0
    for run in _runs(outcomes):
        size_bytes = sum([len(one.payload) for one in run]) + 256 * sum([len(one.readings) or 1 for one in run])
        entry = Entry(sources[run[0].source], Messages(), _nothing, run[0].arrival_ms, size_bytes)
        entry.outcomes = list(zip(run, headers[at : at + len(run)], strict=True))
        at += len(run)
        entries.append(entry)
    if entries:
        entries[-1].done = done
    return entries


def _runs(outcomes: Sequence[Outcome]) -> Iterator[Sequence[Outcome]]:
    start = 0
    for index in range(1, len(outcomes) + 1):
        here, last = outcomes[start], index == len(outcomes)
        if last or (outcomes[index].source, outcomes[index].arrival_ms) != (here.source, here.arrival_ms):
            yield outcomes[start:index]
            start = index


def _nothing(stored: bool) -> None:  # noqa: FBT001 - as every `done`
    """An entry that is not the last of its batch has nobody to tell."""
