"""What an alert would have said of the time of an outage: a shadow of its state, told in one digest. Sans-IO.

Windows that backfill closed come long after their time: nobody must be paged for each. They go through the same table
of states apart from the live one, and when a node owes nothing any more, what fired meanwhile is told at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from processors.alerts import AlertState
from processors.results import WindowResult
from processors.rules.model import AlertRule

FIRINGS_MAX = 100  # of one node's digest; more are counted


class Firing(msgspec.Struct):
    """From `since` to `until` (None: at the end of the outage it still fired); `value`: the one furthest beyond."""

    instance: str
    since: int
    until: int | None
    value: float


class Outage(msgspec.Struct):
    """What backfill closed of a node so far: windows, their span, and what fired in them."""

    start: int
    end: int
    windows: int = 0
    fired: int = 0
    firings: list[Firing] = []


class Outages:
    """The outages of one alert rule's nodes."""

    def __init__(self, rule: AlertRule) -> None:
        self.rule = rule
        self._shadow = AlertState(rule)
        self._nodes: dict[str, Outage] = {}
        self._open: dict[str, Firing] = {}

    def __len__(self) -> int:
        """Instances and firings that are held until their nodes owe nothing any more."""
        firings = sum(len(outage.firings) for outage in self._nodes.values())
        return len(self._shadow.instances) + len(self._open) + firings + len(self._nodes)

    def take(self, results: Iterable[WindowResult]) -> None:
        """Results of a mark, in their order."""
        for result in results:
            if result.retro and result.first_complete:
                self._take(result)

    def _take(self, result: WindowResult) -> None:
        node = result.group.partition("/")[0]
        outage = self._nodes.get(node)
        if outage is None:
            outage = self._nodes[node] = Outage(result.start, result.end)
        outage.start, outage.end = min(outage.start, result.start), max(outage.end, result.end)
        outage.windows += 1
        for transition in self._shadow.consume([result._replace(retro=False)]):
            if transition.state == "firing" and result.group not in self._open:
                outage.fired += 1
                firing = self._open[result.group] = Firing(result.group, transition.at, None, transition.value or 0.0)
                if len(outage.firings) < FIRINGS_MAX:
                    outage.firings.append(firing)
            elif transition.state == "resolved" and (ended := self._open.pop(result.group, None)) is not None:
                ended.until = transition.at
        instance = self._shadow.instances.get(result.group)
        going_on = self._open.get(result.group)
        if going_on is not None and instance is not None and instance.value is not None:
            worse = max if self.rule.rising else min
            going_on.value = worse(going_on.value, instance.value)

    def end(self, node: str) -> dict[str, Any] | None:
        """A node owes nothing any more: the digest, if anything fired; what was is forgotten."""
        outage = self._nodes.pop(node, None)
        if outage is None:
            return None
        for table in (self._shadow.instances, self._open):
            for group in [group for group in table if group.startswith(f"{node}/")]:
                del table[group]
        if not outage.fired:
            return None
        return {
            "rule": self.rule.name,
            "instance": node,
            "retro": True,
            "from": outage.start,
            "to": outage.end,
            "windows": outage.windows,
            "fired": outage.fired,
            "firings": msgspec.to_builtins(outage.firings),
            "severity": self.rule.severity,
            "summary": self.rule.summary,
        }

    def snapshot(self) -> dict[str, Any]:
        nodes = {
            node: [outage, [place for place, one in enumerate(outage.firings) if one is self._open.get(one.instance)]]
            for node, outage in self._nodes.items()
        }
        # A firing beyond the bound is in no list, but its end must not begin another.
        listed = {id(one) for outage in self._nodes.values() for one in outage.firings}
        rest = {group: one for group, one in self._open.items() if id(one) not in listed}
        return {
            "shadow": self._shadow.snapshot(),
            "nodes": msgspec.to_builtins(nodes),
            "rest": msgspec.to_builtins(rest),
        }

    def restore(self, data: dict[str, Any]) -> None:
        self._shadow.restore(data["shadow"])
        self._open = msgspec.convert(data["rest"], dict[str, Firing])
        for node, (outage, going_on) in data["nodes"].items():
            self._nodes[node] = found = msgspec.convert(outage, Outage)
            self._open |= {found.firings[place].instance: found.firings[place] for place in going_on}
