"""What windows must say, recomputed from lists of readings with no cleverness at all."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from processors import late
from tests.support.aggregate_model import OF_TEXTS, Near
from tests.support.river import Row
from tests.support.window_trees import Tree, aggregate, counts, flat, with_field

Window = dict[str, Any]
NEVER = -(1 << 60)


def touches(start: int, end: int, intervals: list[list[int]]) -> bool:
    return any(start <= interval[1] and end > interval[0] for interval in intervals)


class Model:
    """One rule over one partition with the default aggregates, `circular` fields having one more; or with those of
    `near` by field, each compared within its stated error.

    What a reading's windows are is the business of the subclasses.
    """

    def __init__(
        self,
        lateness: int,
        circular: tuple[str, ...] = (),
        *,
        early_every: int = 0,
        until_backfilled: bool = False,
        near: Mapping[str, tuple[str, ...]] | None = None,
    ) -> None:
        self.lateness = lateness
        self.near = near
        self.early_every = early_every
        self.until_backfilled = until_backfilled
        self.circular = circular
        self.windows: dict[tuple[str, str, int], Window] = {}
        self.lives: dict[str, dict[int, int]] = {}
        self.expected: dict[str, int] = {}
        self.open: dict[str, dict[int, list[list[int]]]] = {}
        self.lost: dict[str, list[list[int]]] = {}
        self.highest: dict[tuple[Any, ...], int] = {}
        self.swept: dict[str, int | None] = {}
        self.let_go: dict[str, int] = {}
        self.said_owed: dict[str, list[tuple[int, list[list[int]]]]] = {}
        self.passed: dict[str, int | None] = {}
        self.outputs: list[Window] = []
        self.refused: dict[str, list[dict[str, Any]]] = {}
        self.told_late: list[dict[str, Any]] = []

    def watermark(self, node: str) -> int | None:
        lives = self.lives.get(node, {})
        return min(lives.values()) if lives and len(lives) >= self.expected[node] else None

    def owed(self, node: str) -> list[list[int]]:
        return [interval for part in self.open.get(node, {}).values() for interval in part]

    def horizon(self, node: str) -> int:
        """What ended by then has had its time."""
        watermark = self.watermark(node)
        if watermark is None:
            return NEVER
        owed = [first for first, _ in self.owed(node)] if self.until_backfilled else []
        return min([watermark - self.lateness, *owed])

    def too_late(self, node: str, start: int, end: int, over: int | None = None) -> bool:
        """Its time is over (`over`: when), and not all the while since then something was owed to it."""
        over = end if over is None else over
        if over > max(self.horizon(node), self.let_go.get(node, NEVER)):
            return False
        edges = {
            start,
            *(edge for _, owed in self.said_owed.get(node, []) for one in owed for edge in (one[0], one[1] + 1)),
        }
        return not any(start <= edge < end and self.owed_since(node, edge) < over for edge in edges)

    def owed_since(self, node: str, time: int) -> int:
        """What had been let go of when a mark said first of all those since that this time is owed."""
        found = 1 << 60
        for let_go, owed in reversed(self.said_owed.get(node, [])):
            if not touches(time, time + 1, owed):
                break
            found = let_go
        return found

    def refuse(self, row: Row, start: int, end: int, *, backfill: bool) -> None:
        live = self.watermark(row.node)
        assert live is not None
        told = {"group": f"{row.node}/{row.device}", "time": row.time, "start": start, "end": end, "live": live}
        told |= {"behind_ms": live - row.time, "cause": "backfill" if backfill else "device", "reading": row.fields}
        hour = live // late.HOUR_MS
        self.refused.setdefault(row.node, []).append({"told": told, "hour": hour, "waits": True, "single": False})

    def tell_late(self, node: str, watermark: int) -> None:
        """Of each device and hour the first few one by one, the others as a sum when the hour is over."""
        hours: dict[tuple[str, int], list[dict[str, Any]]] = {}
        for one in self.refused.get(node, []):
            of_hour = hours.setdefault((one["told"]["group"], one["hour"]), [])
            of_hour.append(one)
            one["single"] = len(of_hour) <= late.SINGLES
            if one["single"] and one["waits"]:
                one["waits"] = False
                self.told_late.append(one["told"])
        for (group, hour), of_hour in sorted(hours.items()):
            rest = [one for one in of_hour if one["waits"] and not one["single"]]
            if not rest or hour == watermark // late.HOUR_MS:
                continue
            for one in rest:
                one["waits"] = False
            times = [one["told"]["time"] for one in rest]
            causes = Counter(one["told"]["cause"] for one in rest)
            said = {"group": group, "count": len(rest), "first": min(times), "last": max(times)}
            self.told_late.append({**said, "live": watermark, "causes": dict(causes)})

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
        raise NotImplementedError

    def step(self, watermark: int) -> int:
        """Old windows are swept out when this changes."""
        raise NotImplementedError

    def reach(self, window: Window) -> tuple[int, int]:
        return window["start"], window["end"]

    def new(self, start: int, end: int) -> Window:
        empty: Window = {"rows": [], "said": None, "settled": False, "live": False, "retro": False, "revision": -1}
        return {**empty, "fresh": False, "start": start, "end": end, "early": False, "was": None}

    def hear(self, mark: dict[str, Any], *, copied: bool) -> None:
        node = mark["node"]
        if mark.get("by") == "central":
            for where in self.of(node, mark["live"]):
                window = self.windows[where]
                if window["revision"] < 0 or (window["early"] and window["fresh"]):
                    self.say(where, complete=False, settled=False)
            return
        part = mark["partition"] if copied else 0
        self.expected[node] = mark["k"] if copied else 1
        lives = self.lives.setdefault(node, {})
        lives[part] = max(mark["live"], lives.get(part, mark["live"]))
        self.open.setdefault(node, {})[part] = mark.get("open", [])
        self.lost.setdefault(node, []).extend(mark.get("lost", []))
        self.said_owed.setdefault(node, []).append((self.let_go.get(node, NEVER), self.owed(node)))
        passed = self.passed.get(node)
        self.passed[node] = watermark = self.watermark(node)
        if watermark is None:
            return
        before = len(self.outputs)
        self.take_back(node)
        for where in self.of(node, watermark):
            self.judge(where, node)
        if self.early_every and (passed is None or passed // self.early_every != watermark // self.early_every):
            self.foretell(node, watermark)
        self.tell_late(node, watermark)
        self.outputs[before:] = sorted(self.outputs[before:], key=lambda said: (said["start"], said["group"]))
        if self.swept.get(node) != self.step(watermark):
            self.swept[node] = self.step(watermark)
            self.sweep(node, self.horizon(node))
        self.let_go[node] = max(self.horizon(node), self.let_go.get(node, NEVER))

    def foretell(self, node: str, watermark: int) -> None:
        """What there is of windows under way, if it is new."""
        for where, window in self.windows.items():
            if where[0] == node and where[2] <= watermark < window["end"] and window["fresh"]:
                self.say(where, complete=False, settled=False)
                window["early"] = True

    def take_back(self, node: str) -> None:
        """Say what was told of windows that are no more."""

    def sweep(self, node: str, horizon: int) -> None:
        for where in self.of(node, horizon):
            if not touches(*self.reach(self.windows[where]), self.owed(node)):
                del self.windows[where]

    def of(self, node: str, end: int) -> list[tuple[str, str, int]]:
        mine = [where for where, window in self.windows.items() if where[0] == node and window["end"] <= end]
        return sorted(mine, key=lambda where: (where[2], f"{where[0]}/{where[1]}"))

    def judge(self, where: tuple[str, str, int], node: str) -> None:
        window = self.windows[where]
        owed = touches(*self.reach(window), self.owed(node))
        if (owed or not window["live"]) and not window["settled"]:
            window["retro"] = True
        if owed:
            if (window["revision"] < 0 or window["early"]) and window["live"]:
                self.say(where, complete=False, settled=False)
            return
        lost = touches(*self.reach(window), self.lost[node]) or (window["settled"] and not window["said"])
        if not window["settled"] or window["fresh"] or (window["said"] and lost):
            self.say(where, complete=not lost, settled=True)

    def rows_of(self, where: tuple[str, str, int]) -> Tree:
        return self.windows[where]["rows"]  # type: ignore[no-any-return]

    def fields_of(self, rows: Tree, window: Window) -> dict[str, dict[str, Any]]:
        fields: dict[str, dict[str, Any]] = {}
        for name in sorted({name for row in flat(rows) for name in row.fields}):
            if self.near is not None:
                texts = set(self.near[name]) <= OF_TEXTS
                mine = [(row.time, row.fields[name]) for row in flat(rows) if counts(row.fields.get(name), texts=texts)]
                span = window["start"], window["end"]
                if mine:
                    fields[name] = {one: Near(one, mine, *span) for one in self.near[name]}
                continue
            numbers = with_field(rows, name)
            names = ["count", "mean", "min", "max"] + (["circular_mean"] if name in self.circular else [])
            if flat(numbers):
                fields[name] = {aggregated: aggregate(aggregated, numbers) for aggregated in names}
        return fields

    def say(self, where: tuple[str, str, int], *, complete: bool, settled: bool) -> None:
        window = self.windows[where]
        before = window["was"] if window["revision"] >= 0 and not window["early"] else None
        window.update(revision=window["revision"] + 1, said=complete, settled=settled, fresh=False, early=False)
        rows = self.rows_of(where)
        fields = self.fields_of(rows, window)
        window["was"] = {"count": len(flat(rows)), "fields": fields}
        self.outputs.append(
            {
                "group": f"{where[0]}/{where[1]}",
                "start": where[2],
                "end": window["end"],
                "revision": window["revision"],
                "complete": complete,
                "count": len(flat(rows)),
                "fields": fields,
                **({"retro": True} if window["retro"] else {}),
                **({"before": before} if before is not None else {}),
            }
        )


class SideBySide(Model):
    """Windows between bounds: a reading is in one."""

    def __init__(
        self, bounds: Callable[[int], tuple[int, int]], lateness: int, circular: tuple[str, ...] = (), **more: Any
    ) -> None:
        super().__init__(lateness, circular, **more)
        self.bounds = bounds

    def step(self, watermark: int) -> int:
        return self.bounds(watermark)[0]

    def bounds_of(self, row: Row) -> tuple[int, int]:
        return self.bounds(row.time)

    def read(self, row: Row, *, backfill: bool) -> None:
        start, end = self.bounds_of(row)
        where = (row.node, row.device, start)
        if where not in self.windows:
            if self.too_late(row.node, start, end):
                self.refuse(row, start, end, backfill=backfill)
                return
            self.windows[where] = self.new(start, end)
        window = self.windows[where]
        window["rows"].append(row)
        window["fresh"] = True
        window["live"] |= not backfill


class Overlapping(Model):
    """Windows of `size` that begin every `hop`. Readings are kept by panes; a window is whatever its panes hold."""

    def __init__(self, size: int, hop: int, lateness: int, **more: Any) -> None:
        super().__init__(lateness, **more)
        self.size, self.hop, self.pane = size, hop, math.gcd(size, hop)
        self.panes: dict[tuple[str, str, int], list[Row]] = {}
        self.live_panes: set[tuple[str, str, int]] = set()

    def step(self, watermark: int) -> int:
        return watermark // self.hop

    def starts(self, pane: int) -> list[int]:
        """Of the windows that hold a pane."""
        last = pane // self.hop * self.hop
        return [start for start in range(last, pane - self.size, -self.hop) if start + self.size > pane][::-1]

    def read(self, row: Row, *, backfill: bool) -> None:
        pane = row.time // self.pane * self.pane
        starts = self.starts(pane)
        where = (row.node, row.device, pane)
        if where not in self.panes:
            end = starts[-1] + self.size
            if self.too_late(row.node, pane - self.size, end):
                self.refuse(row, starts[-1], starts[-1] + self.size, backfill=backfill)
                return
        self.panes.setdefault(where, []).append(row)
        if not backfill:
            self.live_panes.add(where)
        for start in starts:
            end, one = start + self.size, (row.node, row.device, start)
            if one not in self.windows:
                if self.too_late(row.node, start, end):
                    continue
                self.windows[one] = self.new(start, end)
            self.windows[one]["fresh"] = True
            # also when what was live in the pane was told in a window that is forgotten by now
            self.windows[one]["live"] |= where in self.live_panes

    def sweep(self, node: str, horizon: int) -> None:
        super().sweep(node, horizon)
        for where in list(self.panes):
            starts = self.starts(where[2])
            end = starts[-1] + self.size
            if where[0] == node and end <= horizon and not touches(starts[0], end, self.owed(node)):
                del self.panes[where]
                self.live_panes.discard(where)

    def rows_of(self, where: tuple[str, str, int]) -> Tree:
        panes = range(where[2], where[2] + self.size, self.pane)
        return [self.panes.get((where[0], where[1], pane), []) for pane in panes]


class Silences(Model):
    """Sessions: a device's readings, sorted and cut wherever `gap` ms lie between two of them."""

    def __init__(self, gap: int, lateness: int, **more: Any) -> None:
        super().__init__(lateness, **more)
        self.gap = gap
        self.gone: list[tuple[str, str, Window]] = []

    def step(self, watermark: int) -> int:
        return watermark // self.gap

    def reach(self, window: Window) -> tuple[int, int]:
        return window["start"] - self.gap + 1, window["end"]

    def read(self, row: Row, *, backfill: bool) -> None:
        mine = {where: one for where, one in self.windows.items() if where[:2] == (row.node, row.device)}
        near = sorted(
            where for where, one in mine.items() if row.time < one["end"] and one["start"] < row.time + self.gap
        )
        begins = not near or row.time < near[0][2]
        if begins and self.too_late(row.node, row.time - self.gap + 1, row.time + self.gap, row.time + 1):
            self.refuse(row, row.time, row.time + self.gap, backfill=backfill)
            return
        start = min([row.time, *(where[2] for where in near)])
        joined = self.new(start, max([row.time + self.gap, *(mine[where]["end"] for where in near)]))
        for where in near:
            old = self.windows.pop(where)
            joined["rows"] += [old["rows"]] if joined["rows"] else old["rows"]
            joined["live"] |= old["live"]
            joined["retro"] |= old["retro"]
            if where[2] == start:
                joined |= {name: old[name] for name in ("said", "settled", "revision", "early", "was")}
            elif old["revision"] >= 0:
                self.gone.append((row.node, row.device, old))
        joined["rows"].append(row)
        joined["fresh"] = True
        joined["live"] |= not backfill
        self.windows[row.node, row.device, start] = joined

    def take_back(self, node: str) -> None:
        for one, device, old in self.gone:
            if one == node:
                into = [start for name, other, start in self.windows if (name, other) == (node, device)]
                said = {"start": old["start"], "end": old["end"], "revision": old["revision"] + 1, "complete": True}
                said |= {"group": f"{node}/{device}", "count": 0, "fields": {}}
                self.outputs.append({**said, "merged_into": max(start for start in into if start <= old["start"])})
        self.gone = [gone for gone in self.gone if gone[0] != node]
