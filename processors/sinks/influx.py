"""The sink to InfluxDB: a node's readings and window results as points, at least once, each write replacing itself.

One task reads the node's log like any Kafka client and fills batches; another writes them in their order. A position
is saved only after everything before it was acknowledged by the database or stands in the topic `deadletter`. What
cannot be written waits with its batch, and reading pauses: nothing is lost and memory does not grow. The decisions
are in `delivery`, `answers` and `points`; this module only moves bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from random import Random
from typing import Any, Protocol

from gateway.consume.reader import Block, Reader
from gateway.log.records import Record, encode_headers
from gateway.wire.errors import ErrorCode, KafkaError
from headwater.clock import Clock
from headwater.disk import Disk
from headwater.errors import HeadwaterError
from headwater.net import Net
from processors.reading_log import ReadingLog
from processors.sinks.batches import Batch, Batcher, Origin
from processors.sinks.client import Client, InfluxClient
from processors.sinks.delivery import Backoff, Delivery
from processors.sinks.points import Mapper
from processors.sinks.positions import Positions
from processors.sinks.settings import InfluxSettings

log = logging.getLogger(__name__)

DEADLETTER = "deadletter"
DEAD_RECORDS_MAX = 500
DEAD_BYTES_MAX = 512 << 10
POLL_BYTES_MAX = 1 << 20
TOPICS_EVERY_MS = 10_000
SAVE_EVERY_MS = 1_000
PROBLEM_AFTER_MS = 10_000
"""A database that takes nothing for so long is a problem of the node; a shorter pause is life."""


class Log(ReadingLog, Protocol):
    """And one to write dead letters into."""

    async def produce(self, topic: str, partition: int, records: Sequence[Record]) -> int: ...


class InfluxSink:
    """One sink. `run` in a loop and thread of its own; `status` and `stop` from any thread."""

    def __init__(
        self,
        settings: InfluxSettings,
        *,
        node: str,
        connect: Callable[[], Awaitable[Log]],
        client: Callable[[], Client],
        clock: Clock,
        data_dir: str,
        disk: Disk,
        random: Random,
    ) -> None:
        self._settings = settings
        self._node = node
        self._connect = connect
        self._make_client = client
        self._clock = clock
        target = f"{settings.url} {settings.org}/{settings.bucket}"
        self._positions = Positions(disk, f"{data_dir}/work", "influx", target)
        self._mapper = Mapper(settings)
        self._backoff = Backoff(settings.backoff_min_ms, settings.backoff_max_ms, random)
        self._stopping = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._proven = False
        self._fresh = True
        self._saved_at = 0.0
        self._failing_since: float | None = None
        self._said = ""
        self._ends: dict[tuple[str, int], int] = {}
        self._state = "connecting"
        self._error = ""
        self._last_success_ms: int | None = None
        self._counts = dict.fromkeys(
            ("points", "requests", "retries", "dead_letters", "superseded", "beyond_retention", "expired"), 0
        )

    # the outside

    def stop(self) -> None:
        """End `run` soon: what is not acknowledged is written again next time."""
        if self._loop is None:
            self._stopping.set()
        elif not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._stopping.set)

    def status(self) -> dict[str, Any]:
        """What `headwater status`, the page and the metrics show."""
        settled, ends = dict(self._positions.offsets), dict(self._ends)
        return {
            "kind": "influx",
            "url": self._settings.url,
            "bucket": self._settings.bucket,
            "state": self._state,
            "error": self._error,
            "last_success_ms": self._last_success_ms,
            "lag_records": sum(max(0, end - settled.get(where, end)) for where, end in ends.items()),
            **self._counts,
            "left_out": self._mapper.left_out,
            "positions": {f"{topic}/{partition}": offset for (topic, partition), offset in sorted(settled.items())},
        }

    def problem(self) -> str:
        """One sentence when the database has taken nothing for some time, else ""."""
        since = self._failing_since
        now = self._clock.monotonic_ms()
        if since is None or now - since < PROBLEM_AFTER_MS:
            return ""
        return f"InfluxDB at {self._settings.url} has taken nothing for {(now - since) / 1000:.0f} s: {self._error}"

    async def run(self) -> None:
        """Until `stop` or cancellation; a database or a node that does not answer is waited for."""
        self._loop = asyncio.get_running_loop()
        if (why := self._positions.load()) != "":
            log.warning("influx: %s; beginning anew", why)
        self._fresh = not self._positions.offsets
        client = self._make_client()
        try:
            while not self._stopping.is_set():
                try:
                    await self._live(client)
                except (HeadwaterError, OSError, TimeoutError) as error:
                    if str(error) != self._said:
                        log.warning("influx: back to the last acknowledged record: %s", error)
                    self._said = str(error)
                    self._state, self._error = "connecting", str(error)
                    await self._pause(self._settings.backoff_min_ms)
        finally:
            client.close()
            self._state = "stopped"
            with contextlib.suppress(OSError):  # what is not saved is written again next time
                self._positions.save()

    # one connection to the node

    async def _live(self, client: Client) -> None:
        reader = await self._connect()
        batches: asyncio.Queue[Batch] = asyncio.Queue(self._settings.queue_batches)
        tasks = [
            asyncio.create_task(self._read(reader, batches)),
            asyncio.create_task(self._write(client, batches)),
            asyncio.create_task(self._stopping.wait()),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await reader.close()

    async def _read(self, reader: Log, batches: asyncio.Queue[Batch]) -> None:
        """From the settled positions on; a batch leaves when it is full or its time has come."""
        settings, clock = self._settings, self._clock
        batcher = Batcher(self._mapper, lines_max=settings.batch_lines, bytes_max=settings.batch_bytes)
        positions = dict(self._positions.offsets)
        looked_at = -float(TOPICS_EVERY_MS)
        began_at = 0.0
        while True:
            now = clock.monotonic_ms()
            if now - looked_at >= TOPICS_EVERY_MS:
                await self._find(reader, positions)
                looked_at = now
            if not positions:
                await self._pause(settings.interval_ms)
                looked_at = -float(TOPICS_EVERY_MS)
                continue
            for block in await self._poll(reader, positions, now if batcher.empty else began_at):
                began_at = clock.monotonic_ms() if batcher.empty else began_at
                positions[block.topic, block.partition] = block.next_offset
                for batch in batcher.add(block):
                    await batches.put(batch)
            self._ends = dict(reader.ends)
            if not batcher.empty and clock.monotonic_ms() - began_at >= settings.interval_ms:
                await batches.put(batcher.take())

    async def _poll(self, reader: Log, positions: dict[tuple[str, int], int], since: float) -> list[Block]:
        left_ms = self._settings.interval_ms - (self._clock.monotonic_ms() - since)
        try:
            return await reader.poll(max_wait_ms=max(1, int(left_ms)), max_bytes=POLL_BYTES_MAX)
        except KafkaError as error:
            if error.code != ErrorCode.OFFSET_OUT_OF_RANGE:
                raise
        for where, position in positions.items():
            first, end = await reader.offset(*where, "earliest"), await reader.offset(*where, "latest")
            if first <= position <= end:
                continue
            log.warning("influx: %s/%d is at offset %d, its log from %d to %d", *where, position, first, end)
            self._counts["expired"] += max(0, first - position)
            positions[where] = first
            self._positions.settle({where: first})
        reader.assign(positions)
        return []

    async def _find(self, reader: Log, positions: dict[tuple[str, int], int]) -> None:
        """The topics' partitions. What there is at the first start begins where the settings say; what comes later,
        at its start.
        """
        at = self._settings.start if self._fresh else "earliest"
        found: dict[tuple[str, int], int] = {}
        for topic in self._settings.topics:
            for partition in range(await reader.partitions(topic)):
                if (topic, partition) not in positions:
                    found[topic, partition] = await reader.offset(topic, partition, at)
        if found:
            positions |= found
            self._positions.settle(found)
            self._positions.save()
            self._fresh = False
        if positions:
            reader.assign(positions)

    # writing

    async def _write(self, client: Client, batches: asyncio.Queue[Batch]) -> None:
        while True:
            batch = await batches.get()
            delivery = Delivery(batch.lines, backoff=self._backoff, proven=self._proven)
            while lines := delivery.next():
                answer = await client.write(lines)
                self._counts["requests"] += 1
                wait_ms = delivery.answered(answer, now_ms=self._clock.wall_ms())
                self._proven = delivery.proven
                self._tell(delivery.problem)
                if delivery.problem:
                    self._counts["retries"] += 1
                    await self._pause(wait_ms)
                    if self._stopping.is_set():
                        return
            await self._bury(batch, delivery)
            self._counts["points"] += len(batch.lines)
            self._counts["superseded"] += batch.superseded
            self._counts["beyond_retention"] += delivery.expired
            self._positions.settle(batch.offsets)
            if (now := self._clock.monotonic_ms()) - self._saved_at >= SAVE_EVERY_MS:
                self._positions.save()
                self._saved_at = now

    def _tell(self, problem: str) -> None:
        if not problem:
            if self._said:
                log.info("influx: the database takes points again")
            self._said, self._error, self._state, self._failing_since = "", "", "up", None
            self._last_success_ms = self._clock.wall_ms()
            return
        if self._failing_since is None:
            self._failing_since = self._clock.monotonic_ms()
        if problem != self._said:
            log.warning("influx: nothing is written for now: %s", problem)
        self._said = self._error = problem
        self._state = "retrying"

    async def _bury(self, batch: Batch, delivery: Delivery) -> None:
        """Each record that could not be written as it is, with all reasons: on disk before its offset is settled."""
        reasons: dict[int, list[str]] = {}
        for line, reason in delivery.refused:
            reasons.setdefault(line, []).append(reason)
        dead = [*batch.unfit, *((batch.origins[line], "; ".join(told)) for line, told in sorted(reasons.items()))]
        if not dead:
            return
        reader = await self._connect()  # the other one may be waiting for records
        try:
            for chunk in _chunks([self._dead(origin, reason) for origin, reason in dead]):
                await reader.produce(DEADLETTER, 0, chunk)
                self._counts["dead_letters"] += len(chunk)
        finally:
            await reader.close()
        log.warning("influx: %d records to topic deadletter, the first: %s", len(dead), dead[0][1])

    def _dead(self, origin: Origin, reason: str) -> Record:
        block, at = origin
        now = self._clock.wall_ms()
        told = [
            ("reason", reason.encode()),
            ("decoder", b"influx"),
            ("source", b"sink:influx"),
            ("time", str(now).encode()),
            ("record", f"{block.topic}/{block.partition}/{block.offsets[at]}".encode()),
            ("key", block.keys[at]),
        ]
        return now, f"{self._node}/sink:influx".encode(), block.values[at], encode_headers(told)

    async def _pause(self, ms: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ms / 1000):  # wait_for can swallow the cancellation that comes with the stop
                await self._stopping.wait()


def _chunks(records: list[Record]) -> list[list[Record]]:
    """Batches that a node takes: few records, few bytes."""
    chunks: list[list[Record]] = []
    size = DEAD_BYTES_MAX
    for record in records:
        length = len(record[2] or b"") + len(record[3])
        if size + length > DEAD_BYTES_MAX or len(chunks[-1]) >= DEAD_RECORDS_MAX:
            chunks.append([])
            size = 0
        chunks[-1].append(record)
        size += length
    return chunks


def make_influx_sink(
    settings: InfluxSettings, *, node: str, host: str, port: int, net: Net, clock: Clock, data_dir: str, disk: Disk
) -> InfluxSink:
    """The sink of the node whose Kafka listener is at `host:port`."""

    async def connect() -> Log:
        return await Reader.connect(net, host, port, client_id="headwater-influx", committed=True)

    return InfluxSink(
        settings,
        node=node,
        connect=connect,
        client=lambda: InfluxClient(settings),
        clock=clock,
        data_dir=data_dir,
        disk=disk,
        random=Random(),  # noqa: S311 - jitter
    )
