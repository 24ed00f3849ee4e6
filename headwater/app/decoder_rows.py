"""Messages on their way through a decoder: from topic `raw` in, and to the core out. Sans-IO."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from gateway.consume.reader import Block
from gateway.ingest.outcome import Outcome
from gateway.log.records import decode_headers
from headwater.app.decoder_process import Item

READINGS_AT_ONCE = 500


class Row(msgspec.Struct, frozen=True):
    """One message of topic `raw`."""

    offset: int
    arrival_ms: int
    source: str
    topic: str
    payload: bytes
    device: str

    @property
    def item(self) -> Item:
        """As a decoder's process reads it."""
        return self.topic, self.payload, self.arrival_ms, self.source, self.device


def rows_of(block: Block, profile: str) -> list[Row]:
    """The messages of a block that are a profile's."""
    rows = []
    for index, blob in enumerate(block.headers):
        told = {key: (value or b"").decode("utf-8", "replace") for key, value in decode_headers(blob)}
        if told.get("profile") == profile:
            source = (block.keys[index] or b"").decode("utf-8", "replace").partition("/")[2]
            topic, payload = told.get("topic", ""), bytes(block.values[index] or b"")
            arrival_ms, device = block.timestamps[index], told.get("device", "")
            rows.append(Row(block.offsets[index], arrival_ms, source, topic, payload, device))
    return rows


def parts_of(outcomes: Sequence[Outcome]) -> Iterator[list[Outcome]]:
    """Pieces that the core stores at once: it does nothing else meanwhile."""
    part: list[Outcome] = []
    readings = 0
    for outcome in outcomes:
        if part and readings + len(outcome.readings) > READINGS_AT_ONCE:
            yield part
            part, readings = [], 0
        part.append(outcome)
        readings += len(outcome.readings)
    if part:
        yield part
