"""The check that tells of connections which a test leaves open: of whose, and that no later test hears of them."""

from __future__ import annotations

import asyncio
import gc
from contextlib import suppress

from tests.support.sockets import sockets_left
from tests.support.waiting import eventually


async def visited(*, closed: bool) -> asyncio.StreamWriter:
    handled: list[asyncio.StreamReader] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handled.append(reader)
        with suppress(asyncio.CancelledError):
            await reader.read()
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    _, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
    await eventually(lambda: handled)
    server.close()
    if closed:
        writer.close()
        await eventually(lambda: len(asyncio.all_tasks()) == 1)
    return writer


def test_what_is_left_open_is_told_and_closed() -> None:
    with sockets_left() as left:
        writer = asyncio.run(visited(closed=False))
    assert len(left) == 2, "both ends"
    assert all("StreamReaderProtocol" in one for one in left)
    del writer
    gc.collect()  # a warning here would be an error


def test_what_was_closed_is_not_told() -> None:
    with sockets_left() as left:
        asyncio.run(visited(closed=True))
    assert left == []
