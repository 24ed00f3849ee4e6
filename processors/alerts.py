"""Alerts of one rule over one partition: a table of states, fed with window results.

The live state consumes the first complete result of each window that was not closed by backfill, in event-time order
per instance. A later revision annotates the transition that its window caused; it never makes one. All times are event
time in ms: `at` is the end of the window that caused a transition, `since` the `at` with which the state began.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

import msgspec

from processors.facts import DeviceFacts
from processors.marks import Mark, NodeMarks
from processors.results import Results, WindowResult
from processors.roster import Roster
from processors.rules.model import AlertRule
from processors.windows.admission import WindowAdmission

State = Literal["inactive", "pending", "firing", "recovering", "resolved"]
Band = Literal["hot", "between", "clear"]

INSTANCES_MAX = 200_000

# What a state becomes when the value lies in a band and no hold time is over. A missing entry: it stays as it is.
# hot: beyond the fire level; clear: beyond the clear level; between: neither.
NEXT: dict[tuple[State, Band], State] = {
    ("inactive", "hot"): "pending",
    ("pending", "between"): "inactive",
    ("pending", "clear"): "inactive",
    ("firing", "clear"): "recovering",
    ("recovering", "hot"): "firing",
    ("recovering", "between"): "firing",
    ("resolved", "hot"): "pending",
}
# What a state becomes when the value has stayed in the band for the rule's hold time (0: at once).
HELD: dict[tuple[State, Band], State] = {
    ("pending", "hot"): "firing",  # for_s
    ("recovering", "clear"): "resolved",  # keep_firing_s
}
# What does not happen while an instance flaps.
_DAMPED: frozenset[tuple[State, Band]] = frozenset((("firing", "clear"), ("recovering", "clear")))
# What a state becomes when its device is forgotten. A missing entry: there is nothing to say.
ENDED: dict[State, State] = {"pending": "inactive", "firing": "resolved", "recovering": "resolved"}


class Instance(msgspec.Struct):
    """The alert of one device. `consumed`: the end of the newest window taken in."""

    state: State = "inactive"
    since: int = 0
    transition: int = 0
    value: float | None = None
    consumed: int = -(1 << 62)
    cause_start: int | None = None  # start of the window behind the latest transition
    cause_value: float | None = None
    flaps: float = 0.0  # how often it fired lately (`AlertState._score`), as it was at the time `consumed`
    calm: bool = False  # it was clear since it was hot
    damped: bool = False  # it flaps: what fires stays firing


class Annotation(NamedTuple):
    """What a revision says about the window that caused the latest transition."""

    revision: int
    value: float | None


class Transition(NamedTuple):
    """One transition, or (with `annotation`) a later finding about the one with the same number."""

    instance: str
    transition: int
    state: State
    since: int
    value: float | None
    cause: str
    at: int
    window: int
    annotation: Annotation | None = None
    flapping: bool = False


def alert_value(rule: AlertRule, transition: Transition) -> dict[str, Any]:
    """The value of its record in topic `alerts`."""
    value: dict[str, Any] = {
        "rule": rule.name,
        "instance": transition.instance,
        "transition": transition.transition,
        "state": transition.state,
        "since": transition.since,
        "value": transition.value,
        "cause": transition.cause,
        "at": transition.at,
        "window": transition.window,
        "severity": rule.severity,
        "summary": rule.summary,
    }
    if transition.annotation is not None:
        value["annotation"] = {"revision": transition.annotation.revision, "value": transition.annotation.value}
    if transition.flapping:
        value["flapping"] = True
    return value


class AlertState:
    """All instances of one rule on one partition."""

    def __init__(self, rule: AlertRule) -> None:
        self.rule = rule
        self.instances: dict[str, Instance] = {}
        self.retro = 0  # results closed by backfill, which the live state leaves alone
        self.forgotten = 0  # the highest transition number of those forgotten: no number is used twice
        self.ignored = 0  # results older than one already consumed, and instances beyond the limit

    def at_mark(
        self, results: Results, mark: Mark, node: NodeMarks, roster: Roster, window: WindowAdmission, facts: DeviceFacts
    ) -> list[Transition]:
        """What a mark lets be said, `results` being those of its window; the rest is what dead-man alerts look at."""
        return self.consume(results)

    def consume(self, results: Iterable[WindowResult]) -> list[Transition]:
        """The transitions that these results cause, in their order."""
        found: list[Transition] = []
        field, aggregate = self.rule.field, self.rule.aggregate
        for result in results:
            values = result.fields.get(field)
            if values is None or not result.complete:
                continue
            value = values[aggregate]
            if isinstance(value, str):
                continue  # a text lies neither beyond a level nor before it
            if not result.first_complete:
                self._annotate(result, value, found)
            elif result.retro:
                self.retro += 1
            elif value is not None:
                self._step(result, float(value), found)
        return found

    def _admit(self, name: str) -> Instance | None:
        """A new instance, unless it is one too many."""
        if len(self.instances) >= INSTANCES_MAX:
            self.ignored += 1
            return None
        one = self.instances[name] = Instance(transition=self.forgotten)
        return one

    def _step(self, result: WindowResult, value: float, found: list[Transition]) -> None:
        band = self.band(value)
        instance = self.instances.get(result.group) or self._admit(result.group)
        if instance is None:
            return
        if result.end <= instance.consumed:
            self.ignored += 1
            return
        self._score(instance, band, result.end)
        instance.consumed = result.end
        instance.value = value
        while (state := self._next(instance, band, result.end)) is not None:
            instance.state = state
            instance.since = result.end
            instance.transition += 1
            instance.cause_start, instance.cause_value = result.start, value
            cause = self._cause(state, band, value)
            if state == "firing" and instance.damped:
                cause += "; it flaps, and stays firing until it has been calm"
            found.append(
                Transition(
                    *(result.group, instance.transition, state, result.end, value),
                    *(cause, result.end, result.start),
                    flapping=instance.damped,
                )
            )

    def _score(self, instance: Instance, band: Band, now: int) -> None:
        """Damping as of routes that flap (RFC 2439): each firing counts 1, which halves every `flap_half_life_s`.

        Above `flaps_max` an instance is damped, until half of that is left. What is damped counts on when it is hot
        again after it was clear, though it never stopped firing.
        """
        most = self.rule.flaps_max
        if most is None:
            instance.flaps, instance.damped = 0.0, False  # the rule may have damped before it was edited
            return
        past_s = max(0, now - instance.consumed) / 1000.0 if instance.flaps else 0.0
        instance.flaps *= math.pow(0.5, past_s / self.rule.flap_half_life_s)
        going_on = instance.state in ("firing", "recovering")
        starts = instance.state == "pending" and now - instance.since >= self.rule.for_s * 1000
        starts |= self.rule.for_s == 0 and instance.state in ("inactive", "resolved")
        if band == "hot" and (starts or (going_on and instance.calm)):
            instance.flaps += 1.0
        if band != "between":
            instance.calm = band == "clear"
        instance.damped = instance.flaps > (most / 2 if instance.damped else most)

    def _next(self, instance: Instance, band: Band, now: int) -> State | None:
        pair = (instance.state, band)
        if instance.damped and pair in _DAMPED:
            return None
        if pair in HELD:
            hold_s = self.rule.for_s if instance.state == "pending" else self.rule.keep_firing_s
            return HELD[pair] if now - instance.since >= hold_s * 1000 else None
        return NEXT.get(pair)

    def band(self, value: float) -> Band:
        """Where a value lies. The levels themselves are neither beyond the one nor beyond the other."""
        sign = 1 if self.rule.rising else -1
        if sign * value > sign * self.rule.fire_level:
            return "hot"
        if sign * value < sign * self.rule.clear_level:
            return "clear"
        return "between"

    def _cause(self, state: State, band: Band, value: float) -> str:
        rule = self.rule
        side = {("hot", True): "above", ("hot", False): "below", ("clear", True): "below", ("clear", False): "above"}
        level = rule.fire_level if band == "hot" else rule.clear_level
        where = side.get((band, rule.rising))
        said = f"{rule.aggregate} of {rule.field} is {value:g}, "
        said += f"{where} {level:g}" if where else f"between {rule.clear_level:g} and {rule.fire_level:g}"
        held = {"firing": rule.for_s, "resolved": rule.keep_firing_s}.get(state, 0.0)
        return said + (f" for {held:g} s" if held and where else "")

    def _annotate(self, result: WindowResult, value: float | int | None, found: list[Transition]) -> None:
        instance = self.instances.get(result.group)
        if instance is None or instance.cause_start != result.start or instance.cause_value == value:
            return
        was, instance.cause_value = instance.cause_value, None if value is None else float(value)
        cause = f"revision {result.revision} ({result.cause}): {self.rule.aggregate} of {self.rule.field} was "
        cause += f"{was:g}" if was is not None else "none"
        cause += ", is none" if value is None else f", is {value:g}"
        found.append(
            Transition(
                *(result.group, instance.transition, instance.state, instance.since, instance.value, cause),
                *(result.end, result.start, Annotation(result.revision, value)),
            )
        )

    def going_on(self) -> list[str]:
        """Instances that have something to say yet, if nothing else then that it is over."""
        return [name for name, one in self.instances.items() if one.state in ENDED]

    def forget(self, names: Iterable[str], now: int) -> list[Transition]:
        """Forget instances of devices that are heard no more; what was going on is over at `now`."""
        found: list[Transition] = []
        for name in names:
            one = self.instances.pop(name, None)
            if one is None:
                continue
            if (over := ENDED.get(one.state)) is not None:
                one.transition += 1
                cause = "the device was not heard of for so long that it is forgotten"
                window = one.cause_start if one.cause_start is not None else now
                found.append(Transition(name, one.transition, over, now, one.value, cause, now, window))
            self.forgotten = max(self.forgotten, one.transition)
        return found

    def snapshot(self) -> dict[str, Any]:
        return {
            "instances": msgspec.to_builtins(self.instances),
            "retro": self.retro,
            "ignored": self.ignored,
            "forgotten": self.forgotten,
        }

    def restore(self, data: dict[str, Any]) -> None:
        self.instances = msgspec.convert(data["instances"], dict[str, Instance])
        self.retro, self.ignored = data["retro"], data["ignored"]
        self.forgotten = data.get("forgotten", 0)
