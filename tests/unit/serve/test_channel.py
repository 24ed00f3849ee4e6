"""The channel over real sockets: what its caller hears of a broker that is silent, lies or goes."""

from __future__ import annotations

import asyncio

import pytest

from gateway.wire.channel import Channel
from gateway.wire.errors import ErrorCode
from gateway.wire.schema import ApiKey
from headwater.errors import PeerError
from headwater.net import RealNet
from tests.support.listener import produce, run, serving
from tests.support.waiting import eventually


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
            await eventually(lambda: log.log_end_offset == 3)
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
            await eventually(lambda: log.log_end_offset == 1)
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
            await eventually(lambda: log.synced_offset == 1)
            answer = await channel.call(ApiKey.PRODUCE, produce(b"x", topic="nowhere"))
            code = answer["responses"][0]["partition_responses"][0]["error_code"]
            assert code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
            channel.close()

    run(scenario)
