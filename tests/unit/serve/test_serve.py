"""The listener over real sockets: order, back-pressure, limits, hostile peers."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import subprocess
import sys
from contextlib import suppress
from functools import partial

import pytest

from gateway.serve import serve_kafka
from gateway.wire.framing import join_frame
from gateway.wire.schema import ApiKey
from gateway.wire.session import encode_request
from gateway.wire.settings import KafkaAclRule, KafkaSettings
from headwater.errors import UserError
from headwater.net import NodeLoop, RealNet
from tests.support.broker_world import visible
from tests.support.listener import fetch, produce, run, serving
from tests.support.waiting import eventually

VERSIONS = encode_request(ApiKey.API_VERSIONS, 0, 1, "t", {})


def test_pipelined_produces_are_answered_in_order_and_large_ones_survive_the_shared_buffer() -> None:
    async def scenario() -> None:
        async with serving() as node:
            node.store.create_topic("t")
            channels = [await node.channel() for _ in range(3)]
            values = [os.urandom(size) for size in (10, 300_000, 1, 700_000, 50)]
            answers = await asyncio.gather(
                *(channel.call(ApiKey.PRODUCE, produce(value)) for value in values for channel in channels)
            )
            assert all(a["responses"][0]["partition_responses"][0]["error_code"] == 0 for a in answers)
            found = await channels[0].call(ApiKey.FETCH, fetch())
            read = visible(found["responses"][0]["partitions"][0]["records"], [])
            assert sorted(read, key=lambda v: v or b"") == sorted(values * 3)
            for channel in channels:
                channel.close()
                channel.close()

    run(scenario)


def test_answers_wait_for_their_turn_behind_an_fsync() -> None:
    async def scenario() -> None:
        async with serving(auto=False) as node:
            node.store.create_topic("t")
            channel = await node.channel()
            first = asyncio.create_task(channel.call(ApiKey.PRODUCE, produce(b"a")))
            second = asyncio.create_task(channel.call(ApiKey.METADATA, {"topics": []}))
            log = node.store.partition("t", 0)
            assert log is not None
            await eventually(lambda: log.log_end_offset == 1)
            await eventually(lambda: node.listener.status()["requests"].get("metadata") == 1)
            assert not first.done()
            assert not second.done()
            node.store.flush_now()
            await asyncio.gather(first, second)
            channel.close()

    run(scenario)


def test_nothing_overtakes_a_waiting_fetch() -> None:
    async def scenario() -> None:
        async with serving(auto=False) as node:
            node.store.create_topic("t")
            channel, other = await node.channel(), await node.channel()
            poll = asyncio.create_task(channel.call(ApiKey.FETCH, fetch(max_wait_ms=10_000), timeout_ms=15_000))
            await eventually(lambda: node.listener.status()["requests"].get("fetch") == 1)
            behind = asyncio.create_task(channel.call(ApiKey.PRODUCE, produce(b"behind")))
            mine = asyncio.create_task(other.call(ApiKey.PRODUCE, produce(b"mine")))
            log = node.store.partition("t", 0)
            assert log is not None
            await eventually(lambda: log.log_end_offset == 1)
            node.store.flush_now()
            found = await poll
            assert visible(found["responses"][0]["partitions"][0]["records"], []) == [b"mine"]
            await eventually(lambda: log.log_end_offset == 2)
            node.store.flush_now()
            await asyncio.gather(mine, behind)
            channel.close()
            other.close()

    run(scenario)


def test_a_long_poll_ends_by_its_own_time() -> None:
    async def scenario() -> None:
        async with serving() as node:
            node.store.create_topic("t")
            channel = await node.channel()
            found = await channel.call(ApiKey.FETCH, fetch(max_wait_ms=30))
            assert bytes(found["responses"][0]["partitions"][0]["records"]) == b""
            channel.close()

    run(scenario)


@pytest.mark.parametrize(
    "hostile",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x7f\xff\xff\xff",
        b"\xff\xff\xff\xff",
        b"\x00\x00\x00\x00",
        join_frame([b"", struct.pack(">hhih", 999, 0, 1, -1)]),
        join_frame([b"", struct.pack(">hhih", 3, 1, 1, -1), b"\x7f\xff\xff\xff"]),
        encode_request(ApiKey.PRODUCE, 9, 1, "t", produce(b"x", acks=0)),
        (4 << 20).to_bytes(4, "big") + struct.pack(">hh", 3, 9),
    ],
)
def test_a_hostile_peer_is_closed_and_nobody_else(hostile: bytes) -> None:
    async def scenario() -> None:
        async with serving() as node:
            good = await node.channel()
            reader, writer = await node.raw()
            writer.write(VERSIONS + hostile)  # what came before the offence is still answered
            assert len(await reader.read()) > 50
            writer.close()
            assert node.listener.status()["connections_broken"] == 1
            assert (await good.call(ApiKey.METADATA, {"topics": []}))["controller_id"] == 1
            good.close()

    run(scenario)


def test_bytes_one_at_a_time() -> None:
    async def scenario() -> None:
        async with serving() as node:
            reader, writer = await node.raw()
            for byte in VERSIONS:
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(0)
            size = int.from_bytes(await reader.readexactly(4), "big")
            assert len(await reader.readexactly(size)) == size
            writer.close()

    run(scenario)


def test_connections_are_bounded() -> None:
    async def scenario() -> None:
        async with serving(connections_max=2) as node:
            kept = [await node.channel() for _ in range(2)]
            reader, _ = await node.raw()
            with suppress(ConnectionError):  # an abort may reach the client as an end or as a reset
                assert await reader.read() == b""
            assert node.listener.status()["connections_refused"] == 1
            kept[0].close()
            await eventually(lambda: node.listener.status()["connections"] == 1)
            kept.append(await node.channel())
            for channel in kept:
                channel.close()

    run(scenario)


def test_unfinished_requests_are_bounded_over_all_connections() -> None:
    async def scenario() -> None:
        async with serving(frame_bytes_max=1 << 20) as node:
            good = await node.channel()
            for _ in range(5):
                _, writer = await node.raw()
                writer.write(struct.pack(">ihh", 1 << 20, 0, 9) + bytes(800 << 10))
            await eventually(lambda: node.listener.status()["connections_broken"] == 3)
            await eventually(lambda: node.listener.status()["connections"] == 3)
            assert 0 < node.listener.status()["unread_bytes"] <= 2 << 20
            assert (await good.call(ApiKey.METADATA, {"topics": []}))["controller_id"] == 1
            good.close()

    run(scenario)


def test_an_idle_connection_is_closed_and_one_that_waits_is_not() -> None:
    async def scenario() -> None:
        async with serving(connection_idle_ms=50) as node:
            node.store.create_topic("t")
            idle, polling = await node.channel(), await node.channel()
            poll = asyncio.create_task(polling.call(ApiKey.FETCH, fetch(max_wait_ms=250)))
            await eventually(lambda: idle.closed)
            await poll
            polling.close()

    run(scenario)


def test_a_client_that_reads_nothing_is_not_read_from() -> None:
    async def scenario() -> None:
        async with serving() as node:
            node.store.create_topic("t")
            channel = await node.channel()
            for _ in range(4):
                await channel.call(ApiKey.PRODUCE, produce(os.urandom(1 << 20)))
            channel.close()
            _, writer = await node.raw()
            asked = encode_request(ApiKey.FETCH, 12, 1, "t", fetch())
            writer.write(asked * 500)  # 2 GB of answers, if they were all made
            await eventually(lambda: node.listener.status()["requests"].get("fetch", 0) >= 1)
            await asyncio.sleep(0.1)
            handled = node.listener.status()["requests"]["fetch"]
            assert handled < 10
            writer.transport.abort()
            await eventually(lambda: node.listener.status()["connections"] == 0)

    run(scenario)


def test_answers_that_nobody_reads_are_bounded_over_all_connections() -> None:
    async def scenario() -> None:
        async with serving(unsent_bytes_max=4 << 20) as node:
            node.store.create_topic("t")
            good = await node.channel()
            for _ in range(4):
                await good.call(ApiKey.PRODUCE, produce(os.urandom(1 << 20)))
            writers = []

            def fetched(times: int) -> bool:
                return bool(node.listener.status()["requests"].get("fetch", 0) >= times)

            for count in range(12):
                _, writer = await node.raw()
                writers.append(writer)
                writer.write(encode_request(ApiKey.FETCH, 12, 1, "t", fetch()) * 8)
                await eventually(partial(fetched, count + 1))
                assert node.listener.status()["unsent_bytes"] <= 4 << 20
            assert node.listener.status()["connections_broken"] > 0
            assert (await good.call(ApiKey.METADATA, {"topics": []}))["controller_id"] == 1
            good.close()
            for writer in writers:
                writer.transport.abort()
            await eventually(lambda: node.listener.status()["connections"] == 0)
            assert node.listener.status()["unsent_bytes"] == 0

    run(scenario)


HOLDER = "import socket; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); input()"


def test_a_taken_port_names_its_holder_and_the_next_step() -> None:
    async def scenario() -> None:
        async with serving() as node:
            taken = rf"127\.0\.0\.1:{port} is taken by .*pid {other.pid}"
            with pytest.raises(UserError, match=taken) as error:
                await serve_kafka(node.listener.broker, RealNet(), "127.0.0.1", port)
            assert "kafka.listen" in error.value.hint
            # off loopback only where a rule says what the nameless may do
            open_to_all = KafkaSettings(acl=(KafkaAclRule(principals=("ANONYMOUS",), allow=("read",)),))
            with pytest.raises(UserError, match="cannot listen on 203"):
                await serve_kafka(node.listener.broker, RealNet(), "203.0.113.1", 0, settings=open_to_all)
            # the first listener's deadlines still run
            node.store.create_topic("t")
            channel = await node.channel()
            await channel.call(ApiKey.FETCH, fetch(max_wait_ms=20))
            channel.close()

    command = [sys.executable, "-c", HOLDER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        port = int(other.stdout.readline())
        run(scenario)
        other.kill()


def test_what_is_advertised() -> None:
    async def scenario() -> None:
        async with serving(advertised="gateway.example:19092") as node:
            channel = await node.channel()
            (broker,) = (await channel.call(ApiKey.METADATA, {"topics": []}))["brokers"]
            assert (broker["host"], broker["port"]) == ("gateway.example", 19092)
            channel.close()

    run(scenario)


# the channel


def test_a_loop_knows_whether_a_turn_is_one_sockets() -> None:
    seen = []

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, NodeLoop)
        pairs = [socket.socketpair() for _ in range(2)]

        def readable(here: socket.socket) -> None:
            here.recv(10)
            seen.append(loop.one_alone())

        for _, here in pairs:
            loop.add_reader(here, readable, here)
        pairs[0][0].send(b"x")
        pairs[1][0].send(b"x")
        await eventually(lambda: len(seen) == 2)
        pairs[0][0].send(b"x")
        await eventually(lambda: len(seen) == 3)
        for there, here in pairs:
            loop.remove_reader(here)
            there.close()
            here.close()

    with asyncio.Runner(loop_factory=NodeLoop) as runner:
        runner.run(scenario())
    assert seen == [False, False, True]


def test_a_fault_of_ours_in_long_work_ends_the_connection_instead_of_leaving_its_client_to_wait(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        async with serving() as node:
            node.store.creating_topic = None  # type: ignore[assignment]  # what a defect there may look like
            channel, other = await node.channel(), await node.channel()
            topic = {"name": "t", "num_partitions": 1, "replication_factor": 1, "assignments": [], "configs": []}
            asked = {"topics": [topic], "timeout_ms": 60_000, "validate_only": False}
            with pytest.raises(OSError, match="closed"):
                await channel.call(ApiKey.CREATE_TOPICS, asked, timeout_ms=60_000)
            await other.call(ApiKey.METADATA, {"topics": []})
            other.close()

    run(scenario)
    assert "'NoneType' object is not callable" in caplog.text
