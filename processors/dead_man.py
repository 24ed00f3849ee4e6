"""Dead-man alerts: a device that fell silent while its gateway lives, or the gateway itself. sans-IO.

Three silences look alike to who waits for readings, and mean different things:

- The device. Its node's watermark, which is made of the gateway's other sources and its clock, has passed the device's
  newest reading by what the rule allows (`silent_after_s`, or so many of the device's intervals, as its readings say
  them or as they were learnt), and nothing of that span is owed by backfill: instance `<node>/<device>`.
- The gateway, or its link. Then there are no marks, so no watermark passes anything and no device is judged; the owner
  of the partition writes a mark in the node's name (`silence`): instance `<node>/$gateway`.
- The pipeline. Who has not read the log knows nothing of silence, and says nothing: neither kind of mark is made of
  what was not read. How far it is behind is in its status.

All of it is decided at marks, from the log alone: a replay says the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from processors.alerts import AlertState, Instance, State, Transition
from processors.columns import Ints
from processors.facts import DeviceFacts
from processors.marks import Mark, NodeMarks
from processors.results import Results
from processors.rhythms import UNKNOWN
from processors.roster import Roster
from processors.rules.model import AlertRule
from processors.silence import HEALTH_DEVICE
from processors.windows.admission import WindowAdmission, any_match

SILENT_MIN_MS = 10_000
"""Fewer seconds are no silence, however often a device speaks: as the page and `status` have it."""
_PATIENCE_MS = 60_000
_FOR_EVER_MS = 1 << 60
_GAPS_MAX = 32
"""So many gaps in a node's marks are told apart, the longest ones."""
_SAID = {"firing": "is silent", "resolved": "is heard again"}


class DeadMan(AlertState):
    """The instances of one dead-man rule on one partition: those that are silent, or once were."""

    def __init__(self, rule: AlertRule) -> None:
        super().__init__(rule)
        self._after_ms = None if rule.silent_after_s is None else round(rule.silent_after_s * 1000)
        # Per node: the version of what is known, its devices, and the interval that is said of each.
        self._told: dict[str, tuple[tuple[int, int], list[str], Ints]] = {}
        # Per node: the clock of its last mark, and how long gaps in its marks were with the watermark behind each.
        # Who could not be heard for as long as it may be silent has the whole time to speak again.
        self._lives: dict[str, tuple[int, list[tuple[int, int]]]] = {}

    def at_mark(
        self, results: Results, mark: Mark, node: NodeMarks, roster: Roster, window: WindowAdmission, facts: DeviceFacts
    ) -> list[Transition]:
        """What its node's mark says of devices and of the gateway."""
        gateway = f"{mark.node}/{HEALTH_DEVICE}"
        watermark = node.watermark
        if mark.by is not None:
            takes = any_match(window.rule.nodes, mark.node)
            last = self._lives[mark.node][0] if mark.node in self._lives else None
            if (one := self.instances.get(gateway)) is not None and one.state == "firing" and mark.live:
                one.consumed = max(one.consumed, mark.live)  # it was silent until then at least
            return list(self._fire(gateway, last, mark.live, mark.live)) if takes and last and mark.live else []
        if watermark is None:
            return []
        found = list(self._resolve(gateway, watermark if mark.clock is None else mark.clock))
        found += self._devices(mark, watermark, node, roster, window, facts)
        return found

    def _devices(
        self,
        mark: Mark,
        watermark: int,
        node: NodeMarks,
        roster: Roster,
        window: WindowAdmission,
        facts: DeviceFacts,
    ) -> Iterator[Transition]:
        keys, heard = roster.heard(mark.node, window.takes)
        after = self._allowances(mark.node, watermark, keys, heard, roster, facts)
        lived = watermark - self._lived_since(mark, watermark, after)
        quiet = heard <= watermark - after
        if firing := [name for name, one in self.instances.items() if one.state == "firing"]:
            spoke = dict(zip(roster.names(keys[~quiet]), heard[~quiet].tolist(), strict=True))
            for name in firing:
                if name in spoke:
                    yield from self._resolve(name, spoke[name])
        judged = quiet & (after <= lived)
        for name, last, allowed in zip(
            roster.names(keys[judged]), heard[judged].tolist(), after[judged].tolist(), strict=True
        ):
            until = last + allowed
            if not any(first <= until and last <= end for first, end in node.open):
                yield from self._fire(name, last, until, watermark)

    def _allowances(
        self, node: str, watermark: int, keys: Ints, heard: Ints, roster: Roster, facts: DeviceFacts
    ) -> Ints:
        """How long each device may be silent; for ever where the rule goes by intervals and nobody knows one."""
        rest = _FOR_EVER_MS if self._after_ms is None else self._after_ms
        if self.rule.missed is None:
            return np.full(len(keys), rest, dtype=np.int64)
        said = self._said(node, roster.names(keys), facts)
        after: Ints = np.maximum(np.rint(said * self.rule.missed).astype(np.int64), SILENT_MIN_MS)
        unsaid = np.flatnonzero(said == UNKNOWN)
        after[unsaid] = rest
        if self._after_ms is None and roster.rhythms is not None:
            # Who has spoken just now is not silent, however often he speaks: that is nearly everybody.
            asked = unsaid[heard[unsaid] <= watermark - SILENT_MIN_MS]
            learnt = roster.rhythms.intervals(keys[asked], heard[asked])
            known = np.maximum(np.rint(learnt * self.rule.missed).astype(np.int64), SILENT_MIN_MS)
            after[asked] = np.where(learnt == UNKNOWN, rest, known)
        return after

    def _said(self, node: str, names: list[str], facts: DeviceFacts) -> Ints:
        """The interval that each device's readings say."""
        known = self._told.get(node)
        if known is not None and known[0] == facts.version and known[1] == names:
            return known[2]
        found = np.array([facts.interval_ms(name.encode()) or UNKNOWN for name in names], dtype=np.int64)
        self._told[node] = (facts.version, names, found)
        return found

    def _lived_since(self, mark: Mark, watermark: int, after: Ints) -> Ints:
        """Since when each device could be heard that may be silent `after` so long."""
        clock = watermark if mark.clock is None else mark.clock
        last, gaps = self._lives.get(mark.node, (clock, [(_FOR_EVER_MS, watermark)]))
        length = clock - last
        if length >= min(SILENT_MIN_MS, self._after_ms or _PATIENCE_MS):
            gaps = [*(gap for gap in gaps if gap[0] > length), (length, watermark)]
        # A gap that lies as far back as it was long matters to nobody any more.
        gaps = [(length, since) for length, since in gaps if watermark - since < length][:_GAPS_MAX]
        self._lives[mark.node] = (max(clock, last), gaps)
        lengths = np.array([-length for length, _ in gaps], dtype=np.int64)
        since = np.array([since for _, since in gaps], dtype=np.int64)
        found: Ints = since[np.searchsorted(lengths, -after, side="right") - 1]
        return found

    def _fire(self, name: str, last: int, at: int, now: int) -> Iterator[Transition]:
        one = self.instances.get(name)
        if one is None:
            one = self._admit(name)
        if one is not None and one.state != "firing":
            yield self._become(name, one, "firing", at, last, (now - last) / 1000)

    def _resolve(self, name: str, at: int) -> Iterator[Transition]:
        one = self.instances.get(name)
        if one is not None and one.state == "firing" and one.cause_start is not None:
            at = max(at, one.consumed)
            yield self._become(name, one, "resolved", at, one.cause_start, (at - one.cause_start) / 1000)

    def _become(self, name: str, one: Instance, state: State, at: int, last: int, silent_s: float) -> Transition:
        known = one.consumed
        one.state, one.since, one.cause_start, one.consumed = state, at, last, at
        one.value = one.cause_value = silent_s
        one.transition += 1
        cause = f"the device {_SAID[state]}: nothing for {silent_s:g} s"
        if name.endswith(f"/{HEALTH_DEVICE}"):
            cause = f"the gateway {_SAID[state]}: no mark for "
            if state == "firing":
                cause += f"{silent_s:g} s. It is off, or its link is cut; its devices are not judged"
            else:  # marks made in time, which a cut link held back, do not say how long it was
                cause += f"{'at least ' if at == known else ''}{silent_s:g} s"
        return Transition(name, one.transition, state, at, silent_s, cause, at, last)

    def snapshot(self) -> dict[str, Any]:
        return super().snapshot() | {"lives": self._lives}

    def restore(self, data: dict[str, Any]) -> None:
        super().restore(data)
        self._lives = {
            # Earlier versions knew one time, since when marks came without a gap.
            node: (clock, [(_FOR_EVER_MS, gaps)] if isinstance(gaps, int) else [(gap[0], gap[1]) for gap in gaps])
            for node, (clock, gaps) in data.get("lives", {}).items()
        }


def alert_state(rule: AlertRule) -> AlertState:
    """The state of an alert of either kind."""
    return DeadMan(rule) if rule.is_dead_man else AlertState(rule)
