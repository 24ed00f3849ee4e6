"""Windows computed anew from the log, held against what stands in topic `aggregates`. Sans-IO.

Only windows that the processors have done with are revised: they end beyond the allowed lateness, or began before the
rule did. So no number of a revision is given twice, and doing it again changes nothing: what was written then stands.
Windows over groups are put together from all partitions, one after the other: their sums may differ from what stands in
the last digits, which is no difference.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import msgspec

from gateway.consume.reader import Block
from gateway.ingest.eventtime import FUTURE_MAX_MS
from gateway.log.records import Record, decode_headers, encode_headers
from headwater.errors import UNREADABLE, PeerError
from processors.columns import MARK_KEY, marks_of
from processors.facts import HEADER as FACTS
from processors.facts import SAID_EVERY_MS
from processors.marks import NodeMarks, WatermarkTracker
from processors.processor import Output, PartitionProcessor
from processors.repartition import MergedMarks, Relay, group_node, partition_of
from processors.results import EVER, NEVER, ToldResult, WindowResult, aggregate_value
from processors.rules.model import Rules, WindowRule
from processors.windows.admission import any_match

WINDOWS_MAX = 1_000_000
_LATENESS_S = 1e9
_NEAR = 1e-9  # sums of the same numbers in another order
_YEAR_MS = 367 * 86_400_000  # the longest window of a calendar

Verdict = Literal["revised", "open", "owed", "readings expired", "results expired"]
Key = tuple[str, str, int]
"""Rule, group, start."""


class Standing(ToldResult):
    """The latest revision of a window; `partition` is the one of topic `aggregates` that holds it."""

    partition: int = 0


class Finding(NamedTuple):
    """A window that is not what the log says; `record` is what to write (into `partition`) when it may be revised."""

    verdict: Verdict
    rule: str
    group: str
    start: int
    end: int
    partition: int
    readings_before: int | None
    readings: int
    record: Record | None


class _Clock(msgspec.Struct):
    clock: int | None = None


_DECODE_STANDING = msgspec.json.Decoder(Standing)
_DECODE_CLOCK = msgspec.json.Decoder(_Clock)


class Standings:
    """What stands: fed with topic `aggregates` in the order of each of its partitions."""

    def __init__(self) -> None:
        self.latest: dict[Key, Standing] = {}

    def take(self, block: Block) -> None:
        for value in block.values:
            try:
                found = _DECODE_STANDING.decode(value or b"")
            except UNREADABLE:
                continue
            found.partition = block.partition
            self.latest[found.rule, found.group, found.start] = found


class Places(NamedTuple):
    """What is known of where and since when the processors tell windows.

    `begins`: per (rule, partition) since when they have whole windows; `relays`: per rule over groups the partitions of
    its relay topic; `outputs`: how many topic `aggregates` has; `whole`: whether it still has its first record;
    `expired`: partitions whose first records are gone.
    """

    begins: Mapping[tuple[str, int], int]
    relays: Mapping[str, int]
    outputs: int
    whole: bool
    expired: set[int]


class Recomputation:
    """Windows of rules over one topic that begin in [`begin`, `end`) ms. `take` its blocks, then ask for `findings`."""

    def __init__(self, rules: Sequence[WindowRule], topic: str, *, begin: int, end: int) -> None:
        self.rules = {rule.name: rule for rule in rules}
        self.topic = topic
        self.begin, self.end = begin, end
        self.read_from, self.read_until = _span(rules, begin, end)
        self.windows = 0
        grouped = [rule for rule in rules if rule.group_by]
        self._facts = any(rule.needs_facts for rule in rules)
        self._anew = Rules(windows=tuple(map(_patient, rules)))
        self._parts: dict[int, PartitionProcessor] = {}
        self._groups = {
            rule.name: PartitionProcessor(Rules(), rule.name, 0, place="central", group=_patient(rule))
            for rule in grouped
        }
        self._marks: dict[int, WatermarkTracker] = {}
        self._merged = {rule.name: MergedMarks(group_node(rule)) for rule in grouped}
        self._first_clock: dict[str, int] = {}  # node -> its clock at the first mark that is read
        self._first_clocks: dict[int, int] = {}  # partition -> the latest of these

    @property
    def facts(self) -> bool:
        """Whether the windows depend on what was said of devices, perhaps long before."""
        return self._facts

    def take(self, block: Block) -> None:
        """Records of the topic in order; where there are rules over groups, one partition after the other."""
        tracker = self._marks.setdefault(block.partition, WatermarkTracker())
        for at in marks_of(block, b"".join(block.headers)):
            tracker.apply(at.mark, copied=at.copied)
            for name, merged in self._merged.items():
                if any_match(self.rules[name].nodes, at.mark.node):
                    merged.steps(at.mark, copied=True)
            if at.mark.by is None and at.mark.node not in self._first_clock:
                clock = self._first_clock[at.mark.node] = _clock(block.headers[at.row])
                self._first_clocks[block.partition] = max(clock, self._first_clocks.get(block.partition, NEVER))
        # A reading of any time may say what its device is: of the windows that it begins nobody is asked.
        said = [self.facts and FACTS in headers for headers in block.headers]
        chosen = [
            row for row, time in enumerate(block.timestamps) if said[row] or self.read_from <= time < self.read_until
        ]
        if chosen:
            self._relayed(self._part(block.partition).process(_rows_of(block, chosen)))

    def _part(self, partition: int) -> PartitionProcessor:
        part = self._parts.get(partition)
        if part is None:
            relays = [Relay(rule, name, 1) for name, rule in self.rules.items() if rule.group_by]
            part = PartitionProcessor(self._anew, self.topic, partition, place="central", relays=relays)
            self._parts[partition] = part
        return part

    def _relayed(self, outputs: Sequence[Output]) -> None:
        """What the first stage of rules over groups says, for their second one."""
        for name, part in self._groups.items():
            records = [output.record for output in outputs if output.topic == name]
            if records:
                times, keys, values, headers = map(list, zip(*records, strict=True))
                part.process(Block(name, 0, list(range(len(records))), times, keys, values, headers, len(records)))

    @property
    def too_many(self) -> bool:
        """More windows than there is room for: choose a shorter span."""
        return any(part.counters().get("overflow") for part in (*self._parts.values(), *self._groups.values()))

    def findings(self, standing: Mapping[Key, Standing], places: Places) -> list[Finding]:
        """Windows that differ from what stands."""
        found: list[Finding] = []
        left = {key: one for key, one in standing.items() if key[0] in self.rules and self._asked(key[2])}
        for part in (*self._parts.values(), *self._groups.values()):
            for rule, result in part.everything():
                if not self._asked(result.start):
                    continue
                self.windows += 1
                old = left.pop((rule, result.group, result.start), None)
                if old is None or not _same(old, result, near=_NEAR if rule in self._groups else 0.0):
                    found.append(self._judge(rule, result, old, places))
        for (rule, group, start), old in left.items():
            self.windows += 1
            if old.count:
                gone = WindowResult(
                    *(group, start, old.end),
                    revision=0,
                    complete=True,
                    cause="recompute",
                    retro=False,
                    first_complete=False,
                    readings=0,
                    fields={},
                )
                found.append(self._judge(rule, gone, old, places))
        return sorted(found, key=lambda one: (one.start, one.group, one.rule))

    def _asked(self, start: int) -> bool:
        return self.begin <= start < self.end

    def _judge(self, rule: str, result: WindowResult, old: Standing | None, places: Places) -> Finding:
        partition, node = self._place(rule, result.group, places)
        reach = self.rules[rule].gap_ms - 1 if self.rules[rule].kind == "session" else 0
        about = (rule, result.group, result.start, result.end)
        counts = (old.count if old is not None else None, result.readings)

        def left(verdict: Verdict) -> Finding:
            return Finding(verdict, *about, 0, *counts, None)

        if node is None or node.watermark is None:
            return left("open")
        first, last = result.start - reach, max(result.end, old.end if old is not None else 0)
        if any(first <= to and last > since for since, to in node.open):
            return left("owed")
        begin = places.begins.get((rule, partition), NEVER)
        if last > _horizon(self.rules[rule], node.watermark, node.open) and result.start >= begin:
            return left("open")
        if first < self._whole_from(rule, result.group, partition, places.expired):
            return left("readings expired")
        if old is None and not places.whole:
            return left("results expired")
        lost = any(first <= to and last > since for since, to in node.lost)
        lost |= old is not None and old.cause == "lost"
        more = dict(result.more)
        if old is not None:
            more["before"] = {"count": old.count, "fields": old.fields}
        revision = old.revision + 1 if old is not None else 0
        said = result._replace(revision=revision, complete=not lost, cause="recompute", more=more)
        value = msgspec.json.encode(aggregate_value(rule, said))
        record = (result.end, f"{result.group}/{rule}/{result.start}".encode(), value, encode_headers([]))
        output = old.partition if old is not None else partition % places.outputs
        return Finding("revised", *about, output, *counts, record)

    def _place(self, rule: str, group: str, places: Places) -> tuple[int, NodeMarks | None]:
        """The partition whose processor tells a window of this group, and the marks that it waits for."""
        if rule in self._merged:
            [merged] = self._merged[rule].nodes.values()
            return partition_of(group.encode(), max(1, places.relays.get(rule, 1))), merged
        for partition, tracker in self._marks.items():
            if (name := node_name(group)) in tracker.nodes:
                return partition, tracker.nodes[name]
        return 0, None

    def _whole_from(self, rule: str, group: str, partition: int, expired: set[int]) -> int:
        """Since when all readings, and what was said of their devices, are certainly there."""
        missing_ms = max(FUTURE_MAX_MS, SAID_EVERY_MS) if self.facts else FUTURE_MAX_MS
        if rule in self._merged:
            return max((self._first_clocks.get(one, EVER) + missing_ms for one in expired), default=NEVER)
        return self._first_clock.get(node_name(group), EVER) + missing_ms if partition in expired else NEVER


def node_name(group: str) -> str:
    """The node of `<node>/<device>`."""
    return group.partition("/")[0]


def _span(rules: Iterable[WindowRule], begin: int, end: int) -> tuple[int, int]:
    """The times of readings that such windows may hold; of sessions a reading anywhere may belong to one."""
    until = begin
    for rule in rules:
        if rule.kind == "session":
            return 0, EVER
        until = max(until, end + (rule.size_ms or _YEAR_MS))
    return begin, until


def _patient(rule: WindowRule) -> WindowRule:
    """The same windows, which take whatever comes, and say nothing before they are asked."""
    return msgspec.structs.replace(
        rule,
        allowed_lateness_s=_LATENESS_S,
        lateness="time",
        early_every_s=None,
        windows_max=WINDOWS_MAX,
        samples_max=100_000_000,
        fields_max=1024,
    )


def _horizon(rule: WindowRule, watermark: int, owed: Sequence[tuple[int, int]]) -> int:
    horizon = watermark - rule.allowed_lateness_ms
    return min([horizon, *(first for first, _ in owed)]) if rule.lateness == "backfill" else horizon


def _same(old: Standing, result: WindowResult, near: float) -> bool:
    """`near`: how far apart two numbers may lie, relative to them, and count as the same."""
    if (old.count, old.end) != (result.readings, result.end):
        return False
    return _near(msgspec.json.decode(msgspec.json.encode(result.fields)), old.fields, near)


def _near(one: Any, other: Any, near: float) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_near(one[name], other[name], near) for name in one)
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=near, abs_tol=0.0)
    return bool(one == other)


def _clock(headers: bytes) -> int:
    try:
        return _DECODE_CLOCK.decode(dict(decode_headers(headers)).get("hw-mark") or b"").clock or EVER
    except (*UNREADABLE, PeerError):
        return EVER


def _rows_of(block: Block, rows: Sequence[int]) -> Block:
    """Some rows, without their marks."""
    headers = []
    for row in rows:
        blob = block.headers[row]
        if MARK_KEY in blob:
            blob = encode_headers([pair for pair in decode_headers(blob) if pair[0] != "hw-mark"])
        headers.append(blob)
    return Block(
        topic=block.topic,
        partition=block.partition,
        offsets=[block.offsets[row] for row in rows],
        timestamps=[block.timestamps[row] for row in rows],
        keys=[block.keys[row] for row in rows],
        values=[block.values[row] for row in rows],
        headers=headers,
        next_offset=block.next_offset,
    )
