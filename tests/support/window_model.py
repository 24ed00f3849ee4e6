"""What windows must say, recomputed from lists of readings with no cleverness at all."""

from __future__ import annotations

import math
from typing import Any

from tests.support.river import Row

Window = dict[str, Any]


def touches(start: int, size: int, intervals: list[list[int]]) -> bool:
    return any(start <= interval[1] and start + size > interval[0] for interval in intervals)


def aggregate(name: str, numbers: list[float]) -> Any:
    match name:
        case "count":
            return len(numbers)
        case "min":
            return float(min(numbers))
        case "max":
            return float(max(numbers))
        case "mean":
            total = 0.0
            for number in numbers:
                total += number
            return total / len(numbers)
    sines = cosines = 0.0
    for number in numbers:
        sines += math.sin(math.radians(number))
        cosines += math.cos(math.radians(number))
    if math.hypot(sines, cosines) <= 1e-9 * len(numbers):
        return None
    degrees = math.degrees(math.atan2(sines, cosines)) % 360
    return degrees if degrees < 360 else 0.0


class Model:
    """One rule of `size` ms over one partition with the default aggregates, `circular` fields having one more."""

    def __init__(self, size: int, lateness: int, circular: tuple[str, ...] = ()) -> None:
        self.size = size
        self.lateness = lateness
        self.circular = circular
        self.windows: dict[tuple[str, str, int], Window] = {}
        self.lives: dict[str, dict[int, int]] = {}
        self.expected: dict[str, int] = {}
        self.open: dict[str, dict[int, list[list[int]]]] = {}
        self.lost: dict[str, list[list[int]]] = {}
        self.highest: dict[tuple[Any, ...], int] = {}
        self.swept: dict[str, int | None] = {}
        self.outputs: list[Window] = []

    def watermark(self, node: str) -> int | None:
        lives = self.lives.get(node, {})
        return min(lives.values()) if lives and len(lives) >= self.expected[node] else None

    def owed(self, node: str) -> list[list[int]]:
        return [interval for part in self.open.get(node, {}).values() for interval in part]

    def take(self, row: Row) -> None:
        backfill = False
        if row.hw is not None:
            log = (row.node, *row.hw[:2])
            backfill = row.hw[2] < self.highest.get(log, -1)
            self.highest[log] = max(row.hw[2], self.highest.get(log, -1))
        if not row.device.startswith("$"):
            self.read(row, backfill=backfill)
        if row.mark is not None:
            self.hear(row.mark, copied=row.hw is not None)

    def read(self, row: Row, *, backfill: bool) -> None:
        start = row.time // self.size * self.size
        where = (row.node, row.device, start)
        if where not in self.windows:
            watermark = self.watermark(row.node)
            too_late = watermark is not None and start + self.size <= watermark - self.lateness
            if too_late and not touches(start, self.size, self.owed(row.node)):
                return
            said: dict[str, Any] = {"said": None, "settled": False, "revision": -1, "fresh": False}
            self.windows[where] = {"rows": [], "live": False, "retro": False, **said}
        window = self.windows[where]
        window["rows"].append(row.fields)
        window["fresh"] = True
        window["live"] |= not backfill

    def hear(self, mark: dict[str, Any], *, copied: bool) -> None:
        node = mark["node"]
        if mark.get("by") == "central":
            for where in self.of(node, mark["live"]):
                if self.windows[where]["revision"] < 0:
                    self.say(where, complete=False, settled=False)
            return
        part = mark["partition"] if copied else 0
        self.expected[node] = mark["k"] if copied else 1
        lives = self.lives.setdefault(node, {})
        lives[part] = max(mark["live"], lives.get(part, mark["live"]))
        self.open.setdefault(node, {})[part] = mark.get("open", [])
        self.lost.setdefault(node, []).extend(mark.get("lost", []))
        watermark = self.watermark(node)
        if watermark is None:
            return
        for where in self.of(node, watermark):
            self.judge(where, node)
        if self.swept.get(node) != watermark // self.size:
            self.swept[node] = watermark // self.size
            for where in self.of(node, watermark - self.lateness):
                if not touches(where[2], self.size, self.owed(node)):
                    del self.windows[where]

    def of(self, node: str, end: int) -> list[tuple[str, str, int]]:
        mine = [where for where in self.windows if where[0] == node and where[2] + self.size <= end]
        return sorted(mine, key=lambda where: (where[2], f"{where[0]}/{where[1]}"))

    def judge(self, where: tuple[str, str, int], node: str) -> None:
        window = self.windows[where]
        if touches(where[2], self.size, self.owed(node)):
            window["retro"] |= not window["settled"]
            if window["revision"] < 0 and window["live"]:
                self.say(where, complete=False, settled=False)
            return
        lost = touches(where[2], self.size, self.lost[node]) or (window["settled"] and not window["said"])
        if not window["settled"] or window["fresh"] or (window["said"] and lost):
            self.say(where, complete=not lost, settled=True)

    def say(self, where: tuple[str, str, int], *, complete: bool, settled: bool) -> None:
        window = self.windows[where]
        window.update(revision=window["revision"] + 1, said=complete, settled=settled, fresh=False)
        fields: dict[str, dict[str, Any]] = {}
        for name in sorted({name for row in window["rows"] for name in row}):
            numbers = [row[name] for row in window["rows"] if type(row.get(name)) in (int, float)]
            names = ["count", "mean", "min", "max"] + (["circular_mean"] if name in self.circular else [])
            if numbers:
                fields[name] = {aggregated: aggregate(aggregated, numbers) for aggregated in names}
        self.outputs.append(
            {
                "group": f"{where[0]}/{where[1]}",
                "start": where[2],
                "end": where[2] + self.size,
                "revision": window["revision"],
                "complete": complete,
                "count": len(window["rows"]),
                "fields": fields,
                **({"retro": True} if window["retro"] else {}),
            }
        )
