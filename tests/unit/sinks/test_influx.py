"""The driver through influxdb-client against a server that fails as told: nothing lost, revisions replace."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import pytest

from gateway.consume.reader import Block
from gateway.log.records import NO_HEADERS, Record, decode_headers
from headwater.clock import ManualClock, SystemClock
from headwater.disk import ForgetfulDisk
from processors.sinks.client import InfluxClient
from processors.sinks.influx import InfluxSink
from processors.sinks.settings import InfluxSettings
from tests.support.influx_server import Failure, InfluxServer
from tests.support.memory_log import MemoryNode, MemoryReader

TIMEOUT_S = 20.0


class SlowReader(MemoryReader):
    """Lets other tasks run while it waits, as a connection does."""

    read = 0

    async def poll(self, *, max_wait_ms: int = 500, max_bytes: int = 1 << 20) -> list[Block]:
        blocks = await super().poll()
        self.read += sum(len(block.offsets) for block in blocks)
        await asyncio.sleep(0 if blocks else 0.002)
        return blocks


class World:
    """A node's log in memory, a database, and the sink between them, which can be started again."""

    def __init__(self, server: InfluxServer, **settings: Any) -> None:
        self.server = server
        self.node = MemoryNode(ManualClock())
        self.node.records_per_poll = 40
        self.node.topics = {"readings": [[], []], "aggregates": [[]], "deadletter": [[]]}
        self.disk = ForgetfulDisk()
        fast = {"interval_ms": 20, "backoff_min_ms": 5, "backoff_max_ms": 20, "request_timeout_ms": 300}
        self.settings = InfluxSettings(**({"url": server.url, "bucket": "b", "org": "o"} | fast | settings))
        self.status: dict[str, Any] = {}
        self.problem = ""
        self.readers: list[SlowReader] = []

    def reading(self, number: int, *, partition: int = 0, **fields: Any) -> None:
        value = json.dumps(fields or {"power": number}).encode()
        record: Record = (number, f"edge/t-{partition}".encode(), value, NO_HEADERS)
        self.node.topics["readings"][partition].append(record)

    def result(self, start: int, revision: int, mean: float | None) -> None:
        value = {
            "rule": "r", "group": "edge/t", "start": start, "end": start + 10, "revision": revision, "complete": True,
            "cause": "late" if revision else "close", "count": 1 + revision, "fields": {"p": {"mean": mean}},
        }  # fmt: skip
        key = f"edge/t/r/{start}".encode()
        self.node.topics["aggregates"][0].append((start + 10, key, json.dumps(value).encode(), NO_HEADERS))

    def dead(self) -> list[dict[str, str]]:
        return [
            {name: (value or b"").decode() for name, value in decode_headers(record[3])}
            | {"value": (record[2] or b"").decode(), "by": (record[1] or b"").decode()}
            for record in self.node.topics["deadletter"][0]
        ]

    def run(self, until: Callable[[World], bool] | None = None) -> None:
        """Until everything is settled, or what is asked for."""

        async def connect() -> SlowReader:
            await self.node.connect()
            self.readers.append(SlowReader(self.node))
            return self.readers[-1]

        sink = InfluxSink(
            self.settings,
            node="n-1",
            connect=connect,
            client=lambda: InfluxClient(self.settings),
            clock=SystemClock(),
            data_dir="/data",
            disk=self.disk,
            random=Random(1),
        )

        async def main() -> None:
            running = asyncio.create_task(sink.run())
            async with asyncio.timeout(TIMEOUT_S):
                while not running.done():
                    self.status = sink.status()
                    self.problem = sink.problem()
                    if (until or World.settled)(self):
                        break
                    await asyncio.sleep(0.002)
            sink.stop()
            await running
            self.status = sink.status()

        asyncio.run(main())

    def settled(self) -> bool:
        ends = {f"{t}/{p}": len(log) for t in self.settings.topics for p, log in enumerate(self.node.topics[t])}
        return bool(self.status["positions"] == ends)

    def numbers(self) -> list[int]:
        return sorted(time for (series, time) in self.server.points if series.startswith("readings"))


@pytest.fixture
def server() -> Iterator[InfluxServer]:
    server = InfluxServer()
    yield server
    server.close()


def test_readings_and_results_arrive_in_batches(server: InfluxServer) -> None:
    world = World(server, token="t0ken", batch_lines=50)
    for number in range(200):
        world.reading(number, partition=number % 2)
    world.result(0, 0, 1.5)
    world.run()
    assert world.numbers() == list(range(200))
    assert server.points["aggregates,device=t,node=edge,rule=r", 0]["p_mean"] == "1.5"
    assert 4 <= len(server.requests) <= 12
    path, asked, sent = server.requests[0]
    assert path == "/api/v2/write"
    assert (asked["org"], asked["bucket"], asked["precision"]) == ("o", "b", "ms")
    assert asked["Authorization"] == "Token t0ken"
    assert asked["Content-Encoding"] == "gzip"
    assert len(sent) <= 50
    assert (world.status["points"], world.status["lag_records"], world.status["state"]) == (201, 0, "stopped")


def test_a_later_revision_replaces_the_point_in_one_batch_or_in_two(server: InfluxServer) -> None:
    world = World(server)
    for revision, mean in enumerate([1.0, 2.0, None]):
        world.result(0, revision, mean)
    world.result(10, 0, 7.0)
    world.run()
    assert world.status["superseded"] == 2
    world.result(10, 1, 8.0)
    world.run()
    assert len(server.points) == 2
    first, second = server.points.values()
    assert (first["revision"], first["nulls"]) == ("2i", '"p.mean"')
    assert (second["revision"], second["p_mean"], second["count"]) == ("1i", "8", "2i")


@pytest.mark.parametrize(
    "failures",
    [
        [Failure(503, "busy"), Failure(500), Failure(429, "slow down", "0")],
        [Failure(0), Failure(0)],
        [Failure(0, written=True), Failure(503, written=True)],
        [Failure(401, "unauthorized access"), Failure(404, "bucket not found")],
    ],
    ids=["busy", "hung up", "written, not said", "settings"],
)
def test_a_failure_loses_nothing_and_writes_nothing_twice(server: InfluxServer, failures: list[Failure]) -> None:
    world = World(server, batch_lines=30)
    for number in range(100):
        world.reading(number)
    server.failures.extend(failures)
    world.run()
    assert world.numbers() == list(range(100))
    assert world.status["retries"] == len(failures)
    assert (world.status["error"], world.dead()) == ("", [])


def test_retry_after_is_obeyed(server: InfluxServer) -> None:
    world = World(server)
    world.reading(1)
    server.failures.append(Failure(429, "slow down", "600"))
    failed_at = float("inf")

    def ten_pauses_later(world: World) -> bool:
        nonlocal failed_at
        if world.status["state"] == "retrying":
            failed_at = min(failed_at, time.monotonic())
        return time.monotonic() > failed_at + 10 * world.settings.backoff_max_ms / 1000

    world.run(ten_pauses_later)
    assert world.status["error"] == "429: slow down"
    assert len(server.requests) == 1
    assert world.status["positions"]["readings/0"] == 0


def test_a_server_that_does_not_answer_in_time_is_asked_again(server: InfluxServer) -> None:
    world = World(server, request_timeout_ms=60)
    world.reading(1)
    server.hold.clear()

    def answered(world: World) -> bool:
        if world.status["retries"] >= 2:
            server.hold.set()
        return world.settled()

    world.run(answered)
    assert world.numbers() == [1]


def test_a_server_that_is_not_there_holds_the_log_and_not_the_memory(server: InfluxServer) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        world = World(server, url=f"http://127.0.0.1:{taken.getsockname()[1]}", batch_lines=10, queue_batches=1)
        world.node.records_per_poll = 10
        for number in range(500):
            world.reading(number)
        world.run(lambda world: world.status["retries"] >= 3)
    assert world.status["positions"] == {"aggregates/0": 0, "readings/0": 0, "readings/1": 0}
    assert world.status["lag_records"] == 500
    assert sum(reader.read for reader in world.readers) <= 40  # being written, waiting, and what cannot be put away
    world.settings = InfluxSettings(url=server.url, bucket="b", interval_ms=20)
    world.run()
    assert world.numbers() == list(range(500))


def test_a_type_conflict_goes_to_the_dead_letters_and_holds_up_nothing(server: InfluxServer) -> None:
    server.types["readings", "power"] = "float"
    world = World(server)
    for number in range(50):
        world.reading(number)
    world.reading(50, power="off", wind=3.5)
    world.reading(51)
    world.run()
    assert world.numbers() == list(range(52))
    assert server.points["readings,device=t-0,node=edge", 50] == {"wind": "3.5"}
    (dead,) = world.dead()
    assert dead["reason"] == "field “power” of measurement “readings” is string here, but float in the database"
    assert (dead["by"], dead["source"], dead["decoder"]) == ("n-1/sink:influx", "sink:influx", "influx")
    assert (dead["record"], dead["key"], dead["value"]) == (
        "readings/0/50",
        "edge/t-0",
        '{"power": "off", "wind": 3.5}',
    )
    assert world.status["dead_letters"] == 1


def test_bad_lines_and_records_that_are_no_points_go_to_the_dead_letters(server: InfluxServer) -> None:
    server.poison = lambda line: "invalid number" if "power=13" in line else ""
    world = World(server)
    for number in range(20):
        world.reading(number)
    world.node.topics["readings"][1].append((1, b"edge/x", b"[1]", NO_HEADERS))
    world.run()
    assert world.numbers() == [number for number in range(20) if number != 13]
    assert sorted(dead["record"] for dead in world.dead()) == ["readings/0/13", "readings/1/0"]
    assert any("invalid number" in dead["reason"] for dead in world.dead())


def test_a_start_after_a_crash_goes_on_at_what_was_acknowledged(server: InfluxServer) -> None:
    world = World(server)
    for number in range(30):
        world.reading(number)
    world.run()
    before = len(server.requests)
    world.disk.power_cut()
    for number in range(30, 40):
        world.reading(number)
    world.run()
    again = [line for _, _, lines in server.requests[before:] for line in lines]
    assert len(again) == 10
    assert world.numbers() == list(range(40))


def test_a_broken_connection_to_the_node_at_any_call_loses_nothing(server: InfluxServer) -> None:
    for call in range(1, 24):
        server.points.clear()
        world = World(server, batch_lines=10)
        for number in range(60):
            world.reading(number, power=number if number != 33 else "text")
        server.types["readings", "power"] = "float"
        world.node.fail_at, world.node.error = call, ConnectionResetError("cut")
        world.run()
        assert world.numbers() == [number for number in range(60) if number != 33], call
        assert {dead["record"] for dead in world.dead()} == {"readings/0/33"}, call


def test_another_database_gets_everything_anew(server: InfluxServer) -> None:
    world = World(server)
    world.reading(1)
    world.run()
    world.settings = InfluxSettings(url=server.url, bucket="other", interval_ms=20)
    server.points.clear()
    world.run()
    assert world.numbers() == [1]


def test_from_now_on_leaves_out_the_past_but_not_what_comes_between_two_starts(server: InfluxServer) -> None:
    world = World(server, start="latest")
    world.reading(1)
    world.run()
    world.reading(2)
    world.node.topics["readings"].append([(3, b"edge/t", b'{"a":1}', NO_HEADERS)])
    world.run()
    assert world.numbers() == [2, 3]


def test_what_expired_unread_is_counted_and_passed_over(server: InfluxServer) -> None:
    world = World(server)
    for number in range(20):
        world.reading(number)
    world.run()
    for number in range(20, 60):
        world.reading(number)
    world.node.starts["readings", 0] = 50
    world.run()
    assert world.numbers() == [*range(20), *range(50, 60)]
    assert world.status["expired"] == 30


def test_a_wrong_address_that_answers_400_empties_nothing_into_the_dead_letters(server: InfluxServer) -> None:
    server.refuses_all = "<html>Bad Request</html>"
    world = World(server)
    for number in range(50):
        world.reading(number)
    world.run(lambda world: world.status["retries"] >= 2)
    assert world.dead() == []
    server.refuses_all = ""
    world.run()
    assert world.numbers() == list(range(50))
    assert world.dead() == []
