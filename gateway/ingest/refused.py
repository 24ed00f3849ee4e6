"""What a source's framing did not take for messages: it goes the way of a decoder's outcomes, to the dead letters."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from gateway.ingest.messages import Message
from gateway.ingest.outcome import Outcome
from gateway.log.records import NO_HEADERS

DECODER = "framing"


def no_messages(messages: Iterable[Message], reasons: Sequence[str], source_id: str) -> list[tuple[Outcome, bytes]]:
    """An outcome for each of `messages`, none of which is one, with its reason."""
    return [
        (Outcome(0, source_id, 0, topic, reason=reason, decoder=DECODER, payload=payload), NO_HEADERS)
        for (topic, payload, _, _), reason in zip(messages, reasons, strict=True)
    ]
