"""Raw bytes to a real MQTT listener and back, and the listener's node for as long as a test takes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.ingest.mqtt.settings import MqttSettings
from tests.support.mqtt_node import Node


@dataclass
class Client:
    """Raw bytes to the listener and back."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @classmethod
    async def open(cls, node: Node) -> Client:
        return cls(*await asyncio.open_connection("127.0.0.1", node.port))

    async def say(self, data: bytes, answer: bytes) -> None:
        self.writer.write(data)
        assert await asyncio.wait_for(self.reader.readexactly(len(answer)), 5) == answer

    async def packet(self) -> bytes:
        """The next packet, whole; all that a listener sends is shorter than 128 bytes."""
        head = await asyncio.wait_for(self.reader.readexactly(2), 5)
        return head + await asyncio.wait_for(self.reader.readexactly(head[1]), 5)

    async def closed(self) -> None:
        assert await asyncio.wait_for(self.reader.read(), 5) == b""
        await self.close()

    async def close(self) -> None:
        self.writer.close()
        await self.writer.wait_closed()

    def abort(self) -> None:
        self.writer.transport.abort()


@asynccontextmanager
async def node_at(data: Path, *, flusher: bool = True, **settings: Any) -> AsyncIterator[Node]:
    node = Node(data, (), MqttSettings(listen="127.0.0.1:0", **settings), flusher=flusher)
    await node.open()
    try:
        yield node
    finally:
        await node.close()


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(20):
            await test()

    asyncio.run(limited())
