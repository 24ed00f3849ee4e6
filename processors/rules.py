"""Window and alert rules: TOML text to frozen structs; a mistake is named with file, line, key and nearest known key.

A rule file holds `[[window]]` and `[[alert]]` tables; docs/windows.md describes every key. A rule's `version` is
`<name>@<hash of what it computes>`: state and output numbers belong to a version, so a changed rule starts anew
and an unchanged one goes on.
"""

from __future__ import annotations

import difflib
import hashlib
import re
import tomllib
from collections.abc import Iterable
from typing import Annotated, Any, Literal, TypeVar, get_args

import msgspec

from headwater import resources
from headwater.errors import UserError
from processors.rule_checks import check_alert, check_window, check_window_of

FORMAT = 2
"""Counts changes of the code that change what a rule's outputs say; part of every version."""

# fmt: off
Aggregate = Literal[
    "count", "sum", "mean", "min", "max", "range", "first", "last", "variance", "stddev", "slope",
    "p1", "p5", "p10", "p25", "p50", "p75", "p90", "p95", "p98", "p99", "p99.9", "distinct",
    "circular_mean", "circular_spread",
    "time_weighted_mean", "integral", "increase", "rate", "availability", "durations",
]
# fmt: on
AGGREGATES: tuple[str, ...] = get_args(Aggregate)
Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$")]
Level = float | None
Seconds = Annotated[float, msgspec.Meta(gt=0, le=366 * 86400)]


class WindowRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Aggregates per device over windows of event time."""

    name: Name
    topic: str = "readings"
    kind: Literal["tumbling", "hopping", "calendar", "session"] = "tumbling"
    size_s: Seconds | None = None
    """Of tumbling and hopping windows, which are aligned to the Unix epoch."""
    every_s: Seconds | None = None
    """Of hopping windows: one begins every so often."""
    gap_s: Seconds | None = None
    """Of session windows: the silence that ends one."""
    calendar: Literal["day", "week", "month", "year", "shifts"] | None = None
    zone: str = "UTC"
    """Of calendar windows: an IANA time zone."""
    shifts: dict[str, str] = {}
    """Of calendar windows in shifts: name to local time HH:MM; each shift lasts until the next begins."""
    devices: tuple[str, ...] = ("*",)
    """Patterns of device names; `*` and `?` match no name that begins with `$` unless the pattern does."""
    nodes: tuple[str, ...] = ("*",)
    where: str = ""
    """Only readings for which this expression holds are counted; docs/windows.md."""
    compute: dict[str, str] = {}
    """Fields computed from others: name to expression, in this order."""
    every_field: tuple[Aggregate, ...] = ("count", "mean", "min", "max")
    """For each numeric field that `fields` does not name; [] leaves those out."""
    fields: dict[str, tuple[Aggregate, ...]] = {}
    allowed_lateness_s: Annotated[float, msgspec.Meta(ge=0)] = 86400.0
    """How far behind the watermark a closed window may still be revised."""
    windows_max: Annotated[int, msgspec.Meta(ge=16, le=10_000_000)] = 50_000
    """Windows (of hopping ones also panes) kept in memory per input partition, closed ones included."""
    fields_max: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 64
    """Different fields that one partition's devices may have together; further ones are left out and counted."""
    samples_max: Annotated[int, msgspec.Meta(ge=1000, le=100_000_000)] = 1_000_000
    """Readings (16 bytes) kept per field and input partition, for the aggregates that need them in order."""

    @property
    def size_ms(self) -> int:
        return round((self.size_s or 0.0) * 1000)

    @property
    def every_ms(self) -> int:
        return round((self.every_s or 0.0) * 1000)

    @property
    def gap_ms(self) -> int:
        return round((self.gap_s or 0.0) * 1000)

    @property
    def allowed_lateness_ms(self) -> int:
        return round(self.allowed_lateness_s * 1000)

    @property
    def version(self) -> str:
        return _version(self.name, _told(self))

    def aggregates_of(self, field: str) -> tuple[str, ...]:
        return self.fields.get(field, self.every_field)


class AlertRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A level that one aggregate of one field crosses, per device."""

    name: Name
    window: str
    field: str
    aggregate: Aggregate = "mean"
    fire_above: Level = None
    fire_below: Level = None
    clear_below: Level = None
    clear_above: Level = None
    for_s: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    """How long the value must stay beyond the fire level before the alert fires."""
    keep_firing_s: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    """How long it must then stay beyond the clear level before the alert is resolved."""
    severity: Literal["info", "warning", "critical"] = "warning"
    summary: str = ""
    runs: Literal["edge", "central"] = "central"
    """The one place where this rule runs, so that nobody is told twice."""

    def version(self, window: WindowRule) -> str:
        return _version(self.name, [_told(self), window.version])

    @property
    def rising(self) -> bool:
        """Whether it fires above a level (else below)."""
        return self.fire_above is not None

    @property
    def fire_level(self) -> float:
        if self.fire_above is not None:
            return self.fire_above
        return 0.0 if self.fire_below is None else self.fire_below  # one of them is set: checked when it was read

    @property
    def clear_level(self) -> float:
        level = self.clear_below if self.rising else self.clear_above
        return self.fire_level if level is None else level


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """All rules of a node; names are unique among windows and among alerts."""

    windows: tuple[WindowRule, ...] = ()
    alerts: tuple[AlertRule, ...] = ()

    @property
    def topics(self) -> list[str]:
        """The input topics, sorted."""
        return sorted({rule.topic for rule in self.windows})


_CHOICES: dict[str, tuple[str, ...]] = {
    "kind": ("tumbling", "hopping", "calendar", "session"),
    "calendar": ("day", "week", "month", "year", "shifts"),
    "severity": ("info", "warning", "critical"),
    "runs": ("edge", "central"),
}
_KINDS: dict[str, type[WindowRule] | type[AlertRule]] = {"window": WindowRule, "alert": AlertRule}
_RuleType = TypeVar("_RuleType", WindowRule, AlertRule)


def load_rules(names: Iterable[str]) -> Rules:
    """Rules from files (names that end in `.toml`) and from rule sets that ship with Headwater (any other name).

    Raises `UserError` with file, line and key of the first mistake, or with the names that ship.
    """
    texts = []
    for name in names:
        if name.endswith(".toml"):
            texts.append((_read(name), name))
            continue
        try:
            texts.append((resources.read_config("rules", f"{name}.toml"), f"rules {name}"))
        except FileNotFoundError:
            shipped = resources.config_names("rules")
            hint = f"Write a path that ends in .toml, or one of: {', '.join(shipped) or 'none ships yet'}."
            raise UserError(f"no rules named “{name}” ship with Headwater", hint=hint) from None
    return parse_rules(texts)


def parse_rules(texts: Iterable[tuple[str, str]]) -> Rules:
    """Rules from (text, name of the file) pairs. Raises `UserError` with file, line and key of the first mistake."""
    windows: dict[str, WindowRule] = {}
    alerts: dict[str, tuple[AlertRule, Place]] = {}
    for text, file in texts:
        for kind, table, place in _tables(text, file):
            if kind == "window":
                window = _convert(table, WindowRule, place)
                check_window(window, place)
                if windows.setdefault(window.name, window) is not window:
                    raise place.error("name", f"a second window is named “{window.name}”")
            else:
                alert = _convert(table, AlertRule, place)
                check_alert(alert, place)
                if alerts.setdefault(alert.name, (alert, place))[0] is not alert:
                    raise place.error("name", f"a second alert is named “{alert.name}”")
    for alert, place in alerts.values():
        check_window_of(alert, windows, place)
    return Rules(windows=tuple(windows.values()), alerts=tuple(alert for alert, _ in alerts.values()))


class Place:
    """Where a rule stands: the file, the line of its header, and the lines of its keys."""

    def __init__(self, file: str, kind: str, line: int, keys: dict[str, int]) -> None:
        self.file = file
        self.kind = kind
        self.line = line
        self.keys = keys

    def error(self, key: str, what: str, hint: str = "") -> UserError:
        line = self.keys.get(key, self.keys.get(key.split(".")[0], self.line))
        return UserError(
            f"{self.file}:{line}: [[{self.kind}]] {key}: {what}",
            hint=hint or "docs/windows.md shows every key with an example.",
        )


def _tables(text: str, file: str) -> list[tuple[str, dict[str, Any], Place]]:
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        match = re.search(r" \(at line (\d+), column \d+\)$", str(error))
        place, message = (f"{file}:{match[1]}", str(error)[: match.start()]) if match else (file, str(error))
        raise UserError(f"{place}: no valid TOML: {message}", hint="Mend that line; strings stand in quotes.") from None
    places = _places(text, file)
    found = []
    for kind, tables in document.items():
        if kind not in _KINDS or not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
            line = _line_of(text, kind)
            near = difflib.get_close_matches(kind, list(_KINDS), n=1, cutoff=0.3)
            known = near[0] if near else "window"
            raise UserError(
                f"{file}:{line}: “{kind}” is no kind of rule",
                hint=f"Write [[{known}]] (two brackets); the kinds are [[window]] and [[alert]].",
            )
        for index, table in enumerate(tables):
            found.append((kind, table, places.get((kind, index), Place(file, kind, 0, {}))))
    return found


_HEADER = re.compile(r"^\s*\[\[?\s*([A-Za-z_]+)\s*(?:\.\s*([A-Za-z0-9_.\"'-]+)\s*)?\]")
_KEY = re.compile(r"^\s*[\"']?([A-Za-z0-9_-]+)[\"']?\s*(?:\.\s*[\"']?([A-Za-z0-9_-]+)[\"']?\s*)?=")


def _places(text: str, file: str) -> dict[tuple[str, int], Place]:
    """The lines of each rule's keys; `tomllib` gives values without places and has accepted the text before this."""
    places: dict[tuple[str, int], Place] = {}
    counts: dict[str, int] = {}
    current: Place | None = None
    table = ""
    for number, line in enumerate(text.splitlines(), 1):
        if header := _HEADER.match(line):
            kind, table = header[1], header[2] or ""
            if not table:
                counts[kind] = counts.get(kind, -1) + 1
                places[kind, counts[kind]] = Place(file, kind, number, {})
            current = places.get((kind, counts.get(kind, 0)))
            if table and current is not None:
                current.keys.setdefault(table, number)
        elif current is not None and (key := _KEY.match(line)):
            path = ".".join(part for part in (table, key[1], key[2]) if part)
            current.keys.setdefault(path, number)
            current.keys.setdefault(path.split(".")[0], number)
    return places


def _line_of(text: str, key: str) -> int:
    for number, line in enumerate(text.splitlines(), 1):
        if re.match(rf"^\s*\[*\s*[\"']?{re.escape(key)}\b", line):
            return number
    return 1


def _convert(table: dict[str, Any], kind: type[_RuleType], place: Place) -> _RuleType:
    known = [field.name for field in msgspec.structs.fields(kind)]
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.3)
            said = f"did you mean “{near[0]}”?" if near else f"the known keys are {', '.join(known)}"
            raise place.error(key, f"unknown key; {said}")
    try:
        return msgspec.convert(table, kind)
    except msgspec.ValidationError as error:
        message, _, where = str(error).partition(" - at `$")
        names = re.findall(r"\.([A-Za-z0-9_]+)", where)
        if "missing required field" in message:
            key = message.split("`")[1]
            raise place.error(key, "this key is missing and has no default") from None
        key = ".".join(names) if names else "name"
        if names == ["fields"]:  # msgspec names no key inside a table of any keys
            key = _wrong_field(table["fields"])
        raise place.error(key, _plain(message, table, names)) from None


def _wrong_field(fields: Any) -> str:
    for name, aggregates in fields.items() if isinstance(fields, dict) else ():
        if not isinstance(aggregates, list) or not all(one in AGGREGATES for one in aggregates):
            return f"fields.{name}"
    return "fields"


def _plain(message: str, table: dict[str, Any], names: list[str]) -> str:
    if message.startswith("Invalid enum value"):
        value = message.split("'")[1]
        options = _CHOICES.get(names[0] if names else "", AGGREGATES)
        near = difflib.get_close_matches(value, options, n=1, cutoff=0.3)
        return f"“{value}” is not known" + (f"; did you mean “{near[0]}”?" if near else "")
    if "matching regex" in message:
        value = table.get(names[0], "") if names else ""
        return f"“{value}” is no name; use at most 64 of a-z, 0-9, _, . and -, a letter or digit first"
    message = message.replace(" | null`", "`")
    words = {
        "`str`": "text in quotes",
        "`array`": "a list [...]",
        "`object`": "a table {...}",
        "`int`": "a whole number",
        "`float`": "a number",
    }
    for term, word in words.items():
        message = message.replace(term, word)
    return message[:1].lower() + message[1:]


_MAPPINGS_ADDED_LATER = ("compute",)
"""A mapping's default is made anew for each rule, so it would count as told even where nobody wrote one."""


def _told(rule: WindowRule | AlertRule) -> dict[str, Any]:
    """What differs from the defaults: a key that is added later, with a default, changes no version."""
    told = {field.name: getattr(rule, field.name) for field in msgspec.structs.fields(rule)}
    defaults = {field.name: field.default for field in msgspec.structs.fields(rule)}
    defaults |= {key: {} for key in _MAPPINGS_ADDED_LATER}
    return {name: value for name, value in told.items() if value != defaults[name]}


def _version(name: str, what: Any) -> str:
    digest = hashlib.blake2b(msgspec.msgpack.encode([FORMAT, what]), digest_size=4)
    return f"{name}@{digest.hexdigest()}"


def _read(file: str) -> str:
    try:
        with open(file, encoding="utf-8") as handle:
            return handle.read()
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: not UTF-8 at byte {error.start}", hint="Save the file as UTF-8.") from None
    except OSError as error:
        hint = "Check the path in `rules`; a relative one stands against the folder of the node's own file."
        raise UserError(f"{file}: {error.strerror}", hint=hint) from None
