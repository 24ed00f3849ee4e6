"""Ingest with an MQTT client, on a real disk and real sockets, as the app puts them together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

from devices.profiles import Profile
from gateway.ingest.marks import MarkSettings
from gateway.ingest.mqtt_client.driver import BrokerClient, open_brokers
from gateway.ingest.mqtt_client.settings import MqttClientSettings
from gateway.ingest.pipeline import Ingest
from gateway.log.settings import LogSettings
from gateway.log.store import LogStore
from headwater.clock import SystemClock
from headwater.disk import RealDisk
from headwater.net import RealNet
from tests.support.ingest import Stored, stored

PATIENCE_S = 20.0


class BrokerNode:
    """A node that reads brokers; `events` is what it would write to topic `events`."""

    def __init__(self, data: Path, *brokers: MqttClientSettings, profiles: Sequence[Profile] = ()) -> None:
        loop = asyncio.get_running_loop()
        disk, clock = RealDisk(), SystemClock()
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.store = LogStore.open(
            str(data),
            node="edge",
            settings=LogSettings(fsync_interval_ms=0),
            disk=disk,
            clock=clock,
            call_in_loop=loop.call_soon_threadsafe,
        )
        self.ingest = Ingest(self.store, node="edge", profiles=profiles, marks=MarkSettings(), clock=clock, health=dict)
        self.clients: list[BrokerClient] = open_brokers(
            self.ingest,
            brokers,
            net=RealNet(),
            disk=disk,
            random=Random(1),
            emit=lambda kind, **detail: self.events.append((kind, detail)),
        )
        self._tasks = [loop.create_task(client.run()) for client in self.clients]

    def status(self, number: int = 0) -> dict[str, Any]:
        return self.clients[number].status()

    def counts(self) -> dict[str, Any]:
        return self.ingest.status()

    def source(self) -> dict[str, Any]:
        [row] = self.counts()["sources"]
        return dict(row)

    def readings(self) -> list[Stored]:
        return stored(self.ingest.readings)

    def values(self) -> list[Any]:
        return [record.value["value"] for record in self.readings()]

    async def until(self, wanted: Callable[[], object]) -> None:
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not wanted():
                    for task in self._tasks:
                        if task.done():
                            task.result()
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise AssertionError([client.status() for client in self.clients]) from None

    async def connected(self) -> None:
        await self.until(lambda: all(client.status()["connected"] for client in self.clients))

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.ingest.close()
        self.store.flush_now()
        for client in self.clients:
            client.close()
        await asyncio.sleep(0)  # the connections' own ends
        self.store.close()


@asynccontextmanager
async def reading(
    data: Path, *brokers: MqttClientSettings, profiles: Sequence[Profile] = ()
) -> AsyncIterator[BrokerNode]:
    """A node that runs until the block ends."""
    node = BrokerNode(data, *brokers, profiles=profiles)
    try:
        yield node
    finally:
        await node.close()
