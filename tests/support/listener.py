"""A Kafka listener on a free port over a disk in memory, and requests for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from gateway.log.settings import LogSettings
from gateway.log.store import LogStore
from gateway.serve import KafkaListener, serve_kafka
from gateway.wire.broker import Broker
from gateway.wire.channel import Channel
from gateway.wire.settings import KafkaSettings
from headwater.clock import SystemClock
from headwater.disk import ForgetfulDisk
from headwater.net import RealNet
from tests.support.broker_world import make_batch
from tests.support.waiting import eventually


class Node:
    """A listener on a free port over a disk in memory; `auto` syncs as soon as something is written."""

    def __init__(self, listener: KafkaListener, store: LogStore) -> None:
        self.listener = listener
        self.store = store
        self.port = listener.address[1]
        self.writers: list[asyncio.StreamWriter] = []

    async def channel(self) -> Channel:
        return await Channel.connect(RealNet(), "127.0.0.1", self.port, client_id="test")

    async def raw(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.writers.append(writer)
        return reader, writer


@asynccontextmanager
async def serving(*, auto: bool = True, **settings: object) -> AsyncIterator[Node]:
    loop = asyncio.get_running_loop()
    clock = SystemClock()
    store = LogStore.open(
        "/data",
        node="test",
        settings=LogSettings(fsync_interval_ms=0),
        disk=ForgetfulDisk(),
        clock=clock,
        call_in_loop=loop.call_soon_threadsafe,
        flusher="thread" if auto else "manual",
    )
    kafka = KafkaSettings(**settings)  # type: ignore[arg-type]
    listener = await serve_kafka(Broker(store, clock, settings=kafka), RealNet(), "127.0.0.1", 0)
    node = Node(listener, store)
    try:
        yield node
    finally:
        listener.close()
        store.close()
        for writer in node.writers:
            writer.transport.abort()
        await eventually(lambda: listener.status()["connections"] == 0)
        for _ in range(3):
            await asyncio.sleep(0)  # the clients' ends are closed in the loop's next turns


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await scenario()

    asyncio.run(bounded())


def produce(value: bytes, topic: str = "t", acks: int = -1) -> dict[str, object]:
    part = {"index": 0, "records": make_batch([value])}
    return {"acks": acks, "timeout_ms": 5000, "topic_data": [{"name": topic, "partition_data": [part]}]}


def fetch(offset: int = 0, **options: object) -> dict[str, object]:
    part = {"partition": 0, "fetch_offset": offset, "partition_max_bytes": 1 << 24}
    return {"max_wait_ms": 0, "min_bytes": 1, "topics": [{"topic": "t", "partitions": [part]}], **options}
