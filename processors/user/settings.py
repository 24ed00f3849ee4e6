"""How much a user's processor may take, and when it is paused."""

from __future__ import annotations

from typing import Annotated

import msgspec

Positive = Annotated[int, msgspec.Meta(ge=1)]


class UserLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much a user's own processor may take, and when it is paused. Each runs in a process of its own."""

    time_max_ms: Annotated[int, msgspec.Meta(ge=10, le=600_000)] = 5_000
    """A processor that takes longer over 64 readings, or over one call with columns, is killed and named."""
    tries: Positive = 2
    """How often a reading that kills its processor is tried in all; then it is a dead letter."""
    failures_max: Positive = 20
    """Readings in a row over which a processor may fail before it is paused; those that kill it count five times."""
    pause_min_ms: Positive = 10_000
    """A paused processor is tried again after this long, then twice as long, and when its file changes."""
    pause_max_ms: Positive = 600_000
    """The longest that it waits between two tries."""
    memory_max_bytes: Annotated[int, msgspec.Meta(ge=128 << 20)] = 2 << 30
    """Address space of a processor's process."""
    state_max_bytes: Annotated[int, msgspec.Meta(ge=1 << 10)] = 64 << 20
    """State, timers and waiting readings of one input partition; a reading that needs more is a dead letter."""
    devices_max: Annotated[int, msgspec.Meta(ge=1, le=10_000_000)] = 200_000
    """Devices with a state in one input partition; a reading of one more is a dead letter."""
