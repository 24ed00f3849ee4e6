"""Settings of users' own decoders, `[decoders]`."""

from __future__ import annotations

from typing import Annotated

import msgspec

Positive = Annotated[int, msgspec.Meta(ge=1)]


class DecoderSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much a user's own decoder may take, and when it is paused. Each runs in a process of its own."""

    time_max_ms: Annotated[int, msgspec.Meta(ge=10, le=600_000)] = 2_000
    """A decoder that takes longer over one message is killed and named; the message becomes a dead letter."""
    tries: Positive = 2
    """How often a message that kills its decoder is tried in all."""
    failures_max: Positive = 20
    """Messages in a row over which a decoder may fail before it is paused; those that kill it count five times."""
    pause_min_ms: Positive = 10_000
    """A paused decoder is tried with one message after this long, then twice as long, and when its file changes."""
    pause_max_ms: Positive = 600_000
    """The longest that it waits between two tries."""
    memory_max_bytes: Annotated[int, msgspec.Meta(ge=32 << 20)] = 512 << 20
    """Address space of a decoder's process."""
    batch_messages: Annotated[int, msgspec.Meta(ge=1, le=2_000)] = 200
    """Messages decoded and stored together."""
