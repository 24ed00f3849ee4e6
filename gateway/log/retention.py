"""What may go, and in which order: pure decisions over closed segments, oldest first. No I/O, no clock.

Age counts from a segment's last arrival, never from its records' timestamps, and only while the clock is trusted. By
age nothing goes that the central does not have yet; by bytes, and when the disk is full, it may, and is then named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

AGE, BYTES, DISK, LEFT, BY_CLIENT = "age", "bytes", "disk full", "left by a stop", "deleted by a client"

_RANKS = {"deadletter": 1, "alerts": 2, "events": 2}
"""When the disk is full, topics of a higher rank go last; everything else is as good as readings."""

Key = tuple[str, int]
"""(topic, partition)"""


class Held(NamedTuple):
    """One closed segment: records [base, end), and the wall time of its last arrival, None when that is not known."""

    base_offset: int
    end_offset: int
    size_bytes: int
    arrived_ms: int | None


class Rule(NamedTuple):
    """How one partition is kept; None: without limit.

    `settled` is the offset below which the central has everything, None for a topic that is not replicated. Nothing at
    or above `stable` goes: transactions are open there.
    """

    age_ms: int | None
    bytes_max: int | None
    settled: int | None
    stable: int


def expired(held: Sequence[Held], rule: Rule, active_bytes: int, now_ms: int | None) -> tuple[int, str]:
    """How many of the oldest segments go by age or by bytes, and for which of the two. `now_ms` None: not trusted."""
    old = 0
    if rule.age_ms is not None and now_ms is not None:
        for segment in held:
            young = segment.arrived_ms is None or now_ms - segment.arrived_ms <= rule.age_ms
            if young or segment.end_offset > rule.stable:
                break
            if rule.settled is not None and segment.end_offset > rule.settled:
                break
            old += 1
    many = 0
    if rule.bytes_max is not None:
        over = active_bytes + sum(segment.size_bytes for segment in held) - rule.bytes_max
        for segment in held:
            over -= segment.size_bytes
            if over < 0 or segment.end_offset > rule.stable:
                break
            many += 1
    return (many, BYTES) if many > old else (old, AGE)


def choose_for_disk(held: Mapping[Key, Sequence[Held]], rules: Mapping[Key, Rule], need_bytes: int) -> dict[Key, int]:
    """How many of each partition's oldest segments go so that `need_bytes` become free, or all that may.

    Readings first and events and alerts last; of one kind, what the central has goes before what it has not; then the
    oldest by arrival.
    """
    chosen: dict[Key, int] = {}
    while need_bytes > 0:
        heads = [
            (*_order(key, segments[chosen.get(key, 0)], rules[key]), key)
            for key, segments in held.items()
            if chosen.get(key, 0) < len(segments) and segments[chosen.get(key, 0)].end_offset <= rules[key].stable
        ]
        if not heads:
            break
        key = min(heads)[-1]
        need_bytes -= held[key][chosen.get(key, 0)].size_bytes
        chosen[key] = chosen.get(key, 0) + 1
    return chosen


def _order(key: Key, segment: Held, rule: Rule) -> tuple[int, bool, int]:
    owed = rule.settled is None or segment.end_offset > rule.settled
    return _RANKS.get(key[0], 0), owed, segment.arrived_ms or 0
