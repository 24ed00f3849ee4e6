"""What the windows of a rule say, and what they count."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

NEVER = -(1 << 62)
"""Before every event time."""


class WindowResult(NamedTuple):
    """One emission.

    `first_complete`: no earlier revision of this window was complete. `retro`: it was closed by backfill. `more`:
    members that only windows of this kind have.
    """

    group: str
    start: int
    end: int
    revision: int
    complete: bool
    cause: str
    retro: bool
    first_complete: bool
    readings: int
    fields: dict[str, dict[str, Any]]
    more: dict[str, Any] = {}  # noqa: RUF012 - a NamedTuple's default; nobody writes into it


class ToldResult(msgspec.Struct):
    """What a record of topic `aggregates` says of its window (docs/windows.md), read back."""

    rule: str
    group: str
    start: int
    end: int
    revision: int
    complete: bool
    cause: str
    count: int
    fields: dict[str, dict[str, Any]]


def aggregate_value(rule: str, result: WindowResult) -> dict[str, Any]:
    """The value of its record in topic `aggregates`."""
    value: dict[str, Any] = {
        "rule": rule,
        "group": result.group,
        "start": result.start,
        "end": result.end,
        "revision": result.revision,
        "complete": result.complete,
        "cause": result.cause,
        "count": result.readings,
        "fields": result.fields,
    }
    if result.retro:
        value["retro"] = True
    return value | result.more


class Counters(msgspec.Struct):
    """What a window rule has counted on one partition since its start, in results (the first two) and readings."""

    windows_emitted: int = 0
    revisions: int = 0
    late: int = 0
    too_late: int = 0
    overflow: int = 0
