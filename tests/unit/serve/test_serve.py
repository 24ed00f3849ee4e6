"""The listener over real sockets: order, back-pressure, limits, hostile peers; and the channel that talks to it."""

from __future__ import annotations

import asyncio
import os
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from gateway.log.settings import LogSettings
from gateway.log.store import LogStore
from gateway.serve import KafkaListener, serve_kafka
from gateway.wire.broker import Broker
from gateway.wire.channel import Channel
from gateway.wire.errors import ErrorCode
from gateway.wire.framing import join_frame
from gateway.wire.schema import ApiKey
from gateway.wire.session import encode_request
from gateway.wire.settings import KafkaAclRule, KafkaSettings
from headwater.clock import SystemClock
from headwater.disk import ForgetfulDisk
from headwater.errors import PeerError, UserError
from headwater.net import RealNet
from tests.support.broker_world import make_batch, visible

VERSIONS = encode_request(ApiKey.API_VERSIONS, 0, 1, "t", {})


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
        await until(lambda: listener.status()["connections"] == 0)
        for _ in range(3):
            await asyncio.sleep(0)  # the clients' ends are closed in the loop's next turns


async def until(condition: Callable[[], bool], *, seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what is waited for lies in the code under test
            await asyncio.sleep(0.002)


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


def test_pipelined_produces_are_answered_in_order_and_large_ones_survive_the_shared_buffer() -> None:
    async def scenario() -> None:
        async with serving() as node:
            node.store.create_topic("t")
            channels = [await node.channel() for _ in range(3)]
            values = [os.urandom(size) for size in (10, 300_000, 1, 700_000, 50)]
            answers = await asyncio.gather(
                *(channel.call(ApiKey.PRODUCE, produce(value)) for value in values for channel in channels)
            )
            assert all(a["responses"][0]["partition_responses"][0]["error_code"] == 0 for a in answers)
            found = await channels[0].call(ApiKey.FETCH, fetch())
            read = visible(found["responses"][0]["partitions"][0]["records"], [])
            assert sorted(read, key=lambda v: v or b"") == sorted(values * 3)
            for channel in channels:
                channel.close()
                channel.close()

    run(scenario)


def test_answers_wait_for_their_turn_behind_an_fsync() -> None:
    async def scenario() -> None:
        async with serving(auto=False) as node:
            node.store.create_topic("t")
            channel = await node.channel()
            first = asyncio.create_task(channel.call(ApiKey.PRODUCE, produce(b"a")))
            second = asyncio.create_task(channel.call(ApiKey.METADATA, {"topics": []}))
            log = node.store.partition("t", 0)
            assert log is not None
            await until(lambda: log.log_end_offset == 1)
            await until(lambda: node.listener.status()["requests"].get("metadata") == 1)
            assert not first.done()
            assert not second.done()
            node.store.flush_now()
            await asyncio.gather(first, second)
            channel.close()

    run(scenario)


def test_nothing_overtakes_a_waiting_fetch() -> None:
    async def scenario() -> None:
        async with serving(auto=False) as node:
            node.store.create_topic("t")
            channel, other = await node.channel(), await node.channel()
            poll = asyncio.create_task(channel.call(ApiKey.FETCH, fetch(max_wait_ms=10_000), timeout_ms=15_000))
            await until(lambda: node.listener.status()["requests"].get("fetch") == 1)
            behind = asyncio.create_task(channel.call(ApiKey.PRODUCE, produce(b"behind")))
            mine = asyncio.create_task(other.call(ApiKey.PRODUCE, produce(b"mine")))
            log = node.store.partition("t", 0)
            assert log is not None
            await until(lambda: log.log_end_offset == 1)
            node.store.flush_now()
            found = await poll
            assert visible(found["responses"][0]["partitions"][0]["records"], []) == [b"mine"]
            await until(lambda: log.log_end_offset == 2)
            node.store.flush_now()
            await asyncio.gather(mine, behind)
            channel.close()
            other.close()

    run(scenario)


def test_a_long_poll_ends_by_its_own_time() -> None:
    async def scenario() -> None:
        async with serving() as node:
            node.store.create_topic("t")
            channel = await node.channel()
            found = await channel.call(ApiKey.FETCH, fetch(max_wait_ms=30))
            assert bytes(found["responses"][0]["partitions"][0]["records"]) == b""
            channel.close()

    run(scenario)


@pytest.mark.parametrize(
    "hostile",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x7f\xff\xff\xff",
        b"\xff\xff\xff\xff",
        b"\x00\x00\x00\x00",
        join_frame([b"", struct.pack(">hhih", 999, 0, 1, -1)]),
        join_frame([b"", struct.pack(">hhih", 3, 1, 1, -1), b"\x7f\xff\xff\xff"]),
        encode_request(ApiKey.PRODUCE, 9, 1, "t", produce(b"x", acks=0)),
        (4 << 20).to_bytes(4, "big") + struct.pack(">hh", 3, 9),
    ],
)
def test_a_hostile_peer_is_closed_and_nobody_else(hostile: bytes) -> None:
    async def scenario() -> None:
        async with serving() as node:
            good = await node.channel()
            reader, writer = await node.raw()
            writer.write(VERSIONS + hostile)  # what came before the offence is still answered
            assert len(await reader.read()) > 50
            writer.close()
            assert node.listener.status()["connections_broken"] == 1
            assert (await good.call(ApiKey.METADATA, {"topics": []}))["controller_id"] == 1
            good.close()

    run(scenario)


def test_bytes_one_at_a_time() -> None:
    async def scenario() -> None:
        async with serving() as node:
            reader, writer = await node.raw()
            for byte in VERSIONS:
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(0)
            size = int.from_bytes(await reader.readexactly(4), "big")
            assert len(await reader.readexactly(size)) == size
            writer.close()

    run(scenario)


def test_connections_are_bounded() -> None:
    async def scenario() -> None:
        async with serving(connections_max=2) as node:
            kept = [await node.channel() for _ in range(2)]
            reader, _ = await node.raw()
            with suppress(ConnectionError):  # an abort may reach the client as an end or as a reset
                assert await reader.read() == b""
            assert node.listener.status()["connections_refused"] == 1
            kept[0].close()
            await until(lambda: node.listener.status()["connections"] == 1)
            kept.append(await node.channel())
            for channel in kept:
                channel.close()

    run(scenario)


def test_unfinished_requests_are_bounded_over_all_connections() -> None:
    async def scenario() -> None:
        async with serving(frame_bytes_max=1 << 20) as node:
            good = await node.channel()
            for _ in range(5):
                _, writer = await node.raw()
                writer.write(struct.pack(">ihh", 1 << 20, 0, 9) + bytes(800 << 10))
            await until(lambda: node.listener.status()["connections_broken"] == 3)
            await until(lambda: node.listener.status()["connections"] == 3)
            assert 0 < node.listener.status()["unread_bytes"] <= 2 << 20
            assert (await good.call(ApiKey.METADATA, {"topics": []}))["controller_id"] == 1
            good.close()

    run(scenario)


def test_an_idle_connection_is_closed_and_one_that_waits_is_not() -> None:
    async def scenario() -> None:
        async with serving(connection_idle_ms=50) as node:
            node.store.create_topic("t")
            idle, polling = await node.channel(), await node.channel()
            poll = asyncio.create_task(polling.call(ApiKey.FETCH, fetch(max_wait_ms=250)))
            await until(lambda: idle.closed)
            await poll
            polling.close()

    run(scenario)


def test_a_client_that_reads_nothing_is_not_read_from() -> None:
    async def scenario() -> None:
        async with serving() as node:
            node.store.create_topic("t")
            channel = await node.channel()
            for _ in range(4):
                await channel.call(ApiKey.PRODUCE, produce(os.urandom(1 << 20)))
            channel.close()
            _, writer = await node.raw()
            asked = encode_request(ApiKey.FETCH, 12, 1, "t", fetch())
            writer.write(asked * 500)  # 2 GB of answers, if they were all made
            await until(lambda: node.listener.status()["requests"].get("fetch", 0) >= 1)
            await asyncio.sleep(0.1)
            handled = node.listener.status()["requests"]["fetch"]
            assert handled < 10
            writer.transport.abort()
            await until(lambda: node.listener.status()["connections"] == 0)

    run(scenario)


HOLDER = "import socket; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); input()"


def test_a_taken_port_names_its_holder_and_the_next_step() -> None:
    async def scenario() -> None:
        async with serving() as node:
            taken = rf"127\.0\.0\.1:{port} is taken by .*pid {other.pid}"
            with pytest.raises(UserError, match=taken) as error:
                await serve_kafka(node.listener.broker, RealNet(), "127.0.0.1", port)
            assert "kafka.listen" in error.value.hint
            # off loopback only where a rule says what the nameless may do
            open_to_all = KafkaSettings(acl=(KafkaAclRule(principals=("ANONYMOUS",), allow=("read",)),))
            with pytest.raises(UserError, match="cannot listen on 203"):
                await serve_kafka(node.listener.broker, RealNet(), "203.0.113.1", 0, settings=open_to_all)
            # the first listener's deadlines still run
            node.store.create_topic("t")
            channel = await node.channel()
            await channel.call(ApiKey.FETCH, fetch(max_wait_ms=20))
            channel.close()

    command = [sys.executable, "-c", HOLDER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        port = int(other.stdout.readline())
        run(scenario)
        other.kill()


def test_what_is_advertised() -> None:
    async def scenario() -> None:
        async with serving(advertised="gateway.example:19092") as node:
            channel = await node.channel()
            (broker,) = (await channel.call(ApiKey.METADATA, {"topics": []}))["brokers"]
            assert (broker["host"], broker["port"]) == ("gateway.example", 19092)
            channel.close()

    run(scenario)


# the channel


class Silent(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        pass


def test_a_channel_into_a_black_hole_times_out_and_is_closed() -> None:
    async def scenario() -> None:
        hole = await RealNet().listen(Silent, "127.0.0.1", 0)
        with pytest.raises(TimeoutError):
            await Channel.connect(RealNet(), "127.0.0.1", hole.address[1], client_id="t", request_timeout_ms=50)
        hole.close()
        async with serving(auto=False) as node:
            node.store.create_topic("t")
            channel = await node.channel()
            with pytest.raises(TimeoutError, match="PRODUCE within 30 ms"):
                await channel.call(ApiKey.PRODUCE, produce(b"x"), timeout_ms=30)
            assert channel.closed
            with pytest.raises(ConnectionError, match="closed"):
                await channel.call(ApiKey.METADATA, {"topics": []})

    run(scenario)


def test_a_channel_whose_broker_goes_tells_every_caller() -> None:
    async def scenario() -> None:
        async with serving(auto=False) as node:
            node.store.create_topic("t")
            channel = await node.channel()
            calls = [asyncio.create_task(channel.call(ApiKey.PRODUCE, produce(b"x"))) for _ in range(3)]
            log = node.store.partition("t", 0)
            assert log is not None
            await until(lambda: log.log_end_offset == 3)
            node.listener.close()
            for call in calls:
                with pytest.raises(ConnectionError):
                    await call
            assert channel.closed

    run(scenario)


def test_a_cancelled_call_leaves_the_channel_in_step() -> None:
    async def scenario() -> None:
        async with serving(auto=False) as node:
            node.store.create_topic("t")
            channel = await node.channel()
            call = asyncio.create_task(channel.call(ApiKey.PRODUCE, produce(b"x")))
            log = node.store.partition("t", 0)
            assert log is not None
            await until(lambda: log.log_end_offset == 1)
            call.cancel()
            node.store.flush_now()
            assert (await channel.call(ApiKey.METADATA, {"topics": []}))["controller_id"] == 1
            channel.close()

    run(scenario)


def test_a_channel_says_what_the_broker_does_not_speak_and_what_it_broke() -> None:
    async def scenario() -> None:
        class Liar(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                assert isinstance(transport, asyncio.Transport)
                transport.write(b"SSH-2.0-OpenSSH\r\n")

        liar = await RealNet().listen(Liar, "127.0.0.1", 0)
        with pytest.raises(PeerError, match="frame of"):
            await Channel.connect(RealNet(), "127.0.0.1", liar.address[1], client_id="t")
        liar.close()

    run(scenario)


def test_produce_without_acks_over_a_channel() -> None:
    async def scenario() -> None:
        async with serving() as node:
            node.store.create_topic("t")
            channel = await node.channel()
            assert await channel.call(ApiKey.PRODUCE, produce(b"x", acks=0)) == {}
            log = node.store.partition("t", 0)
            assert log is not None
            await until(lambda: log.synced_offset == 1)
            answer = await channel.call(ApiKey.PRODUCE, produce(b"x", topic="nowhere"))
            code = answer["responses"][0]["partition_responses"][0]["error_code"]
            assert code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
            channel.close()

    run(scenario)
