"""Readings and marks as records of a partition, for tests of the processors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import msgspec

from gateway.consume.reader import Block
from gateway.log.records import encode_headers
from processors.budget import NO_LIMITS, Limits
from processors.processor import Output, PartitionProcessor
from processors.rules.model import AlertRule, Rules, WindowRule

SECOND = 1000


class Row(NamedTuple):
    """One record before it is encoded; `hw` is (epoch, source partition, offset) of a copy, `says` its `hw-device`."""

    device: str
    time: int
    fields: dict[str, Any]
    mark: dict[str, Any] | None = None
    node: str = "n1"
    hw: tuple[int, int, int] | None = None
    says: dict[str, Any] | None = None


def mark(node: str = "n1", live: int | None = None, **more: Any) -> dict[str, Any]:
    """The value of a mark; `open`, `lost`, `k`, `partition` and `by` as the design has them."""
    return {"v": 1, "node": node, "epoch": 0, "partition": 0, "k": 1, "n": 1, "live": live, **more}


def health(live: int | None, node: str = "n1", time: int = 0, hw: Any = None, **more: Any) -> Row:
    """A health reading that carries a mark and nothing that is windowed."""
    return Row("$gateway", time, {"disk": 1}, mark(node, live, **more), node, hw)


def block(rows: Sequence[Row], base: int = 0, partition: int = 0) -> Block:
    headers = []
    for row in rows:
        pairs: list[tuple[str, bytes | None]] = []
        if row.hw is not None:
            pairs.append(("hw", f"{row.node}/{row.hw[0]}/{row.hw[1]}/{row.hw[2]}".encode()))
        if row.says is not None:
            pairs.append(("hw-device", msgspec.json.encode(row.says)))
        if row.mark is not None:
            pairs.append(("hw-mark", msgspec.json.encode(row.mark)))
        headers.append(encode_headers(pairs))
    return Block(
        "readings",
        partition,
        list(range(base, base + len(rows))),
        [row.time for row in rows],
        [f"{row.node}/{row.device}".encode() for row in rows],
        [msgspec.json.encode(row.fields) for row in rows],
        headers,
        base + len(rows),
    )


def window(**more: Any) -> WindowRule:
    return msgspec.convert({"name": "w", "size_s": 10, **more}, WindowRule)


def alert(**more: Any) -> AlertRule:
    base = {"name": "hot", "window": "w", "field": "t", "fire_above": 85, "clear_below": 75, "for_s": 10}
    return msgspec.convert({**base, **more}, AlertRule)


def processor(
    *windows: WindowRule, alerts: Iterable[AlertRule] = (), partition: int = 0, limits: Limits = NO_LIMITS
) -> PartitionProcessor:
    rules = Rules(windows=windows or (window(),), alerts=tuple(alerts))
    return PartitionProcessor(rules, "readings", partition, place="central", limits=limits)


def values(outputs: Iterable[Output], topic: str = "aggregates") -> list[dict[str, Any]]:
    return [msgspec.json.decode(output.record[2] or b"") for output in outputs if output.topic == topic]


def run(rule: WindowRule, rows: list[Row], cuts: list[int], *, restart: bool = False) -> list[Output]:
    """What one processor says of rows that come in parts, cut at `cuts`; with a restart after each."""
    one = processor(rule)
    outputs = []
    for begin, end in pairwise([0, *cuts, len(rows)]):
        outputs += one.process(block(rows[begin:end], begin))
        if restart:
            one = restarted(rule, one)
    return outputs


def restarted(rule: WindowRule, one: PartitionProcessor) -> PartitionProcessor:
    """Another processor that goes on where `one` is."""
    other = processor(rule)
    assert other.restore(msgspec.msgpack.decode(msgspec.msgpack.encode(one.snapshot()))) == []
    return other
