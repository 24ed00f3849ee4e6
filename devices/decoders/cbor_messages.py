"""CBOR (RFC 8949) objects to Readings, by the rules of JSON: members are fields, or what a profile lists of them.

A member with an integer as its key goes by that number (`path = "3"`). A float that is no number is null, `undefined`
is null, bytes are refused: they are no single value. A time tagged as such (section 3.4) is the number or
text in the tag, so `unit = "s"` or `"iso8601"` reads it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from devices.cbor import CborError, loads
from devices.cbor_layouts import flat_maps
from devices.decoders.plans import PlanCache
from devices.profiles import Profile
from devices.reading import Reading, Undecodable
from devices.shape import Shape
from devices.trees import tree_readings

DECODER = "cbor"


def decode_group(profile: Profile | None, messages: Sequence[tuple[str, bytes]]) -> list[list[Reading] | Undecodable]:
    """One result per (topic, payload), in order: readings, or why there are none."""
    shape = _shapes.of(profile)
    found = _alike(shape, messages) if len(messages) > 1 else {}
    return [found[index] if index in found else _one(shape, *message) for index, message in enumerate(messages)]


def _one(shape: Shape, topic: str, payload: bytes) -> list[Reading] | Undecodable:
    try:
        return tree_readings(shape, topic, _text_keys(loads(payload)))
    except CborError as error:
        return Undecodable(f"no CBOR: {error}" if payload else "the message is empty", decoder=DECODER)
    except Undecodable as error:
        return error


def _alike(shape: Shape, messages: Sequence[tuple[str, bytes]]) -> dict[int, list[Reading]]:
    """Readings of those that differ from one another in their numbers alone, by their place in the group."""
    found: dict[int, list[Reading]] = {}
    if shape.profile is not None and shape.profile.each is not None:
        return found
    sizes: dict[int, list[int]] = {}
    for index, (_, payload) in enumerate(messages):
        sizes.setdefault(len(payload), []).append(index)
    for several in sizes.values():
        topics = [messages[index][0] for index in several]
        if any(shape.captured(topic).field for topic in set(topics)):
            continue
        rows = flat_maps([messages[index][1] for index in several])
        if rows is None:
            continue
        try:
            readings = shape.readings(topics, rows)
        except Undecodable:
            continue  # which message it is
        found.update({index: [reading] for index, reading in zip(several, readings, strict=True)})
    return found


def _text_keys(value: Any) -> Any:
    """Integer keys as the texts that paths are made of. The nesting is bounded by the reader."""
    if type(value) is dict:
        texts = {}
        for key, member in value.items():
            name = key if type(key) is str else str(key)
            if name in texts:
                raise Undecodable(f"key {name!r:.40} stands in a map both as a number and as a text", decoder=DECODER)
            texts[name] = _text_keys(member) if type(member) is dict or type(member) is list else member
        return texts
    return [_text_keys(item) for item in value] if type(value) is list else value


_shapes: PlanCache[Shape] = PlanCache(lambda profile: Shape(profile, DECODER))
