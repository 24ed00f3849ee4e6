"""Settings of the inline driver."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from processors.user.settings import UserLimits


class ProcessorSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a node's own processors run."""

    place: Literal["edge", "central"] = "central"
    """Which alert rules run here (their `runs`); a node with a central above it is an edge."""
    output_partitions: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 1
    """Partitions of `aggregates` and `alerts` when they are created here; each that is written to costs an fsync."""
    output_retention_days: Annotated[float, msgspec.Meta(gt=0)] = 90.0
    """How long the topics `aggregates` and `alerts` keep what they hold."""
    state_bytes_max: Annotated[int, msgspec.Meta(ge=1 << 20)] = 256 << 20
    """What the states of all rules may take in memory, shared equally by the partitions of their topics; see
    docs/windows.md for what gives way first."""
    forget_after_s: Annotated[float, msgspec.Meta(ge=0, le=3660 * 86400)] = 30 * 86400.0
    """A device that was not heard for so long, by its node's event time, is forgotten; 0: never."""
    foreign_lateness_s: Annotated[float, msgspec.Meta(ge=0, le=86400)] = 60.0
    """What Kafka clients write makes no marks: windows of such nodes close when a reading is so far behind their end;
    0: never."""
    silent_after_s: Annotated[float, msgspec.Meta(ge=0)] = 60.0
    """A central writes a mark in the name of a node that made none for so long: windows whose time is over are told,
    incomplete; 0: never."""
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
    user: UserLimits = UserLimits()
    """How much a user's own processor may take, and when it is paused."""
