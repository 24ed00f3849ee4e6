"""One memory budget over the rules of an input partition: what is counted, and what gives way first at its limit.

Counted is what a state holds, by what it was given and not by how that came in blocks; and it is looked at after every
`CHECK_RECORDS` records of the partition, wherever blocks and marks lie. So the same log meets the limit at the same
records, on whatever machine and however often it is read. docs/windows.md has the order in a table.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence, Sized
from typing import Any, NamedTuple, Protocol

import numpy as np

from processors.alerts import AlertState, Transition
from processors.columns import Columns, Ints, KeyTable
from processors.results import NEVER
from processors.roster import Roster
from processors.rules.model import AlertRule
from processors.windows.memory import FULL, ROOMY, WindowMemory

CHECK_RECORDS = 5_000
INSTANCE_BYTES = 320
"""What an alert instance takes as measured, beside its name."""
Said = tuple[str, AlertRule, Transition]
"""A transition with its rule and that rule's version."""


class Limiting(Protocol):
    """The settings that limits are made from."""

    @property
    def state_bytes_max(self) -> int: ...
    @property
    def forget_after_s(self) -> float: ...
    @property
    def foreign_lateness_s(self) -> float: ...


class Limits(NamedTuple):
    """Of one input partition; 0 is no limit."""

    state_bytes_max: int = 0
    forget_after_ms: int = 0
    foreign_lateness_ms: int = 0
    """Nodes without marks are complete so far behind their newest readings; 0: never."""

    @staticmethod
    def of_partition(settings: Limiting, partitions: int) -> Limits:
        """An equal share for each partition of the rules' topics, whoever has it now (ADR 0018)."""
        share = settings.state_bytes_max // max(partitions, 1)
        return Limits(share, round(settings.forget_after_s * 1000), round(settings.foreign_lateness_s * 1000))


NO_LIMITS = Limits()


class Held(Protocol):
    """The part of a rule's state that takes memory."""

    @property
    def state(self) -> WindowMemory: ...
    @property
    def alerts(self) -> Sequence[tuple[str, AlertState]]: ...


class Budget:
    """Keeps the states of `rules` within limits. Limits that `wanted` names are in force from the next snapshot on.

    They must not change between two: an output that was written after a snapshot is recognised by its number when it
    is computed again, so it must be computed under the same limits.
    """

    def __init__(
        self, keys: KeyTable, rules: Sequence[Held], limits: Limits, shadows: Mapping[str, Sized] | None = None
    ) -> None:
        """`shadows`: by alert rule, what its alerts are in an outage that is being caught up (`outages`)."""
        self.roster = Roster(keys, learns=any(one.rule.learns_intervals for rule in rules for _, one in rule.alerts))
        self.wanted = limits
        self.limits = limits
        self.full = False
        self._keys = keys
        self._rules = rules
        self._shadows = shadows or {}
        self._unchecked = 0

    def pieces(self, begin: int, end: int) -> Iterator[tuple[int, int]]:
        """Rows [begin, end) cut where memory is looked at, which happens after each piece is taken in."""
        while begin < end:
            until = min(end, begin + CHECK_RECORDS - self._unchecked)
            yield begin, until
            self._unchecked += until - begin
            begin = until
            if self._unchecked == CHECK_RECORDS:
                self._unchecked = 0
                self._check()

    def admit(self, columns: Columns, begin: int, end: int) -> list[int]:
        """The rows whose device is one too many."""
        return self.roster.take(columns, begin, end, full=self.full)

    # what is held

    def state_bytes(self) -> dict[str, int]:
        """By window rule, its alerts included."""
        return {rule.state.rule.name: rule.state.state_bytes() + self._bytes_of_alerts(rule) for rule in self._rules}

    def _bytes_of_alerts(self, rule: Held) -> int:
        shadows = (len(self._shadows.get(alerts.rule.name, ())) for _, alerts in rule.alerts)
        return INSTANCE_BYTES * (sum(len(alerts.instances) for _, alerts in rule.alerts) + sum(shadows))

    def total_bytes(self) -> int:
        """Of all rules and devices."""
        return sum(self.state_bytes().values()) + self.roster.state_bytes

    # the limit

    def _check(self) -> None:
        limit = self.limits.state_bytes_max
        if not limit:
            self._set_full(full=False)
            return
        held = self.total_bytes()
        if held > limit * FULL:
            self._forget_closed(held - int(limit * ROOMY))
            held = self.total_bytes()
        if held > limit * FULL:
            self._forget_idle(held - int(limit * ROOMY))
            held = self.total_bytes()
        self._set_full(full=held > limit * FULL)

    def _set_full(self, *, full: bool) -> None:
        self.full = full
        for rule in self._rules:
            rule.state.set_full(full=full)

    def _forget_closed(self, excess: int) -> None:
        """Closed windows of all rules, the oldest first, until so many bytes are free."""
        found = [rule.state.closed() for rule in self._rules]
        ends = np.concatenate([ends for ends, _ in found]) if found else np.zeros(0, dtype=np.int64)
        if not len(ends):
            return
        order = np.argsort(ends, kind="stable")
        freed = np.cumsum(np.concatenate([sizes for _, sizes in found])[order])
        last = int(ends[order[min(int(np.searchsorted(freed, excess)), len(ends) - 1)]])
        for rule in self._rules:
            rule.state.forget_until(last)

    def _forget_idle(self, excess: int) -> None:
        """Devices without a window, the longest silent first, until so many bytes are free."""
        idle = self._without_state(self.roster.by_silence(), spare_alerts=True)
        if len(idle):
            freed = np.cumsum(self.roster.bytes_of(idle))
            self._forget(idle[: int(np.searchsorted(freed, excess)) + 1], NEVER)

    # devices

    def sweep(self, node: str, watermark: int) -> list[Said]:
        """At a mark: forget the node's devices that were silent for too long; returns what their alerts say."""
        silent = self.roster.silent(node, watermark, self.limits.forget_after_ms)
        return self._forget(self._without_state(silent, spare_alerts=False), watermark) if len(silent) else []

    def _without_state(self, keys: Ints, *, spare_alerts: bool) -> Ints:
        """Those of them of which no window is held, and (`spare_alerts`) no alert is going on."""
        used = np.zeros(len(self._keys), dtype=np.bool_)
        for rule in self._rules:
            rule.state.mark_keys(used)
        free = keys[~used[keys]]
        if not spare_alerts:
            return free
        busy = {name for rule in self._rules for _, alerts in rule.alerts for name in alerts.going_on()}
        return free[[self._keys.names[key] not in busy for key in free.tolist()]] if busy else free

    def _forget(self, keys: Ints, now: int) -> list[Said]:
        names = sorted(self._keys.names[key] for key in keys.tolist())
        self.roster.forget(keys)
        for rule in self._rules:
            rule.state.late.forget(names)
        return [
            (version, alerts.rule, transition)
            for rule in self._rules
            for version, alerts in rule.alerts
            for transition in alerts.forget(names, now)
        ]

    def tidy(self, nodes: Container[str]) -> None:
        """Between two blocks: numbers of the forgotten are free for others. `nodes`: those that make marks."""
        if self.roster.crowded:
            new_of, new_node_of = self.roster.renumber(nodes)
            for rule in self._rules:
                rule.state.renumber(new_of, new_node_of)

    # checkpoints and people

    def snapshot(self, *, caught_up: bool) -> dict[str, Any]:
        """Limits that are wanted are in force from here on if nothing is written of what comes behind (`caught_up`)."""
        if caught_up:
            self.limits = self.wanted
        return {
            "limits": list(self.limits),
            "full": self.full,
            "unchecked": self._unchecked,
            "roster": self.roster.snapshot(),
        }

    def restore(self, data: dict[str, Any] | None, newest: int) -> None:
        """After the states of the rules. A snapshot of before there were budgets has none."""
        self.roster.restore(None if data is None else data["roster"], newest)
        self.limits = Limits() if data is None else Limits(*data["limits"])
        self._unchecked = 0 if data is None else data["unchecked"]
        self._set_full(full=data is not None and data["full"])


class Kept(Protocol):
    """What has a budget."""

    @property
    def budget(self) -> Budget: ...


def memory_status(processors: Iterable[Kept]) -> dict[str, Any]:
    """What the partitions of a process hold: `bytes` of `bytes_max`, `rules` by name, and how many of them are full."""
    budgets = [one.budget for one in processors]
    rules: dict[str, int] = {}
    for budget in budgets:
        for name, held in budget.state_bytes().items():
            rules[name] = rules.get(name, 0) + held
    return {
        "bytes": sum(rules.values()) + sum(budget.roster.state_bytes for budget in budgets),
        "bytes_max": sum(budget.limits.state_bytes_max for budget in budgets),
        "rules": rules,
        "devices": sum(budget.roster.alive for budget in budgets),
        "forgotten": sum(budget.roster.forgotten for budget in budgets),
        "full": sum(budget.full for budget in budgets),
    }
