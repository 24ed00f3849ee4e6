from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from simulators.proxy import FrameScanner, Proxy
from tests.support.waiting import eventually

PRODUCE = (14).to_bytes(4, "big") + (0).to_bytes(2, "big") + b"\0\x09\0\0\0\1" + b"abcdef"
FETCH = (12).to_bytes(4, "big") + (1).to_bytes(2, "big") + b"\0\x0c\0\0\0\2" + b"wxyz"


def test_a_produce_request_is_seen_when_its_last_byte_passes_however_it_is_cut() -> None:
    stream = FETCH + PRODUCE + FETCH
    end = len(FETCH) + len(PRODUCE)
    for first in range(1, len(stream)):
        for second in range(first, len(stream)):
            scanner = FrameScanner()
            cuts = [(0, first), (first, second), (second, len(stream))]
            seen = [scanner.feed(stream[a:b]) for a, b in cuts]
            assert seen == [a < end <= b for a, b in cuts]


def test_other_requests_are_not_taken_for_a_produce() -> None:
    assert not FrameScanner().feed(FETCH * 100)


class Far:
    """A server that answers every chunk with the same bytes, and remembers what it got."""

    def __init__(self) -> None:
        self.got = b""
        self.connections = 0
        self.ended = 0
        self.changed = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.changed.set()
        try:
            while data := await reader.read(1000):
                self.got += data
                self.changed.set()
                writer.write(data)
        except ConnectionError:
            pass
        self.ended += 1
        self.changed.set()
        writer.close()


class Said(list[tuple[str, dict[str, Any]]]):
    """What the proxy reported."""

    def __init__(self) -> None:
        super().__init__()
        self.restored = asyncio.Event()

    def say(self, event: str, members: dict[str, Any]) -> None:
        self.append((event, members))
        if event == "restored":
            self.restored.set()


@asynccontextmanager
async def proxied() -> AsyncIterator[tuple[Far, Proxy, tuple[str, int], Said]]:
    far = Far()
    server = await asyncio.start_server(far.serve, "127.0.0.1", 0)
    said = Said()
    proxy = Proxy(server.sockets[0].getsockname()[:2], said.say)
    address = proxy.listen(("127.0.0.1", 0))
    try:
        yield far, proxy, address, said
    finally:
        await proxy.close()
        server.close()
        await eventually(lambda: far.ended == far.connections)  # it hears of the ends in turns of its own
        await asyncio.sleep(0)


async def echoed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: bytes) -> bytes:
    writer.write(data)
    return await asyncio.wait_for(reader.readexactly(len(data)), 5)


async def silent(reader: asyncio.StreamReader) -> bool:
    try:
        await asyncio.wait_for(reader.read(1), 0.1)
    except TimeoutError:
        return True
    return False


def test_bytes_pass_both_ways_and_an_end_is_passed_on() -> None:
    async def scenario() -> None:
        async with proxied() as (far, _, address, _):
            reader, writer = await asyncio.open_connection(*address)
            big = bytes(range(256)) * 4000
            assert await echoed(reader, writer, big) == big
            writer.close()
            while not far.ended:
                far.changed.clear()
                await asyncio.wait_for(far.changed.wait(), 5)

    asyncio.run(scenario())


def test_in_the_hole_old_connections_stay_open_and_silent_for_good_and_new_ones_wait() -> None:
    async def scenario() -> None:
        async with proxied() as (far, proxy, address, said):
            old = await asyncio.open_connection(*address)
            assert await echoed(*old, b"before") == b"before"
            proxy.hole(60.0)
            old[1].write(b"lost")
            new = await asyncio.open_connection(*address)
            new[1].write(b"waits")
            given_up = await asyncio.open_connection(*address)
            given_up[1].write(b"gone")
            assert await silent(old[0])
            assert await silent(new[0])
            given_up[1].close()
            assert far.got == b"before"
            proxy.restore()
            assert await asyncio.wait_for(new[0].readexactly(5), 5) == b"waits"
            old[1].write(b"still lost")
            assert await silent(old[0]), "it saw the hole: silent for good"
            assert far.got == b"beforewaits", "nothing of a client that has given up is served"
            assert far.connections == 2
            old[1].close()
            assert await echoed(*new, b"x") == b"x"
            assert far.ended == 0, "the far end never hears of the old connection's end"
            assert [event for event, _ in said] == ["hole", "restored"]
            assert said[0][1]["connections"] == 1
            new[1].close()

    asyncio.run(scenario())


def test_armed_it_opens_right_after_a_produce_request_and_swallows_the_response() -> None:
    async def scenario() -> None:
        async with proxied() as (far, proxy, address, said):
            reader, writer = await asyncio.open_connection(*address)
            proxy.arm(60.0)
            assert await echoed(reader, writer, FETCH) == FETCH
            assert said == []
            writer.write(PRODUCE)
            assert await silent(reader)
            assert far.got == FETCH + PRODUCE
            assert said[0][0] == "hole"
            assert said[0][1]["after_produce"] is True
            writer.close()

    asyncio.run(scenario())


def test_armed_it_opens_in_time_without_a_produce_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simulators.proxy.ARMED_MS_MAX", 20.0)

    async def scenario() -> None:
        async with proxied() as (_, proxy, address, said):
            reader, writer = await asyncio.open_connection(*address)
            assert await echoed(reader, writer, FETCH) == FETCH
            proxy.arm(0.05)
            async with asyncio.timeout(5):
                await said.restored.wait()
            assert [(event, members.get("after_produce")) for event, members in said] == [
                ("hole", False),
                ("restored", None),
            ]
            writer.close()

    asyncio.run(scenario())


def test_a_target_that_is_down_ends_the_connection() -> None:
    async def scenario() -> None:
        proxy = Proxy(("127.0.0.1", 1), lambda event, members: None)
        reader, writer = await asyncio.open_connection(*proxy.listen(("127.0.0.1", 0)))
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()
        await proxy.close()

    asyncio.run(scenario())
