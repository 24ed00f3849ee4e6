"""Wills: a device's death is a reading, after its delay, unless it came back; waiting ones are bounded."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.ingest.mqtt import listener, packets, packets5
from gateway.ingest.mqtt.packets import Connect, Will
from gateway.ingest.mqtt.packets5 import NEVER_EXPIRES
from gateway.ingest.mqtt.properties import Property, Value
from gateway.ingest.mqtt.wills import WaitingWill, WaitingWills, delay_ms
from tests.support.ingest import Edge
from tests.support.mqtt_client import Client, node_at, run
from tests.support.mqtt_node import Node
from tests.support.waiting import eventually

WILL = Will("pump/status", b'"offline"', 1, retain=False)
GOODBYE, GOODBYE_WITH_WILL = b"\xe0\x00", b"\xe0\x01\x04"


def connect(
    level: int, *, clean: bool = True, delay_s: int = 0, expiry_s: int = 0, client: str = "pump", keep_alive_s: int = 0
) -> bytes:
    asked = Connect(level, client, clean, keep_alive_s, WILL)
    if level == 4:
        return packets.encode_connect(asked)
    properties: dict[Property, Value] = {Property.SESSION_EXPIRY_INTERVAL: expiry_s}
    return packets5.encode_connect(asked, properties, {Property.WILL_DELAY_INTERVAL: delay_s} if delay_s else {})


def deaths(node: Node) -> int:
    return [(record.key, record.value) for record in node.readings()].count(("edge/pump/status", {"value": "offline"}))


async def connected(node: Node, data: bytes) -> Client:
    client = await Client.open(node)
    client.writer.write(data)
    assert (await client.packet())[0] == 0x20
    return client


@pytest.mark.parametrize("level", [4, 5])
def test_a_connection_that_dies_leaves_its_will(tmp_path: Path, level: int) -> None:
    async def test() -> None:
        async with node_at(tmp_path) as node:
            client = await connected(node, connect(level))
            client.abort()
            await eventually(lambda: deaths(node) == 1)
            assert node.ingest.status()["wills"] == 1
            assert not node.ingest.sources["mqtt:pump"].mark.gone

    run(test)


@pytest.mark.parametrize(
    ("level", "last_words", "expected"), [(4, GOODBYE, 0), (5, GOODBYE, 0), (5, GOODBYE_WITH_WILL, 1), (4, b"\0\0", 1)]
)
def test_only_a_goodbye_forgets_the_will(tmp_path: Path, level: int, last_words: bytes, expected: int) -> None:
    async def test() -> None:
        async with node_at(tmp_path) as node:
            client = await connected(node, connect(level))
            client.writer.write(last_words)
            await client.closed()
            other = await connected(node, connect(4, client="other", clean=True))
            await other.say(packets.encode_publish(packets.Publish("after", b"1", 1, 1, False, False)), b"\x40\2\0\1")
            assert deaths(node) == expected
            await other.say(GOODBYE, b"")
            await other.closed()

    run(test)


def test_silence_beyond_keep_alive_is_a_death(tmp_path: Path) -> None:
    async def test() -> None:
        async with node_at(tmp_path) as node:
            client = await connected(node, connect(5, keep_alive_s=1))
            told = await client.packet()
            assert told[2] == 0x8D
            assert b"longer than 1.5" in told
            await client.closed()
            await eventually(lambda: deaths(node) == 1)

    run(test)


def test_a_device_that_comes_back_within_the_delay_was_not_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "SWEEP_S", 0.01)

    async def test() -> None:
        async with node_at(tmp_path) as node:
            client = await connected(node, connect(5, clean=False, delay_s=3_600, expiry_s=NEVER_EXPIRES))
            client.abort()
            await eventually(lambda: node.ingest.status()["wills_waiting"] == 1)
            client = await connected(node, connect(5, clean=False, delay_s=3_600, expiry_s=NEVER_EXPIRES))
            assert node.ingest.status()["wills_waiting"] == 0
            client.abort()
            await eventually(lambda: node.ingest.status()["wills_waiting"] == 1)
            assert deaths(node) == 0
            # a clean start ends the old session, and with it the wait
            client = await connected(node, connect(5, clean=True, delay_s=1, expiry_s=1))
            await eventually(lambda: deaths(node) == 1)
            client.abort()
            await eventually(lambda: deaths(node) == 2)
            assert node.ingest.status()["wills_waiting"] == 0

    run(test)


def test_a_takeover_is_a_death_only_without_a_delay(tmp_path: Path) -> None:
    async def test() -> None:
        async with node_at(tmp_path) as node:
            first = await connected(node, connect(5, clean=False, delay_s=3_600, expiry_s=60))
            second = await connected(node, connect(5, clean=False, expiry_s=60))
            third = await connected(node, connect(5, clean=False, expiry_s=60))
            assert [(await each.packet())[2] for each in (first, second)] == [0x8E, 0x8E]
            for each in (first, second):
                await each.closed()
            await eventually(lambda: deaths(node) == 1)
            await third.say(GOODBYE, b"")
            await third.closed()
            assert deaths(node) == 1

    run(test)


def test_a_node_that_stops_says_nothing_of_its_devices(tmp_path: Path) -> None:
    async def test() -> None:
        async with node_at(tmp_path) as node:
            client = await connected(node, connect(5))
            node.listener.close()
            assert (await client.packet())[2] == 0x8B
            await client.closed()
            assert node.ingest.status()["wills"] == 0
            assert node.ingest.status()["waiting_bytes"] == 0

    run(test)


def test_a_will_that_the_disk_lost_is_taken_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "SWEEP_S", 0.01)
    monkeypatch.setattr(listener, "WILL_RETRY_MS", 0)

    async def test() -> None:
        async with node_at(tmp_path) as node:
            client = await connected(node, connect(4))
            taken = node.ingest.take
            monkeypatch.setattr(node.ingest, "take", lambda source, messages, done: done(False))
            client.abort()
            await eventually(lambda: node.ingest.status()["wills_waiting"] == 1)
            monkeypatch.setattr(node.ingest, "take", taken)
            await eventually(lambda: deaths(node) == 1)
            assert node.ingest.status()["wills"] == 1

    run(test)


def test_a_delay_ends_with_the_session() -> None:
    assert delay_ms(WILL, 60) == 0
    assert delay_ms(WILL._replace(delay_s=10), 60) == 10_000
    assert delay_ms(WILL._replace(delay_s=100), 60) == 60_000
    assert delay_ms(WILL._replace(delay_s=100), NEVER_EXPIRES) == 100_000


def test_waiting_wills_are_bounded_and_the_oldest_goes_first() -> None:
    source = Edge().attach("pump")
    wills = WaitingWills(bytes_max=1_000)
    for number in range(5):
        wills.add(f"c{number}", WaitingWill(source, WILL._replace(topic=f"t{number}"), 100.0))
        wills.add(f"c{number}", WaitingWill(source, WILL._replace(topic=f"t{number}"), 100.0))
    assert [waiting.will.topic for waiting in wills.due(0)] == ["t0", "t1"]
    assert [waiting.will.topic for waiting in wills.due(100)] == ["t2", "t3", "t4"]
    assert len(wills) == 0
    assert not list(wills.due(1e9))
