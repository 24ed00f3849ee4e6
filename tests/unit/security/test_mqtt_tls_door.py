"""The second socket of the MQTT listener: one at a time, and none that nobody holds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gateway.ingest.mqtt.settings import MqttTlsSettings
from gateway.ingest.mqtt.tls import TlsDoor
from tests.support.certificates import Authority


class _Socket:
    address = ("127.0.0.1", 8883)
    closed = False

    def close(self) -> None:
        self.closed = True


class SlowNet:
    """A machine that takes its time to open a socket."""

    def __init__(self) -> None:
        self.opened: list[_Socket] = []
        self.go = asyncio.Event()

    async def listen(self, factory: Callable[[], asyncio.BaseProtocol], host: str, port: int) -> _Socket:
        await self.go.wait()
        self.opened.append(_Socket())
        return self.opened[-1]

    async def connect(self, factory: Any, host: str, port: int) -> asyncio.BaseProtocol:
        raise NotImplementedError


def test_a_look_while_an_earlier_one_opens_it_opens_nothing(tmp_path: Path) -> None:
    signed = Authority(tmp_path).sign("node")
    settings = MqttTlsSettings(listen="127.0.0.1:0", certificate_file=str(signed.certificate), key_file=str(signed.key))

    async def scenario() -> None:
        net = SlowNet()
        door = TlsDoor(settings, net, lambda user: asyncio.Protocol(), timeout_ms=1000, say=print)
        looks = [asyncio.ensure_future(door.look(users=True)) for _ in range(3)]
        await asyncio.sleep(0)
        net.go.set()
        await asyncio.gather(*looks)
        assert len(net.opened) == 1
        assert door.problem is None
        door.stop()
        assert net.opened[0].closed

    asyncio.run(scenario())
