"""The `[log]` section of a node's configuration."""

from __future__ import annotations

from typing import Annotated

import msgspec

_Count = Annotated[int, msgspec.Meta(ge=0)]
_Limit = Annotated[int, msgspec.Meta(ge=-1)]
_Bytes = Annotated[int, msgspec.Meta(gt=0)]

WEEK_MS = 7 * 24 * 3_600_000


class LogSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the log writes, and how long it keeps.

    - `fsync_interval_ms`: least time between two syncs; what waits is synced at once when the last sync is older. 0
      syncs whenever something waits (a central); 50 spares an edge's SD card.
    - `fsync_bytes`: this much waiting is synced without regard to the interval.
    - `segment_bytes`, `segment_ms`: a segment is closed at this size, or this long after its first batch arrived.
    - `index_interval_bytes`: one index entry at most per so many bytes of batches.
    - `open_segments_max`: closed segments kept open for readers, over all partitions.
    - `retention_ms`: a closed segment goes this long after its last record arrived; -1 keeps it. A topic's own
      `retention.ms` comes before it. What is to be replicated never goes by age before the central has it.
    - `retention_bytes`: of each partition at least this much is kept and what is older goes, replicated or not; -1
      keeps all. A topic's own `retention.bytes` comes before it.
    - `keep_replicated_h`: hours that a replicated topic's records stay once the central has them, so that a central can
      be repaired; for topics without a `retention.ms` of their own.
    - `free_floor_bytes`: with less than this free (or 5 % of the disk, when that is less) the oldest readings go,
      replicated ones first, then the others; `events` and `alerts` go last. 0 leaves the disk to fill up.
    - `reserve_bytes`: size of a file that is removed when the disk is full, for recovery and the alarm; 0: none.
    - `compact_keys_max`: keys that a pass of compaction remembers, about 150 bytes each; more keys take more passes.
    """

    fsync_interval_ms: _Count = 50
    fsync_bytes: _Bytes = 65_536
    segment_bytes: Annotated[int, msgspec.Meta(ge=4_096, le=1 << 30)] = 64 << 20
    segment_ms: _Count = WEEK_MS
    index_interval_bytes: _Count = 4_096
    open_segments_max: _Bytes = 32
    retention_ms: _Limit = -1
    retention_bytes: _Limit = -1
    keep_replicated_h: _Count = 24
    free_floor_bytes: _Count = 512 << 20
    reserve_bytes: Annotated[int, msgspec.Meta(ge=0, le=1 << 30)] = 16 << 20
    compact_keys_max: Annotated[int, msgspec.Meta(ge=1_000)] = 100_000
