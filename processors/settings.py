"""Settings of the inline driver."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec


class ProcessorSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a node's own processors run."""

    place: Literal["edge", "central"] = "central"
    """Which alert rules run here (their `runs`); a node with a central above it is an edge."""
    output_partitions: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 1
    """Partitions of `aggregates` and `alerts` when they are created here; each that is written to costs an fsync."""
    output_retention_days: Annotated[float, msgspec.Meta(gt=0)] = 90.0
    """How long the topics `aggregates` and `alerts` keep what they hold."""
    checkpoint_every_ms: Annotated[int, msgspec.Meta(ge=10)] = 15_000
    """After a crash at most this much is computed again (never written again)."""
    poll_wait_ms: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 500
    """The longest wait for new readings in one fetch."""
    poll_bytes_max: Annotated[int, msgspec.Meta(ge=1024)] = 1 << 20
    """The most bytes that one fetch brings."""
    backoff_min_ms: Annotated[int, msgspec.Meta(ge=1)] = 200
    """The first pause after a failure; it doubles up to the next key."""
    backoff_max_ms: Annotated[int, msgspec.Meta(ge=1)] = 5_000
    """The longest pause after a failure."""
