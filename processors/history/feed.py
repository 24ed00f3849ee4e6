"""Fills the history from the node's own topic `aggregates`, in a thread and loop of its own."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Awaitable, Callable
from typing import Any

from gateway.consume.reader import Reader
from gateway.wire.errors import ErrorCode, KafkaError
from headwater.clock import Clock
from headwater.errors import HeadwaterError
from headwater.net import Net
from processors.history.store import PENDING_MAX, HistoryStore, is_damage
from processors.reading_log import ReadingLog

log = logging.getLogger(__name__)

TOPIC = "aggregates"
WRITE_EVERY_MS = 300_000
"""Pages are written that often: a card is worn by pages, and what is not written yet is in the log."""
READ_AGE_MS_MAX = 2_000
"""What is read out is at most this much behind what was fetched."""
TOPICS_EVERY_MS = 10_000
RETRY_S = 2.0


class History:
    """`run` in a loop and thread of its own; everything else from any thread."""

    def __init__(
        self, path: str, *, bytes_max: int, connect: Callable[[], Awaitable[ReadingLog]], clock: Clock
    ) -> None:
        self._path = path
        self._bytes_max = bytes_max
        self._connect = connect
        self._clock = clock
        self._store: HistoryStore | None = None
        self._positions: dict[tuple[str, int], int] = {}
        self._written_at = -float(WRITE_EVERY_MS)
        self._read_at = -float(WRITE_EVERY_MS)
        self._stopping = False
        self._ends: dict[tuple[str, int], int] = {}
        self._error = ""
        self._damaged_count = 0

    def stop(self) -> None:
        """End `run` after the round that is under way."""
        self._stopping = True

    def status(self) -> dict[str, Any]:
        """For `headwater status`."""
        store, ends = self._store, dict(self._ends)
        lag = sum(max(0, end - self._positions.get(where, end)) for where, end in ends.items())
        return {
            "bytes_max": self._bytes_max,
            "lag_records": lag,
            "error": self._error,
            "left_out": store.left_out if store is not None else 0,
            "damaged": store.damaged if store is not None else "",
        }

    def problem(self) -> str:
        """Why nothing has been written for some time, else ""."""
        late = self._clock.monotonic_ms() - self._written_at > 2 * WRITE_EVERY_MS
        return self._error if late else ""

    async def run(self) -> None:
        """Until `stop` or cancellation. A node that does not answer and a full disk are waited for."""
        while not self._stopping:
            try:
                if self._store is None:
                    self._store = store = HistoryStore(self._path, bytes_max=self._bytes_max)
                    if store.put_aside:
                        log.warning("history: %s was damaged (%s); made anew", self._path, store.put_aside)
                await self._follow(self._store)
            except (HeadwaterError, OSError, TimeoutError, sqlite3.Error) as error:
                if str(error) != self._error:
                    log.warning("history: %s", error)
                self._error = str(error)
                if self._store is not None and isinstance(error, sqlite3.Error) and is_damage(error):
                    self._store.close()
                    self._store = None  # opened again, it is put aside
                await asyncio.sleep(RETRY_S)
        if self._store is not None:
            self._store.close()

    async def _follow(self, store: HistoryStore) -> None:
        self._positions, self._damaged_count = {}, store.damaged_count
        reader = await self._connect()
        try:
            looked_at = -float(TOPICS_EVERY_MS)
            while not self._stopping:
                now = self._clock.monotonic_ms()
                if now - looked_at >= TOPICS_EVERY_MS:
                    await self._assign(reader, store)
                    looked_at = now
                await self._round(reader, store)
            store.flush()
        finally:
            await reader.close()

    async def _assign(self, reader: ReadingLog, store: HistoryStore) -> None:
        known = store.positions() if store.damaged_count == self._damaged_count else {}
        self._damaged_count = store.damaged_count
        for partition in range(await reader.partitions(TOPIC)):
            where = (TOPIC, partition)
            if where in self._positions:
                continue
            start = await reader.offset(TOPIC, partition, "earliest")
            end = await reader.offset(TOPIC, partition, "latest")
            at = known.get(where, start)
            self._positions[where] = at if start <= at <= end else start
        reader.assign(self._positions)

    async def _round(self, reader: ReadingLog, store: HistoryStore) -> None:
        if not self._positions:
            await asyncio.sleep(RETRY_S / 4)
            return
        try:
            blocks = await reader.poll(max_wait_ms=500, max_bytes=1 << 20)
        except KafkaError as error:
            if error.code == ErrorCode.OFFSET_OUT_OF_RANGE:
                self._positions = {}  # looked up anew
            raise
        for block in blocks:
            where = (block.topic, block.partition)
            store.take(block.values, where, block.next_offset)
            self._positions[where] = block.next_offset
        self._ends = dict(reader.ends)
        now = self._clock.monotonic_ms()
        if store.pending >= PENDING_MAX or now - self._written_at >= WRITE_EVERY_MS:
            store.flush()
            self._written_at, self._error = now, ""
        if store.damaged_count != self._damaged_count:
            self._positions = {}  # what was lost is read again, from the topic's start

    # what the page asks, in threads of its own

    def series(self) -> list[dict[str, Any]]:
        """What there is; [] while there is no file yet. Raises `sqlite3.Error`."""
        store = self._fresh_store()
        return store.series() if store is not None else []

    def read(self, device: str, rule: str, field: str, aggregate: str, begin_ms: int, end_ms: int) -> list[Any]:
        """See `HistoryStore.read`."""
        store = self._fresh_store()
        return store.read(device, rule, field, aggregate, begin_ms, end_ms) if store is not None else []

    def _fresh_store(self) -> HistoryStore | None:
        """Somebody looks: what was gathered is written first, though not more than every few seconds."""
        now, store = self._clock.monotonic_ms(), self._store
        if store is not None and now - self._read_at >= READ_AGE_MS_MAX:
            self._read_at = now
            store.flush()
        return store


def make_history(path: str, *, bytes_max: int, host: str, port: int, net: Net, clock: Clock) -> History:
    """The history of the node whose Kafka listener is at `host:port`."""

    async def connect() -> ReadingLog:
        return await Reader.connect(net, host, port, client_id="headwater-history", committed=True)

    return History(path, bytes_max=bytes_max, connect=connect, clock=clock)
