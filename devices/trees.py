"""Nested objects and arrays (JSON, CBOR) as values by path, which is what `Shape.reading` wants."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from devices.reading import Reading, Undecodable
from devices.shape import MISSING, READINGS_MAX, Shape

DEPTH_MAX = 8
MESSAGE_FIELDS_MAX = 200_000
ARRAY_FIELDS_MAX = 64
"""An array of more values is one text: a spectrum or a picture is no hundred fields."""
ARRAY_FIELDS_ALL_MAX = 500


def look_up(value: Any, path: str) -> Any:
    """The member at `a.b.0.c` of nested objects and arrays, or `MISSING`."""
    for part in path.split("."):
        if type(value) is dict:
            value = value.get(part, MISSING)
        elif type(value) is list and part.isascii() and part.isdecimal() and len(part) < 7:
            value = value[int(part)] if int(part) < len(value) else MISSING
        else:
            return MISSING
        if value is MISSING:
            return MISSING
    return value


def flatten(value: dict[str, Any], decoder: str = "json") -> dict[str, Any]:
    """Nested objects' members as `outer.inner`, arrays' elements as `name.0`; a long array is one text, its JSON.

    Raises `Undecodable` for nesting without end, and where two members would be one field (`{"a": [1], "a.0": 2}`).
    """
    flat: dict[str, Any] = {}
    waiting: list[tuple[str, Iterable[tuple[Any, Any]], int]] = [("", value.items(), 1)]
    room = ARRAY_FIELDS_ALL_MAX
    while waiting:
        prefix, members, depth = waiting.pop()
        for key, member in members:
            name = f"{prefix}{key}"
            if type(member) is dict:
                if depth >= DEPTH_MAX:
                    raise Undecodable(f"member “{name[:80]}” is nested deeper than {DEPTH_MAX} levels", decoder=decoder)
                waiting.append((name + ".", member.items(), depth + 1))
            elif type(member) is list:
                leaves = _leaves(member, DEPTH_MAX - depth)
                if leaves > min(room, ARRAY_FIELDS_MAX):
                    if name in flat:
                        raise Undecodable(f"two members are both “{name[:80]}”", decoder=decoder)
                    flat[name] = msgspec.json.encode(member).decode()
                else:
                    room -= leaves
                    waiting.append((name + ".", enumerate(member), depth + 1))
            elif name in flat:
                raise Undecodable(f"two members are both “{name[:80]}”", decoder=decoder)
            else:
                flat[name] = member
    return flat


def _leaves(value: Any, depth: int) -> int:
    """How many fields an array would be; more than any may be where it is nested too deeply for that."""
    if type(value) is not dict and type(value) is not list:
        return 1
    if depth == 0 or len(value) > ARRAY_FIELDS_MAX:
        return ARRAY_FIELDS_ALL_MAX + 1
    count = 0
    for member in value.values() if type(value) is dict else value:
        count += _leaves(member, depth - 1)
        if count > ARRAY_FIELDS_MAX:
            break
    return count


def is_array_of_objects(value: Any) -> bool:
    """Whether a message without a word from a profile is many readings: an array that holds objects alone."""
    return type(value) is list and bool(value) and all(type(one) is dict for one in value)


def tree_readings(shape: Shape, topic: str, value: Any) -> list[Reading]:
    """The readings of a decoded object, array or bare value (JSON, CBOR). Raises `Undecodable`."""
    readings: list[Reading] = []
    fields = 0
    for one in _elements(shape, value):
        readings.append(shape.reading(topic, tree_values(shape, topic, one)))
        fields += len(readings[-1].fields)
        if fields > MESSAGE_FIELDS_MAX:  # what stands beside an array is every element's
            raise shape.undecodable(f"more than {MESSAGE_FIELDS_MAX} fields in all readings of one message")
    return readings


def _elements(shape: Shape, value: Any) -> Iterator[Any]:
    each = shape.profile.each if shape.profile is not None else None
    if each is None:
        if shape.listed or not is_array_of_objects(value):
            yield value
            return
        each = "."
    elements = value if each == "." else look_up(value, each)
    if type(elements) is not list:
        where = "the message" if each == "." else f"“{each}”"
        raise shape.undecodable(f"{where} is no array, though the profile takes one reading from each of its elements")
    if not elements:
        raise shape.undecodable("the array of readings is empty")
    if len(elements) > READINGS_MAX:
        raise shape.undecodable(f"{len(elements)} readings in one message; {READINGS_MAX} is the most")
    beside: dict[str, Any] = {}
    if type(value) is dict:
        # what stands beside the array is every element's too: a gateway's name, a common time
        beside = {key: member for key, member in value.items() if key != each.split(".")[0]}
        if not shape.listed:
            beside = flatten(beside, shape.decoder)  # once: an array may be long, and so may the other one
    for element in elements:
        yield {**beside, **element} if type(element) is dict else {**beside, "value": element}


def tree_values(shape: Shape, topic: str, value: Any) -> dict[str, Any]:
    """The values by path of an object, array or bare value, as `Shape.reading` wants them. Raises `Undecodable`."""
    field = shape.captured(topic).field
    if type(value) is not dict:
        if value is None:
            raise shape.undecodable("the message is null: there is nothing to store")
        if type(value) is list and not shape.listed:
            return flatten({field or "value": value}, shape.decoder)
        if type(value) is not list:
            return {field or "value": value}
    if not shape.listed:
        flat = flatten(value, shape.decoder)
        return (
            {path if path in shape.meta_paths else f"{field}.{path}": one for path, one in flat.items()}
            if field
            else flat
        )
    if field:
        named = {field: value}
        values = {path: look_up(named, path) for path in shape.paths if path not in shape.meta_paths}
        values.update((path, look_up(value, path)) for path in shape.meta_paths)
    else:
        values = {path: look_up(value, path) for path in shape.paths}
    return {path: one for path, one in values.items() if one is not MISSING}
