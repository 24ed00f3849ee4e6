"""A node in this process whose Kafka listener asks clients who they are."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from gateway.log.settings import LogSettings
from gateway.log.store import LogStore
from gateway.replicate.settings import UplinkSettings
from gateway.serve import KafkaListener, serve_kafka
from gateway.users import add_user
from gateway.wire.broker import Broker
from gateway.wire.channel import Channel
from gateway.wire.settings import KafkaAclRule, KafkaListenerSettings, KafkaSettings
from gateway.wire.sign_in import ClientSecurity
from headwater.clock import SystemClock
from headwater.disk import RealDisk
from headwater.net import RealNet
from tests.support.certificates import Authority

EVERYTHING = (KafkaAclRule(principals=("*",), allow=("all",)),)
PASSWORD = "an API key"


def security(authority: Authority | None = None, **settings: object) -> ClientSecurity:
    """How a client of ours connects."""
    given = {"bootstrap_servers": "unused"} | settings
    if authority is not None:
        given["tls_ca_file"] = str(authority.file)
    return ClientSecurity(msgspec.convert(given, UplinkSettings), "test")


class SecureNode:
    """The listener, its port on loopback and those of its doors."""

    def __init__(self, listener: KafkaListener, store: LogStore) -> None:
        self.listener = listener
        self.store = store

    def port(self, number: int = 0) -> int:
        address = self.listener.doors.all[number].address
        assert address is not None, self.listener.doors.all[number].problem
        return address[1]

    async def channel(self, how: ClientSecurity | None = None, *, host: str = "localhost", door: int = 0) -> Channel:
        return await Channel.connect(RealNet(), host, self.port(door), client_id="test", security=how)


@asynccontextmanager
async def secure_node(
    folder: Path,
    *listeners: KafkaListenerSettings,
    acl: tuple[KafkaAclRule, ...] = EVERYTHING,
    users: tuple[str, ...] = ("token",),
    reserved: frozenset[str] = frozenset(),
    **settings: object,
) -> AsyncIterator[SecureNode]:
    """`users` all have PASSWORD."""
    loop = asyncio.get_running_loop()
    for name in users:
        add_user(str(folder / "node" / "users"), name, PASSWORD.encode(), frozenset({"kafka"}), replace=True)
    clock = SystemClock()
    store = LogStore.open(
        str(folder),
        node="test",
        settings=LogSettings(fsync_interval_ms=0),
        disk=RealDisk(),
        clock=clock,
        call_in_loop=loop.call_soon_threadsafe,
    )
    kafka = KafkaSettings(listeners=listeners, acl=acl, **settings)  # type: ignore[arg-type]
    listener = await serve_kafka(Broker(store, clock, settings=kafka), RealNet(), "127.0.0.1", 0, reserved=reserved)
    try:
        yield SecureNode(listener, store)
    finally:
        listener.close()
        store.close()
        for _ in range(5):
            await asyncio.sleep(0)


class Background:
    """A secure node in a thread of its own, for foreign clients that block; its two doors are SASL_SSL and SSL."""

    def __init__(self, folder: Path, *listeners: KafkaListenerSettings, **options: Any) -> None:
        self._started = threading.Event()
        self._folder, self._listeners, self._options = folder, listeners, options
        self.ports: list[int] = []
        self.inner = 0
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._main, daemon=True)
        self._thread.start()
        assert self._started.wait(20)
        if self._failure is not None:
            raise self._failure

    def _main(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # the test must see it, not the thread
            self._failure = error
            self._started.set()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        async with secure_node(self._folder, *self._listeners, **self._options) as node:
            self.ports = [node.port(number) for number in range(len(self._listeners))]
            self.inner = node.listener.address[1]
            self._started.set()
            await self._stop.wait()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(20)
