"""The real client and pipeline before a naive broker: cut wires, power cuts, any slicing, by seed."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from random import Random
from typing import Any

import pytest

from gateway.ingest.mqtt_client.driver import BrokerClient, open_brokers
from gateway.ingest.mqtt_client.settings import MqttClientSettings, Subscription
from tests.support.ingest import Edge
from tests.support.model_broker import ModelBroker

MESSAGES = 120
STEPS_MAX = 20_000


class World:
    """One edge, one broker, a wire between them."""

    def __init__(self, seed: int, *, numbers_anew: bool, qos: int, alike: bool) -> None:
        self.random = Random(seed)
        self.broker = ModelBroker(self.random, window=self.random.choice((3, 20, 60)), numbers_anew=numbers_anew)
        self.edge = Edge()
        self.settings = MqttClientSettings(
            name="model", address="model", version="5", inflight_max=20, topics=(Subscription(filter="site/#", qos=2),)
        )
        self.client = self._client()
        self.life: asyncio.Task[Any] | None = None
        for number in range(MESSAGES):
            self.broker.publish(b"1" if alike else b"%d" % number, qos)

    def _client(self) -> BrokerClient:
        [client] = open_brokers(
            self.edge.ingest,
            [self.settings],
            net=self.broker,  # type: ignore[arg-type]
            disk=self.edge.disk,
            random=Random(1),
            emit=lambda kind, **detail: None,
        )
        return client

    async def run(self) -> None:
        """Until the broker owes nothing and everything is on disk."""
        for _ in range(STEPS_MAX):
            if self.life is None or self.life.done():
                if self.life is not None:
                    self.client._lost(self.life.result()[0])
                self.life = asyncio.create_task(self.client._once())
            await asyncio.sleep(0)
            self.edge.clock.advance(self.random.choice((0, 1, 5)))
            self.broker.step()
            chance = self.random.random()
            if chance < 0.3:
                self.edge.sync()
            elif chance < 0.33 and self.broker.wire is not None:
                self.broker.wire.cut()
            elif chance < 0.34:
                await self._power_cut()
            if not self.broker.owes:
                break
        assert not self.broker.owes
        await self._end()

    async def _power_cut(self) -> None:
        """Memory is gone, and what was not synced."""
        if self.broker.wire is not None:
            self.broker.wire.is_open = False  # nobody says a word
        if self.life is not None:
            self.life.cancel()
            await asyncio.gather(self.life, return_exceptions=True)
        self.life = None
        self.broker.wire = None
        self.edge.power_cut()
        self.client = self._client()

    async def _end(self) -> None:
        self.edge.sync()
        if self.life is not None:
            self.life.cancel()
            await asyncio.gather(self.life, return_exceptions=True)
        self.client.close()

    def stored(self) -> Counter[int]:
        return Counter(record.value["value"] for record in self.edge.readings())


async def _story(seed: int, *, numbers_anew: bool, qos: int, alike: bool) -> None:
    world = World(seed, numbers_anew=numbers_anew, qos=qos, alike=alike)
    await world.run()
    stored = world.stored()
    if alike:
        assert stored[1] >= MESSAGES, seed
        assert numbers_anew or stored[1] == MESSAGES, seed
    else:
        assert stored.keys() == set(range(MESSAGES)), seed
        assert numbers_anew or stored.total() == MESSAGES, seed


def _stories(seeds: range) -> None:
    for seed, numbers_anew, qos, alike in itertools.product(seeds, (False, True), (1, 2), (False, True)):
        asyncio.run(_story(seed, numbers_anew=numbers_anew, qos=qos, alike=alike))


def test_nothing_is_lost_and_a_broker_that_keeps_identifiers_has_it_stored_once() -> None:
    _stories(range(3))


@pytest.mark.long("brokers", count=150)
def test_nothing_is_lost_in_many_stories(count: int) -> None:
    _stories(range(3, 3 + count))
