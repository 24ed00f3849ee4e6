"""What a driver runs over the partitions of some topics: the rules, or one user's processor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from heapq import nsmallest
from typing import Any, Protocol

from gateway.consume.reader import Block
from processors.alerts import Instance
from processors.budget import Limits, memory_status
from processors.late import too_late_by_rule
from processors.processor import AGGREGATES, ALERTS, LATE, Output, PartitionProcessor, Place
from processors.repartition import BYTES_MAX, MergedMarks, Relay, relay_topic
from processors.rules.model import Rules

LATE_BYTES_MAX = 64 << 20
BEHIND_SHOWN = 10
RELAY_CONFIG = {
    "cleanup.policy": "delete",
    "retention.ms": "-1",  # its records are as old as the readings: a cluster would delete what backfill brings
    "retention.bytes": str(BYTES_MAX),
    "segment.bytes": str(BYTES_MAX // 16),
}
"""Of relay topics, beside what is due to outputs."""


class PartitionWork(Protocol):
    """One partition's part of a job; see `processors.processor.PartitionProcessor`."""

    numbers: dict[str, int]
    written: dict[str, int]
    stopped_at: int | None
    """Where it stopped within the last block and wants to go on when the driver begins anew; None: it did not."""

    @property
    def versions(self) -> list[str]: ...
    def process(self, block: Block) -> list[Output]: ...
    def snapshot(self) -> dict[str, Any]: ...
    def restore(self, data: dict[str, Any]) -> list[str]: ...
    def lost_before(self, offset: int) -> None: ...
    def go_on_after(self, floors: dict[str, dict[str, int]], alerts: dict[str, dict[str, Instance]]) -> None: ...
    def counters(self) -> dict[str, int]: ...
    def alerts(self) -> list[dict[str, Any]]: ...


class Job(Protocol):
    """See `RuleJob`."""

    @property
    def names(self) -> list[str]:
        """Of its rules, for people."""

    @property
    def topics(self) -> list[str]:
        """What it reads."""

    @property
    def outputs(self) -> Mapping[str, Mapping[str, str]]:
        """What it writes, each topic with its configuration beside the retention."""

    @property
    def relays(self) -> Mapping[str, str]:
        """Topics that it writes and reads, each with the one of `topics` after which it is cut into partitions."""

    def know(self, partitions: Mapping[str, int]) -> None:
        """How many partitions topics have; before `begin`."""

    def owns(self, version: str) -> bool:
        """Whether outputs of this version are its own."""

    def begin(self, topic: str, partition: int, limits: Limits) -> PartitionWork:
        """Its part for one input partition, without state."""

    def limit(self, parts: Iterable[PartitionWork], limits: Limits) -> None:
        """There are more input partitions than before: each has this share."""

    def about(self, parts: Iterable[PartitionWork]) -> dict[str, Any]:
        """What the status tells beside the counters."""


class RuleJob:
    """Windows and alerts. `place` picks the alert rules that run here."""

    outputs: Mapping[str, Mapping[str, str]] = {
        AGGREGATES: {"cleanup.policy": "compact,delete"},
        ALERTS: {"cleanup.policy": "delete"},
        LATE: {"cleanup.policy": "delete", "retention.bytes": str(LATE_BYTES_MAX)},
    }

    def __init__(self, rules: Rules, *, place: Place, name: str) -> None:
        self._rules = rules
        self._place: Place = place
        self._grouped = {relay_topic(name, rule): rule for rule in rules.windows if rule.group_by}
        self._partitions: Mapping[str, int] = {}

    @property
    def names(self) -> list[str]:
        return [rule.name for rule in self._rules.windows] + [rule.name for rule in self._rules.alerts]

    @property
    def topics(self) -> list[str]:
        return self._rules.topics

    @property
    def relays(self) -> Mapping[str, str]:
        return {topic: rule.topic for topic, rule in self._grouped.items()}

    def know(self, partitions: Mapping[str, int]) -> None:
        self._partitions = dict(partitions)

    def owns(self, version: str) -> bool:
        return True

    def begin(self, topic: str, partition: int, limits: Limits) -> PartitionWork:
        relays = [
            Relay(rule, relay, self._partitions[relay]) for relay, rule in self._grouped.items() if rule.topic == topic
        ]
        return PartitionProcessor(
            *(self._rules, topic, partition),
            place=self._place,
            limits=limits,
            relays=relays,
            group=self._grouped.get(topic),
        )

    def limit(self, parts: Iterable[PartitionWork], limits: Limits) -> None:
        for part in _rule_parts(parts):
            part.budget.wanted = limits

    def about(self, parts: Iterable[PartitionWork]) -> dict[str, Any]:
        mine = _rule_parts(parts)
        begins = {f"{part.topic}/{part.partition}": begins for part in mine if (begins := part.begins())}
        changes = sorted(
            {str(change) for part in mine for change in part.changes} | set(map(_log_begins_late, mine)) - {""}
        )
        log_begins = {f"{part.topic}/{part.partition}": begun for part in mine if (begun := part.log_begins())}
        foreign = {f"{part.topic}/{part.partition}": names for part in mine if (names := part.foreign.names())}
        crowded = {f"{part.topic}/{part.partition}": rules for part in mine if (rules := part.crowded())}
        missed = {f"{part.topic}/{part.partition}": found for part in mine if (found := part.fields_missed())}
        told = {"log_begins": log_begins, "foreign": foreign, "crowded": crowded, "fields_missed": missed}
        told["zones_unknown"] = _zones_unknown(mine)
        told |= {"too_late_by_rule": too_late_by_rule(mine), "memory": memory_status(mine)}
        return {"begins": begins, "changes": changes, "groups": _groups(mine), **told}


def _log_begins_late(part: PartitionProcessor) -> str:
    """What people are told of a partition from whose log records are gone unread; "" when none are."""
    if not part.log_start.is_new:
        return ""
    return (
        f"{part.topic}/{part.partition} was read from offset {part.log_start.offset} on: what was before has expired;"
        " windows that may lack any of it are not told, and earlier results of them stand"
    )


def _rule_parts(parts: Iterable[PartitionWork]) -> list[PartitionProcessor]:
    return [part for part in parts if isinstance(part, PartitionProcessor)]


def _zones_unknown(parts: Iterable[PartitionProcessor]) -> dict[str, dict[str, str]]:
    """By rule, the devices whose zone is none here."""
    found: dict[str, dict[str, str]] = {}
    for part in parts:
        for rule, devices in part.zones_unknown().items():
            found.setdefault(rule, {}).update(devices)
    return found


def _groups(parts: Iterable[PartitionProcessor]) -> dict[str, dict[str, Any]]:
    """Per rule over groups: how many `nodes` its windows wait for, and those that are the furthest `behind`.

    `unread`: input partitions that they wait for besides, of which no node was heard of yet.
    """
    found: dict[str, dict[str, int | None]] = {}
    unread: dict[str, set[int]] = {}
    for part in parts:
        if isinstance(part.marks, MergedMarks):
            for name in part.names:
                far = found.setdefault(name, {})
                unread.setdefault(name, set()).update(part.marks.unread)
                for node, live in part.marks.waits_for().items():
                    far[node] = min(far.get(node, live), live, key=_far)
    return {
        name: {"nodes": len(far), "behind": _behind(far), "unread": sorted(unread[name])} for name, far in found.items()
    }


def _behind(far: dict[str, int | None]) -> list[list[Any]]:
    return [list(item) for item in nsmallest(BEHIND_SHOWN, far.items(), key=lambda item: (_far(item[1]), item[0]))]


def _far(live: int | None) -> int:
    """To compare with: who was not heard of is behind all others."""
    return -1 if live is None else live


def as_job(what: Rules | Job, place: Place, name: str) -> Job:
    """Rules as the job that they are; `name` is part of its relay topics' names."""
    return RuleJob(what, place=place, name=name) if isinstance(what, Rules) else what
