"""The usual JSON by columns: one flat object a message, its time in milliseconds, its natural key a whole number.

`json_messages` decodes anything, and makes a `Reading` of each message. Most devices send the same flat object again
and again; here a whole group of such messages becomes a few lists, with no Python between one message and the next. A
group in which any message is not so is given back (None), for `json_messages` to say what each is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from itertools import repeat
from operator import attrgetter
from typing import Annotated, Any, NamedTuple

import msgspec

from devices.profiles import Profile
from devices.reading import Scalar
from devices.shape import FIELDS_MAX
from devices.topics import TopicMatcher, placeholders

_NATURAL_END = 1 << 62
_Natural = Annotated[int, msgspec.Meta(gt=-_NATURAL_END, lt=_NATURAL_END)]
_ERRORS = (ValueError, RecursionError)  # msgspec's DecodeError and a UnicodeDecodeError are ValueErrors


class PlainReadings(NamedTuple):
    """One reading a message, in order. What has no claimed time or natural key has None for the whole list."""

    fields: list[Any]  # what msgspec encodes as the reading's fields
    claims: list[int] | None
    naturals: list[int] | None


class PlainJson:
    """One profile prepared; made by `plain_json`."""

    def __init__(self, profile: Profile | None) -> None:
        """Raises `ValueError` for names that msgspec's structs cannot have."""
        self._profile = profile
        self._matcher = TopicMatcher([profile] if profile is not None else [])
        self._time = profile.timestamp.path if profile is not None and profile.timestamp is not None else None
        self._natural = profile.natural_field if profile is not None else None
        self._time_is_key = profile is not None and profile.natural_key is not None and self._natural is None
        self._time_attribute = ""
        self._time_of: Callable[[Any], Any] | None = None
        self._natural_of: Callable[[Any], Any] | None = None
        self._listed = profile is not None and bool(profile.fields)
        self._decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder()
        if profile is not None and self._listed:
            self._decoder = msgspec.json.Decoder(self._struct(listed_names(profile)))

    def _struct(self, names: list[str]) -> type[msgspec.Struct]:
        """A struct decodes in half a dictionary's time. What a message leaves out stays out, but time and key."""
        members = names if self._time is None else [*names, self._time]
        attributes = {name: f"m{index}" for index, name in enumerate(members)}
        if self._time is not None:
            self._time_attribute = attributes[self._time]
            self._time_of = attrgetter(self._time_attribute)
        if self._natural is not None:
            self._natural_of = attrgetter(attributes[self._natural])
        optional: Any = Scalar | msgspec.UnsetType
        needed = {self._time: int, self._natural: _Natural}
        return msgspec.defstruct(
            "Message",
            [
                (attribute, needed[name]) if name in needed else (attribute, optional, msgspec.UNSET)
                for name, attribute in attributes.items()
            ],
            rename={attribute: name for name, attribute in attributes.items()},
            kw_only=True,
            gc=False,
        )

    def device(self, topic: str) -> str:
        """The device that a topic names."""
        matched, device = self._matcher.match(topic)
        if matched is None and self._profile is not None and self._profile.device is not None:
            return self._profile.device
        return device

    def decode(self, payloads: Sequence[bytes]) -> PlainReadings | None:
        """The group's readings, or None when some message is of another shape, or none at all."""
        try:
            if self._listed:  # one by one is quicker than to join them and to look whether each is one value
                return self._of_structs(list(map(self._decoder.decode, payloads)))
            joined = b"\n".join(payloads)
            if not one_value_each(joined, len(payloads)) or joined.count(b"{") != len(payloads) or b"[" in joined:
                return None  # nested, or a text that looks so
            messages = self._decoder.decode_lines(joined)
        except _ERRORS:
            return None
        return self._of_objects(messages) if len(messages) == len(payloads) else None

    def _of_structs(self, messages: list[Any]) -> PlainReadings | None:
        claims = naturals = None
        if self._time_of is not None:
            claims = list(map(self._time_of, messages))
            deque(map(setattr, messages, repeat(self._time_attribute), repeat(msgspec.UNSET)), maxlen=0)
        if self._natural_of is not None:
            naturals = list(map(self._natural_of, messages))
        return self._readings(messages, claims, naturals)

    def _of_objects(self, messages: list[dict[str, Any]]) -> PlainReadings | None:
        claims = naturals = None
        if max(map(len, messages)) > FIELDS_MAX:
            return None
        if (time := self._time) is not None:
            claims = [message.pop(time, None) for message in messages]
            if set(map(type, claims)) != {int}:
                return None
        if (natural := self._natural) is not None:
            naturals = [message.get(natural) for message in messages]
            if set(map(type, naturals)) != {int} or not _fit(naturals):
                return None
        return self._readings(messages, claims, naturals)

    def _readings(
        self, messages: list[Any], claims: list[Any] | None, naturals: list[Any] | None
    ) -> PlainReadings | None:
        if not self._time_is_key:
            return PlainReadings(messages, claims, naturals)
        return PlainReadings(messages, claims, claims) if claims is not None and _fit(claims) else None


def _fit(naturals: list[Any]) -> bool:
    return bool(min(naturals) > -_NATURAL_END and max(naturals) < _NATURAL_END)


def plain_json(profile: Profile | None) -> PlainJson | None:
    """The profile prepared, or None for one whose messages are never plain."""
    if profile is not None:
        time = profile.timestamp
        if (time is not None and time.unit != "ms") or needs_shape(profile) or not is_flat(profile):
            return None
        if len(profile.fields) > FIELDS_MAX:
            return None
    try:
        return PlainJson(profile)
    except ValueError:
        return None


def needs_shape(profile: Profile) -> bool:
    """True for several readings a message, labels, arrays and conversions: what `devices.shape` is for."""
    paths = [spec.path or name for name, spec in profile.fields.items()]
    return (
        profile.each is not None
        or profile.device_path is not None
        or bool(profile.timestamp and profile.timestamp.time_path)
        or any(spec.type for spec in profile.fields.values())
        or any(part.isdecimal() for path in paths + meta_paths(profile) for part in path.split("."))
        or any(name != "device" for topic in profile.topics for name in placeholders(topic))
    )


def is_flat(profile: Profile) -> bool:
    """Whether each field is the member of the same name as it is, and time and natural key are members too."""
    return not any("." in path for path in meta_paths(profile)) and all(
        (spec.path or name) == name and not spec.is_scaled and "." not in name for name, spec in profile.fields.items()
    )


def meta_paths(profile: Profile) -> list[str]:
    """Where time and natural key stand, as far as the profile has them."""
    return [path for path in (profile.timestamp and profile.timestamp.path, profile.natural_key) if path]


def listed_names(profile: Profile) -> list[str]:
    """A flat profile's fields in the order in which they are stored: as listed, then the natural key if it is not."""
    names = list(profile.fields)
    if profile.natural_field is not None and profile.natural_field not in profile.fields:
        names.append(profile.natural_field)
    time = profile.timestamp.path if profile.timestamp is not None else None
    return [name for name in names if name != time]


def one_value_each(joined: bytes, count: int) -> bool:
    """True when a newline stands between any two payloads and nowhere else, with `}` before and `{` after it.

    Then a decoder that accepts the whole stream has found exactly one object in each payload. No value can span
    such a newline (raw ones are forbidden in strings, and after `}` a `{` cannot go on a value), so there
    are at least `count` values; and `count` values in all leave one for each.
    """
    return (
        joined[:1] == b"{"
        and joined[-1:] == b"}"
        and joined.count(b"\n") == count - 1
        and joined.count(b"}\n{") == count - 1
    )
