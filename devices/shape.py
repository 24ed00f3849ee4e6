"""A message's values, whatever format they came in, made a Reading as the profile says.

A decoder gives the values by path (`power`, `electrical.power`, a CSV column, a SenML name); this module takes out
time, natural key and device, converts and scales the fields, and adds the labels that the topic carries.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from devices.profiles import FieldSpec, Profile, TimestampSpec, scaled
from devices.reading import Reading, Scalar, Undecodable
from devices.times import milliseconds
from devices.topics import Captured, TopicMatcher

FIELDS_MAX = 1_000
READINGS_MAX = 10_000
"""What one message may yield."""
_CLAIM_MAX = 10**18  # milliseconds; what is above is looked at
_TOPICS_CACHED_MAX = 16_384
# each text is read once: digits that two parts of a pattern could share would cost the square of their number
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
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
        self._as_sent = not any(spec.type or spec.is_scaled for _, _, spec in self._fields)
        self._by_columns = profile is None or (
            self._as_sent
            and profile.device_path is None
            and (profile.timestamp is None or (profile.timestamp.unit == "ms" and not profile.timestamp.time_path))
            and (profile.natural_field is None or profile.natural_field == profile.natural_key)
            and (not self._fields or profile.natural_field is None or profile.natural_field in profile.fields)
        )
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
        self,
        topic: str,
        values: Mapping[str, Any],
        *,
        event_ms: int | None = None,
        device: str = "",
        scalars: bool = False,
    ) -> Reading:
        """The reading that these values are. `event_ms` and `device` are the format's own; the profile's paths win.

        `scalars`: each value is a finite number of 64 bits, a text or a boolean, for certain.
        """
        captured = self.captured(topic)
        if self._timestamp is not None:
            event_ms = self._event_ms(values, self._timestamp, event_ms)
        if self._device_path is not None:
            device = self._device(values)
        natural = values.get(self._natural_path) if self._natural_path is not None else None
        if scalars and self._as_sent:
            fields = self._sent(values)
        else:
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

    def readings(
        self,
        topics: Sequence[str],
        rows: Sequence[Mapping[str, Scalar]],
        *,
        events_ms: Sequence[int | None] | None = None,
        devices: Sequence[str] | None = None,
    ) -> list[Reading]:
        """One reading a message of a group, as `reading` makes it of scalars. Raises `Undecodable` if one is none."""
        events_ms = [None] * len(rows) if events_ms is None else events_ms
        devices = [""] * len(rows) if devices is None else devices
        return self._columns(topics, rows, events_ms, devices) or [
            self.reading(topic, row, event_ms=event_ms, device=device, scalars=True)
            for topic, row, event_ms, device in zip(topics, rows, events_ms, devices, strict=True)
        ]

    def _columns(
        self,
        topics: Sequence[str],
        rows: Sequence[Mapping[str, Scalar]],
        events_ms: Sequence[int | None],
        devices: Sequence[str],
    ) -> list[Reading]:
        """The same at once; nothing where any of them needs a look."""
        captured = {topic: self.captured(topic) for topic in set(topics)}
        if not self._by_columns or any(each.labels for each in captured.values()):
            return []
        naturals: Sequence[Any] = [None] * len(rows)
        if self._timestamp is not None:
            claims: list[Any] = [row.get(self._timestamp.path) for row in rows]
            if set(map(type, claims)) != {int} or max(map(abs, claims)) > _CLAIM_MAX:
                return []
            events_ms = claims
        if self._natural_path is not None:
            found = events_ms if self._natural_field is None else [row.get(self._natural_path) for row in rows]
            naturals = list(map(_key, found))
            if self._natural_field is not None and None in naturals:
                return []
        fields = list(map(self._sent, rows))
        if not all(fields) or max(map(len, fields)) > FIELDS_MAX:
            return []
        named = [device or captured[topic].device for topic, device in zip(topics, devices, strict=True)]
        return list(map(Reading, named, fields, events_ms, naturals))

    def _sent(self, values: Mapping[str, Scalar]) -> dict[str, Scalar]:
        """The fields where there is nothing to look at and nothing to convert."""
        if self.listed:
            return {name: values[path] for name, path, _ in self._fields if path in values}
        taken_out = self._taken_out
        return {name: value for name, value in values.items() if name not in taken_out} if taken_out else dict(values)

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


def _found(values: Mapping[str, Any]) -> str:
    names = ", ".join(list(values)[:8])
    return f" (it holds {names[:200]})" if names else ""


def _key(natural: Any) -> int | str | None:
    """7.0 is the number 7; anything but a number or a text tells no reading from another."""
    if type(natural) is int or type(natural) is str:
        return natural
    return int(natural) if type(natural) is float and natural.is_integer() else None
