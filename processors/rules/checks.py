"""What no type says about a rule: keys that need each other, levels that contradict each other.

Each function yields its findings as (key within the rule, what is wrong with it in plain words).
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Iterator
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

import msgspec

from headwater.toml.places import Path
from processors.rules.evaluation import Expression
from processors.rules.expressions import SPECIAL, ExpressionError, compile_expression, is_of_device
from processors.rules.model import DEVICE_ZONE, AlertRule, WindowRule
from processors.user.outs import why_not_windowed

Finding = tuple[Path, str]

PANES_MAX = 10_000
LATENESS_MAX_S = 100 * 366 * 86_400
_LONGEST_S = {"shifts": 90_000, "day": 90_000, "week": 608_400, "month": 2_682_000, "year": 31_626_000}
"""Of calendar windows, with the hour more of the day on which the clocks go back."""
_OF_KIND = {"tumbling": ("size_s",), "hopping": ("size_s", "every_s"), "calendar": ("calendar",), "session": ("gap_s",)}
_OF_CALENDARS = {"zone": "UTC", "default_zone": "UTC", "shifts": {}}
_OF_LEVELS = (
    *("field", "aggregate", "fire_above", "fire_below", "clear_above", "clear_below"),
    *("for_s", "keep_firing_s", "flaps_max", "flap_half_life_s"),
)
_LEVEL_DEFAULTS = {field.name: field.default for field in msgspec.structs.fields(AlertRule)}
_SPANS = ("size_s", "every_s", "gap_s")


def about_window(rule: WindowRule, *, kind_is_known: bool = True) -> Iterator[Finding]:
    """Keys that are missing, or of another kind, or out of bounds."""
    yield from _endless(rule)
    if why := why_not_windowed(rule.topic):
        yield ("topic",), f"there are no windows over “{rule.topic}”: {why}"
    if kind_is_known:
        yield from _of_kind(rule)
    for key in (*_SPANS, "early_every_s"):
        seconds = getattr(rule, key)
        if seconds is not None and (seconds * 1000 < 1 or abs(round(seconds * 1000) - seconds * 1000) > 1e-6):
            yield (key,), f"{seconds} is no whole number of milliseconds"
    for key in ("devices", "nodes"):
        if not getattr(rule, key):
            yield (key,), f'the rule would take no reading: {key} is empty; leave it out, or write ["*"], for all'
    if rule.allowed_lateness_s > LATENESS_MAX_S:
        yield ("allowed_lateness_s",), f"{rule.allowed_lateness_s:g} s is more than a hundred years ({LATENESS_MAX_S})"
    longest_s = _LONGEST_S.get(rule.calendar or "", 0) if rule.kind == "calendar" else rule.size_s
    if longest_s and (rule.early_every_s or 0) > longest_s:
        yield (
            ("early_every_s",),
            f"{rule.early_every_s:g} s is longer than a window ({longest_s:g} s): nothing would be early",
        )
    if rule.kind == "hopping" and rule.size_ms and rule.every_ms:
        yield from _hops(rule)
    if rule.kind == "calendar":
        yield from _calendar(rule)
    yield from _expressions(rule)
    yield from _groups(rule)
    if not rule.every_field and not rule.fields:
        yield ("every_field",), "nothing to compute: every_field is empty and fields names none"


def _endless(rule: WindowRule | AlertRule) -> Iterator[Finding]:
    for key in rule.__struct_fields__:
        value = getattr(rule, key)
        if isinstance(value, float) and not math.isfinite(value):
            yield (key,), f"{value} is no number to count with"


def _of_kind(rule: WindowRule) -> Iterator[Finding]:
    needed = _OF_KIND[rule.kind]
    for key in needed:
        if getattr(rule, key) is None:
            yield (key,), f"this key is missing: a {rule.kind} window needs it"
    for key in (*_SPANS, "calendar", *_OF_CALENDARS):
        known = key in needed or (rule.kind == "calendar" and key in _OF_CALENDARS)
        if not known and getattr(rule, key) != _OF_CALENDARS.get(key):
            yield (key,), f"a {rule.kind} window has no {key}"


def _hops(rule: WindowRule) -> Iterator[Finding]:
    if rule.every_ms > rule.size_ms:
        yield ("every_s",), f"{rule.every_s} leaves readings between windows of {rule.size_s} s"
    panes = rule.size_ms // math.gcd(rule.size_ms, rule.every_ms)
    if panes > PANES_MAX:
        yield (
            ("every_s",),
            f"a window would be put together from {panes} panes, at most {PANES_MAX} are allowed: choose an every_s"
            " with which size_s has a large common divisor",
        )


def _calendar(rule: WindowRule) -> Iterator[Finding]:
    if rule.zone != DEVICE_ZONE:
        yield from _zone("zone", rule.zone)
        if rule.default_zone != "UTC":
            yield ("default_zone",), f'only zone = "{DEVICE_ZONE}" has a default_zone'
    yield from _zone("default_zone", rule.default_zone)
    if rule.calendar is not None and (rule.calendar == "shifts") != bool(rule.shifts):
        yield ("shifts",), 'calendar = "shifts" and the key shifts go together'
    for name, at in rule.shifts.items():
        if not re.fullmatch(r"([01][0-9]|2[0-3]):[0-5][0-9]", at):
            yield ("shifts", name), f"“{at}” is no time of day; write HH:MM in quotes"
    if len(set(rule.shifts.values())) < len(rule.shifts):
        yield ("shifts",), "two shifts begin at the same time"


def _groups(rule: WindowRule) -> Iterator[Finding]:
    for index, label in enumerate(rule.group_by):
        if label != "node" and not is_of_device(f"device.{label}"):
            near = difflib.get_close_matches(label, ["site", "zone", "type", "node", "labels."], n=1, cutoff=0.5)
            said = f"did you mean {near[0]}?" if near else "there are site, zone, type, node and labels.NAME"
            yield ("group_by", index), f"devices cannot be grouped by “{label}”; {said}"
    if len(set(rule.group_by)) < len(rule.group_by):
        yield ("group_by",), "a label stands there twice"
    if rule.group_by and rule.zone == DEVICE_ZONE:
        yield ("zone",), 'a group of devices has no zone of its own: group_by and zone = "device" exclude each other'


def _zone(key: str, name: str) -> Iterator[Finding]:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        near = difflib.get_close_matches(name, [*available_timezones(), DEVICE_ZONE], n=1, cutoff=0.3)
        said = f"; did you mean “{near[0]}”?" if near else "; names are as Europe/Berlin"
        yield (key,), f"“{name}” is no time zone here{said}"


def _expressions(rule: WindowRule) -> Iterator[Finding]:
    names = list(rule.compute)
    for index, (name, text) in enumerate(rule.compute.items()):
        if name in SPECIAL or name.startswith("device.") or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.]{0,99}", name):
            yield ("compute", name), f"“{name}” cannot name a computed field"
        try:
            found = compile_expression(text, wanted="number")
        except ExpressionError as error:
            yield ("compute", name), str(error)
            continue
        yield from (
            (("compute", name), f"it reads {later}, which is computed behind it: {later} must stand before it")
            for later in names[index + 1 :]
            if later in found.numbers | found.texts
        )
        yield from _numbers_as_texts(("compute", name), found, names[:index])
    if rule.where:
        try:
            yield from _numbers_as_texts(("where",), compile_expression(rule.where, wanted="truth"), names)
        except ExpressionError as error:
            yield ("where",), str(error)


def _numbers_as_texts(key: Path, expression: Expression, computed: list[str]) -> Iterator[Finding]:
    """A computed field is a number, so a comparison with a text would never hold."""
    for name in sorted((expression.texts - expression.numbers).intersection(computed)):
        yield key, f"{name} is computed, so it is a number and no text; give the computed field another name"


def doubts(rules: Iterable[WindowRule]) -> list[str]:
    """What of rules that are right may be meant otherwise, one line for each."""
    found = []
    for rule in rules:
        expressions = {
            f"compute.{name}": compile_expression(text, wanted="number") for name, text in rule.compute.items()
        }
        if rule.where:
            expressions["where"] = compile_expression(rule.where, wanted="truth")
        found += [f"window {rule.name}, {key}: {doubt}" for key, one in expressions.items() for doubt in one.doubts]
    return found


def about_alert(rule: AlertRule, *, is_dead_man: bool) -> Iterator[Finding]:
    """Levels that are missing or contradict each other."""
    yield from _endless(rule)
    if is_dead_man:
        for key in _OF_LEVELS:
            if getattr(rule, key) != _LEVEL_DEFAULTS[key]:
                yield (key,), f"an alert with {'silent_after_s' if rule.missed is None else 'missed'} has no {key}"
        return
    if not rule.field:
        yield ("field",), "this key is missing: an alert looks at a field, or has silent_after_s or missed"
    if rule.flaps_max is None and rule.flap_half_life_s != _LEVEL_DEFAULTS["flap_half_life_s"]:
        yield ("flap_half_life_s",), "only with flaps_max is anything damped"
    if (rule.fire_above is None) == (rule.fire_below is None):
        yield ("fire_above",), "an alert has either fire_above or fire_below"
        return
    fire, clear = ("fire_above", "clear_below") if rule.rising else ("fire_below", "clear_above")
    other = "clear_above" if rule.rising else "clear_below"
    if getattr(rule, other) is not None:
        yield (other,), f"an alert with {fire} is cleared by {clear}"
    if (rule.clear_level > rule.fire_level) if rule.rising else (rule.clear_level < rule.fire_level):
        side = "at or below" if rule.rising else "at or above"
        yield (clear,), f"{rule.clear_level} must be {side} {fire}, which is {rule.fire_level}"


def about_window_of(rule: AlertRule, window: WindowRule, *, is_dead_man: bool) -> Iterator[Finding]:
    """That its window does not compute what the alert looks at."""
    if is_dead_man:
        if window.group_by:
            yield (
                ("silent_after_s" if rule.missed is None else "missed",),
                f"window “{window.name}” is one over groups; a dead-man alert is about devices",
            )
    elif rule.aggregate == "durations":
        yield ("aggregate",), "durations are several numbers, an alert needs one; use availability"
    elif rule.aggregate not in window.aggregates_of(rule.field):
        yield (
            ("aggregate",),
            f"window “{window.name}” does not compute {rule.aggregate} of {rule.field};"
            f' add it there: fields.{rule.field} = ["{rule.aggregate}"]',
        )
