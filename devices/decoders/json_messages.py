"""JSON to Readings, a group of messages in one msgspec call.

With a profile that lists fields only those are read, type-checked in C, and stored in the profile's order; whatever
else the message holds is skipped. Without fields, or without a profile, every member is a field: nested objects become
`outer.inner`, arrays' elements `name.0`, and a bare number, text or boolean is the field `value`; without a profile a
short text need not be in quotes. A message that is an array of objects is a reading for each of them.

Messages of a group are joined by newlines and decoded as one stream. A stream of JSON values can be split
in more than one way, so one sender could shift another's values; hence the guard `one_value_each`. What ingest stores
of the usual message is decoded faster still, by `json_plain`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any, TypedDict

import msgspec

from devices.decoders.json_plain import is_flat, listed_names, meta_paths, needs_shape, one_value_each
from devices.decoders.plans import PlanCache
from devices.profiles import Profile, scaled
from devices.reading import Reading, Scalar, Undecodable
from devices.shape import FIELDS_MAX, MISSING, READINGS_MAX, Shape, broken_number, number_of
from devices.times import milliseconds
from devices.topics import TopicMatcher
from devices.trees import flatten, is_array_of_objects, look_up, tree_readings

Message = tuple[str, bytes]
Result = list[Reading] | Undecodable

_DEVICES_CACHED_MAX = 16_384
_NONE_OF_THEM = "the object holds none of the profile's fields"
TEXT_BYTES_MAX = 256
"""A longer text that is no JSON is a mistake rather than a status."""
_NUMBER = re.compile(r'(?:"((?:[^"\\]|\\.)*)"\s*:\s*)?(?<![\w."])(-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)')
_ERRORS = (ValueError, RecursionError)  # msgspec's DecodeError and a UnicodeDecodeError are ValueErrors


def decode_group(profile: Profile | None, messages: Sequence[Message]) -> list[Result]:
    """One result per (topic, payload), in order: a list of readings, or why there is none."""
    return _plans.of(profile).decode(messages)


class _Plan:
    """What can be worked out once per profile."""

    def __init__(self, profile: Profile | None) -> None:
        self.profile = profile
        self._devices: dict[str, str] = {}
        self._matcher = TopicMatcher([profile] if profile is not None else [])
        self._timestamp = profile.timestamp if profile is not None else None
        self._natural_path = profile.natural_key if profile is not None else None
        self._natural_field = profile.natural_field if profile is not None else None
        self._moved = [
            (name, spec.path or name, spec.scale, spec.offset)
            for name, spec in (profile.fields.items() if profile is not None else ())
        ]
        self._listed = bool(self._moved)
        self._flat = profile is None or is_flat(profile)
        self._names = listed_names(profile) if profile is not None else []
        self._shape = Shape(profile, "json") if profile is not None and needs_shape(profile) else None
        typed = profile is not None and self._listed and self._shape is None
        self._decoder = self._typed_decoder(profile) if profile is not None and typed else msgspec.json.Decoder()

    def _typed_decoder(self, profile: Profile) -> msgspec.json.Decoder[Any]:
        tree: dict[str, Any] = {}
        for path in [path for _, path, _, _ in self._moved] + meta_paths(profile):
            node = tree
            *parents, leaf = path.split(".")
            for parent in parents:
                if not isinstance(node.get(parent), dict):
                    node[parent] = {}
                node = node[parent]
            node.setdefault(leaf, None)
        return msgspec.json.Decoder(_typed_dict("Message", tree))

    def decode(self, messages: Sequence[Message]) -> list[Result]:
        joined = b"\n".join([payload for _, payload in messages])
        if one_value_each(joined, len(messages)):
            try:
                values = self._decoder.decode_lines(joined)
            except _ERRORS:
                # one of them is bad: each alone tells which, and why
                values = []
            if len(values) == len(messages):
                return [self._result(*message, value) for message, value in zip(messages, values, strict=True)]
        return [self._decode_one(topic, payload) for topic, payload in messages]

    def _decode_one(self, topic: str, payload: bytes) -> Result:
        try:
            value = self._decoder.decode(payload)
        except _ERRORS as error:
            if self.profile is not None or (text := plain_text(payload)) is None:
                return Undecodable(_reason(payload, error))
            number = number_of(text)
            if number is None and (wrong := broken_number(text)):
                return Undecodable(wrong)
            value = text if number is None else number
        return self._result(topic, payload, value)

    def _result(self, topic: str, payload: bytes, value: Any) -> Result:
        try:
            if self._shape is not None:
                return tree_readings(self._shape, topic, value)
            if self._listed:
                return [self._listed_reading(topic, value)]
            if is_array_of_objects(value):
                return self._free_readings(topic, value)
            return [self._free_reading(topic, value)]
        except Undecodable as error:
            if error.reason == _NONE_OF_THEM:
                return Undecodable(f"{error.reason}{_held(payload)}")
            return error

    def _listed_reading(self, topic: str, value: dict[str, Any]) -> Reading:
        event_ms: int | None = None
        natural: Any = None
        timestamp = self._timestamp
        if self._flat:
            if timestamp is not None and (claim := value.get(timestamp.path)) is not None:
                event_ms = milliseconds(claim, timestamp)
            # in the profile's order, as `json_plain` has it: the same message is stored as the same bytes
            fields: dict[str, Scalar] = {name: value[name] for name in self._names if name in value}
            if self._natural_field is not None:
                natural = value.get(self._natural_field)
        else:
            fields = {}
            for name, path, scale, offset in self._moved:
                got = look_up(value, path)
                if got is not MISSING:
                    fields[name] = got if scale == 1.0 and offset == 0.0 else _scaled(got, scale, offset, name)
            if timestamp is not None and (claim := look_up(value, timestamp.path)) not in (None, MISSING):
                event_ms = milliseconds(claim, timestamp)
            if self._natural_field is not None and self._natural_path is not None:
                natural = look_up(value, self._natural_path)
                if natural is not MISSING:
                    fields[self._natural_field] = natural
        return self._reading(topic, fields, event_ms, natural)

    def _free_readings(self, topic: str, elements: list[Any]) -> list[Reading]:
        if len(elements) > READINGS_MAX:
            raise Undecodable(f"{len(elements)} readings in one message; {READINGS_MAX} is the most")
        return [self._free_reading(topic, one) for one in elements]

    def _free_reading(self, topic: str, value: Any) -> Reading:
        event_ms: int | None = None
        natural: Any = None
        if type(value) is dict:
            timestamp = self._timestamp
            if timestamp is not None and (claim := _take(value, timestamp.path)) is not None:
                event_ms = milliseconds(claim, timestamp)
            for member in value.values():
                if type(member) is dict or type(member) is list:
                    value = flatten(value)
                    break
            if self._natural_path is not None and self._natural_field is not None:
                natural = value.get(self._natural_path)
                if natural is not None:
                    value[self._natural_field] = natural
            return self._reading(topic, value, event_ms, natural)
        if type(value) is list:
            return self._reading(topic, flatten({"value": value}), None, None)
        if value is None:
            raise Undecodable("the message is null: there is nothing to store")
        return self._reading(topic, {"value": value}, None, None)

    def _reading(self, topic: str, fields: dict[str, Scalar], event_ms: int | None, natural: Any) -> Reading:
        if not fields:
            raise Undecodable(_NONE_OF_THEM if self._listed else "the object is empty")
        if len(fields) > FIELDS_MAX:
            raise Undecodable(f"{len(fields)} fields in one message; {FIELDS_MAX} is the most")
        if (kind := type(natural)) is not int and kind is not str:
            # 7.0 is the number 7; anything else tells no reading from another
            natural = int(natural) if kind is float and natural.is_integer() else None
        if self._natural_path is not None and self._natural_field is None:
            natural = event_ms
        return Reading(self._device(topic), fields, event_ms, natural)

    def _device(self, topic: str) -> str:
        device = self._devices.get(topic)
        if device is None:
            matched, device = self._matcher.match(topic)
            if matched is None and self.profile is not None and self.profile.device is not None:
                device = self.profile.device
            if len(self._devices) >= _DEVICES_CACHED_MAX:
                self._devices.clear()
            self._devices[topic] = device
        return device


def _held(payload: bytes) -> str:
    """What a message holds instead, whose decoder skips what no field is: broken text and numbers too, unseen."""
    try:
        value = msgspec.json.decode(payload)
    except _ERRORS:
        return ""
    return f" (it holds {', '.join(list(value)[:8])[:200]})" if type(value) is dict and value else ""


def plain_text(payload: bytes) -> str | None:
    """The short text that a payload is, as wills and switches say it (`Offline`, `ON`); None for what only broke."""
    if len(payload) > TEXT_BYTES_MAX:
        return None
    try:
        text = payload.decode("utf-8").strip()
    except UnicodeDecodeError:
        return None
    # what begins as JSON or markup does only broke
    return text if text.isprintable() and (text[:1].isalnum() or text[:1] in ("+", "-", ".")) else None


def _typed_dict(name: str, tree: dict[str, Any]) -> Any:
    members = {key: Scalar if below is None else _typed_dict(key, below) for key, below in tree.items()}
    return TypedDict(name, members, total=False)  # type: ignore[operator]  # a type that is made at run time


def _take(value: dict[str, Any], path: str) -> Any:
    """The member at `path`, removed from its object; None when it is not there."""
    if "." not in path:
        return value.pop(path, None)
    *parents, leaf = path.split(".")
    node: Any = value
    for parent in parents:
        node = node.get(parent) if type(node) is dict else None
    return node.pop(leaf, None) if type(node) is dict else None


def _scaled(value: Any, scale: float, offset: float, name: str) -> Scalar:
    if value is None:
        return None
    if type(value) is not int and type(value) is not float:
        raise Undecodable(f"field “{name}” is scaled but holds {value!r:.40}, which is no number")
    try:
        return scaled(value, scale, offset)
    except OverflowError:
        raise Undecodable(f"field “{name}” is too large to scale") from None


def _reason(payload: bytes, error: Exception) -> str:
    if not payload:
        return "the message is empty"
    if isinstance(error, RecursionError):
        return "the JSON is nested too deeply"
    if isinstance(error, UnicodeDecodeError):
        return f"no JSON: byte {error.start} is not UTF-8"
    if "out of range" in str(error) and (found := _out_of_range(payload)):
        return found
    return str(error) if isinstance(error, msgspec.ValidationError) else f"no JSON: {error}"


def _out_of_range(payload: bytes) -> str:
    """Which member holds the number that no double can be; "" when that cannot be told."""
    for found in _NUMBER.finditer(payload.decode(errors="replace")):
        name, number = found.group(1), found.group(2)
        if math.isinf(float(number)):
            whose = f"field “{name:.80}”" if name else "the message"
            return f"{whose} holds {number:.40}, which is out of range for a number"
    return ""


_plans: PlanCache[_Plan] = PlanCache(_Plan)
