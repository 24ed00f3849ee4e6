"""The `[log]` section of a node's configuration."""

from __future__ import annotations

from typing import Annotated

import msgspec

_Milliseconds = Annotated[int, msgspec.Meta(ge=0)]
_Bytes = Annotated[int, msgspec.Meta(gt=0)]

WEEK_MS = 7 * 24 * 3_600_000


class LogSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the log writes.

    - `fsync_interval_ms`: least time between two syncs; what waits is synced at once when the last sync is older. 0
      syncs whenever something waits (a central); 50 spares an edge's SD card.
    - `fsync_bytes`: this much waiting is synced without regard to the interval.
    - `segment_bytes`, `segment_ms`: a segment is closed at this size, or this long after its first batch arrived.
    - `index_interval_bytes`: one index entry at most per so many bytes of batches.
    - `open_segments_max`: closed segments kept open for readers, over all partitions.
    """

    fsync_interval_ms: _Milliseconds = 50
    fsync_bytes: _Bytes = 65_536
    segment_bytes: Annotated[int, msgspec.Meta(ge=4_096, le=1 << 30)] = 64 << 20
    segment_ms: _Milliseconds = WEEK_MS
    index_interval_bytes: _Milliseconds = 4_096
    open_segments_max: _Bytes = 32
