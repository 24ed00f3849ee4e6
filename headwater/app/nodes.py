"""Which nodes report to this one, and when each was heard last: read from `headwater.progress` in the work process.

A node's marks and its progress record travel in one transaction, and an idle node marks its own health readings, so
the progress record's arrival is that of the node's last mark, without reading all of `readings` for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec

from gateway.consume.reader import Reader
from gateway.wire.errors import KafkaError
from headwater.clock import Clock
from headwater.errors import UNREADABLE, HeadwaterError
from headwater.net import Net

PROGRESS_TOPIC = "headwater.progress"
NODES_MAX = 1_000
FORGET_MS = 7 * 86_400_000
"""A node that was silent for this long is no longer listed: it was taken away."""
LOOK_BACK_MS = 86_400_000
"""How far back a new process looks for nodes that are silent now."""
RETRY_S = 2.0


class NodeTable:
    """The nodes by name; sans-IO. Times are wall milliseconds of this machine."""

    def __init__(self) -> None:
        self._nodes: dict[str, dict[str, Any]] = {}

    def take(
        self,
        keys: Sequence[bytes | None],
        timestamps: Sequence[int],
        values: Sequence[bytes | None],
        now_ms: int,
        *,
        past: bool,
    ) -> None:
        """Progress records in log order; those of the `past` arrived when they were written, as far as is known."""
        for at in {key: at for at, key in enumerate(keys)}.values():  # of each node only its last counts
            timestamp_ms, value = timestamps[at], values[at]
            if value is None:
                continue
            try:
                record = msgspec.json.decode(value, type=dict[str, Any])
                name = str(record["node"])
                backlog = sum(max(0, part["end"] - part["done"]) for part in record["parts"].values())
            except (*UNREADABLE, KeyError, TypeError, AttributeError):
                continue  # of a version to come: the node is listed once it can be read
            self._nodes.pop(name, None)
            self._nodes[name] = {
                "node": name,
                "mark_ms": min(timestamp_ms, now_ms) if past else now_ms,
                "backlog_records": backlog,
                "version": record.get("version"),
            }
            while len(self._nodes) > NODES_MAX:
                del self._nodes[next(iter(self._nodes))]

    def rows(self, now_ms: int) -> list[dict[str, Any]]:
        """`[{node, mark_ms, silent_ms, backlog_records, version}]`, by name; a node gone for a week is left out.

        `silent_ms` says how long ago its mark is as seen from here, so that a process that hangs accuses nobody.
        """
        for name in [name for name, row in self._nodes.items() if now_ms - row["mark_ms"] > FORGET_MS]:
            del self._nodes[name]
        rows = [self._nodes[name] for name in sorted(self._nodes)]
        return [row | {"silent_ms": max(0, now_ms - row["mark_ms"])} for row in rows]


class NodeWatch:
    """Keeps a `NodeTable` up with a node's log, until cancelled."""

    def __init__(self, *, net: Net, clock: Clock, kafka: tuple[str, int]) -> None:
        self._net, self._clock, self._kafka = net, clock, kafka
        self._table = NodeTable()
        self._positions: dict[tuple[str, int], int] = {}
        self._past: dict[tuple[str, int], int] = {}  # what was there when this process began

    def rows(self) -> list[dict[str, Any]]:
        """As `NodeTable.rows`."""
        return self._table.rows(self._clock.wall_ms())

    async def run(self) -> None:
        """Read on and on; a broken connection is made anew."""
        while True:
            try:
                reader = await Reader.connect(self._net, *self._kafka, client_id="headwater-nodes", committed=True)
                try:
                    await self._follow(reader)
                finally:
                    await reader.close()
            except KafkaError:
                self._positions.clear()  # the log is another one, or what was next has expired
                self._past.clear()
            except (HeadwaterError, OSError, TimeoutError):
                pass  # the core is gone, and this process with it, or it answers again
            await asyncio.sleep(RETRY_S)

    async def _follow(self, reader: Reader) -> None:
        """Returns when there is no such topic: it comes with the first node that replicates here."""
        for partition in range(await reader.partitions(PROGRESS_TOPIC)):
            where = (PROGRESS_TOPIC, partition)
            self._past.setdefault(where, await reader.offset(*where, "latest"))
            since_ms = self._clock.wall_ms() - LOOK_BACK_MS
            self._positions.setdefault(where, await reader.offset(*where, since_ms))
        if not self._positions:
            return
        reader.assign(self._positions)
        while True:
            for block in await reader.poll():
                where = (block.topic, block.partition)
                past = self._positions[where] < self._past[where]
                self._table.take(block.keys, block.timestamps, block.values, self._clock.wall_ms(), past=past)
                self._positions[where] = block.next_offset
