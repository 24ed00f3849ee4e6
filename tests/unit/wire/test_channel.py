"""The client's end of a connection: what a broker that throttles is spared."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from gateway.wire import channel as channels
from gateway.wire.channel import Channel
from gateway.wire.cluster import ADVERTISED
from gateway.wire.schema import ApiKey
from gateway.wire.session import Request, ServerSession, encode_response
from headwater.net import Listener, ProtocolFactory

VERSIONS = [{"api_key": key, "min_version": low, "max_version": high} for key, (low, high) in ADVERTISED.items()]


class Broker(asyncio.Transport):
    """The other end, in memory: answers at once, each Metadata with the next of `throttles` (ms)."""

    def __init__(self) -> None:
        super().__init__()
        self.session = ServerSession()
        self.throttles: list[int] = []
        self.heard: list[tuple[float, Request]] = []
        self.client: asyncio.Protocol | None = None
        self.mutes = self.silent = False  # does not read on while it throttles; never answers
        self.mute_until = self.answer_at = 0.0

    async def connect(self, factory: ProtocolFactory, host: str, port: int) -> asyncio.BaseProtocol:
        self.client = cast("asyncio.Protocol", factory())
        self.client.connection_made(self)
        return self.client

    async def listen(self, factory: ProtocolFactory, host: str, port: int) -> Listener:
        raise NotImplementedError

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

    def abort(self) -> None: ...

    def write(self, data: Any) -> None:
        loop = asyncio.get_running_loop()
        self.session.feed(bytes(data))
        while (request := self.session.next_request()) is not None:
            self.heard.append((loop.time(), request))
            body: dict[str, Any] = {"error_code": 0, "api_keys": VERSIONS}
            if self.silent:
                continue
            mute_until = self.mute_until
            if request.api is ApiKey.METADATA:
                throttle_ms = self.throttles.pop(0) if self.throttles else 0
                if self.mutes and throttle_ms:
                    self.mute_until = loop.time() + throttle_ms / 1000
                body = {
                    "throttle_time_ms": throttle_ms,
                    "brokers": [],
                    "cluster_id": "",
                    "controller_id": -1,
                    "topics": [],
                }
            frame = bytes(encode_response(request.api, request.version, request.correlation_id, body))
            assert self.client is not None
            self.answer_at = max(self.answer_at + 1e-6, mute_until)  # answers leave in the order of the requests
            loop.call_at(self.answer_at, self.client.data_received, frame)
        self.session.keep()


async def opened(broker: Broker, **settings: Any) -> Channel:
    return await Channel.connect(broker, "broker", 9092, client_id="test", **settings)


def ask(channel: Channel, name: str = "t") -> Any:
    return channel.call(ApiKey.METADATA, {"topics": [{"name": name}], "allow_auto_topic_creation": False})


def test_nothing_is_sent_before_the_throttle_is_over_and_its_time_does_not_count() -> None:
    async def story() -> None:
        broker = Broker()
        broker.throttles = [200]
        channel = await opened(broker, request_timeout_ms=100)
        await ask(channel)
        throttled = asyncio.get_running_loop().time()
        await ask(channel)
        assert broker.heard[-1][0] - throttled >= 0.199
        before = asyncio.get_running_loop().time()
        await ask(channel)
        assert asyncio.get_running_loop().time() - before < 0.1
        channel.close()

    asyncio.run(story())


def test_calls_that_wait_leave_in_their_order_and_a_later_one_does_not_overtake() -> None:
    async def story() -> None:
        broker = Broker()
        broker.throttles = [50]
        channel = await opened(broker)
        await ask(channel)
        waiting = [asyncio.ensure_future(ask(channel, f"t{number}")) for number in range(20)]
        await asyncio.sleep(0.049)
        waiting += [asyncio.ensure_future(ask(channel, f"t{number}")) for number in range(20, 40)]
        await asyncio.gather(*waiting)
        names = [(request.body or {})["topics"][0]["name"] for _, request in broker.heard[2:]]
        assert names == [f"t{number}" for number in range(40)]
        channel.close()

    asyncio.run(story())


def test_what_was_sent_before_gets_its_time_after_the_throttle() -> None:
    async def story() -> None:
        broker = Broker()
        broker.throttles, broker.mutes = [300], True
        channel = await opened(broker, request_timeout_ms=150)
        asked = [asyncio.ensure_future(ask(channel)) for _ in range(4)]
        await asyncio.gather(*asked)
        broker.silent = True
        before = asyncio.get_running_loop().time()
        with pytest.raises(TimeoutError):
            await ask(channel)
        assert asyncio.get_running_loop().time() - before < 0.3  # and no longer than ever afterwards

    asyncio.run(story())


def test_a_throttle_without_end_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channels, "THROTTLE_MS_MAX", 100)

    async def story() -> None:
        broker = Broker()
        broker.throttles = [2**31 - 1]
        channel = await opened(broker)
        await ask(channel)
        async with asyncio.timeout(5):
            await ask(channel)
        channel.close()

    asyncio.run(story())


def test_a_channel_that_is_closed_meanwhile_says_so_and_sends_nothing() -> None:
    async def story() -> None:
        broker = Broker()
        broker.throttles = [30_000]
        channel = await opened(broker)
        await ask(channel)
        waiting = asyncio.ensure_future(ask(channel))
        await asyncio.sleep(0)
        channel.close()
        with pytest.raises(ConnectionError):
            async with asyncio.timeout(5):  # at once, not when the throttle is over
                await waiting
        assert len(broker.heard) == 2

    asyncio.run(story())
