"""Profiles: how one kind of device's bytes become Readings. TOML text in, checked `Profile`s out; no file is read here.

name = "wind-turbine"
format = "json"                         # which decoder: json, or another in devices/decoders
topics = ["farm/{device}/telemetry"]    # MQTT topics; {device} captures, + and # as in MQTT
natural_key = "seq"                     # path of a number or text that no two readings share
expected_interval_ms = 4000             # silent for three times this: idle

[timestamp]
path = "ts"
unit = "ms"                             # s, ms, iso8601

[fields.power]                          # without any [fields.*], every member is a field
path = "electrical.power"               # default: the field's own name
unit = "kW"
scale = 0.001                           # stored = sent × scale + offset
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable
from typing import Any, Literal

import msgspec

from headwater.errors import UserError

EVENT_TIME_PAST_MAX_MS = 30 * 24 * 3_600_000
_PLACEHOLDER = re.compile(r"\{([^}]*)\}")


class FieldSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One field: where it stands in the message, its unit, and stored = sent × scale + offset."""

    path: str = ""
    unit: str = ""
    scale: float = 1.0
    offset: float = 0.0
    description: str = ""


class TimestampSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the device's own time stands; `iso8601` without a zone is UTC."""

    path: str
    unit: Literal["s", "ms", "iso8601"] = "ms"


class Profile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How one kind of device speaks.

    `device` names the device where no topic does (serial). `natural_key` is a path; the value is kept as a
    field under the path's last part, because a restarted node learns the latest ones from its own log.
    `event_time_past_max_ms` is how old a claimed time may be. `recorded` exempts a replayed recording from
    the rule that a source far behind is left out of the marks. `options` belongs to the decoder.
    """

    name: str
    description: str = ""
    format: str = "json"
    topics: tuple[str, ...] = ()
    device: str | None = None
    fields: dict[str, FieldSpec] = {}
    timestamp: TimestampSpec | None = None
    natural_key: str | None = None
    expected_interval_ms: int | None = None
    event_time_past_max_ms: int = EVENT_TIME_PAST_MAX_MS
    recorded: bool = False
    options: dict[str, Any] = {}

    @property
    def natural_field(self) -> str | None:
        """The field that carries the natural key in a stored record; None when the record's time does, or nothing."""
        if self.natural_key is None or (self.timestamp is not None and self.timestamp.path == self.natural_key):
            return None
        for name, spec in self.fields.items():
            if (spec.path or name) == self.natural_key:
                return name
        return self.natural_key.rpartition(".")[2]

    @property
    def idle_ms(self) -> int | None:
        """After this much silence a source of this profile holds nothing up (design §9: three expected intervals)."""
        return None if self.expected_interval_ms is None else self.expected_interval_ms * 3


class TopicMatcher:
    """Topic → (profile, device): the first profile with a matching pattern; else none, and the topic is the device."""

    def __init__(self, profiles: Iterable[Profile]) -> None:
        self._patterns = [
            (_compile_topic(topic, profile.name), profile) for profile in profiles for topic in profile.topics
        ]

    def match(self, topic: str) -> tuple[Profile | None, str]:
        for pattern, profile in self._patterns:
            if (found := pattern.fullmatch(topic)) is not None:
                device = found.groupdict().get("device") or profile.device or topic
                return profile, device
        return None, topic


def _compile_topic(topic: str, where: str) -> re.Pattern[str]:
    levels = []
    names = _PLACEHOLDER.findall(topic)
    if any(name != "device" for name in names) or len(names) > 1:
        raise UserError(
            f"profile {where}: topic “{topic}” may hold one placeholder, {{device}}",
            hint="Write + for a level that does not matter.",
        )
    parts = topic.split("/")
    for index, level in enumerate(parts):
        if level == "#" and index == len(parts) - 1:
            levels.append(".*")
        elif level == "+":
            levels.append("[^/]*")
        elif "+" in level or "#" in level:
            raise UserError(f"profile {where}: topic “{topic}”: + and # stand alone in a level, # only in the last")
        else:
            levels.append("(?P<device>[^/]+)".join(re.escape(text) for text in re.split(r"\{device\}", level)))
    return re.compile("/".join(levels))


def parse_profile(text: str, file: str) -> Profile:
    """One profile from TOML text. Raises `UserError` naming `file`, the line and the key."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{file}: {error}", hint="Mend the TOML at that place.") from error
    try:
        profile = msgspec.convert(raw, Profile)
    except msgspec.ValidationError as error:
        raise _explain(text, file, str(error)) from error
    _check(profile, text, file)
    return profile


def load_profiles(sources: Iterable[tuple[str, str]]) -> list[Profile]:
    """Profiles from (file name, TOML text) pairs; two of the same name are refused."""
    profiles: dict[str, Profile] = {}
    files: dict[str, str] = {}
    for file, text in sources:
        profile = parse_profile(text, file)
        if profile.name in profiles:
            raise UserError(f"{file}: profile “{profile.name}” is defined in {files[profile.name]} already")
        profiles[profile.name] = profile
        files[profile.name] = file
    return list(profiles.values())


def _check(profile: Profile, text: str, file: str) -> None:
    def refuse(path: str, what: str, hint: str = "") -> UserError:
        return UserError(f"{file}, line {line_of(text, path)}: {path}: {what}", hint=hint)

    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", profile.name):
        raise refuse("name", f"“{profile.name}” is no profile name", "Use letters, digits, . _ - (64 at most).")
    for key in ("expected_interval_ms", "event_time_past_max_ms"):
        value = getattr(profile, key)
        if value is not None and value <= 0:
            raise refuse(key, f"{value} is not a positive number of milliseconds")
    for topic in profile.topics:
        try:
            _compile_topic(topic, profile.name)
        except UserError as error:
            raise refuse("topics", error.what, error.hint) from error
    for name, spec in profile.fields.items():
        for path in (name, *(spec.path,) * bool(spec.path)):
            if not all(path.split(".")):
                raise refuse(f"fields.{name}.path", f"“{path}” has an empty part", "Write a.b.c for nested members.")
    if profile.timestamp is not None and not all(profile.timestamp.path.split(".")):
        raise refuse("timestamp.path", f"“{profile.timestamp.path}” has an empty part")
    if profile.natural_key is not None and not all(profile.natural_key.split(".")):
        raise refuse("natural_key", f"“{profile.natural_key}” has an empty part")


def _explain(text: str, file: str, message: str) -> UserError:
    """msgspec's `… - at `$.a.b`` as file, line, key, and for an unknown key the nearest known one."""
    what, _, place = message.partition(" - at `$")
    path = place.rstrip("`").lstrip(".").replace("[...]", "")
    hint = ""
    if (found := re.search(r"unknown field `([^`]*)`", what)) is not None:
        unknown = found.group(1)
        struct: type[msgspec.Struct] = Profile
        if path.startswith("fields"):
            struct = FieldSpec
            path = _field_table_with(text, unknown) or path
        elif path.startswith("timestamp"):
            struct = TimestampSpec
        near = difflib.get_close_matches(unknown, struct.__struct_fields__, n=1)
        what = f"unknown key “{unknown}”"
        hint = f"Did you mean “{near[0]}”?" if near else f"Known here: {', '.join(struct.__struct_fields__)}."
        path = f"{path}.{unknown}".lstrip(".")
    return UserError(f"{file}, line {line_of(text, path)}: {path or 'profile'}: {what}", hint=hint)


def _field_table_with(text: str, key: str) -> str | None:
    """msgspec hides which dict member failed (`$.fields[...]`); the text tells."""
    for name, table in tomllib.loads(text).get("fields", {}).items():
        if isinstance(table, dict) and key in table:
            return f"fields.{name}"
    return None


def line_of(text: str, path: str) -> int:
    """The line (from 1) on which TOML key `a.b.c` is set, or where its table begins; 1 when it is nowhere."""
    table: list[str] = []
    wanted = [part.strip('"') for part in path.split(".")] if path else []
    best = 1
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        if stripped.startswith("["):
            table = [part.strip(' "') for part in stripped.strip("[]").split("]")[0].split(".")]
            here = table
        elif "=" in stripped and not stripped.startswith("#"):
            here = table + [part.strip(' "') for part in stripped.split("=", 1)[0].split(".")]
        else:
            continue
        if here == wanted:
            return number
        if here == wanted[: len(here)] and here == table:
            best = number
    return best
