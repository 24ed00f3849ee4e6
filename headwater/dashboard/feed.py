"""Keeps a `PageModel` up with the node's own topics, over the Kafka protocol like any other client.

It starts a little before the end of `readings`, reads the smaller topics from further back, and after any broken
connection goes on where it was. It is read-only: a page that falls behind or fails costs the node nothing.
"""

from __future__ import annotations

import asyncio
import logging

from gateway.consume.reader import Block, Reader
from headwater.clock import Clock
from headwater.dashboard.model import PageModel
from headwater.errors import HeadwaterError
from headwater.net import Net

log = logging.getLogger(__name__)

TOPICS = ("devices", "readings", "aggregates", "alerts", "headwater.progress")
RETRY_S = 1.0
TOPICS_EVERY_MS = 5_000


class Feed:
    """One reader over all partitions of the page's topics."""

    def __init__(self, model: PageModel, *, net: Net, clock: Clock, host: str, port: int) -> None:
        self._model = model
        self._net = net
        self._clock = clock
        self._address = (host, port)
        self._positions: dict[tuple[str, int], int] = {}
        self._live_from: dict[tuple[str, int], int] = {}  # what is below was there when the page began to read
        self.error: str | None = None

    async def run(self) -> None:
        """For as long as the page is served; ends by cancellation."""
        while True:
            try:
                await self._follow()
            except (HeadwaterError, OSError, TimeoutError) as error:
                if self.error is None:
                    log.info("the page's feed waits for the node: %s", error)
                self.error = str(error)
            await asyncio.sleep(RETRY_S)

    async def _follow(self) -> None:
        host, port = self._address
        reader = await Reader.connect(self._net, host, port, client_id="headwater-page", committed=True)
        try:
            topics_at = -float(TOPICS_EVERY_MS)
            while True:
                now = self._clock.monotonic_ms()
                if now - topics_at >= TOPICS_EVERY_MS:
                    await self._assign(reader)
                    topics_at = now
                if not self._positions:
                    await asyncio.sleep(RETRY_S)
                    continue
                for block in await reader.poll(max_wait_ms=500, max_bytes=1 << 20):
                    self.apply(block)
                self.error = None
        finally:
            await reader.close()

    async def _assign(self, reader: Reader) -> None:
        """Find the topics' partitions; a new one is read from the past that the charts hold."""
        for topic in TOPICS:
            for partition in range(await reader.partitions(topic)):
                if (topic, partition) in self._positions:
                    continue
                self._live_from[topic, partition] = await reader.offset(topic, partition, "latest")
                self._positions[topic, partition] = await self._start(reader, topic, partition)
        reader.assign(dict(self._positions))

    async def _start(self, reader: Reader, topic: str, partition: int) -> int:
        if topic in ("devices", "alerts"):
            return await reader.offset(topic, partition, "earliest")
        since_ms = self._clock.wall_ms() - self._model.history_s * 1000
        return await reader.offset(topic, partition, since_ms)

    def apply(self, block: Block) -> None:
        """One block into the model, and the position past it."""
        try:
            self._apply(block)
        except Exception:  # any client may write any record: what cannot be shown is left out, and the page goes on
            log.exception("the page leaves out %s-%d up to offset %d", block.topic, block.partition, block.next_offset)
        self._positions[block.topic, block.partition] = block.next_offset

    def _apply(self, block: Block) -> None:
        now_ms = self._clock.wall_ms()
        match block.topic:
            case "readings":
                live = block.next_offset > self._live_from.get((block.topic, block.partition), 0)
                columns = (block.keys, block.timestamps, block.values, block.headers)
                self._model.readings_block(*columns, now_ms, live=live)
            case "aggregates":
                self._model.aggregates_block(block.values)
            case "devices":
                self._model.devices_block(block.keys, block.values)
            case "alerts":
                self._model.alerts_block(block.keys, block.values)
            case _:
                self._model.progress_block(block.values, now_ms)
