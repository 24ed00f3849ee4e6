"""The progress record: how far a node has come at its central, written in the same transaction as the copies it counts.

It replaces every local cursor. It lives in topic `headwater.progress`, key `<node>`, value one JSON object
(docs/replication.md describes each field). Offsets are those of the node's own log, ends are exclusive,
`<topic>/<partition>` names a source partition. A run's first offsets stand per source partition: a node has several.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from headwater.errors import UNREADABLE, HeadwaterError

VERSION = 1
RUNS_MAX = 8
RANGES_MAX = 32
GONE_MAX = 16
CHAIN_MAX = 8
_CHAIN_FACTOR_BITS = 3

Run = tuple[str, dict[str, int]]
"""(run id, first offset per source partition); a partition that is not named began in that run, at 0."""
Gone = tuple[int, int, str]
ChainPoint = tuple[int, str]
"""(offset, the log's hash chain up to it as 16 hexadecimal digits: JSON numbers end at 53 bits)."""


class UnreadableProgressError(HeadwaterError):
    """A progress record that this version cannot read: it is left alone and replication stops."""


class Part(msgspec.Struct, kw_only=True):
    """One source partition: every offset below `done`, and every one in `ranges`, is settled."""

    done: int
    end: int
    oldest_unsent: int | None = None
    """Timestamp (ms) of the record at `done`; None when nothing waits."""
    ranges: list[tuple[int, int]] = []
    gone: list[Gone] = []
    chain: list[ChainPoint] = []


class Destination(msgspec.Struct, kw_only=True):
    """Where the copies went: cluster id, per topic (id, partition), and per topic my last record there (offset, hw)."""

    cluster: str
    topics: dict[str, tuple[str, int]] = {}
    at: dict[str, tuple[int, str]] = {}


class Progress(msgspec.Struct, kw_only=True):
    """The record's value. `txn` grows by one with each transaction; `log` is the log's directory id."""

    v: int = VERSION
    node: str
    version: str
    log: str
    epoch: int
    txn: int
    runs: list[Run] = []
    parts: dict[str, Part] = {}
    to: Destination


class _Version(msgspec.Struct):
    v: int


_decoder = msgspec.json.Decoder(Progress)
_version = msgspec.json.Decoder(_Version)


def encode(progress: Progress) -> bytes:
    """The record's value: compact JSON, fields in the order of the types above."""
    return msgspec.json.encode(progress)


def decode(value: bytes) -> Progress:
    """Read a record's value; raises `UnreadableProgressError` when it is damaged or of a newer version."""
    try:
        version = _version.decode(value).v
        if version > VERSION:
            raise UnreadableProgressError(
                f"the progress record at the central has version {version}, this software reads up to {VERSION}",
                hint="A newer Headwater ran on this node: install that version again.",
            )
        return _decoder.decode(value)
    except UNREADABLE as error:
        raise UnreadableProgressError(
            f"the progress record at the central cannot be read: {error}",
            hint="Look at it with kcat -t headwater.progress -C, key the node's name.",
        ) from None


def spaced(points: Sequence[ChainPoint], done: int) -> list[ChainPoint]:
    """At most `CHAIN_MAX` of `points`, newest first, their distances from `done` growing by a factor of 8.

    Of each distance class the oldest is kept, so that it lives to reach the next one; of the last class the newest, so
    that it does not fall behind the log's start.
    """
    kept: dict[int, ChainPoint] = {}
    for offset, value in sorted(points, reverse=True):
        if offset <= done:
            distance = done - offset
            bucket = 0 if distance == 0 else 1 + (distance.bit_length() - 1) // _CHAIN_FACTOR_BITS
            last = CHAIN_MAX - 1
            if bucket < last or last not in kept:
                kept[min(bucket, last)] = (offset, value)
    return [kept[bucket] for bucket in sorted(kept)]


def with_gone(gone: Sequence[Gone], start: int, end: int, reason: str) -> list[Gone]:
    """`gone` with [start, end) added; it is merged when it continues the last one. The newest `GONE_MAX` are kept."""
    result = list(gone)
    if result and result[-1][1] == start and result[-1][2] == reason:
        result[-1] = (result[-1][0], end, reason)
    else:
        result.append((start, end, reason))
    return result[-GONE_MAX:]
