"""The uplink's driver over real sockets, against the product's own broker in the same loop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from gateway.log.records import NO_HEADERS, decode_batch, decode_headers, encode_batch
from gateway.replicate import driver
from gateway.replicate.actions import Event
from gateway.replicate.settings import UplinkSettings
from headwater.errors import UserError
from tests.support.ports import reserved_port
from tests.support.uplink_node import CentralNode, EdgeNode

Story = Callable[[EdgeNode, CentralNode], Awaitable[None]]


def play(
    tmp_path: Path, story: Story, *, up: bool = True, kafka: dict[str, object] | None = None, **uplink: object
) -> None:
    async def run(port: int) -> None:
        central = CentralNode(tmp_path, port, **(kafka or {}))
        if up:
            await central.start()
        edge = EdgeNode(tmp_path, f"127.0.0.1:{central.port}", **({"linger_ms": 0} | uplink))
        try:
            await story(edge, central)
        finally:
            await edge.stop()
            central.stop()

    with reserved_port() as port:
        asyncio.run(run(port))


def test_what_is_logged_arrives_and_the_status_says_so(tmp_path: Path) -> None:
    async def story(edge: EdgeNode, central: CentralNode) -> None:
        for _ in range(20):
            edge.ingest(50)
            await asyncio.sleep(0)
        await edge.drained()
        assert central.numbers() == list(range(1_000))
        status = edge.uplink.status()
        assert status["state"] == "up"
        assert status["records"] == 1_000
        assert (status["backlog_records"], status["backlog_bytes"], status["error"]) == (0, 0, "")
        assert abs(edge.clock.wall_ms() - status["last_success_ms"]) < 30_000
        assert edge.events[0] == "link-up"

    play(tmp_path, story)


def test_a_central_that_comes_late_and_goes_and_comes_again(tmp_path: Path) -> None:
    async def story(edge: EdgeNode, central: CentralNode) -> None:
        edge.ingest(10)
        await edge.until(lambda: edge.uplink.status()["state"] == "down")
        assert edge.uplink.status()["last_success_ms"] is None
        await edge.until(lambda: edge.uplink.status()["backlog_records"] == 10)  # once the disk has them
        await central.start()
        await edge.drained()
        central.stop()
        edge.ingest(10)
        await edge.until(lambda: edge.uplink.status()["state"] == "down")
        await central.start()
        await edge.drained()
        assert central.numbers() == list(range(20))
        assert edge.events == ["link-down", "link-up", "link-down", "link-up"]

    play(tmp_path, story, up=False, backoff_max_ms=50)


def test_lost_answers_and_restarts_of_the_edge(tmp_path: Path) -> None:
    async def story(edge: EdgeNode, central: CentralNode) -> None:
        for number in range(1, 60):
            edge.ingest(5)
            edge.net.fault = lambda answers: edge.random.random() < 0.1
            await asyncio.sleep(0.002)
            if number % 20 == 0:
                await edge.stop()
                edge.start()
        edge.net.fault = lambda answers: False
        await edge.drained()
        assert edge.net.faults > 0
        assert central.numbers() == list(range(295))

    play(tmp_path, story, backoff_max_ms=20)


def test_a_record_that_the_central_refuses_becomes_a_dead_letter(tmp_path: Path) -> None:
    async def story(edge: EdgeNode, central: CentralNode) -> None:
        edge.ingest(3)
        large = b'{"n":-1,"x":"%s"}' % (b"x" * 30_000)
        edge.log.append(encode_batch([(1, b"edge-1/pump", large, NO_HEADERS)]), now_ms=1)
        edge.ingest(3)
        await edge.drained()
        assert central.numbers() == list(range(6))
        (log,) = edge.store.topics["deadletter"].partitions
        columns = decode_batch(log.read(0, 1 << 20).data)
        assert columns.values == [large]
        assert columns.keys == [b"edge-1/uplink"]
        headers = dict(decode_headers(columns.headers[0]))
        assert headers["reason"] == b"refused: MESSAGE_TOO_LARGE"
        assert headers["source"] == b"edge-1/0/0/3"
        await edge.until(lambda: edge.uplink.status()["gone"] == 2)  # its dead letter is as large: it stays here
        assert edge.uplink.status()["refused"] == 2
        assert log.log_end_offset == 1

    play(tmp_path, story, kafka={"batch_bytes_max": 20_000}, compression="none")


def test_stopped_until_the_operator_chose(tmp_path: Path) -> None:
    async def story(edge: EdgeNode, central: CentralNode) -> None:
        edge.ingest(5)
        await edge.drained()
        await edge.stop()
        central.store.delete_topic("headwater.progress")
        edge.start()
        await edge.until(lambda: edge.uplink.status()["state"] == "stopped")
        assert "progress lost" in edge.uplink.status()["error"]
        edge.ingest(5)
        edge.uplink.choose("accept")
        await edge.drained()
        assert central.numbers() == list(range(10))

    play(tmp_path, story)


def test_a_defect_is_logged_and_replication_begins_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(driver, "FAILED_PAUSE_S", 0.01)

    async def story(edge: EdgeNode, central: CentralNode) -> None:
        edge.ingest(5)
        await edge.drained()
        core, before = edge.uplink._core, edge.uplink.status()["transactions"]

        def broken(event: Event, now: float, wall_ms: int) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr(core, "handle", broken)
        edge.ingest(5)
        await edge.drained()
        assert central.numbers() == list(range(10))
        assert edge.uplink.status()["transactions"] == before + 1
        assert "begins again" in caplog.text

    play(tmp_path, story)


def test_no_address_is_a_users_error() -> None:
    with pytest.raises(UserError, match="bootstrap_servers is empty"):
        UplinkSettings(bootstrap_servers=" , ").addresses()
    assert UplinkSettings(bootstrap_servers="a:1, b").addresses() == [("a", 1), ("b", 9092)]


def test_a_topic_that_was_left_out_for_a_while_is_not_sent_again(tmp_path: Path) -> None:
    """The journal enters every topic's end at every start, replicated at that time or not."""

    async def story(edge: EdgeNode, central: CentralNode) -> None:
        edge.ingest(10)
        await edge.drained()
        with_readings = edge.settings
        edge.settings = UplinkSettings(bootstrap_servers=with_readings.bootstrap_servers, topics=("events",))
        for settings in (edge.settings, with_readings):
            await edge.stop()
            edge.settings = settings
            edge.start()
            topic = edge.store.topics.get("events") or edge.store.create_topic("events")
            topic.partitions[0].append(encode_batch([(1, b"edge-1", b'{"n":0}', NO_HEADERS)]), now_ms=1)
            await edge.until(lambda: edge.uplink.status()["records"] == 1)
        edge.ingest(5)
        await edge.drained()
        assert central.numbers() == list(range(15))

    play(tmp_path, story)


def test_a_central_that_is_silent_is_named_so(tmp_path: Path) -> None:
    async def test(port: int) -> None:
        edge = EdgeNode(tmp_path, f"127.0.0.1:{port}", linger_ms=0, request_timeout_ms=100)
        try:
            edge.ingest(1)
            await edge.until(lambda: bool(edge.uplink.status()["error"]))
            assert edge.uplink.status()["error"] == "no answer within 0.1 s"
        finally:
            await edge.stop()

    with socket.create_server(("127.0.0.1", 0)) as silent:  # the kernel accepts, and nobody reads
        asyncio.run(test(silent.getsockname()[1]))
