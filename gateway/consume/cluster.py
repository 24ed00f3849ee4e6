"""Fetches what `Fetching` asks for: connections to the brokers of a cluster, in one event loop.

One connection per broker, made anew when anything fails on it. Nothing is decoded here: what has come lies in bytes
until somebody takes it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence

from gateway.consume.batches import Block, Decode, one_by_one
from gateway.consume.fetching import WAIT_MS, Address, Ask, Fetching, Where
from gateway.wire.channel import Channel
from gateway.wire.sign_in import ClientSecurity
from headwater.errors import PeerError
from headwater.net import Net

REQUEST_TIMEOUT_MS = 10_000
_TURNS = 4
"""Turns of the loop in each poll, also when there is enough already: each reads up to 256 KiB of a connection."""


class ClusterReader:
    """Records of partitions wherever they are led; `poll` and `take` in turns.

    Connections that fail are waited out; `trouble` says what is the matter.
    """

    def __init__(
        self,
        bootstrap: Sequence[Address],
        *,
        net: Net,
        client_id: str,
        security: ClientSecurity | None,
        bytes_max: int,
        decode: Decode = one_by_one,
    ) -> None:
        self._core = Fetching(bootstrap, bytes_max=bytes_max, decode=decode)
        self._net = net
        self._client_id = client_id
        self._security = security
        self._channels: dict[Address, Channel] = {}
        self._connecting: dict[Address, asyncio.Lock] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._news = asyncio.Event()
        self._error: Exception | None = None

    @property
    def ends(self) -> Mapping[Where, int]:
        """High watermarks of what is read, where an answer has told them."""
        return self._core.ends

    @property
    def trouble(self) -> str:
        """What keeps a partition from being read just now, "" when nothing does."""
        return self._core.trouble

    def assign(self, positions: Mapping[Where, int]) -> None:
        """Read these too, from there on."""
        self._core.assign(positions)

    def drop(self, gone: Iterable[Where]) -> None:
        """Give nothing of these any more."""
        self._core.drop(gone)

    async def poll(self, wait_s: float, *, enough_bytes: int) -> None:
        """Until `enough_bytes` lie ready, at most `wait_s`.

        Raises `KafkaError` for what no time mends, `LostPlaceError`, `PeerError` for bytes that make no sense, and
        `UserError` for TLS files.
        """
        loop = asyncio.get_running_loop()
        until_s = loop.time() + wait_s
        for _ in range(_TURNS):
            self._send()
            await asyncio.sleep(0)
        while self._core.ready_bytes < enough_bytes and self._error is None:
            now_s = loop.time()
            if now_s >= until_s:
                break
            self._news.clear()
            try:
                async with asyncio.timeout(min(until_s, self._core.next_ms(now_s * 1000) / 1000) - now_s):
                    await self._news.wait()
            except TimeoutError:
                pass
            self._send()
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def take(self, records_max: int) -> list[Block]:
        """What has come: see `Fetching.take`."""
        return self._core.take(records_max)

    async def close(self) -> None:
        """Close all connections; nothing is under way any more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for channel in self._channels.values():
            channel.close()

    def _send(self) -> None:
        loop = asyncio.get_running_loop()
        for ask in self._core.asks(loop.time() * 1000):
            task = loop.create_task(self._ask(ask))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _ask(self, ask: Ask) -> None:
        core, loop = self._core, asyncio.get_running_loop()
        try:
            try:
                channel = await self._channel(ask.address)
                answer = await channel.call(ask.api, ask.body, timeout_ms=REQUEST_TIMEOUT_MS + WAIT_MS)
            except (OSError, PeerError) as error:  # TimeoutError and ConnectionError are OSErrors
                what = error.what if isinstance(error, PeerError) else str(error) or type(error).__name__
                core.failed(ask, f"{ask.address[0]}:{ask.address[1]}: {what}", loop.time() * 1000)
            else:
                core.answered(ask, answer, loop.time() * 1000)
            self._send()
        # A fault of ours: nobody hears of what a task ends with, and its partitions would stand still without a word.
        except Exception as error:  # raised by the next `poll`
            self._error = error
        self._news.set()

    async def _channel(self, address: Address) -> Channel:
        async with self._connecting.setdefault(address, asyncio.Lock()):
            channel = self._channels.get(address)
            if channel is None or channel.closed:
                channel = self._channels[address] = await Channel.connect(
                    self._net,
                    *address,
                    client_id=self._client_id,
                    request_timeout_ms=REQUEST_TIMEOUT_MS,
                    security=self._security,
                )
            return channel
