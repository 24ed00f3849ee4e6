"""What a profile may not say, told with file, line and key, and for an unknown key the nearest known one."""

from __future__ import annotations

import difflib
import math
import re
import tomllib
from collections.abc import Iterator
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from devices.decoders.nmea_sentences import value_names
from devices.options import OPTIONS
from devices.profiles import FieldSpec, Profile, RegisterSpec, TimestampSpec
from devices.reading import is_reserved
from devices.topics import compile_topic, placeholders
from headwater.errors import UserError

_BRACKETS = re.compile(r"\[(\d+|\*|\"[^\"]*\"|'[^']*')\]")
Fault = tuple[str, str, str]  # key, what is wrong with it, hint


def check_profile(profile: Profile, text: str, file: str) -> None:
    """Raise `UserError` for the first thing in `profile` that its types allow and its meaning does not."""
    for path, what, hint in _faults(profile):
        raise UserError(f"{file}, line {line_of(text, path)}: {path}: {what}", hint=hint)


def _faults(profile: Profile) -> Iterator[Fault]:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", profile.name):
        yield "name", f"“{profile.name}” is no profile name", "Use letters, digits, . _ - (64 at most)."
    if profile.decoder:
        yield from _decoder_faults(profile)
        return
    if profile.format not in OPTIONS:
        near = difflib.get_close_matches(profile.format, OPTIONS, n=1)
        hint = f"Did you mean “{near[0]}”?" if near else f"There are {', '.join(OPTIONS)}."
        yield "format", f"no decoder reads format “{profile.format}”", hint
        return
    yield from _general_faults(profile)
    try:
        msgspec.convert(profile.options, OPTIONS[profile.format])
    except msgspec.ValidationError as error:
        what, path, hint = _unknown_key(*_parts(error), OPTIONS[profile.format])
        yield f"options.{path}".rstrip("."), what, hint


def _decoder_faults(profile: Profile) -> Iterator[Fault]:
    """`options` are the decoder's own, so nobody here can judge them."""
    from devices.user_code import parse_spec  # few nodes have one

    try:
        parse_spec(profile.decoder)
    except UserError as error:
        yield "decoder", error.what, error.hint
    if profile.format != "json":
        yield "format", "a profile has a format or a decoder, not both", "Take one of them out."
    yield from _general_faults(profile)


def _general_faults(profile: Profile) -> Iterator[Fault]:
    if profile.zone:
        try:
            ZoneInfo(profile.zone)
        except (KeyError, ValueError, OSError):
            yield "zone", f"there is no time zone “{profile.zone}”", "Names are as Europe/Berlin; see tzselect."
    if profile.device is not None and is_reserved(profile.device):
        yield "device", f"no device may be called “{profile.device}”", "$ begins the node's own names."
    for key in ("expected_interval_ms", "event_time_past_max_ms", "heartbeat_ms", "interval_min_ms"):
        value = getattr(profile, key)
        if value is not None and value <= 0:
            yield key, f"{value} is not a positive number of milliseconds", ""
    for key in ("device_path", "natural_key"):
        path = getattr(profile, key)
        if path is not None and not all(path.split(".")):
            yield key, f"“{path}” has an empty part", ""
    if profile.each is not None and profile.decoder:
        yield "each", "a decoder yields a reading for each element itself", ""
    elif profile.each is not None and profile.format not in ("json", "cbor"):
        yield "each", f"format “{profile.format}” has no arrays to take apart", "json and cbor have."
    elif profile.each is not None and profile.each != "." and not all(profile.each.split(".")):
        yield "each", f"“{profile.each}” has an empty part", 'Write each = "." when the message itself is the array.'
    yield from _topic_faults(profile)
    yield from _path_faults(profile)
    if profile.timestamp is not None:
        yield from _timestamp_faults(profile.timestamp)
    for name, spec in profile.fields.items():
        yield from _field_faults(profile, name, spec)


def _path_faults(profile: Profile) -> Iterator[Fault]:
    """Paths that are written as another program's, and columns that are none: nothing would ever stand there."""
    stamp = profile.timestamp
    paths = [(f"fields.{name}.path", spec.path or name) for name, spec in profile.fields.items()]
    paths += [("device_path", profile.device_path or ""), ("natural_key", profile.natural_key or "")]
    paths += [("each", profile.each or "")]
    if stamp is not None:
        paths += [("timestamp.path", stamp.path), ("timestamp.time_path", stamp.time_path)]
    for key, path in paths:
        if path != path.strip():
            yield key, f"“{path}” begins or ends with a blank", "A path is a name, a.b for nested members."
        elif profile.format in ("json", "cbor") and (path[:1] in ("$", "/") or _BRACKETS.search(path)):
            yield key, f"“{path}” is written as in another language", _as_ours(path)
    if profile.format == "nmea0183":
        yield from _sentence_faults(paths)
    columns = read_columns(profile)
    for key, path in paths:
        if columns and path and path not in columns and profile.format == "csv":
            near = difflib.get_close_matches(path, columns, n=1)
            hint = f"Did you mean “{near[0]}”?" if near else "The names are those in options.columns."
            yield key.removesuffix(".path") if path in profile.fields else key, f"there is no column “{path}”", hint


def _sentence_faults(paths: list[tuple[str, str]]) -> Iterator[Fault]:
    for key, path in paths:
        head, _, name = path.partition(".")
        known = value_names(head) or value_names(head[2:])
        if name and known and not name.isdecimal() and name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"Did you mean “{head}.{near[0]}”?" if near else f"There are {', '.join(known)}, or a number."
            yield key, f"no value of sentence {head} is called “{name}”", hint


def _as_ours(path: str) -> str:
    ours = re.sub(r"\[[\"']?([^\]\"']*)[\"']?\]", r".\1", path.lstrip("$"))
    ours = ours.replace("/", ".") if path[:1] == "/" else ours
    return f"Names and numbers of elements with dots between: “{ours.strip('.') or 'a.b.0'}”."


def read_columns(profile: Profile) -> list[str]:
    """The columns that a CSV profile names, if it names them rightly."""
    columns = profile.options.get("columns", ())
    return [name for name in columns if isinstance(name, str)] if isinstance(columns, list | tuple) else []


def _topic_faults(profile: Profile) -> Iterator[Fault]:
    for topic in profile.topics:
        try:
            compile_topic(topic, profile.name)
        except UserError as error:
            yield "topics", error.what, error.hint
            continue
        for name in placeholders(topic):
            if name in profile.fields:
                yield "topics", f"the label {{{name}}} has the name of a field", "Name one of them otherwise."


def _timestamp_faults(spec: TimestampSpec) -> Iterator[Fault]:
    if not all(spec.path.split(".")):
        yield "timestamp.path", f"“{spec.path}” has an empty part", ""
    if spec.unit == "text" and not spec.format:
        yield "timestamp.unit", "a text needs its format", 'For example format = "%d.%m.%Y %H:%M:%S".'
    if spec.format and spec.unit != "text":
        yield "timestamp.format", f"unit “{spec.unit}” has no format", 'Write unit = "text".'
    if spec.time_path and spec.unit not in ("text", "iso8601"):
        yield "timestamp.time_path", f"only texts can be joined, not unit “{spec.unit}”", 'Write unit = "text".'
    if spec.zone:
        if spec.unit not in ("text", "iso8601"):
            yield "timestamp.zone", f"unit “{spec.unit}” counts from 1970 in UTC and has no zone", ""
        try:
            ZoneInfo(spec.zone)
        except (KeyError, ValueError, OSError):
            yield "timestamp.zone", f"there is no time zone “{spec.zone}”", "Names are as Europe/Berlin; see tzselect."


def _field_faults(profile: Profile, name: str, spec: FieldSpec) -> Iterator[Fault]:
    here = f"fields.{name}"
    for path in (name, *(spec.path,) * bool(spec.path)):
        if not all(path.split(".")):
            yield f"{here}.path", f"“{path}” has an empty part", "Write a.b.c for nested members."
    for key in ("scale", "offset", "min", "max", "deadband"):
        if (number := getattr(spec, key)) is not None and not math.isfinite(number):
            yield f"{here}.{key}", f"{number} is no number to reckon with", ""
    if spec.scale == 0:
        yield f"{here}.scale", "0 would make every value the same", ""
    if spec.is_scaled and spec.type in ("text", "boolean"):
        yield f"{here}.type", f"a {spec.type} cannot be scaled", ""
    if spec.min is not None and spec.max is not None and spec.min > spec.max:
        yield f"{here}.min", f"{spec.min:g} is above max ({spec.max:g})", ""
    if spec.deadband is not None and spec.deadband < 0:
        yield f"{here}.deadband", f"{spec.deadband:g} is negative", ""
    if profile.format == "modbus":
        yield from _register_faults(here, spec)
    elif spec.register is not None:
        yield f"{here}.register", f"format “{profile.format}” has no registers", 'Write format = "modbus".'


def _register_faults(here: str, spec: FieldSpec) -> Iterator[Fault]:
    if (register := spec.register) is None:
        yield here, "a field of format “modbus” needs its register", "For example register = { address = 100 }."
        return
    if register.address + register.words > 65_536:
        yield f"{here}.register", f"the field ends behind register 65535 ({register.words} registers)", ""
    if register.bit is not None or register.bits is not None:
        size = register.words * 16
        if register.encoding not in ("uint16", "uint32", "uint64"):
            yield f"{here}.register", f"a bit field is cut out of an unsigned value, not {register.encoding}", ""
        elif (register.bit or 0) + (register.bits or 1) > size:
            yield f"{here}.register", f"the bit field ends behind bit {size - 1}", ""
    if register.encoding == "text" and spec.is_scaled:
        yield f"{here}.register", "a text cannot be scaled", ""


def explain(text: str, file: str, error: msgspec.ValidationError) -> UserError:
    """msgspec's `… - at `$.a.b`` as file, line, key, and for an unknown key the nearest known one."""
    what, path = _parts(error)
    struct: type[msgspec.Struct] = Profile
    if path.startswith("fields"):
        struct = RegisterSpec if path.endswith("register") else FieldSpec
        # msgspec hides which of the fields failed (`$.fields[...]`); each alone tells
        path = path.replace("fields", _failing_field(text), 1)
    elif path.startswith("timestamp"):
        struct = TimestampSpec
    what, path, hint = _unknown_key(what, path, struct)
    return UserError(f"{file}, line {line_of(text, path)}: {path or 'profile'}: {what}", hint=hint)


def _parts(error: msgspec.ValidationError) -> tuple[str, str]:
    what, _, place = str(error).partition(" - at `$")
    return what, place.rstrip("`").lstrip(".").replace("[...]", "")


def _unknown_key(what: str, path: str, struct: type[msgspec.Struct]) -> tuple[str, str, str]:
    """(what is wrong, path of the key, hint)."""
    hint = ""
    if (found := re.search(r"unknown field `([^`]*)`", what)) is not None:
        unknown = found.group(1)
        known = struct.__struct_fields__
        near = difflib.get_close_matches(unknown, known, n=1)
        what = f"unknown key “{unknown}”"
        hint = f"Did you mean “{near[0]}”?" if near else f"Known here: {', '.join(known) or 'none'}."
        path = f"{path}.{unknown}".lstrip(".")
    elif (found := re.search(r"Invalid enum value (.*)", what)) is not None and path:
        # the annotations are strings here; msgspec has resolved them
        info: Any = msgspec.inspect.type_info(struct)
        kind = {field.encode_name: field.type for field in info.fields}.get(path.rpartition(".")[2])
        if isinstance(kind, msgspec.inspect.LiteralType):
            hint = f"One of {', '.join(str(value) for value in kind.values if value)}."
    return what, path, hint


def _failing_field(text: str) -> str:
    for name, table in tomllib.loads(text).get("fields", {}).items():
        try:
            msgspec.convert(table, FieldSpec)
        except msgspec.ValidationError:
            return f"fields.{name}"
    return "fields"


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
        if here == wanted[: len(here)]:
            best = number
    return best
