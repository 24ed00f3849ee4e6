"""What a user's decoder made of one message: what the work process hands back to the core."""

from __future__ import annotations

import msgspec

from devices.reading import Reading, Undecodable


class Outcome(msgspec.Struct, array_like=True, frozen=True):
    """What became of the raw message at `offset`: its readings, or the `reason` why there are none; its `payload`."""

    offset: int
    source: str
    arrival_ms: int
    topic: str
    readings: list[Reading] = []
    reason: str = ""
    decoder: str = ""
    payload: bytes = b""

    def result(self) -> list[Reading] | Undecodable:
        """As a decoder in this process would have said it."""
        return Undecodable(self.reason, decoder=self.decoder) if self.reason else self.readings
