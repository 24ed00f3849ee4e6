"""The composition of a node: in which order its parts come up."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from gateway.ingest.mqtt.settings import MqttSettings
from gateway.wire.settings import KafkaSettings
from headwater.app.core import Core
from headwater.clock import SystemClock
from headwater.disk import RealDisk
from headwater.errors import UserError
from headwater.net import RealNet
from headwater.settings.model import Settings


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
