"""Readings made up for a processor, from the names of the fields that it asks for."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

import msgspec

from processors.user.loading import Loaded
from processors.user.partition import UserPartition, Watch
from processors.user.rule import ProcessorRule
from processors.user.settings import UserLimits
from processors.user.trying import Given, block_of

LATENESS_MS = 2000
_ROUNDS, _ASKED = 6, 60
_WORDS = ("", "on", "off", "auto", "fault")


class _Asked(dict[str, Any]):
    """Fields that note which names are asked for."""

    def __init__(self, fields: dict[str, Any], names: dict[str, None]) -> None:
        super().__init__(fields)
        self._names = names

    def __missing__(self, name: str) -> Any:
        self._names[name] = None
        raise KeyError(name)

    def get(self, name: str, default: Any = None) -> Any:
        if name not in self:
            self._names[name] = None
        return super().get(name, default)

    def __contains__(self, name: object) -> bool:
        if not super().__contains__(name) and isinstance(name, str):
            self._names[name] = None
        return super().__contains__(name)


class _AskedPartition(UserPartition):
    """A partition whose readings note what is asked of them."""

    names: dict[str, None]

    def documents(self, values: Any) -> tuple[list[dict[str, Any]], list[int]]:
        found, bad = super().documents(values)
        return [_Asked(one, self.names) for one in found], bad


def names_asked(loaded: Loaded, random: Random, watch: Watch) -> list[str]:
    """The fields that a processor asks for, found by letting it ask."""
    names: dict[str, None] = {}
    for _ in range(_ROUNDS):
        before = len(names)
        partition = _AskedPartition(loaded, 0, limits=UserLimits(failures_max=1 << 30), watch=watch)
        partition.names = names
        partition.process(block_of(generated(loaded.rule, list(names), _ASKED, random), loaded.rule.topic, 0))
        if len(names) == before:
            break
    return list(names)


def generated(rule: ProcessorRule, names: list[str], count: int, random: Random) -> list[Given]:
    """Readings of a few devices that a rule takes: mostly in order, some late, some without a field; with marks."""
    rows = []
    keys = [f"{node}/{device}" for node in _fitting(rule.nodes, "node") for device in _fitting(rule.devices, "device")]
    time_ms = 1_735_689_600_000
    for _ in range(count):
        time_ms += random.choice((0, 100, 1000, 1000, 1000, 7000))
        key = random.choice(keys)
        behind = random.choice((0,) * 12 + (1500, 30_000))
        fields = {name: _value(name, time_ms, random) for name in names if random.random() > 0.03}
        rows.append((key, time_ms - behind, fields))
    return with_marks(rows)


def _fitting(patterns: tuple[str, ...], word: str) -> list[str]:
    """A few names that patterns take."""
    return [
        pattern.replace("*", f"{word if pattern == '*' else ''}{number}").replace("?", str(number))
        for pattern in patterns
        for number in range(1, 5 if word == "device" else 3)
    ]


def _value(name: str, time_ms: int, random: Random) -> Any:
    if random.random() < 0.02:
        return random.choice((None, True, "text", _WORDS[time_ms % 5]))
    # Long stretches of one size, so that what holds for a while is met too.
    stretch = Random(f"{name}{time_ms // 120_000}")  # noqa: S311 - the same each time
    return round(stretch.choice((0.0, 0.05, 1.0, 20.0, 50.0, 400.0, 2000.0, -5.0)) * random.uniform(0.9, 1.1), 3)


def with_marks(rows: list[tuple[str, int, dict[str, Any]]]) -> list[Given]:
    """The rows as records, with a mark of its node about every second of event time, and a last one an hour later."""
    return list(_with_marks(rows))


def _with_marks(rows: list[tuple[str, int, dict[str, Any]]]) -> Iterator[Given]:
    newest: dict[str, int] = {}
    marked: dict[str, int] = {}
    for key, time_ms, fields in rows:
        node = key.partition("/")[0]
        newest[node] = max(newest.get(node, 0), time_ms)
        watermark_ms = None
        if newest[node] - marked.get(node, 0) >= 1000:
            marked[node] = newest[node]
            watermark_ms = max(0, newest[node] - LATENESS_MS)
        yield Given(key, time_ms, msgspec.json.encode(fields), watermark_ms)
    for node, time_ms in newest.items():
        yield Given(f"{node}/$gateway", time_ms, b"null", time_ms + 3_600_000)
