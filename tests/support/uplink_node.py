"""An edge node with nothing but a log and its uplink, in this process, over a network that can be cut."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, cast

import msgspec

from gateway.log.records import NO_HEADERS, control_type, decode_batch, encode_batch, read_header, split_batches
from gateway.log.settings import LogSettings
from gateway.log.store import LogStore
from gateway.replicate.driver import Uplink, first_offsets
from gateway.replicate.journal import RunJournal
from gateway.replicate.settings import UplinkSettings
from gateway.serve import serve_kafka
from gateway.wire.broker import Broker
from gateway.wire.settings import KafkaSettings
from headwater.clock import SystemClock
from headwater.disk import RealDisk
from headwater.net import Listener, ProtocolFactory, RealNet

NODE = "edge-1"


class _Tap(asyncio.Protocol):
    """Between a transport and the protocol that thinks it has it."""

    def __init__(self, net: FaultyNet, inner: asyncio.Protocol) -> None:
        self.net = net
        self.inner = inner
        self.transport: asyncio.Transport | None = None
        self.silent = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.net.taps.append(self)
        self.inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        self.silent = self.silent or self.net.hole
        if self.silent:
            return  # what goes out still arrives: the worse half of a black hole
        if self.transport is not None and self.net.fault(self.net.answers):
            self.net.faults += 1
            self.transport.abort()
            return
        self.net.answers += 1
        if self.net.hold_s:
            hold_s, self.net.hold_s = self.net.hold_s, 0.0
            asyncio.get_running_loop().call_later(hold_s, _give, self.inner, data)
        else:
            _give(self.inner, data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.net.taps.remove(self)
        self.inner.connection_lost(exc)

    def pause_writing(self) -> None:
        self.inner.pause_writing()

    def resume_writing(self) -> None:
        self.inner.resume_writing()


def _give(inner: asyncio.Protocol | asyncio.BufferedProtocol, data: bytes) -> None:
    if not isinstance(inner, asyncio.BufferedProtocol):
        inner.data_received(data)
        return
    rest = memoryview(data)
    while rest:  # TLS: as a transport hands bytes to it
        room = memoryview(inner.get_buffer(len(rest)))
        size = min(len(room), len(rest))
        room[:size] = rest[:size]
        inner.buffer_updated(size)
        rest = rest[size:]


class FaultyNet:
    """`fault(n)` says whether the n-th piece of answer is lost with its connection; in a `hole` answers vanish."""

    def __init__(self) -> None:
        self.real = RealNet()
        self.taps: list[_Tap] = []
        self.hole = False
        self.hold_s = 0.0  # the next answer comes so much later
        self.answers = 0
        self.faults = 0
        self.fault: Callable[[int], bool] = lambda number: False

    async def connect(self, factory: ProtocolFactory, host: str, port: int) -> asyncio.BaseProtocol:
        tap = await self.real.connect(lambda: _Tap(self, cast("asyncio.Protocol", factory())), host, port)
        return cast("_Tap", tap).inner

    async def listen(self, factory: ProtocolFactory, host: str, port: int) -> Listener:
        return await self.real.listen(factory, host, port)


class CentralNode:
    """A Headwater node as the central, in this loop."""

    def __init__(self, directory: Path, port: int = 0, **settings: Any) -> None:
        self.data_dir = str(directory / "central")
        self.port = port
        self.settings = KafkaSettings(**settings)

    async def start(self) -> None:
        clock = SystemClock()
        self.store = LogStore.open(
            self.data_dir,
            node="central",
            settings=LogSettings(fsync_interval_ms=0),
            disk=RealDisk(),
            clock=clock,
            call_in_loop=asyncio.get_running_loop().call_soon_threadsafe,
        )
        self.broker = Broker(self.store, clock, settings=self.settings)
        self.listener = await serve_kafka(self.broker, RealNet(), "127.0.0.1", self.port)
        self.port = self.listener.address[1]

    def stop(self) -> None:
        self.listener.close()
        self.store.close()

    def numbers(self) -> list[int]:
        """What is in `readings`, by transaction markers alone."""
        rows: list[tuple[int, int]] = []
        for log in self.store.topics["readings"].partitions:
            pending: dict[int, list[tuple[int, int]]] = {}
            offset = log.log_start_offset
            while data := log.read(offset, 1 << 20).data:
                for batch in split_batches(data):
                    header = read_header(batch)
                    offset = header.next_offset
                    if header.is_control:
                        rows += pending.pop(header.producer_id, []) if control_type(batch) else []
                        pending.pop(header.producer_id, None)
                    else:
                        columns = decode_batch(batch)
                        found = [msgspec.json.decode(value or b"")["n"] for value in columns.values]
                        pending.setdefault(header.producer_id, []).extend(zip(columns.offsets, found, strict=True))
        return [number for _, number in sorted(rows)]


class EdgeNode:
    """Log and uplink on real files."""

    def __init__(self, directory: Path, bootstrap: str, **settings: object) -> None:
        self.clock = SystemClock()
        self.net = FaultyNet()
        self.events: list[str] = []
        self.number = 0
        self.data_dir = str(directory / "edge")
        self.settings = UplinkSettings(bootstrap_servers=bootstrap, **settings)  # type: ignore[arg-type]
        self.random = Random(17)
        self.task: asyncio.Task[None] | None = None
        self.start()

    def start(self) -> None:
        disk = RealDisk()
        self.store = LogStore.open(
            self.data_dir,
            node=NODE,
            settings=LogSettings(fsync_interval_ms=0),
            disk=disk,
            clock=self.clock,
            call_in_loop=asyncio.get_running_loop().call_soon_threadsafe,
        )
        if "readings" not in self.store.topics:
            self.store.create_topic("readings")
        self.log = self.store.topics["readings"].partitions[0]
        journal = RunJournal.begin(
            disk,
            self.data_dir,
            first=first_offsets(self.store),
            random=self.random,
            boot_id="test",
            wall_ms=self.clock.wall_ms(),
            monotonic_ms=self.clock.monotonic_ms(),
        )
        self.uplink = Uplink(
            self.store,
            journal,
            self.settings,
            node=NODE,
            net=self.net,
            clock=self.clock,
            random=self.random,
            emit=lambda kind, **detail: self.events.append(kind),
        )
        self.task = asyncio.create_task(self.uplink.run())

    async def stop(self) -> None:
        if self.task is not None:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)
        self.store.close()

    def ingest(self, count: int) -> None:
        """One batch of distinct values, from the number before on."""
        now = self.clock.wall_ms()
        rows = [(now, b"edge-1/pump", b'{"n":%d}' % (self.number + n), NO_HEADERS) for n in range(count)]
        self.number += count
        self.log.append(encode_batch(rows), now_ms=now)

    async def drained(self, timeout_s: float = 30.0) -> None:
        """Until everything that was ingested is at the central."""
        async with asyncio.timeout(timeout_s):
            while self.log.synced_offset < self.log.log_end_offset or self.uplink.status()["backlog_records"]:
                assert self.task is not None
                assert not self.task.done()
                await asyncio.sleep(0.02)

    async def until(self, condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
        async with asyncio.timeout(timeout_s):
            while not condition():  # noqa: ASYNC110  (what is waited for has no event)
                await asyncio.sleep(0.01)
