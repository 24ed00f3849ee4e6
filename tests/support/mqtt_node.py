"""A real MQTT listener on a real socket and a real disk, in a thread, for clients that block."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from devices.profiles import Profile
from gateway.ingest.marks import MarkSettings
from gateway.ingest.mqtt.listener import MqttListener, serve_mqtt
from gateway.ingest.mqtt.settings import MqttSettings
from gateway.ingest.pipeline import Ingest
from gateway.log.settings import LogSettings
from gateway.log.store import LogStore
from headwater.clock import SystemClock
from headwater.disk import RealDisk
from headwater.net import RealNet
from tests.support.ingest import Stored, stored


class Node:
    """Ingest and its MQTT listener as the app puts them together."""

    def __init__(
        self, data: Path, profiles: Sequence[Profile], settings: MqttSettings, *, flusher: bool = True
    ) -> None:
        loop = asyncio.get_running_loop()
        self.store = LogStore.open(
            str(data),
            node="edge",
            settings=LogSettings(fsync_interval_ms=0),
            disk=RealDisk(),
            clock=SystemClock(),
            call_in_loop=loop.call_soon_threadsafe,
            call_soon=loop.call_soon,
            flusher="thread" if flusher else "manual",
        )
        self.ingest = Ingest(
            self.store,
            node="edge",
            profiles=profiles,
            marks=MarkSettings(),
            clock=SystemClock(),
            health=dict,
        )
        self.settings = settings
        self.listener: MqttListener

    async def open(self) -> None:
        self.listener = await serve_mqtt(self.ingest, RealNet(), self.settings)

    @property
    def port(self) -> int:
        return self.listener.address[1]

    def readings(self) -> list[Stored]:
        return stored(self.ingest.readings)

    async def close(self) -> None:
        self.listener.close()
        self.ingest.close()
        await asyncio.sleep(0)  # the connections' own ends
        self.store.close()


class ThreadedNode:
    """A node whose loop runs in a thread; `call` runs a function there."""

    def __init__(self, data: Path, profiles: Sequence[Profile], settings: MqttSettings) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

        async def start() -> Node:
            node = Node(data, profiles, settings)
            await node.open()
            return node

        self.node = asyncio.run_coroutine_threadsafe(start(), self._loop).result(10)

    @property
    def port(self) -> int:
        return self.node.port

    def readings(self) -> list[Stored]:
        async def read() -> list[Stored]:
            return self.node.readings()

        return asyncio.run_coroutine_threadsafe(read(), self._loop).result(10)

    def status(self) -> dict[str, Any]:
        async def read() -> dict[str, Any]:
            return self.node.ingest.status()

        return asyncio.run_coroutine_threadsafe(read(), self._loop).result(10)

    def drop_connections(self) -> None:
        """Cut every connection as a network does: nobody says a word."""

        async def drop() -> None:
            for connection in list(self.node.listener._connections):
                if connection._transport is not None:
                    connection._transport.abort()

        asyncio.run_coroutine_threadsafe(drop(), self._loop).result(10)

    def close(self) -> None:
        async def close() -> None:
            await self.node.close()
            async with asyncio.timeout(30):  # TLS says good-bye and waits for the other end's
                while len(asyncio.get_running_loop()._selector.get_map()) > 1:  # type: ignore[attr-defined]  # noqa: ASYNC110
                    await asyncio.sleep(0.002)

        asyncio.run_coroutine_threadsafe(close(), self._loop).result(60)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()


@contextmanager
def running(
    data: Path, profiles: Sequence[Profile] = (), settings: MqttSettings | None = None
) -> Iterator[ThreadedNode]:
    """A node on a free port."""
    node = ThreadedNode(data, profiles, settings or MqttSettings(listen="127.0.0.1:0"))
    try:
        yield node
    finally:
        node.close()
