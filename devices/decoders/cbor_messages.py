"""CBOR (RFC 8949) objects to Readings, by the rules of JSON: members are fields, or what a profile lists of them.

A member with an integer as its key goes by that number (`path = "3"`). A float that is no number is null, `undefined`
is null, bytes are refused: they are no single value. A time tagged as such (section 3.4) is the number or
text in the tag, so `unit = "s"` or `"iso8601"` reads it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from devices.cbor import CborError, loads
from devices.decoders.plans import PlanCache
from devices.profiles import Profile
from devices.reading import Reading, Undecodable
from devices.shape import Shape, tree_readings

DECODER = "cbor"


def decode_group(profile: Profile | None, messages: Sequence[tuple[str, bytes]]) -> list[list[Reading] | Undecodable]:
    """One result per (topic, payload), in order: readings, or why there are none."""
    shape = _shapes.of(profile)
    results: list[list[Reading] | Undecodable] = []
    for topic, payload in messages:
        try:
            results.append(tree_readings(shape, topic, _text_keys(loads(payload))))
        except CborError as error:
            reason = f"no CBOR: {error}" if payload else "the message is empty"
            results.append(Undecodable(reason, decoder=DECODER))
        except Undecodable as error:
            results.append(error)
    return results


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
