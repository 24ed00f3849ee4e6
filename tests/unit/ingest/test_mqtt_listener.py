"""The MQTT listener on real sockets: acknowledgements, sessions, limits, and every way in which a client ends."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.ingest.mqtt import listener, packets
from gateway.ingest.mqtt.connection import Connection
from gateway.ingest.mqtt.listener import serve_mqtt
from gateway.ingest.mqtt.packets import Connect, Publish
from gateway.ingest.mqtt.sessions import SessionRegistry
from gateway.ingest.mqtt.settings import MqttSettings
from headwater.errors import UserError
from headwater.net import RealNet
from tests.support.mqtt_client import Client, node_at, run
from tests.support.mqtt_node import Node
from tests.support.waiting import eventually

DISCONNECT = b"\xe0\x00"
ACCEPTED, RESUMED = b"\x20\x02\x00\x00", b"\x20\x02\x01\x00"


def connect(client: str = "c1", *, clean: bool = False, keep_alive_s: int = 0) -> bytes:
    return packets.encode_connect(Connect(4, client, clean, keep_alive_s))


def publish(payload: bytes = b"21.5", packet_id: int = 1, *, dup: bool = False) -> bytes:
    return packets.encode_publish(Publish("pump", payload, 1, packet_id, dup, retain=False))


def puback(packet_id: int) -> bytes:
    return b"\x40\x02" + packet_id.to_bytes(2, "big")


def source(node: Node, name: str = "mqtt:c1") -> dict[str, Any]:
    found: dict[str, Any]
    [found] = [each for each in node.ingest.status()["sources"] if each["id"] == name]
    return found


def test_puback_comes_after_the_sync_and_in_one_piece(tmp_path: Path) -> None:
    async def test() -> None:
        async with node_at(tmp_path, flusher=False) as node:
            client = await Client.open(node)
            await client.say(connect(), ACCEPTED)
            client.writer.write(publish(packet_id=1) + publish(packet_id=2))
            client.writer.write(b"\xc0\x00")
            await client.say(b"", b"\xd0\x00")
            await eventually(lambda: node.ingest.readings.log_end_offset == 2)
            assert node.readings() == []
            node.store.flush_now()
            await client.say(b"", puback(1) + puback(2))
            assert len(node.readings()) == 2
            await client.close()

    run(test)


def test_a_defect_that_one_clients_bytes_meet_costs_the_others_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed = Connection.feed

    def broken(connection: Connection, data: bytes, now_ms: float) -> None:
        if b"poison" in data:
            raise TypeError("a defect")
        feed(connection, data, now_ms)

    async def test() -> None:
        async with node_at(tmp_path) as node:
            clients = [await Client.open(node) for _ in range(3)]
            for number, client in enumerate(clients):
                await client.say(connect(f"c{number}"), ACCEPTED)
            monkeypatch.setattr(Connection, "feed", broken)
            for client, payload in zip(clients, (b"1", b"poison", b"3"), strict=True):
                client.writer.write(publish(payload))  # in one turn of the loop
            await clients[0].say(b"", puback(1))
            await clients[2].say(b"", puback(1))
            await clients[1].closed()
            assert sorted(record.value["value"] for record in node.readings()) == [1, 3]
            await clients[0].close()
            await clients[2].close()

    run(test)


def test_what_a_client_sent_in_the_turn_in_which_it_is_taken_over_is_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        async with node_at(tmp_path) as node:
            clients = []
            for _ in range(2):
                clients.append(await Client.open(node))
                await eventually(lambda: len(node.listener._connections) == len(clients))
                if len(clients) == 1:
                    [first] = node.listener._connections
            await clients[0].say(connect(), ACCEPTED)
            [second] = node.listener._connections - {first}
            caplog.clear()
            node.listener.received(second, connect(clean=True))  # both in one turn of the loop
            node.listener.received(first, publish())
            await clients[0].closed()
            await clients[1].say(publish(b"3"), ACCEPTED + puback(1))
            assert [record.value["value"] for record in node.readings()] == [3]
            told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
            assert len(told) == 1
            assert "taken over" in told[0]
            await clients[1].close()

    run(test)


def test_one_turn_reads_no_more_than_a_bounded_number_of_bytes_ahead_of_parsing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "UNPARSED_BYTES_MAX", 3 * len(publish()))

    async def test() -> None:
        async with node_at(tmp_path) as node:
            clients = [await Client.open(node) for _ in range(8)]
            for number, client in enumerate(clients):
                await client.say(connect(f"c{number}"), ACCEPTED)
            held: list[int] = []
            for connection in list(node.listener._connections):  # as when one turn finds all of them readable
                node.listener.received(connection, publish())
                held.append(len(node.listener._received))
            assert held == [1, 2, 0, 1, 2, 0, 1, 2]
            for client in clients:
                await client.say(b"", puback(1))
                await client.close()
            assert len(node.readings()) == 8

    run(test)


def test_what_one_turn_reads_is_on_disk_together_a_turn_later(tmp_path: Path) -> None:
    async def test() -> None:
        async with node_at(tmp_path) as node:
            clients = [await Client.open(node) for _ in range(3)]
            for number, client in enumerate(clients):
                await client.say(connect(f"c{number}"), ACCEPTED)
            rounds = node.store.flusher.rounds
            for connection in list(node.listener._connections):
                node.listener.received(connection, publish())
            assert node.ingest.readings.log_end_offset == 0
            await asyncio.sleep(0)
            assert len(node.readings()) == 3
            assert node.store.flusher.rounds == rounds + 1
            for client in clients:
                await client.say(b"", puback(1))
                await client.close()

    run(test)


def test_what_came_before_the_end_of_a_connection_is_taken(tmp_path: Path) -> None:
    async def test() -> None:
        async with node_at(tmp_path) as node:
            client = await Client.open(node)
            await client.say(connect(), ACCEPTED)
            client.writer.write(packets.encode_publish(Publish("pump", b"7", 0, 0, dup=False, retain=False)))
            client.writer.write_eof()
            await client.closed()
            await eventually(lambda: [record.value["value"] for record in node.readings()] == [7])

    run(test)


def test_a_session_lives_across_connections_and_restarts(tmp_path: Path) -> None:
    async def test() -> None:
        async with node_at(tmp_path) as node:
            client = await Client.open(node)
            await client.say(connect(), ACCEPTED)
            client.abort()
            await eventually(lambda: not source(node)["connected"])
            client = await Client.open(node)
            await client.say(connect() + publish(), RESUMED + puback(1))
            await client.say(DISCONNECT, b"")
            await client.closed()
        async with node_at(tmp_path) as node:
            client = await Client.open(node)
            await client.say(connect() + publish(dup=True) + publish(b"22", 2), RESUMED + puback(1) + puback(2))
            assert [record.value["value"] for record in node.readings()] == [21.5, 22]
            other = await Client.open(node)
            await other.say(connect("new"), ACCEPTED)
            await client.close()
            await other.close()

    run(test)


def test_a_second_connection_of_a_client_takes_over(tmp_path: Path) -> None:
    async def test() -> None:
        async with node_at(tmp_path) as node:
            first = await Client.open(node)
            await first.say(connect(), ACCEPTED)
            second = await Client.open(node)
            await second.say(connect(), RESUMED)
            await first.closed()
            await second.say(publish(), puback(1))
            assert source(node)["connected"]
            await second.close()

    run(test)


def test_goodbye_and_silence_are_told_apart(tmp_path: Path) -> None:
    async def test() -> None:
        async with node_at(tmp_path) as node:
            for name, last_words in (("polite", DISCONNECT), ("rude", b"")):
                client = await Client.open(node)
                await client.say(connect(name, clean=True), ACCEPTED)
                client.writer.write(last_words)
                await client.close()
                await eventually(lambda name=name: not source(node, f"mqtt:{name}")["connected"])  # type: ignore[misc]
            assert node.ingest.sources["mqtt:polite"].mark.gone
            assert not node.ingest.sources["mqtt:rude"].mark.gone

    run(test)


@pytest.mark.parametrize(
    ("data", "answer"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", b""),
        (b"\x16\x03\x01\x02\x00\x01", b""),
        (publish(), b""),
        (packets.encode_connect(Connect(3, "c1")), b"\x20\x02\x00\x01"),
        (connect("", clean=False), b"\x20\x02\x00\x02"),
        (connect() + b"\x30\xff\xff\xff\x7f", ACCEPTED),
    ],
)
def test_garbage_closes_its_own_connection_only(
    tmp_path: Path, data: bytes, answer: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        async with node_at(tmp_path) as node:
            good = await Client.open(node)
            await good.say(connect("good"), ACCEPTED)
            bad = await Client.open(node)
            await bad.say(data, answer)
            await bad.closed()
            await good.say(publish(), puback(1))
            await good.close()

    run(test)
    assert not [record for record in caplog.records if record.exc_info]


def test_what_was_whole_before_an_error_is_stored(tmp_path: Path) -> None:
    async def test() -> None:
        async with node_at(tmp_path) as node:
            client = await Client.open(node)
            await client.say(connect() + publish() + b"\x00\x00", ACCEPTED)
            await client.closed()
            await eventually(lambda: len(node.readings()) == 1)
            assert "packet type 0 is reserved" in source(node)["last_error"]

    run(test)


def test_subscribers_are_refused_politely_and_named(tmp_path: Path) -> None:
    async def test() -> None:
        async with node_at(tmp_path) as node:
            client = await Client.open(node)
            subscribe = packets.encode_packet(packets.PacketType.SUBSCRIBE, 2, b"\0\5\0\1#\0")
            await client.say(connect() + subscribe, ACCEPTED + b"\x90\x03\x00\x05\x80")
            await client.say(publish(), puback(1))
            assert "subscribes to “#”" in source(node)["problem"]
            await client.close()

    run(test)


def test_an_anonymous_client_gets_a_name(tmp_path: Path) -> None:
    async def test() -> None:
        async with node_at(tmp_path) as node:
            clients = [await Client.open(node) for _ in range(2)]
            for client in clients:
                await client.say(connect("", clean=True) + publish(), ACCEPTED + puback(1))
            [anonymous] = node.ingest.status()["sources"]
            assert (anonymous["id"], anonymous["readings"]) == ("mqtt:anonymous", 2)
            for client in clients:
                await client.close()

    run(test)


def test_connections_beyond_the_limit_are_closed(tmp_path: Path) -> None:
    async def test() -> None:
        async with node_at(tmp_path, connections_max=1) as node:
            first = await Client.open(node)
            await first.say(connect(), ACCEPTED)
            second = await Client.open(node)
            await second.closed()
            await first.say(publish(), puback(1))
            await first.close()
            await eventually(lambda: node.ingest.status()["connections"] == 0)
            third = await Client.open(node)
            await third.say(connect(), RESUMED)
            await third.close()

    run(test)


def test_time_limits(tmp_path: Path) -> None:
    async def test() -> None:
        async with node_at(tmp_path, connect_timeout_ms=1_000) as node:
            silent = await Client.open(node)
            keeps = await Client.open(node)
            await keeps.say(connect(keep_alive_s=1), ACCEPTED)
            await silent.closed()
            await keeps.closed()
            assert not source(node)["connected"]

    run(test)


def test_reads_pause_while_too_much_is_unacknowledged(tmp_path: Path) -> None:
    async def test() -> None:
        async with node_at(tmp_path, flusher=False, inflight_max=2) as node:
            client = await Client.open(node)
            await client.say(connect(), ACCEPTED)
            node.store.flush_now()
            client.writer.write(b"".join(publish(packet_id=number) for number in range(1, 5)))
            await eventually(lambda: node.ingest.readings.log_end_offset == 4)
            client.writer.write(publish(packet_id=5))
            await client.writer.drain()
            [connection] = node.listener._connections
            assert connection._transport is not None
            assert not connection._transport.is_reading()
            node.store.flush_now()
            await client.say(b"", b"".join(puback(number) for number in range(1, 5)))
            await eventually(lambda: node.ingest.readings.log_end_offset == 5)
            node.store.flush_now()
            await client.say(b"", puback(5))
            await client.close()

    run(test)


def test_a_session_is_promised_only_when_it_is_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = threading.Event()
    prepare = SessionRegistry.prepare_sync

    def slow_disk(registry: SessionRegistry) -> Callable[[], None]:
        sync = prepare(registry)

        def slow() -> None:
            assert synced.wait(5)
            sync()

        return slow

    async def test() -> None:
        async with node_at(tmp_path) as node:
            monkeypatch.setattr(SessionRegistry, "prepare_sync", slow_disk)
            waits = await Client.open(node)
            waits.writer.write(connect() + publish())
            other = await Client.open(node)  # a clean session needs no promise
            await other.say(connect("other", clean=True) + publish(), ACCEPTED + puback(1))
            [connection] = [each for each in node.listener._connections if each.client_id == "c1"]
            assert connection._source is None
            synced.set()
            await waits.say(b"", ACCEPTED + puback(1))
            await waits.close()
            await other.close()

    run(test)


def test_many_new_sessions_cost_few_syncs(tmp_path: Path) -> None:
    async def test() -> None:
        async with node_at(tmp_path) as node:
            clients = [await Client.open(node) for _ in range(50)]
            await asyncio.gather(*[client.say(connect(f"c{n}"), ACCEPTED) for n, client in enumerate(clients)])
            assert node.ingest.status()["sessions"] == 50
            for client in clients:
                await client.close()

    run(test)


def test_a_port_in_use_names_its_holder_and_the_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headwater.net.port_holder", lambda port: f"broker at {port} (pid 7)")

    async def test() -> None:
        async with node_at(tmp_path) as node:
            with pytest.raises(UserError, match=r"held by broker at \d+ \(pid 7\)") as caught:
                await serve_mqtt(node.ingest, RealNet(), MqttSettings(listen=f"127.0.0.1:{node.port}"))
            assert "[mqtt]" in str(caught.value)

    run(test)
