"""A message's values, whatever format they came in, made a Reading as the profile says.

A decoder gives the values by path (`power`, `electrical.power`, a CSV column, a SenML name); this module takes out
time, natural key and device, converts and scales the fields, and adds the labels that the topic carries.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from devices.profiles import FieldSpec, Profile, TimestampSpec, scaled
from devices.reading import Reading, Scalar, Undecodable
from devices.times import milliseconds
from devices.topics import Captured, TopicMatcher

FIELDS_MAX = 1_000
DEPTH_MAX = 8
READINGS_MAX = 10_000
"""What one message may yield."""
MESSAGE_FIELDS_MAX = 200_000
ARRAY_FIELDS_MAX = 64
"""An array of more values is one text: a spectrum or a picture is no hundred fields."""
ARRAY_FIELDS_ALL_MAX = 500
_TOPICS_CACHED_MAX = 16_384
# each text is read once: digits that two parts of a pattern could share would cost the square of their number
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?")
_BROKEN = re.compile(r"[+-]?(?:nan|inf(?:inity)?|[0-9]+\.#[a-z]+[0-9]*|[0-9]+(?:\.[0-9]{3})*,[0-9]+)", re.IGNORECASE)
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
_BOOLEANS = {"true": True, "t": True, "yes": True, "on": True, "1": True}
_BOOLEANS |= {"false": False, "f": False, "no": False, "off": False, "0": False}
MISSING: Any = object()


class Shape:
    """One profile, prepared. Its errors are `Undecodable` in the name of `decoder`."""

    def __init__(self, profile: Profile | None, decoder: str) -> None:
        self.profile = profile
        self.decoder = decoder
        self._matcher = TopicMatcher([profile] if profile is not None else [])
        self._topics: dict[str, Captured] = {}
        self._fields = [(name, spec.path or name, spec) for name, spec in profile.fields.items()] if profile else []
        self.listed = bool(self._fields)
        self._timestamp = profile.timestamp if profile else None
        self._natural_path = profile.natural_key if profile else None
        self._natural_field = profile.natural_field if profile else None
        self._device_path = profile.device_path if profile else None
        meta = [self._natural_path, self._device_path]
        if self._timestamp is not None:
            meta += [self._timestamp.path, self._timestamp.time_path]
        self.meta_paths = [path for path in meta if path]
        self.paths = [path for _, path, _ in self._fields] + self.meta_paths
        """The only paths that matter, when fields are listed."""
        taken_out = [self._device_path] + ([self._timestamp.path, self._timestamp.time_path] if self._timestamp else [])
        self._taken_out = frozenset(path for path in taken_out if path)

    def captured(self, topic: str) -> Captured:
        """What the topic says; a topic that no pattern takes in (a file, a serial port) is the device itself."""
        found = self._topics.get(topic)
        if found is None:
            named = self.profile.device if self.profile else None
            found = self._matcher.captured(topic) or Captured(named or topic, "", {})
            if len(self._topics) >= _TOPICS_CACHED_MAX:
                self._topics.clear()
            self._topics[topic] = found
        return found

    def reading(
        self, topic: str, values: Mapping[str, Any], *, event_ms: int | None = None, device: str = ""
    ) -> Reading:
        """The reading that these values are. `event_ms` and `device` are the format's own; the profile's paths win."""
        captured = self.captured(topic)
        if self._timestamp is not None:
            event_ms = self._event_ms(values, self._timestamp, event_ms)
        if self._device_path is not None:
            device = self._device(values)
        natural = values.get(self._natural_path) if self._natural_path is not None else None
        fields = self._listed(values) if self.listed else self._free(values)
        if not fields:
            raise self.undecodable(f"the message holds none of the profile's fields{_found(values)}" if self.listed
                                   else "the message holds no value")  # fmt: skip
        if len(fields) > FIELDS_MAX:
            raise self.undecodable(f"{len(fields)} fields in one reading; {FIELDS_MAX} is the most")
        if self._natural_field is not None and natural is not None:
            fields.setdefault(self._natural_field, self.scalar(natural, self._natural_field))
        for label, text in captured.labels.items():
            fields.setdefault(label, text)
        if self._natural_path is not None and self._natural_field is None:
            natural = event_ms
        return Reading(device or captured.device, fields, event_ms, _key(natural))

    def _listed(self, values: Mapping[str, Any]) -> dict[str, Scalar]:
        fields: dict[str, Scalar] = {}
        for name, path, spec in self._fields:
            value = values.get(path, MISSING)
            if value is not MISSING:
                fields[name] = self.convert(value, spec, name)
        return fields

    def _free(self, values: Mapping[str, Any]) -> dict[str, Scalar]:
        taken_out = self._taken_out
        return {name: self.scalar(value, name) for name, value in values.items() if name not in taken_out}

    def convert(self, sent: Any, spec: FieldSpec, name: str) -> Scalar:
        """A sent value as the field's spec wants it stored."""
        value: Scalar = self.scalar(sent, name)
        if spec.type and value is not None:
            value = self._typed(value, spec.type, name)
        if not spec.is_scaled or value is None:
            return value
        if type(value) is not int and type(value) is not float:
            raise self.undecodable(f"field “{name}” is scaled but holds {value!r:.40}, which is no number")
        try:
            return scaled(value, spec.scale, spec.offset)
        except OverflowError:
            raise self.undecodable(f"field “{name}” is too large to scale") from None

    def _typed(self, value: Scalar, kind: str, name: str) -> Scalar:
        wanted: Scalar = None
        if kind == "text":
            return value if type(value) is str else str(value).lower() if type(value) is bool else str(value)
        if kind == "boolean":
            wanted = value if type(value) is bool else _BOOLEANS.get(str(value).strip().lower())
        elif type(value) is int or type(value) is float or type(value) is bool:
            wanted = value + 0
        elif type(value) is str:
            wanted = number_of(value.strip())
        if kind == "integer" and type(wanted) is float:
            wanted = int(wanted) if wanted.is_integer() else None
        if wanted is None:
            raise self.undecodable(f"field “{name}” should be a {kind} and holds {value!r:.40}")
        return wanted

    def scalar(self, value: Any, name: str) -> Scalar:
        """A number, text, boolean or None; a number that is none (NaN, infinity) is None: JSON has no such value."""
        kind = type(value)
        if kind is float:
            return float(value) if math.isfinite(value) else None
        if kind is int:
            if not -(2**63) <= value < 2**64:
                raise self.undecodable(f"field “{name}” holds a number that does not fit 64 bits")
            return int(value)
        if kind is str or kind is bool or value is None:
            known: Scalar = value
            return known
        hint = f": name its elements (path = “{name[:80]}.0”)" if kind is list else ""
        raise self.undecodable(
            f"field “{name[:80]}” holds {_KINDS.get(kind, kind.__name__)}, which is no single value{hint}"
        )

    def _event_ms(self, values: Mapping[str, Any], spec: TimestampSpec, event_ms: int | None) -> int | None:
        claim = values.get(spec.path)
        if claim is None or claim == "":
            return event_ms
        if spec.time_path:
            claim = f"{claim} {values.get(spec.time_path, '')}"
        return milliseconds(claim, spec, decoder=self.decoder)

    def _device(self, values: Mapping[str, Any]) -> str:
        device = values.get(self._device_path or "")
        if type(device) is int:
            device = str(device)
        if type(device) is not str or not device:
            raise self.undecodable(f"no device at “{self._device_path}”")
        return device

    def undecodable(self, reason: str) -> Undecodable:
        return Undecodable(reason, decoder=self.decoder)


_KINDS: dict[type, str] = {list: "an array", dict: "an object", bytes: "bytes"}


def number_of(text: str) -> int | float | None:
    """The number that a text is, as devices write numbers; None when it is none (`nan` and `inf` are none)."""
    if _INTEGER.fullmatch(text):
        return int(text)
    if _NUMBER.fullmatch(text) and math.isfinite(number := float(text)):
        return number
    return None


def broken_number(text: str) -> str:
    """What is wrong with a text that was meant as a number, as a sensor or a language setting breaks it; else "".

    Such a text must not pass for a word: one `nan` or `1,5` would make a text of a field that is a number.
    """
    if _BROKEN.fullmatch(text) is None and _NUMBER.fullmatch(text) is None:
        return ""
    if "," in text:
        return f"“{text[:40]}” is no number: is its comma a decimal one?"
    return f"“{text[:40]}” is no number that can be stored"


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

    Raises `Undecodable` for nesting without end.
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
                    flat[name] = msgspec.json.encode(member).decode()
                else:
                    room -= leaves
                    waiting.append((name + ".", enumerate(member), depth + 1))
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


def _found(values: Mapping[str, Any]) -> str:
    names = ", ".join(list(values)[:8])
    return f" (it holds {names[:200]})" if names else ""


def _key(natural: Any) -> int | str | None:
    """7.0 is the number 7; anything but a number or a text tells no reading from another."""
    if type(natural) is int or type(natural) is str:
        return natural
    return int(natural) if type(natural) is float and natural.is_integer() else None
