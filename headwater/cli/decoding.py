"""A profile's decoder for a command: a user's own runs in a process of its own, as on a node."""

from __future__ import annotations

from collections.abc import Sequence

from devices.decoders.registry import decoder_for
from devices.profiles import Profile
from devices.reading import Reading, Undecodable, refuse_reserved, resolve
from devices.user_code import Message
from devices.user_settings import DecoderSettings
from headwater.app.decoder_process import DecoderBroken, DecoderDied, DecoderProcess, Item
from headwater.errors import UserError

Results = list[list[Reading] | Undecodable]


class CommandDecoding:
    """What a profile makes of messages; `close` it in the end."""

    def __init__(self, profile: Profile | None, settings: DecoderSettings | None = None) -> None:
        self.profile = profile
        self._process: DecoderProcess | None = None
        if profile is not None and profile.decoder:
            self._process = DecoderProcess(profile, settings or DecoderSettings())

    async def results(self, messages: Sequence[Message]) -> Results:
        """One result for each. Raises UserError for a decoder that cannot be loaded."""
        results = await self._decoded(messages)
        refuse_reserved(results)  # as a node does
        for result, message in zip(results, messages, strict=True):
            if message.arrival_ms:
                resolve([result], message.arrival_ms)
        return results

    async def _decoded(self, messages: Sequence[Message]) -> Results:
        if self._process is None:
            decode = decoder_for(self.profile.format if self.profile is not None else "json")
            return decode(self.profile, [(message.topic, message.payload) for message in messages])
        items = [(message.topic, message.payload, message.arrival_ms, message.source, "") for message in messages]
        try:
            return await self._ask(self._process, items)
        except DecoderDied:  # one of them; each alone tells which
            return [result for item in items for result in await self._alone(self._process, item)]

    async def close(self) -> None:
        """End the decoder's process."""
        if self._process is not None:
            await self._process.kill()

    async def _alone(self, process: DecoderProcess, item: Item) -> Results:
        try:
            return await self._ask(process, [item])
        except DecoderDied as error:
            return [Undecodable(error.what, decoder=self._name)]

    async def _ask(self, process: DecoderProcess, items: Sequence[Item]) -> Results:
        try:
            answers = await process.decode(items)
        except DecoderBroken as error:
            raise UserError(error.what, hint="No message is to blame: the decoder cannot be loaded.") from None
        return [Undecodable(one.reason, decoder=self._name) if one.reason else one.readings for one in answers]

    @property
    def _name(self) -> str:
        return self.profile.name if self.profile is not None else "json"
