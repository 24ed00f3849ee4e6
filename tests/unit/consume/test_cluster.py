"""Connections to the brokers of a cluster: what becomes of a request that ends as nobody foresaw."""

from __future__ import annotations

import asyncio

import pytest

from gateway.consume.cluster import ClusterReader
from gateway.wire.channel import Channel
from headwater.net import RealNet


def test_what_nobody_foresaw_is_raised_by_poll_and_stalls_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def connect(*_: object, **__: object) -> Channel:
        raise ValueError("unforeseen")

    async def poll() -> None:
        reader = ClusterReader([("h", 1)], net=RealNet(), client_id="c", security=None, bytes_max=1 << 20)
        reader.assign({("t", 0): 0})
        try:
            await reader.poll(5.0, enough_bytes=1)
        finally:
            await reader.close()

    monkeypatch.setattr(Channel, "connect", connect)
    with pytest.raises(ValueError, match="unforeseen"):
        asyncio.run(poll())
