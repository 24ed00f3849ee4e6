"""Which readings the windows of one rule may still take: of which devices, since when, and how late."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import numpy as np

from processors.columns import Ints, KeyTable
from processors.intervals import Bools, Interval
from processors.late import TooLateReadings
from processors.results import NEVER, Counters
from processors.rules.model import WindowRule
from processors.windows.cells import Cells, Unknown
from processors.windows.owed import Owed


class Spans(NamedTuple):
    """Windows; readings from `since` on, before they start, change something that belongs to them."""

    starts: Ints
    ends: Ints
    since: Ints


class WindowAdmission(ABC):
    """Cells of one rule's windows by key and start, and what bounds them by node."""

    _slack = 0
    """A window that is not begun any more ends at least this far behind the horizon."""
    _is_looked_up = True
    """Whether cells are found by key and start."""

    def __init__(self, rule: WindowRule, keys: KeyTable) -> None:
        self.rule = rule
        self.cells = Cells(rule.windows_max, is_looked_up=self._is_looked_up)
        self.counters = Counters()
        self.late = TooLateReadings()
        self._keys = keys
        self._refused: list[tuple[int, int, int]] = []  # rows at hand that came too late, and the window of each
        self._matches: Bools = np.zeros(0, dtype=np.bool_)
        self._nodes_of: Ints = np.zeros(0, dtype=np.int64)
        # per node: its watermark; what ended by then may be gone, for want of memory, for its lateness
        self._watermark: Ints = np.zeros(0, dtype=np.int64)
        self._floor: Ints = np.zeros(0, dtype=np.int64)
        self._passed: Ints = np.zeros(0, dtype=np.int64)
        self._begin = NEVER
        self._young: dict[int, int] = {}  # keys whose windows begin later, since the rule names them only since then
        self._begins: Ints | None = None
        self._begin_of_node: dict[str, int] = {}  # nodes whose windows begin later, since records have left the log
        self._node_begins: Ints | None = None
        self._begins_known: list[str] = []
        self._open: dict[int, list[Interval]] = {}
        self._owed = Owed()

    # since when

    @property
    def begin(self) -> int:
        """Windows that begin before it are not told."""
        return self._begin

    def begin_at(self, begin: int) -> None:
        """What went before some other stage knows: tell no window that begins before `begin`."""
        self._begin = max(self._begin, begin)

    @abstractmethod
    def _begin_behind(self, newest: int) -> int:
        """The least beginning that a window may have when readings up to `newest` went before."""

    def begin_after(self, newest: int) -> None:
        """Begin in the middle of a log whose records so far bear times up to `newest`: only windows that cannot have
        begun yet are counted, so that no result is called complete that lacks readings.
        """
        if newest != NEVER:
            self._begin = self._begin_behind(newest)

    def _begin_of(self, keys: Any) -> Any:
        """The least start that windows of these keys (an array, or one number of an array) may have."""
        begin: Any = self._begin
        if self._begins is not None:
            known = keys < len(self._begins)
            begin = np.where(known, self._begins[np.where(known, keys, 0)], begin)
        if self._begin_of_node:
            begin = np.maximum(begin, self._begins_of_nodes()[self._nodes_of[keys]])
        return begin

    def begin_node(self, node: str, newest: int) -> None:
        """Of a node records up to the time `newest` may be gone: tell only windows that cannot have begun by then."""
        self._begin_of_node[node] = max(self._begin_behind(newest), self._begin_of_node.get(node, NEVER))
        self._node_begins = None

    @abstractmethod
    def give_up(self, node: str) -> None:
        """Let go of what there is of a node's windows that are not told, since they began too early."""

    def _too_early(self, table: Cells, node: str) -> Ints:
        """Cells of a node that begin before any window of it that is told."""
        self._learn_keys()
        used = table.used()
        mine = used[self._nodes_of[table.key[used]] == self._keys.node_id(node)]
        found: Ints = mine[table.start[mine] < self._begin_of(table.key[mine])]
        return found

    def _begins_of_nodes(self) -> Ints:
        nodes = self._keys.nodes
        found = self._node_begins
        # numbers given anew come in another list
        if found is None or len(found) != len(nodes) or self._begins_known is not nodes:
            begins = [self._begin_of_node.get(node, NEVER) for node in nodes]
            found = self._node_begins = np.array(begins, dtype=np.int64)
            self._begins_known = nodes
        return found

    def _learn_young(self) -> None:
        self._begins = None
        if self._young:
            self._begins = np.full(max(self._young) + 1, self._begin, dtype=np.int64)
            self._begins[list(self._young)] = np.maximum(list(self._young.values()), self._begin)

    def refuse_below(self, floors: dict[str, int]) -> None:
        """Windows of these nodes that end at or before these times are told already: refuse readings in them."""
        for node, floor in floors.items():
            index = self._keys.node_id(node)
            self._learn_nodes()
            self._floor[index] = max(floor, int(self._floor[index]))

    # keys and nodes

    def takes(self, keys: Ints) -> Bools:
        """Which of these the rule is about, by `devices` and `nodes`."""
        self._learn_keys()
        return self._matches[keys]

    def _learn_keys(self) -> None:
        known = len(self._matches) - 1
        if known < len(self._keys):
            known = max(known, 0)
            fresh = [self._match(key) for key in range(known, len(self._keys))]
            self._matches = np.concatenate([self._matches[:known], np.array([*fresh, False], dtype=np.bool_)])
            nodes = np.array(self._keys.node_of[known:], dtype=np.int64)
            self._nodes_of = np.concatenate([self._nodes_of[:known], nodes])
        elif known < 0:
            self._matches = np.zeros(1, dtype=np.bool_)
        self._learn_nodes()

    def _learn_nodes(self) -> None:
        missing = len(self._keys.nodes) - len(self._watermark)
        if missing > 0:
            never = np.full(missing, NEVER, dtype=np.int64)
            self._watermark = np.concatenate([self._watermark, never])
            self._floor = np.concatenate([self._floor, never])
            self._passed = np.concatenate([self._passed, never])

    def _match(self, key: int) -> bool:
        node, device = self._keys.device(key)
        return fits(self.rule, node, device)

    def _horizon(self, node: int) -> int:
        """Windows of a node that end at or before this are not begun any more."""
        return max(self._beyond_lateness(node), int(self._floor[node]))

    def _beyond_lateness(self, node: int) -> int:
        horizon = self._lateness(int(self._watermark[node]), self._open.get(node, ()))
        return max(horizon, int(self._passed[node]))  # a node that owes older data than before does not set it back

    def _lateness(self, watermark: int, owed: Sequence[Interval]) -> int:
        """What ended by then has had its time to be revised; with lateness "backfill" not while a node owes data."""
        if watermark == NEVER:
            return NEVER
        horizon = watermark - self.rule.allowed_lateness_ms
        if self.rule.lateness == "backfill" and owed:
            return min(horizon, *(first for first, _ in owed))
        return horizon

    def _over(self, nodes: Ints, windows: Spans) -> Bools:
        """Which windows are not begun any more."""
        horizons = np.zeros(int(nodes.max(initial=-1)) + 1, dtype=np.int64)
        for node in np.flatnonzero(np.bincount(nodes)).tolist():
            horizons[node] = self._horizon(node)
        over: Bools = windows.ends <= horizons[nodes]
        for row in np.flatnonzero(over).tolist():
            since, end = int(windows.since[row]), int(windows.ends[row])
            over[row] = not self._owed.lets_begin(int(nodes[row]), since, end, end)
        return over

    def _make(self, table: Cells, unknown: Unknown, key: Ints, starts: Ints, windows: Spans) -> Ints:
        """Cells of `table` for what was seen first, in the order of the log; -1 where none is allowed.

        Of each a key, a start, and the last window that it belongs to. Rows left without a cell are counted.
        """
        over = self._over(self._nodes_of[key], windows) | (windows.starts < self._begin_of(key))
        made = np.full(len(over), -1, dtype=np.int64)
        allowed = np.flatnonzero(~over)
        made[allowed] = table.make(key[allowed], starts[allowed], windows.ends[allowed])
        if (made < 0).any():
            for row, number in zip(unknown.rows.tolist(), unknown.group.tolist(), strict=True):
                if over[number]:
                    self._refused.append((row, int(windows.starts[number]), int(windows.ends[number])))
                elif made[number] < 0:
                    self.counters.overflow += 1
        return made

    def _refuse(self, row: int, key: int, time: int, window: Sequence[int], *, backfill: bool) -> None:
        """A reading, row `row` of its block, would have begun `window`, which is not begun any more."""
        self.counters.too_late += 1
        if window[0] < self._begin_of(np.int64(key)):
            return  # it is not late: the rule is younger than the window
        node = int(self._nodes_of[key])
        live = int(self._watermark[node])
        forgotten = live == NEVER or window[1] - self._slack > self._beyond_lateness(node)
        cause = "memory" if forgotten else "backfill" if backfill else "device"
        self.late.take(row, self._keys.names[key], time, window, live, cause)


def fits(rule: WindowRule, node: str, device: str) -> bool:
    """Whether a rule is about a device."""
    return any_match(rule.nodes, node) and any_match(rule.devices, device)


def any_match(patterns: Sequence[str], name: str) -> bool:
    """Whether a name fits a pattern; one that begins with `$` only a pattern that does so too."""
    if name.startswith("$"):
        patterns = [pattern for pattern in patterns if pattern.startswith("$")]
    return "*" in patterns or any(fnmatchcase(name, pattern) for pattern in patterns)
