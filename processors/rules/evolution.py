"""What a changed rule keeps of its state, and what it begins anew: decided by comparing two definitions.

A rule's `version` names its outputs: whatever changes there begins another numbering. Its state belongs to its name,
and what of it stays right stays. Whatever is not named here begins the rule anew, so that a key added later is safe.
docs/windows.md has the table.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from processors.rules.model import FORMAT, AlertRule, Rules, WindowRule

KEEPS_ALL = frozenset(
    (
        *("allowed_lateness_s", "lateness", "early_every_s", "devices", "nodes"),
        *("windows_max", "fields_max", "samples_max", "texts_max"),
    )
)
"""Keys of a window rule that say nothing about what its state holds of a device."""
COMPARED_BY_FIELD = frozenset(("every_field", "fields", "compute"))
ALERT_KEEPS = frozenset(
    ("fire_above", "fire_below", "clear_above", "clear_below", "for_s", "keep_firing_s", "silent_after_s", "missed")
)
ALERT_KEEPS_ALWAYS = frozenset(("severity", "summary", "runs", "flaps_max", "flap_half_life_s"))


class WindowChange(NamedTuple):
    """From an old definition of a window rule to its new one. `reason`: why nothing is kept, "" when it is.

    `fresh`: fields of which nothing is kept, since another expression computes them, or none did before.
    """

    old: WindowRule
    new: WindowRule
    reason: str
    fresh: frozenset[str] = frozenset()


class Change(NamedTuple):
    """One changed rule, for people. `kept`: its state goes on."""

    kind: str
    name: str
    kept: bool
    what: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}: {self.what}"


def window_change(old: WindowRule, new: WindowRule) -> WindowChange:
    """What becomes of the state of a window rule."""
    differing = _differing(old, new)
    # What a group's readings are made of depends on all that its first stage does (`repartition`).
    keeps = KEEPS_ALL - {"devices", "nodes"} if new.group_by else KEEPS_ALL | COMPARED_BY_FIELD
    others = [key for key in differing if key not in keeps]
    if others:
        return WindowChange(old, new, f"{_said(others)} changed")
    if new.group_by:
        return WindowChange(old, new, "a window over groups of devices keeps nothing when it changes")
    if not old.every_field and new.every_field:
        return WindowChange(old, new, "every_field was empty, so that the state lacks fields without a name")
    if "compute" in differing and new.where:
        return WindowChange(old, new, "compute changed, and where may use it")
    return WindowChange(old, new, "", _fresh_fields(old, new))


def _fresh_fields(old: WindowRule, new: WindowRule) -> frozenset[str]:
    """Fields whose values are others now: from the first changed expression on, as later ones may use earlier ones."""
    before, after = list(old.compute.items()), list(new.compute.items())
    same = 0
    while same < min(len(before), len(after)) and before[same] == after[same]:
        same += 1
    computed = {name for name, _ in (*before[same:], *after[same:])}
    named = {name for name in new.fields if new.aggregates_of(name) and not old.aggregates_of(name)}
    return frozenset(computed | named | (old.text_fields ^ new.text_fields))


def _differing(old: msgspec.Struct, new: msgspec.Struct) -> list[str]:
    return [name for name in new.__struct_fields__ if getattr(old, name) != getattr(new, name)]


def window_said(change: WindowChange, young: dict[str, list[str]]) -> str:
    """A sentence. `young`: aggregates that begin with whole windows, by field."""
    changed = _said(_differing(change.old, change.new))
    if change.reason:
        return f"begins anew with the next whole window: {change.reason}"
    late = [f"{', '.join(names)} of {field}" for field, names in sorted(young.items())]
    rest = f"; {'; '.join(late)}: from the next whole window on" if late else ""
    return f"{changed} changed: keeps its windows{rest}"


def alert_change(old: AlertRule, new: AlertRule) -> Change:
    """What becomes of the instances of an alert."""
    differing = _differing(old, new)
    others = [key for key in differing if key not in ALERT_KEEPS | ALERT_KEEPS_ALWAYS]
    if old.rising != new.rising or old.is_dead_man != new.is_dead_man:
        others.append("the side on which it fires")
    if others:
        return Change("alert", new.name, kept=False, what=f"begins anew, without instances: {_said(others)} changed")
    changed = f"{_said(differing)} changed" if differing else "its window changed"
    return Change("alert", new.name, kept=True, what=f"{changed}: keeps its instances")


def _said(keys: list[str]) -> str:
    return " and ".join(filter(None, (", ".join(keys[:-1]), *keys[-1:])))


# what a snapshot says of its rules


def definitions(rules: Rules) -> dict[str, Any]:
    """Plain data from which `read_definitions` makes the rules again."""
    return {
        "format": FORMAT,
        "windows": {rule.name: [rule.version, msgspec.to_builtins(rule)] for rule in rules.windows},
        "alerts": {
            rule.name: [rule.version(window), msgspec.to_builtins(rule)]
            for rule in rules.alerts
            for window in rules.windows
            if window.name == rule.window
        },
    }


def _of_topic(rules: Rules, topic: str, place: str, job: str) -> Rules:
    """Those that have a state at a partition of a topic; `place`: where alerts run."""
    windows = {rule.name: rule for rule in rules.windows if topic == _input_of(rule, job)}
    alerts = (alert for alert in rules.alerts if alert.window in windows and alert.runs == place)
    return Rules(windows=tuple(windows.values()), alerts=tuple(alerts))


def _input_of(rule: WindowRule, job: str) -> str:
    """Where the partitions stand at which a rule has its windows (`repartition.relay_topic`)."""
    return f"{job}-{rule.name}-repartition" if rule.group_by else rule.topic


class Definitions(NamedTuple):
    """Rules that made a state: by name their version and what they were; without those that cannot be read any more."""

    windows: dict[str, tuple[str, WindowRule]] = {}  # noqa: RUF012 - a NamedTuple's default; nobody writes into it
    alerts: dict[str, tuple[str, AlertRule]] = {}  # noqa: RUF012 - as above


def read_definitions(data: dict[str, Any] | None) -> Definitions:
    """Of a snapshot of before there were definitions, or of another format of states: none."""
    if data is None or data["format"] != FORMAT:
        return Definitions()
    return Definitions(_read(data["windows"], WindowRule), _read(data["alerts"], AlertRule))


def _read(rules: dict[str, Any], kind: Any) -> dict[str, Any]:
    found = {}
    for name, (version, told) in rules.items():
        try:
            found[name] = (version, msgspec.convert(told, kind))
        except msgspec.ValidationError:
            continue  # of another version of Headwater
    return found


def preview(data: dict[str, Any], rules: Rules) -> list[Change]:
    """What would become of a snapshot's state under these rules: only of rules that changed, came or went."""
    known = read_definitions(data.get("definitions"))
    found = []
    for window in rules.windows:
        version, old = known.windows.get(window.name, ("", None))
        if version == window.version or window.version in data["windows"]:
            continue
        if old is None:
            found.append(Change("window", window.name, kept=False, what=_unknown(window.name, data["windows"])))
            continue
        change = window_change(old, window)
        said = window_said(change, {} if change.reason else young_aggregates(change))
        found.append(Change("window", window.name, not change.reason, said))
    windows = {window.name: window for window in rules.windows}
    for alert in rules.alerts:
        version, was = known.alerts.get(alert.name, ("", None))
        new = alert.version(windows[alert.window])
        if version == new or new in data["alerts"] or (was is None and alert.name not in known.alerts):
            continue
        if was is not None:
            found.append(alert_change(was, alert))
    gone = [name for name in known.windows if name not in windows]
    found += [Change("window", name, kept=False, what="is gone, and its state with it") for name in gone]
    return found


def preview_all(states: Mapping[str, dict[str, Any]], rules: Rules, place: str, job: str) -> list[str]:
    """The same of all snapshots of a job, by `<topic>/<partition>`: each change once, as a sentence.

    A rule whose windows are now over another topic than before is neither gone nor new.
    """
    windows = {rule.name: rule for rule in rules.windows}
    known = {
        name: (source.rpartition("/")[0], old)
        for source, state in states.items()
        for name, (_, old) in read_definitions(state.get("definitions")).windows.items()
    }
    inputs = {_input_of(rule, job) for rule in (*windows.values(), *(old for _, old in known.values()))}
    found: dict[str, None] = {}
    for source, state in states.items():
        topic = source.rpartition("/")[0]
        for change in preview(state, _of_topic(rules, topic, place, job)) if topic in inputs else ():
            was, old = known.get(change.name, (topic, None))
            if change.kind == "window" and old is not None and change.name in windows:
                new = windows[change.name]
                if was != _input_of(new, job):
                    said = window_said(window_change(old, new), {})
                    change = Change("window", new.name, kept=False, what=said)
            found[str(change)] = None
    return list(found)


def _unknown(name: str, versions: dict[str, Any]) -> str:
    if any(version.rpartition("@")[0] == name for version in versions):
        return "begins anew with the next whole window: this checkpoint does not say what it was before"
    return "is new: begins with the next whole window"


def young_aggregates(change: WindowChange) -> dict[str, list[str]]:
    """Aggregates by field that the old definition did not have; "other fields" for those without a name."""
    found: dict[str, list[str]] = {}
    for field in sorted({*change.old.fields, *change.new.fields, *change.fresh}):
        had: tuple[str, ...] = () if field in change.fresh else change.old.aggregates_of(field)
        found[field] = [name for name in change.new.aggregates_of(field) if name not in had]
    found["other fields"] = [name for name in change.new.every_field if name not in change.old.every_field]
    return {field: names for field, names in found.items() if names}
