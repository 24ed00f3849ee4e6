"""Readings that no window of a rule may take any more: told at marks, singly at first, then as sums per device.

What comes too late may be a whole archive, from a device whose clock is years off. So of each device and hour of its
node's watermark at most `SINGLES` readings are told one by one; the others are counted, and told as one sum at the
first mark of the next hour. All of it follows from the log alone, however its records came in batches.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from processors.columns import Records
from processors.results import NEVER

SINGLES = 10
HOUR_MS = 3_600_000
FORGOTTEN = "forgotten devices"  # no device's name: it has no slash
_NAMED = 3
SHOWN = 10  # devices of each rule that the status names
WAITING_MAX = 10_000  # single readings between two marks; beyond it they are only counted
READING_BYTES_MAX = 4096  # a longer reading is named by its place in the log alone


class Placed(Records, Protocol):
    """Records with their place in the log: what is read here of `gateway.consume.reader.Block`."""

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def offsets(self) -> Sequence[int]: ...


class TooLate(msgspec.Struct):
    """One reading. `live`: its node's watermark when it came; None: the node had none."""

    group: str
    time: int
    start: int
    end: int
    live: int | None
    cause: str
    topic: str
    partition: int
    offset: int
    reading: bytes | None


class Sum(msgspec.Struct):
    """A device's readings of one hour: `singles` were told one by one; the others lie in `first` to `last`."""

    hour: int
    singles: int = 0
    causes: dict[str, int] = {}
    first: int = 0
    last: int = 0


class TooLateReadings:
    """Those of one rule and partition. `block` is the one that rows given to `take` belong to."""

    def __init__(self) -> None:
        self.block: Placed | None = None
        self.counts: dict[str, int] = {}  # device -> how many in all
        self._waiting: dict[str, list[TooLate]] = {}  # per node, in the order of the log
        self._waits = 0
        self._sums: dict[str, dict[str, Sum]] = {}  # node -> device -> the hour at hand

    def take(self, row: int, group: str, time: int, window: Sequence[int], live: int, cause: str) -> None:
        """Row `row` of the block is a reading of `group` that its window refused."""
        self.counts[group] = self.counts.get(group, 0) + 1
        node = group.partition("/")[0]
        sums = self._sums.setdefault(node, {})
        hour = live // HOUR_MS
        found = sums.get(group)
        if found is None:
            found = sums[group] = Sum(hour)
        if found.singles < SINGLES and self._waits < WAITING_MAX and self.block is not None:
            found.singles += 1
            self._waits += 1
            block = self.block
            value = block.values[row]
            self._waiting.setdefault(node, []).append(
                TooLate(
                    *(group, time, window[0], window[1], None if live == NEVER else live, cause),
                    *(block.topic, block.partition, block.offsets[row]),
                    bytes(value) if value is not None and len(value) <= READING_BYTES_MAX else None,
                )
            )
            return
        found.first, found.last = (min(found.first, time), max(found.last, time)) if found.causes else (time, time)
        found.causes[cause] = found.causes.get(cause, 0) + 1

    def tell(self, node: str, watermark: int, rule: str) -> list[tuple[str, dict[str, Any]]]:
        """What a mark of a node lets be said: (device, value) of each record."""
        waiting = self._waiting.pop(node, [])
        self._waits -= len(waiting)
        said: list[tuple[str, dict[str, Any]]] = [(one.group, _single(rule, one)) for one in waiting]
        sums = self._sums.get(node)
        if not sums:
            return said
        for group in sorted(group for group, found in sums.items() if found.hour != watermark // HOUR_MS):
            found = sums.pop(group)
            if found.causes:
                value = {"rule": rule, "group": group, "count": sum(found.causes.values())}
                value |= {"first": found.first, "last": found.last, "live": watermark, "causes": found.causes}
                said.append((group, value))
        return said

    def top(self, count: int) -> list[tuple[str, int]]:
        """The devices with the most of them, and how many in all."""
        return sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))[:count]

    def forget(self, groups: Iterable[str]) -> None:
        """Devices that are heard no more: what they had is counted together."""
        for group in groups:
            if (count := self.counts.pop(group, 0)) != 0:
                self.counts[FORGOTTEN] = self.counts.get(FORGOTTEN, 0) + count

    def snapshot(self) -> dict[str, Any]:
        return {
            "counts": self.counts,
            "waiting": msgspec.to_builtins(self._waiting, builtin_types=(bytes,)),
            "sums": msgspec.to_builtins(self._sums),
        }

    def restore(self, data: dict[str, Any]) -> None:
        self.counts = dict(data["counts"])
        self._waiting = msgspec.convert(data["waiting"], dict[str, list[TooLate]])
        self._waits = sum(map(len, self._waiting.values()))
        self._sums = msgspec.convert(data["sums"], dict[str, dict[str, Sum]])


class Counting(Protocol):
    """What has rules and partitions: `PartitionProcessor`."""

    def late(self, count: int) -> dict[str, dict[str, Any]]: ...


def too_late_by_rule(parts: Iterable[Counting]) -> dict[str, dict[str, Any]]:
    """Over several partitions, per rule: `readings`, and the `devices` with the most of them."""
    found: dict[str, dict[str, Any]] = {}
    for part in parts:
        for rule, more in part.late(SHOWN).items():
            one = found.setdefault(rule, {"readings": 0, "devices": {}})
            one["readings"] += more["readings"]
            one["devices"] |= more["devices"]
    for one in found.values():
        most = sorted(one["devices"].items(), key=lambda item: (-item[1], item[0]))
        one["devices"] = dict(most[:SHOWN])
    return found


def late_news(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """For the log of whom nobody asks: between two answers of `too_late_by_rule`, rules of which it is time to tell,
    whenever their readings have doubled.
    """
    found = []
    for rule, one in now.items():
        count = one["readings"]
        if count.bit_length() > before.get(rule, {"readings": 0})["readings"].bit_length():
            most = ", ".join(f"{device} ({readings})" for device, readings in list(one["devices"].items())[:_NAMED])
            found.append(f"rule {rule}: {count} readings so far came too late for its windows, most from {most}")
    return found


def _single(rule: str, one: TooLate) -> dict[str, Any]:
    value: dict[str, Any] = {"rule": rule, "group": one.group, "time": one.time, "start": one.start, "end": one.end}
    value |= {"live": one.live, "behind_ms": None if one.live is None else one.live - one.time, "cause": one.cause}
    value |= {"topic": one.topic, "partition": one.partition, "offset": one.offset}
    if one.reading is not None:
        value["reading"] = msgspec.Raw(one.reading)
    return value
