"""Rivers by chance: records of two nodes with disorder of any size, marks, copies and backfill."""

from __future__ import annotations

import random
from typing import Any

from tests.support import river
from tests.support.river import Row

VALUES: tuple[Any, ...] = (0, 1, -3, 0.1, 1e16, -1e16, 1 / 3, 1e6 / 3, -7.25, 359.9, None, True, "text")
SPAN_MS = 200_000
"""Times lie within it; some are equal."""


def some_fields(chance: random.Random) -> dict[str, Any]:
    names = chance.sample(["dir", "power", "état"], chance.randrange(4))
    return {name: chance.choice(VALUES) for name in names}


def some_time(chance: random.Random, steps: int = 21) -> int:
    return chance.randrange(steps) * (7_001 if chance.random() < 0.7 else 10_000)


def some_span(chance: random.Random) -> list[int]:
    start = some_time(chance)
    return [start, start + chance.randrange(25_000)]


def some_mark(chance: random.Random, node: str, parts: int) -> dict[str, Any]:
    more: dict[str, Any] = {"k": parts, "partition": chance.randrange(parts)}
    if chance.random() < 0.3:
        more["open"] = [some_span(chance) for _ in range(chance.randrange(3))]
    if chance.random() < 0.1:
        more["lost"] = [[*some_span(chance), 3]]
    if chance.random() < 0.1:
        more["by"] = "central"
    return river.mark(node, some_time(chance), **more)


def some_river(seed: int, length: int) -> list[Row]:
    """Records drawn by one seed (drawn one by one by Hypothesis: 100 times slower)."""
    chance = random.Random(seed)
    copied = chance.random() < 0.5
    parts = chance.choice([1, 1, 2]) if copied else 1
    steps = chance.choice([2, 5, 21])  # few: many readings in each window, whose sums then depend on their order
    rows = []
    for offset in range(length):
        node = chance.choice(["n1", "n2"])
        spoken = some_mark(chance, node, parts) if chance.random() < 0.35 else None
        device = "$gateway" if spoken and chance.random() < 0.5 else chance.choice(["a", "b/c"])
        part = spoken["partition"] if spoken else chance.randrange(parts)
        hw = (0, part, max(0, offset + chance.choice([0, 0, 0, -5, 7])))
        rows.append(Row(device, some_time(chance, steps), some_fields(chance), spoken, node, hw if copied else None))
    return rows


def stretched(rows: list[Row], factor: int, base_ms: int) -> list[Row]:
    """The same river, slower and at another time: windows of days and years meet in it what those of seconds do."""

    def at(time: int) -> int:
        return base_ms + time * factor

    def spoken(mark: dict[str, Any] | None) -> dict[str, Any] | None:
        if mark is None:
            return None
        spans: dict[str, Any] = {
            name: [[at(span[0]), at(span[1]), *span[2:]] for span in mark[name]]
            for name in ("open", "lost")
            if name in mark
        }
        return {**mark, "live": at(mark["live"]), **spans}

    return [row._replace(time=at(row.time), mark=spoken(row.mark)) for row in rows]
