"""The composition of a node: in which order its parts come up and go."""

from __future__ import annotations

import asyncio
import socket
import threading
from pathlib import Path

import pytest

from gateway.ingest.mqtt.settings import MqttSettings
from gateway.wire.channel import Channel
from gateway.wire.schema import ApiKey
from gateway.wire.settings import KafkaSettings
from headwater.app.core import Core
from headwater.clock import SystemClock
from headwater.disk import RealDisk
from headwater.errors import UserError
from headwater.net import RealNet
from headwater.settings.model import Settings


class SlowDisk(RealDisk):
    """Making the directory of topic `slow` takes until it is told to go on."""

    def __init__(self) -> None:
        self.begun, self.go = threading.Event(), threading.Event()
        self.order: list[str] = []

    def make_directory(self, path: str) -> None:
        if path.endswith("/slow-0"):
            self.begun.set()
            self.go.wait(10)
            self.order.append("made")
        super().make_directory(path)


def test_a_stop_closes_the_log_when_no_thread_of_a_request_works_in_it_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = SlowDisk()
    settings = Settings(node="edge-1", data_dir=str(tmp_path), kafka=KafkaSettings(listen="127.0.0.1:0"))
    topic = {"name": "slow", "num_partitions": 1, "replication_factor": 1, "assignments": [], "configs": []}

    async def run() -> None:
        core = Core(settings, clock=SystemClock(), disk=disk, net=RealNet())
        await core.open([])
        assert core.kafka is not None
        assert core.store is not None
        close = core.store.close

        def closed() -> None:
            disk.order.append("closed")
            close()

        monkeypatch.setattr(core.store, "close", closed)
        channel = await Channel.connect(RealNet(), *core.kafka.address, client_id="test")
        asked = asyncio.create_task(
            channel.call(ApiKey.CREATE_TOPICS, {"topics": [topic], "timeout_ms": 1000, "validate_only": False})
        )
        await asyncio.to_thread(disk.begun.wait, 10)
        asyncio.get_running_loop().call_later(0.1, disk.go.set)
        await core.close("test")
        channel.close()
        await asyncio.gather(asked, return_exceptions=True)

    asyncio.run(run())
    assert disk.order == ["made", "closed"]


def test_a_start_that_fails_at_a_busy_port_is_no_run(tmp_path: Path) -> None:
    async def run(port: int) -> None:
        settings = Settings(
            node="edge-1",
            data_dir=str(tmp_path),
            kafka=KafkaSettings(listen="127.0.0.1:0"),
            mqtt=MqttSettings(listen=f"127.0.0.1:{port}"),
        )
        core = Core(settings, clock=SystemClock(), disk=RealDisk(), net=RealNet())
        try:
            with pytest.raises(UserError, match="the port is held"):
                await core.open([])
        finally:
            await core.close("failed to start")

    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        asyncio.run(run(busy.getsockname()[1]))
    assert (tmp_path / "log").is_dir()
    assert not (tmp_path / "node" / "runs").exists()
