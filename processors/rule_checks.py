"""What no type says about a rule: keys that need each other, levels that contradict each other."""

from __future__ import annotations

import difflib
import math
import re
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from processors.expressions import SPECIAL, ExpressionError, compile_expression

if TYPE_CHECKING:
    from processors.rules import AlertRule, Place, WindowRule

PANES_MAX = 10_000
_OF_KIND = {"tumbling": ("size_s",), "hopping": ("size_s", "every_s"), "calendar": ("calendar",), "session": ("gap_s",)}
_OF_CALENDARS = {"zone": "UTC", "shifts": {}}


def check_window(rule: WindowRule, place: Place) -> None:
    """Raises `UserError` at the key that is missing, or of another kind, or out of bounds."""
    needed = _OF_KIND[rule.kind]
    for key in needed:
        if getattr(rule, key) is None:
            raise place.error(key, f"this key is missing: a {rule.kind} window needs it")
    for key in ("size_s", "every_s", "gap_s", "calendar", *_OF_CALENDARS):
        known = key in needed or (rule.kind == "calendar" and key in _OF_CALENDARS)
        if not known and getattr(rule, key) != _OF_CALENDARS.get(key):
            raise place.error(key, f"a {rule.kind} window has no {key}")
    for key in ("size_s", "every_s", "gap_s"):
        seconds = getattr(rule, key)
        if seconds is not None and (seconds * 1000 < 1 or abs(round(seconds * 1000) - seconds * 1000) > 1e-6):
            raise place.error(key, f"{seconds} is no whole number of milliseconds")
    if rule.kind == "hopping":
        _check_hops(rule, place)
    if rule.kind == "calendar":
        _check_calendar(rule, place)
    _check_expressions(rule, place)
    if not rule.every_field and not rule.fields:
        raise place.error("fields", "nothing to compute: every_field is empty and fields names none")


def _check_hops(rule: WindowRule, place: Place) -> None:
    if rule.every_ms > rule.size_ms:
        raise place.error("every_s", f"{rule.every_s} leaves readings between windows of {rule.size_s} s")
    panes = rule.size_ms // math.gcd(rule.size_ms, rule.every_ms)
    if panes > PANES_MAX:
        hint = f"Choose an every_s with which size_s has a large common divisor; at most {PANES_MAX} panes are allowed."
        raise place.error("every_s", f"a window would be put together from {panes} panes", hint)


def _check_calendar(rule: WindowRule, place: Place) -> None:
    try:
        ZoneInfo(rule.zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        near = difflib.get_close_matches(rule.zone, available_timezones(), n=1, cutoff=0.3)
        said = f"; did you mean “{near[0]}”?" if near else "; this machine has no time zones: install tzdata"
        raise place.error("zone", f"“{rule.zone}” is no time zone here{said}") from None
    if (rule.calendar == "shifts") != bool(rule.shifts):
        raise place.error("shifts", 'calendar = "shifts" and the key shifts go together')
    for name, at in rule.shifts.items():
        if not re.fullmatch(r"([01][0-9]|2[0-3]):[0-5][0-9]", at):
            raise place.error(f"shifts.{name}", f"“{at}” is no time of day; write HH:MM in quotes")
    if len(set(rule.shifts.values())) < len(rule.shifts):
        raise place.error("shifts", "two shifts begin at the same time")


def check_alert(rule: AlertRule, place: Place) -> None:
    """Raises `UserError` for levels that are missing or contradict each other."""
    if (rule.fire_above is None) == (rule.fire_below is None):
        raise place.error("fire_above", "an alert has either fire_above or fire_below")
    fire, clear = ("fire_above", "clear_below") if rule.rising else ("fire_below", "clear_above")
    other = "clear_above" if rule.rising else "clear_below"
    if getattr(rule, other) is not None:
        raise place.error(other, f"an alert with {fire} is cleared by {clear}")
    if (rule.clear_level > rule.fire_level) if rule.rising else (rule.clear_level < rule.fire_level):
        side = "at or below" if rule.rising else "at or above"
        raise place.error(clear, f"{rule.clear_level} must be {side} {fire}, which is {rule.fire_level}")


def check_window_of(rule: AlertRule, windows: dict[str, WindowRule], place: Place) -> None:
    """Raises `UserError` when there is no such window, or it does not compute what the alert looks at."""
    if rule.window not in windows:
        near = difflib.get_close_matches(rule.window, list(windows), n=1, cutoff=0.3)
        said = f"did you mean “{near[0]}”?" if near else f"there is {', '.join(windows) or 'none at all'}"
        raise place.error("window", f"there is no window named “{rule.window}”; {said}")
    if rule.aggregate == "durations":
        raise place.error("aggregate", "durations are several numbers, an alert needs one; use availability")
    if rule.aggregate not in windows[rule.window].aggregates_of(rule.field):
        raise place.error(
            "aggregate",
            f"window “{rule.window}” does not compute {rule.aggregate} of {rule.field}",
            hint=f"Add it there: fields.{rule.field} = [“{rule.aggregate}”].",
        )


def _check_expressions(rule: WindowRule, place: Place) -> None:
    for key, text, wanted in (
        *((f"compute.{name}", text, "number") for name, text in rule.compute.items()),
        *([("where", rule.where, "truth")] if rule.where else []),
    ):
        name = key.partition(".")[2]
        if name in SPECIAL or (name and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.]{0,99}", name)):
            raise place.error(key, f"“{name}” cannot name a computed field")
        try:
            compile_expression(text, wanted=wanted)  # type: ignore[arg-type]
        except ExpressionError as error:
            raise place.error(key, str(error)) from None
