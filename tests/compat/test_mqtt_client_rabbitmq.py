"""The MQTT client against RabbitMQ 3.10: 3.1.1 only, QoS 1 at most, packet identifiers numbered anew."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.ingest.mqtt_client import link as link_module
from gateway.ingest.mqtt_client.settings import MqttClientSettings, Subscription
from tests.support.broker_gateway import PATIENCE_S, Gateway
from tests.support.broker_node import reading
from tests.support.brokers import RabbitMQ

pytestmark = [pytest.mark.peer("rabbitmq"), pytest.mark.peer("mosquitto"), pytest.mark.long("rabbitmq")]


@pytest.fixture(scope="module")
def rabbit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQ]:
    broker = RabbitMQ(tmp_path_factory.mktemp("rabbit"))
    try:
        yield broker.start()
    finally:
        broker.kill()


def settings(rabbit: RabbitMQ, name: str, **more: object) -> MqttClientSettings:
    wanted = (Subscription(filter=f"{name}/#", qos=2),)
    options: dict[str, object] = {"retry_max_ms": 300, **more}
    return MqttClientSettings(name=name, address=rabbit.address, topics=wanted, **options)  # type: ignore[arg-type]


def test_3_1_1_is_found_and_messages_wait_for_a_node_that_is_away(tmp_path: Path, rabbit: RabbitMQ) -> None:
    async def story() -> None:
        async with reading(tmp_path / "data", settings(rabbit, "wait")) as node:
            await node.connected()
            assert node.status()["version"] == "3.1.1"
            assert node.status()["granted"] == {"wait/#": 1}  # QoS 2 is not there to be had
            await asyncio.to_thread(rabbit.publish, "wait/pump", [str(each) for each in range(500)])
            await node.until(lambda: len(node.values()) == 500 and not node.status()["inflight"])
            assert node.values() == list(range(500))
        await asyncio.to_thread(rabbit.publish, "wait/pump", [str(each) for each in range(500, 700)])
        async with reading(tmp_path / "data", settings(rabbit, "wait")) as node:
            await node.until(lambda: len(node.values()) >= 700)
            assert node.status()["session_present"]
            assert sorted(node.values()) == list(range(700))

    asyncio.run(story())


def test_messages_that_look_alike_are_not_taken_for_repeats(
    tmp_path: Path, rabbit: RabbitMQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its repeats come under other messages' identifiers; were those believed, alike messages would be lost."""
    cuts = 0
    flush = link_module.Link.flush

    def cut(link: link_module.Link) -> None:
        nonlocal cuts
        transport = link._transport
        flush(link)
        if link.inflight and transport is not None and cuts < 5 and not transport.is_closing():
            cuts += 1
            transport.abort()

    monkeypatch.setattr(link_module.Link, "flush", cut)

    async def story() -> None:
        async with reading(tmp_path / "data", settings(rabbit, "alike")) as node:
            await node.connected()
            await asyncio.to_thread(rabbit.publish, "alike/door", ["1"] * 2_000)
            await node.until(lambda: len(node.values()) >= 2_000 and not node.status()["inflight"])
            await asyncio.to_thread(rabbit.publish, "alike/end", ["2"])
            await node.until(lambda: 2 in node.values())
            assert cuts == 5
            assert node.values().count(1) >= 2_000
            assert node.values().count(1) <= 2_000 + cuts * 60  # a window of repeats for each cut

    asyncio.run(story())


def test_a_killed_node_loses_nothing_though_messages_look_alike(tmp_path: Path, rabbit: RabbitMQ) -> None:
    gateway = Gateway(tmp_path, rabbit.address)
    try:
        gateway.start()
        lines = ["1"] * 4_000
        sending = threading.Thread(target=rabbit.publish, args=("site/pump", lines))
        sending.start()
        gateway.until(lambda status: status["ingest"]["stored"] > 200)
        gateway.end(signal.SIGKILL)
        sending.join(PATIENCE_S)
        gateway.start()
        rabbit.publish("site/pump", ["2"])
        gateway.until(lambda status: 2 in gateway.values())
        assert 4_000 <= gateway.values().count(1) <= 4_060
        assert gateway.end(signal.SIGTERM) == 0
    finally:
        gateway.close()


def test_a_wrong_password_is_named(tmp_path: Path, rabbit: RabbitMQ) -> None:
    async def story() -> None:
        wanted = settings(rabbit, "password", user="guest", password="wrong")
        async with reading(tmp_path / "data", wanted) as node:
            await node.until(lambda: "password_file" in node.source()["problem"])

    asyncio.run(story())


def test_a_killed_broker_has_its_sessions_when_it_is_back(tmp_path: Path, rabbit: RabbitMQ) -> None:
    async def story() -> None:
        async with reading(tmp_path / "data", settings(rabbit, "back")) as node:
            await node.connected()
            await asyncio.to_thread(rabbit.publish, "back/pump", [str(each) for each in range(100)])
            await node.until(lambda: len(node.values()) == 100)
            await asyncio.to_thread(rabbit.kill)
            await node.until(lambda: not node.status()["connected"])
            await asyncio.to_thread(rabbit.start)
            await node.connected()
            assert node.status()["session_present"]
            assert node.status()["sessions_lost"] == 0
            await asyncio.to_thread(rabbit.publish, "back/pump", [str(each) for each in range(100, 200)])
            await node.until(lambda: set(node.values()) == set(range(200)))

    asyncio.run(story())
