"""All rules of one topic over one of its partitions: (state, block) to outputs, numbered, the same for any driver.

The state is this object; `process` is called with the blocks of the partition in the order of the log. Each rule's
outputs are numbered from 0 per input partition; header `hw-out` of an output is
`<rule's version>/<input partition>/<number>`. Layouts: docs/windows.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import islice, repeat
from typing import Any, Literal, NamedTuple

import msgspec

from gateway.log.records import Record, encode_headers
from processors.alerts import Instance, Transition, alert_value
from processors.budget import NO_LIMITS, Budget, Limits
from processors.columns import Columns, KeyTable, Lanes, MarkAt, to_columns
from processors.facts import DeviceFacts
from processors.foreign import ForeignNodes
from processors.late import Placed
from processors.log_start import LogStart
from processors.marks import Mark, NodeMarks, WatermarkTracker
from processors.outages import Outages
from processors.partition_view import PartitionView, Ruled, alerts_of
from processors.pieces import together
from processors.repartition import MergedMarks, Piece, Relay, group_node, second_stage
from processors.results import NEVER, Results, numbered
from processors.rules.derive import Derivation
from processors.rules.evolution import (
    Change,
    Definitions,
    alert_change,
    definitions,
    preview,
    read_definitions,
    window_change,
)
from processors.rules.model import AlertRule, Rules, WindowRule
from processors.windows.kinds import window_state

AGGREGATES = "aggregates"
ALERTS = "alerts"
LATE = "late"
LATE_STREAM = ":late"
"""Behind a window rule's version: what it says of late readings is numbered apart, since it goes to another topic."""
RETRO_STREAM = ":retro"
"""Behind an alert rule's version: digests of outages are numbered apart, so that transitions keep their numbers."""
OUT_HEADER = "hw-out"
Place = Literal["edge", "central"]

_ENCODER = msgspec.json.Encoder()


class Output(NamedTuple):
    """A record to write to `topic`; `version` and `number` stand in its header too.

    `partition` None: the one that belongs to the input partition.
    """

    topic: str
    record: Record
    version: str
    number: int
    partition: int | None = None


_OUTPUT_OF: Callable[[Iterable[Any]], Output] = partial(tuple.__new__, Output)  # `Output._make` in a third of the time


class PartitionProcessor(PartitionView):
    """The processors of one input partition. `place` picks the alert rules that run here.

    `relays`: first stages of rules over groups of devices. `group`: the input is the relay topic of this rule.
    """

    def __init__(
        self,
        rules: Rules,
        topic: str,
        partition: int,
        *,
        place: Place,
        limits: Limits = NO_LIMITS,
        relays: Sequence[Relay] = (),
        group: WindowRule | None = None,
    ) -> None:
        self.topic = topic
        self.partition = partition
        self.keys = KeyTable()
        marks = WatermarkTracker() if group is None else MergedMarks(group_node(group))
        self.marks: WatermarkTracker | MergedMarks = marks
        self.facts = DeviceFacts()
        self.log_start = LogStart()
        self.foreign = ForeignNodes()
        self.numbers: dict[str, int] = {}  # version -> number of its next output
        self.written: dict[str, int] = {}  # version -> outputs below this number are in their topic already
        self.stopped_at: int | None = None  # rules never stop within a block
        self.changes: list[Change] = []  # what became of rules that differ from those of the snapshot
        self.refused = self.readings = 0
        self.newest = NEVER
        self._lanes = Lanes()
        self._relays = relays
        mine = [(rule, rule) for rule in rules.windows if rule.topic == topic and not rule.group_by]
        if group is not None:
            mine = [(group, second_stage(group))]
        self._rules = [
            Ruled(
                *(rule, rule.version, window_state(own, self.keys), alerts_of(rule, rules, place)),
                Derivation(own.where, own.compute, own.facts),
            )
            for rule, own in mine
        ]
        self._outages = {state.rule.name: Outages(state.rule) for rule in self._rules for _, state in rule.alerts}
        self.budget = Budget(self.keys, self._rules, limits, self._outages)
        derivations = [*(rule.derive for rule in self._rules), *(relay.derive for relay in relays)]
        self._texts = frozenset[str]().union(*(derive.texts for derive in derivations))
        windows = [*(rule.window for rule in self._rules), *(relay.rule for relay in relays)]
        self._coded = frozenset[str]().union(*(rule.text_fields for rule in windows))

    @property
    def versions(self) -> list[str]:
        """The versions whose outputs come from here."""
        return [
            version
            for rule in self._rules
            for version in (
                *(rule.version, rule.version + LATE_STREAM),
                *(name + stream for name, _ in rule.alerts for stream in ("", RETRO_STREAM)),
            )
        ] + [version for relay in self._relays for version in relay.versions]

    @property
    def names(self) -> list[str]:
        """Of the window rules that have a state here."""
        return [rule.window.name for rule in self._rules]

    def process(self, block: Placed) -> list[Output]:
        """Take in the next block; returns what it lets be said, without what `written` says is said already."""
        if not len(block.keys):
            return []
        joined = together(block.headers)
        columns = to_columns(block, self.keys, self._lanes, self._texts, joined, self._coded)
        self.refused += columns.refused
        self.readings += len(columns) - columns.refused
        self.newest = max(self.newest, _newest(columns))
        self.facts.take(block, joined)
        seen = [(rule, rule.derive.apply(columns, self.keys, self.facts)) for rule in self._rules]
        relayed = [(relay, relay.derive.apply(columns, self.keys, self.facts)) for relay in self._relays]
        outputs: list[Output] = []
        for rule in self._rules:
            rule.state.late.block = block
        begin = 0
        for end, at in [*((at.row + 1, at) for at in self._marks(columns, block)), (len(columns), None)]:
            for relay, own in relayed:
                self._relay(relay, relay.readings(own, self.keys, block, begin, end), outputs)
            self._add(columns, seen, begin, end)
            self.log_start.take(columns, begin, end, self.keys)
            begin = end
            if at is not None:
                self._mark(at, outputs)
                for relay in self._relays if at.mark.by is None or not self.log_start.holds(at.mark.node) else ():
                    self._relay(relay, relay.mark(at.mark, block.timestamps[at.row], self.partition), outputs)
        self.budget.tidy(self.marks.nodes)
        for rule in self._rules:
            rule.state.late.block = None
        return outputs

    def _marks(self, columns: Columns, block: Placed) -> list[MarkAt]:
        lateness_ms = self.budget.limits.foreign_lateness_ms
        if not lateness_ms or isinstance(self.marks, MergedMarks):
            return columns.marks
        return self.foreign.marks(columns, block.headers, self.keys, lateness_ms)

    def _add(self, columns: Columns, seen: list[tuple[Ruled, Columns]], begin: int, end: int) -> None:
        for start, until in self.budget.pieces(begin, end):
            refused = self.budget.admit(columns, start, until)
            if refused:
                self.refused += len(refused)
                columns.key[refused] = -1
            for rule, mine in seen:
                mine.key[refused] = -1
                rule.state.add(mine, start, until)

    def _relay(self, relay: Relay, pieces: Iterable[Piece], outputs: list[Output]) -> None:
        for target, time, key, value, headers in pieces:
            version = relay.version(target)
            if (number := self._number(version)) is not None:
                section = encode_headers([*headers, (OUT_HEADER, f"{version}/{self.partition}/{number}".encode())])
                outputs.append(Output(relay.topic, (time, key, value, section), version, number, target))

    def _mark(self, at: MarkAt, outputs: list[Output]) -> None:
        self.facts.stand_at(at.row)
        for mark, node in self.marks.steps(at.mark, copied=at.copied):
            if self.marks.begin is not None:
                for rule in self._rules:
                    rule.state.begin_at(self.marks.begin)
            if (newest := self.log_start.settle(mark, node)) is not None:
                self._begin_node(mark.node, newest)
            if not self.log_start.holds(mark.node):
                self._step(mark, node, outputs)

    def _begin_node(self, node: str, newest: int) -> None:
        for rule in self._rules:
            rule.state.begin_node(node, newest)
            rule.state.give_up(node)
        for relay in self._relays:
            relay.begin_after(newest)

    def _step(self, mark: Mark, node: NodeMarks, outputs: list[Output]) -> None:
        for rule in self._rules:
            results = rule.state.close(mark, node)
            if results:
                outputs += self._aggregates(rule, results)
            for version, alerts in rule.alerts:
                for transition in alerts.at_mark(results, mark, node, self.budget.roster, rule.state, self.facts):
                    self._alert(alerts.rule, version, transition, outputs)
                self._outages[alerts.rule.name].take(results)
                if mark.by is None and not node.open:
                    self._digest(alerts.rule, version + RETRO_STREAM, mark.node, outputs)
            if mark.by is None and (watermark := node.watermark) is not None:
                self._late(rule, mark.node, watermark, outputs)
        if mark.by is None and node.watermark is not None:
            self._sweep(mark.node, node.watermark, outputs)

    def _digest(self, rule: AlertRule, version: str, node: str, outputs: list[Output]) -> None:
        """The node owes nothing any more: tell what fired in windows that backfill closed."""
        value = self._outages[rule.name].end(node)
        if value is not None and (number := self._number(version)) is not None:
            self._output(ALERTS, value["to"], f"{rule.name}/{node}", value, version, number, outputs)

    def _late(self, rule: Ruled, node: str, watermark: int, outputs: list[Output]) -> None:
        version = rule.version + LATE_STREAM
        for group, value in rule.state.late.tell(node, watermark, rule.window.name):
            if (number := self._number(version)) is not None:
                # The node's time, not the reading's: a cluster deletes by it what seems old.
                self._output(LATE, watermark, group, value, version, number, outputs)

    def _sweep(self, node: str, watermark: int, outputs: list[Output]) -> None:
        """Devices that were silent for too long are forgotten."""
        for version, rule, transition in self.budget.sweep(node, watermark):
            self._alert(rule, version, transition, outputs)

    def _aggregates(self, rule: Ruled, results: Results) -> Iterable[Output]:
        """A mark's results, but those that were written before."""
        version, name = rule.version, rule.window.name
        first = self.numbers.get(version, 0)
        self.numbers[version] = first + len(results)
        starts = results.starts
        ending = {start: f"/{name}/{start}".encode() for start in set(starts)}
        keys = [group + ending[start] for group, start in zip(map(str.encode, results.groups), starts, strict=True)]
        numbers = range(first, first + len(results))
        headers = numbered(OUT_HEADER, f"{version}/{self.partition}/", numbers)
        records = zip(results.ends, keys, results.values(name), headers, strict=True)
        made = map(_OUTPUT_OF, zip(repeat(AGGREGATES), records, repeat(version), numbers, repeat(None)))
        return islice(made, max(0, self.written.get(version, 0) - first), None)

    def _alert(self, rule: AlertRule, version: str, transition: Transition, outputs: list[Output]) -> None:
        if (number := self._number(version)) is None:
            return
        value, key = alert_value(rule, transition), f"{rule.name}/{transition.instance}"
        self._output(ALERTS, transition.at, key, value, version, number, outputs)

    def _number(self, version: str) -> int | None:
        """The next number of a version; None when that output was written before."""
        number = self.numbers.get(version, 0)
        self.numbers[version] = number + 1
        return None if number < self.written.get(version, 0) else number

    def _output(
        self, topic: str, time: int, key: str, value: dict[str, Any], version: str, number: int, outputs: list[Output]
    ) -> None:
        [headers] = numbered(OUT_HEADER, f"{version}/{self.partition}/", range(number, number + 1))
        outputs.append(Output(topic, (time, key.encode(), _ENCODER.encode(value), headers), version, number))

    # checkpoints

    def snapshot(self) -> dict[str, Any]:
        """Plain data and bytes: all that `restore` needs to go on exactly here. To be kept: see `Budget`."""
        return {
            "definitions": definitions(self._defined()),
            "budget": self.budget.snapshot(caught_up=self._caught_up()),
            "keys": self.keys.snapshot(),
            "lanes": self._lanes.highest,
            "marks": self.marks.snapshot(),
            "facts": self.facts.snapshot(),
            "log_start": self.log_start.snapshot(),
            "foreign": self.foreign.snapshot(),
            "numbers": self.numbers,
            "written": self.written | {v: max(n, self.written.get(v, 0)) for v, n in self.numbers.items()},
            "refused": self.refused,
            "readings": self.readings,
            "newest": self.newest,
            "relays": {relay.rule.relay_version: relay.begin for relay in self._relays},
            "windows": {rule.version: rule.state.snapshot() for rule in self._rules},
            "outages": {name: outages.snapshot() for name, outages in self._outages.items()},
            "alerts": {version: alerts.snapshot() for rule in self._rules for version, alerts in rule.alerts},
        }

    def _defined(self) -> Rules:
        """The rules that have states here."""
        alerts = (state.rule for rule in self._rules for _, state in rule.alerts)
        return Rules(windows=tuple(rule.window for rule in self._rules), alerts=tuple(alerts))

    def _caught_up(self) -> bool:
        """Whether all that was written before has been computed again."""
        return all(self.numbers.get(version, 0) >= self.written.get(version, 0) for version in self.versions)

    def restore(self, data: dict[str, Any]) -> list[str]:
        """Go on from a snapshot; returns the versions that it did not know: they begin here, with whole windows."""
        self.keys.restore(data["keys"])
        self._lanes.highest = dict(data["lanes"])
        self.marks.restore(data["marks"])
        self.facts.restore(data.get("facts", []))
        self.numbers, self.written = dict(data["numbers"]), dict(data["written"])
        self.refused, self.readings, self.newest = data["refused"], data.get("readings", 0), data["newest"]
        known = read_definitions(data.get("definitions"))
        self.changes = preview(data, self._defined())
        fresh = []
        for rule in self._rules:
            if rule.version in data["windows"]:
                rule.state.restore(data["windows"][rule.version])
            else:
                self._restore_changed(rule, known, data["windows"])
                fresh.append(rule.version)
            for version, alerts in rule.alerts:
                if version not in data["alerts"]:
                    fresh.append(version)
                    was, old = known.alerts.get(alerts.rule.name, ("", alerts.rule))
                    if was not in data["alerts"] or not alert_change(old, alerts.rule).kept:
                        continue
                    version = was
                alerts.restore(data["alerts"][version])
                if (name := alerts.rule.name) in data.get("outages", {}):
                    self._outages[name].restore(data["outages"][name])
        self.foreign.restore(data.get("foreign"), list(self.marks.nodes))
        self.log_start.restore(data.get("log_start"))
        for node, newest in self.log_start.begins.items():
            for rule in self._rules:
                rule.state.begin_node(node, newest)
        self.budget.restore(data.get("budget"), self.newest)
        return fresh + self._restore_relays(data.get("relays", {}))

    def _restore_relays(self, begins: dict[str, int]) -> list[str]:
        fresh = []
        for relay in self._relays:
            if relay.rule.relay_version in begins:
                relay.begin = begins[relay.rule.relay_version]
            else:
                relay.begin_after(self.newest)
                fresh += relay.versions
        return fresh

    def _restore_changed(self, rule: Ruled, known: Definitions, states: dict[str, Any]) -> None:
        was, old = known.windows.get(rule.window.name, ("", rule.window))
        change = window_change(old, rule.window)
        if was in states and not change.reason:
            rule.state.restore_changed(states[was], change, self.newest)
        else:
            rule.state.begin_after(self.newest)

    def lost_before(self, offset: int) -> None:
        """Records below `offset` that were not read have left the log: tell no window that may lack any of them.

        What was written behind them cannot be computed again: numbers go on after it.
        """
        self.log_start.lost(offset)
        self.numbers |= {version: max(n, self.numbers.get(version, 0)) for version, n in self.written.items()}

    def go_on_after(self, floors: dict[str, dict[str, int]], alerts: dict[str, dict[str, Instance]]) -> None:
        """Begin without a state behind outputs of an earlier one, of which `written` says how many there are.

        `floors`: per version and node, the end of its newest window that was written; `alerts`: per version and
        instance, the state that its last transition said.
        """
        self.numbers = dict(self.written)
        for rule in self._rules:
            rule.state.refuse_below(floors.get(rule.version, {}))
            for version, state in rule.alerts:
                state.instances = dict(alerts.get(version, {}))


def _newest(columns: Columns) -> int:
    return int(columns.time[columns.key >= 0].max(initial=NEVER))
