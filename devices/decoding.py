"""A profile's decoder, built in or a user's own, behind one door: for commands, which may run either."""

from __future__ import annotations

from collections.abc import Sequence

from devices.decoders.registry import decoder_for
from devices.profiles import Profile
from devices.reading import Reading, Undecodable, refuse_reserved, resolve
from devices.user_code import Message, UserDecoder


class Decoding:
    """What a profile makes of messages. A user's decoder runs in this process. Raises UserError when it is no good."""

    def __init__(self, profile: Profile | None) -> None:
        self.profile = profile
        self._user = UserDecoder(profile) if profile is not None and profile.decoder else None
        self._decode = decoder_for(profile.format if profile is not None else "json")

    def results(self, messages: Sequence[Message], device: str = "") -> list[list[Reading] | Undecodable]:
        """One result for each; `device` is the port's, for a user's decoder."""
        if self._user is None:
            results = self._decode(self.profile, [(message.topic, message.payload) for message in messages])
        else:
            name = self._user.profile.name
            found = [self._user.result(message, device) for message in messages]
            results = [Undecodable(one.reason, decoder=name) if one.reason else one.readings for one in found]
        refuse_reserved(results)
        for result, message in zip(results, messages, strict=True):
            resolve([result], message.arrival_ms)
        return results
