"""Compare a table with msgspec types and say in plain words what does not fit, and where.

All unknown keys are found by walking the types; wrong values are msgspec's findings, one after the other: each is
reported at its line, taken out, and the rest is tried again, so that one run names every mistake.
"""

from __future__ import annotations

import copy
import difflib
import re
import tomllib
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

from headwater.toml.places import Path, show_path
from headwater.toml.source import Source

T = TypeVar("T", bound=msgspec.Struct)

_PROBLEMS_MAX = 20
_NONE: Mapping[str, Any] = MappingProxyType({})
_NAMED_MAX = 10
NAME = r"^[a-z0-9][a-z0-9_.-]{0,63}$"
_PATTERNS = {NAME: "must be at most 64 of a-z, 0-9, _, . and -, a letter or digit first"}
_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "text in quotes",
    "bool": "true or false",
    "array": "a list [...]",
    "object": "a section of its own",
    "null": "nothing",
}


@cache
def shape_of(kind: type[msgspec.Struct]) -> inspect.Type:
    """What msgspec says of a type, asked once: for a node's settings it takes a twentieth of its start."""
    return inspect.type_info(kind)


def convert(source: Source, kind: type[T], stand_ins: Mapping[str, Any] = _NONE) -> T | None:
    """The table as `kind`, without what does not fit: each mistake is in `source.problems`.

    None when a key is missing that nothing can stand for; a list's item that lacks one is left out, unless `stand_ins`
    has something for the key, so that what else is wrong with the item is found too.
    """
    shape = shape_of(kind)
    homes = _key_homes(shape)
    _drop_unknown(source, source.table, shape, (), homes)
    while len(source.problems) < _PROBLEMS_MAX:
        try:
            value = msgspec.convert(source.table, kind)
        except msgspec.ValidationError as error:
            message, path = _found(str(error), source.table, kind)
            if _literal_from_environment(source, path):
                continue
            missing = _missing_of(message)
            if not missing or (*path, missing) not in source.faulty:
                source.problem(path, _plain(message, path, missing=missing, allowed=_allowed(shape, path)))
            if missing in stand_ins and _put(source.table, (*path, missing), stand_ins[missing]):
                source.faulty.add((*path, missing))
                continue
            item_is_gone = bool(path) and isinstance(path[-1], int)
            if not path or (missing and not item_is_gone) or not _remove(source.table, path):
                return None
            source.forget_item(path)
        else:
            return value
    return None


def struct_at(shape: inspect.Type) -> inspect.StructType | None:
    """The struct behind a type: itself, or the one inside `X | None`."""
    if isinstance(shape, inspect.UnionType):
        return next((inner for inner in shape.types if isinstance(inner, inspect.StructType)), None)
    return shape if isinstance(shape, inspect.StructType) else None


def item_at(shape: inspect.Type) -> inspect.Type | None:
    """The type of a list's items, or None."""
    if isinstance(shape, (inspect.VarTupleType, inspect.ListType)):
        return shape.item_type
    return None


def value_at(shape: inspect.Type) -> inspect.Type | None:
    """The type of a mapping's values (`dict[str, X]`), or None."""
    return shape.value_type if isinstance(shape, inspect.DictType) else None


def _drop_unknown(source: Source, value: Any, shape: inspect.Type, path: Path, homes: dict[str, list[str]]) -> None:
    struct = struct_at(shape)
    item = item_at(shape)
    if struct is not None and isinstance(value, dict):
        fields = {field.encode_name: field.type for field in struct.fields}
        for key in list(value):
            if key in fields:
                _drop_unknown(source, value[key], fields[key], (*path, key), homes)
            else:
                source.problem((*path, key), _unknown(key, path, list(fields), homes))
                source.faulty.update((*path, near) for near in _nearest(key, list(fields)))
                del value[key]
    elif item is not None and isinstance(value, list):
        for index, inner in enumerate(value):
            _drop_unknown(source, inner, item, (*path, index), homes)
    elif (values := value_at(shape)) is not None and isinstance(value, dict):
        for key, inner in value.items():
            _drop_unknown(source, inner, values, (*path, key), homes)


def _nearest(key: str, known: list[str]) -> list[str]:
    return difflib.get_close_matches(key, known, n=1, cutoff=0.6)


def _unknown(key: str, path: Path, known: list[str], homes: dict[str, list[str]]) -> str:
    where = f" in [{show_path(path)}]" if path else ""
    near = _nearest(key, known)
    if near:
        return f"unknown key “{key}”{where}; did you mean “{near[0]}”?"
    elsewhere = [home for home in homes.get(key, []) if home != show_path(path)]
    if elsewhere:
        return f"unknown key “{key}”{where}; it belongs in {' or '.join(f'[{home}]' for home in elsewhere)}"
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.3)
    if near:
        return f"unknown key “{key}”{where}; the nearest known one is “{near[0]}”"
    return f"unknown key “{key}”{where}; known here: {', '.join(sorted(known))}"


def _key_homes(shape: inspect.Type) -> dict[str, list[str]]:
    """For each key of a section, the sections that know it."""
    homes: dict[str, list[str]] = {}
    top = struct_at(shape)
    for section in top.fields if top else ():
        inner = struct_at(section.type) or struct_at(item_at(section.type) or section.type)
        for field in inner.fields if inner else ():
            homes.setdefault(field.encode_name, []).append(section.encode_name)
    return homes


def _found(error: str, table: Any, kind: type[msgspec.Struct]) -> tuple[str, Path]:
    """msgspec's finding as (message, path); members of mappings, which it does not name, are looked for."""
    message, parts = _parse(error)
    if None not in parts:
        return message, tuple(part for part in parts if part is not None)
    at = table = copy.deepcopy(table)
    path: Path = ()
    for part in parts:
        name = _guilty(at, table, kind, error) if part is None else part
        if name is None:
            return message, path
        path += (name,)
        at = at[name]
    return message, path


def _guilty(mapping: dict[str, Any], table: Any, kind: type[msgspec.Struct], error: str) -> str | None:
    """The member of a mapping in `table` that makes msgspec say this; it is left there alone."""
    for name, inner in list(mapping.items()):
        mapping.clear()
        mapping[name] = inner
        try:
            msgspec.convert(table, kind)
        except msgspec.ValidationError as alone:
            if str(alone) == error:
                return name
    return None


def _parse(error: str) -> tuple[str, list[str | int | None]]:
    """(message, path); None stands for a member of a mapping, which msgspec does not name."""
    message, _, where = error.partition(" - at `$")
    found = re.findall(r"\.([^.\[`]+)|\[(\d+|\.\.\.)\]", where.rstrip("`"))
    return message, [None if index == "..." else name or int(index) for name, index in found]


def _member(shape: inspect.Type, part: str | int) -> inspect.Type | None:
    """The type of a struct's field, a list's item or a mapping's value."""
    if isinstance(part, int):
        return item_at(shape)
    if (values := value_at(shape)) is not None:
        return values
    struct = struct_at(shape)
    return next((field.type for field in struct.fields if field.encode_name == part), None) if struct else None


def _missing_of(message: str) -> str:
    match = re.search(r"missing required field `([^`]+)`", message)
    return match[1] if match else ""


def _allowed(shape: inspect.Type, path: Path) -> list[str]:
    """The texts that may stand at a path; [] where any may."""
    at: inspect.Type | None = shape
    for part in path:
        at = _member(at, part) if at is not None else None
    kinds = at.types if isinstance(at, inspect.UnionType) else (at,)
    return [str(value) for one in kinds if isinstance(one, inspect.LiteralType) for value in one.values]


def _plain(message: str, path: Path, *, missing: str, allowed: list[str]) -> str:
    name = show_path(path) or "the file"
    if missing:
        return f"{name} needs the key “{missing}”"
    enum = re.fullmatch(r"Invalid enum value '?(.*?)'?", message)
    if enum and allowed:
        near = difflib.get_close_matches(enum[1], allowed, n=1)
        meant = f"did you mean “{near[0]}”?" if near else ""
        known = f"it is one of {', '.join(allowed)}" if not near or len(allowed) <= _NAMED_MAX else ""
        return f"{name}: “{enum[1]}” is not known; {' '.join(filter(None, (meant, known)))}"
    pattern = re.fullmatch(r"Expected `str` matching regex '(.*)'", message)
    if pattern:
        return f"{name} {_PATTERNS.get(pattern[1], f'does not fit the pattern {pattern[1]}')}"
    message = re.sub(r"`([^`]+)`", _in_words, message)
    match = re.fullmatch(r"Expected (.+?)(?:, got (.+))?", message)
    if match:
        got = f", not {match[2]}" if match[2] else ""
        return f"{name} must be {match[1]}{got}"
    return f"{name}: {message[:1].lower() + message[1:]}"


def _in_words(kinds: re.Match[str]) -> str:
    """`int | null` as people say it; that a key may be left out goes without saying."""
    named = kinds[1].split(" | ")
    wanted = [kind for kind in named if kind != "null"] or named
    return " or ".join(_WORDS.get(kind, f"`{kind}`") for kind in wanted)


def _literal_from_environment(source: Source, path: Path) -> bool:
    """A whole value that came from the environment is text; where a number is asked for, read it as TOML would."""
    if path not in source.from_environment:
        return False
    source.from_environment.discard(path)
    holder: Any = source.table
    for part in path[:-1]:
        holder = holder[part]
    try:
        holder[path[-1]] = tomllib.loads(f"value = {holder[path[-1]]}")["value"]
    except tomllib.TOMLDecodeError:
        return False
    return True


def _put(table: Any, path: Path, value: Any) -> bool:
    for part in path[:-1]:
        table = table[part]
    if not isinstance(table, dict) or path[-1] in table:
        return False
    table[path[-1]] = value
    return True


def _remove(table: Any, path: Path) -> bool:
    for part in path[:-1]:
        table = table[part]
    try:
        del table[path[-1]]
    except (KeyError, IndexError, TypeError):
        return False
    return True
