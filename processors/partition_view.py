"""What a partition's rules are, and what people are told of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from processors.alerts import AlertState
from processors.columns import KeyTable
from processors.dead_man import alert_state
from processors.foreign import ForeignNodes
from processors.log_start import LogStart
from processors.marks import WatermarkTracker
from processors.repartition import MergedMarks
from processors.results import NEVER, WindowResult
from processors.rules.derive import Derivation
from processors.rules.model import Rules, WindowRule
from processors.windows.closing import WindowState
from processors.windows.gridded import ZonedWindows


class Ruled(NamedTuple):
    """One window rule with its state, and the alerts on it by their versions."""

    window: WindowRule
    version: str
    state: WindowState
    alerts: list[tuple[str, AlertState]]
    derive: Derivation


class PartitionView:
    """What can be asked of `processors.processor.PartitionProcessor` between two blocks."""

    keys: KeyTable
    marks: WatermarkTracker | MergedMarks
    log_start: LogStart
    foreign: ForeignNodes
    refused: int
    readings: int
    _rules: Sequence[Ruled]

    def counters(self) -> dict[str, int]:
        """Sums over the window rules, and the records that no rule could take."""
        read = self.readings if isinstance(self.marks, WatermarkTracker) else 0  # those of groups: where they came from
        total: dict[str, int] = {"refused": self.refused, "readings": read}
        for rule in self._rules:
            for name, value in msgspec.structs.asdict(rule.state.counters).items():
                total[name] = total.get(name, 0) + value
        return total

    def pends(self, node: str, after: int, until: int) -> bool:
        """Whether a window of a node that nothing was told of ended in (`after`, `until`]."""
        index = self.keys.node_id(node)
        return any(rule.state.pends(index, after, until) for rule in self._rules)

    def everything(self) -> list[tuple[str, WindowResult]]:
        """Of a partition that was fed without marks: all windows, with the names of their rules."""
        return [(rule.window.name, result) for rule in self._rules for result in rule.state.everything()]

    def begins(self) -> dict[str, int]:
        """Since when rules that are younger than the log have whole windows."""
        return {rule.window.name: begin for rule in self._rules if (begin := rule.state.begin) != NEVER}

    def crowded(self) -> list[str]:
        """Rules that hold as many windows as they may."""
        return [rule.window.name for rule in self._rules if rule.state.is_crowded]

    def fields_missed(self) -> list[dict[str, Any]]:
        """Rules that lately left fields out, with the device that has most of their `fields_max`."""
        found = [(rule.window, missed) for rule in self._rules if (missed := rule.state.fields_missed())]
        return [
            {"rule": rule.name, "fields_max": rule.fields_max, "device": device, "fields": count}
            for rule, (device, count) in found
        ]

    def zones_unknown(self) -> dict[str, dict[str, str]]:
        """Of rules with zone = "device": devices that say a zone which is none here, and that zone."""
        states = ((rule.window.name, rule.state) for rule in self._rules)
        return {
            name: dict(state.zones_unknown)
            for name, state in states
            if isinstance(state, ZonedWindows) and state.zones_unknown
        }

    def log_begins(self) -> dict[str, Any] | None:
        """Where the log began when records had left it unread, and the `time` behind which all windows are told."""
        start = self.log_start
        return (
            None if start.offset is None else {"offset": start.offset, "time": max(start.begins.values(), default=None)}
        )

    def late(self, count: int) -> dict[str, dict[str, Any]]:
        """Per rule with any: how many readings came too late, and the `devices` with the most of them."""
        states = {rule.window.name: rule.state.late for rule in self._rules}
        return {
            name: {"readings": sum(late.counts.values()), "devices": dict(late.top(count))}
            for name, late in states.items()
            if late.counts
        }

    def alerts(self) -> list[dict[str, Any]]:
        """The instances that have ever been more than inactive."""
        return [
            {"rule": alerts.rule.name, "instance": name, "state": one.state, "since": one.since, "value": one.value}
            | ({"flapping": True} if one.damped else {})
            for rule in self._rules
            for _, alerts in rule.alerts
            for name, one in alerts.instances.items()
            if one.cause_start is not None
        ]


def alerts_of(window: WindowRule, rules: Rules, place: str) -> list[tuple[str, AlertState]]:
    """The alerts on a window rule that run here, with their versions."""
    mine = [alert for alert in rules.alerts if alert.window == window.name and alert.runs == place]
    return [(alert.version(window), alert_state(alert)) for alert in mine]
