"""The public names for users' own code; everything else in Headwater may change between versions.

A decoder turns one message into readings. A profile names it, `decoder = "./mine.py:decode"`, and says what format it
cannot: units, limits, deadband, natural key, expected interval.

    from headwater.api import Message, Reading, Reject

    def decode(message: Message):
        if len(message.payload) < 3:
            raise Reject("a frame has 3 bytes at least")
        yield Reading({"temperature": message.payload[1] / 2}, device=f"tag-{message.payload[0]}")

It may return or yield `Reading`s or plain dicts of fields, one or many, or nothing for a message that says nothing.
What it raises otherwise makes the message a dead letter that names file and line. `headwater new decoder NAME`
writes one with its test; docs/profiles.md tells the rest.
"""

from __future__ import annotations

from devices.decoding import Decoding
from devices.profile_files import read_profiles
from devices.reading import Undecodable
from devices.user_code import Message, Reading, Reject

__all__ = ["Message", "Reading", "Reject", "read"]


def read(profile: str, payload: bytes, *, topic: str, arrival_ms: int = 0) -> list[Reading]:
    """What a node with this profile (its file's path) would store of a message: for tests of decoders and profiles.

    Raises `Reject` with the dead letter's reason when it is no reading, and `headwater.errors.UserError` for a mistake
    in the profile or a decoder that cannot be loaded.
    """
    [found] = read_profiles([profile if "/" in profile else f"./{profile}"])
    [result] = Decoding(found).results([Message(topic, payload, arrival_ms)])
    if isinstance(result, Undecodable):
        raise Reject(result.reason)
    return [Reading(one.fields, device=one.device, time=one.event_ms) for one in result]
