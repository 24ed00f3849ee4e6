"""The uplink against three real brokers, each record on all of them: brokers die, partitions change their leaders."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compat.test_uplink_kafka import check, consumed, play
from tests.support.peers import kafka_kit, kafka_tool
from tests.support.ports import neighbouring_ports
from tests.support.uplink_node import EdgeNode

pytestmark = [pytest.mark.peer("kafka"), pytest.mark.long("kafka-cluster"), pytest.mark.timeout(400)]


class Cluster:
    """Three brokers on neighbouring ports; number 1 to 3."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = neighbouring_ports(6)  # three brokers, and their controllers
        self.start()

    def start(self) -> None:
        """All that are down."""
        kafka_kit("start3", str(self.directory), str(self.port))

    def kill(self, number: int) -> None:
        kafka_kit("kill", str(self.directory / str(number)))

    def address(self, number: int) -> str:
        return f"127.0.0.1:{self.port + number - 1}"

    @property
    def bootstrap(self) -> str:
        return ",".join(self.address(number) for number in (1, 2, 3))

    def leader(self, topic: str, partition: int, ask: int) -> int:
        """The broker that leads a partition, as broker `ask` says."""
        kafka = pytest.importorskip("confluent_kafka.admin")
        admin = kafka.AdminClient({"bootstrap.servers": self.address(ask)})
        return int(admin.list_topics(topic, timeout=10).topics[topic].partitions[partition].leader)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = Cluster(tmp_path_factory.mktemp("cluster"))
    yield made
    for number in (1, 2, 3):
        if kafka_kit("status", str(made.directory / str(number))).strip() != "down":
            made.kill(number)


async def keep_sending(edge: EdgeNode, seconds: float) -> None:
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while loop.time() < end:
        edge.ingest(50)
        await asyncio.sleep(0.05)


def test_each_reading_once_while_leaders_are_killed(cluster: Cluster, tmp_path: Path) -> None:
    """The leader of the readings, then that of the progress records; each comes back before the next goes."""

    async def story(edge: EdgeNode) -> None:
        edge.ingest(100)
        await edge.drained(60)
        at = edge.uplink._core._search
        for topic in ("readings", "headwater.progress"):
            target, partition = f"k.{topic}", at.partition(topic)
            leader = await asyncio.to_thread(cluster.leader, target, partition, 1)
            sending = asyncio.create_task(keep_sending(edge, 12.0))
            await asyncio.sleep(2.0)
            await asyncio.to_thread(cluster.kill, leader)
            await sending
            await edge.drained(60)
            moved = await asyncio.to_thread(cluster.leader, target, partition, leader % 3 + 1)
            assert moved != leader  # goes on at another one, and this one is still down
            await asyncio.to_thread(cluster.start)
            await keep_sending(edge, 3.0)
            await edge.drained(60)

    edge = play(tmp_path, cluster.bootstrap, story, topic_prefix="k.", linger_ms=0)
    assert edge.uplink.status()["aborted"] >= 1
    check(cluster.bootstrap, "k.", edge.number)


def test_it_goes_on_when_the_only_broker_that_was_configured_is_gone(cluster: Cluster, tmp_path: Path) -> None:
    async def story(edge: EdgeNode) -> None:
        edge.ingest(100)
        await edge.drained(60)
        await asyncio.to_thread(cluster.kill, 2)
        edge.ingest(100)
        await edge.drained(90)
        await asyncio.to_thread(cluster.start)

    edge = play(tmp_path, cluster.address(2), story, topic_prefix="one.")
    check(cluster.bootstrap, "one.", edge.number)


def test_a_leader_that_moves_while_it_lives_is_followed(cluster: Cluster, tmp_path: Path) -> None:
    """A broker answers NOT_LEADER_OR_FOLLOWER: nothing is lost, and nothing else says so."""

    async def story(edge: EdgeNode) -> None:
        edge.ingest(100)
        await edge.drained(60)
        partition = edge.uplink._core._search.partition("readings")
        leader = await asyncio.to_thread(cluster.leader, "move.readings", partition, 1)
        other = leader % 3 + 1
        plan = edge_directory / "plan.json"
        replicas = [other, leader, other % 3 + 1]
        plan.write_text(
            f'{{"version":1,"partitions":[{{"topic":"move.readings","partition":{partition},"replicas":{replicas}}}]}}'
        )
        sending = asyncio.create_task(keep_sending(edge, 20.0))
        at = ("--bootstrap-server", cluster.address(1))
        reassign = "org.apache.kafka.tools.reassign.ReassignPartitionsCommand"
        await asyncio.to_thread(kafka_tool, reassign, *at, "--reassignment-json-file", str(plan), "--execute")
        elect = ("--election-type", "preferred", "--topic", "move.readings", "--partition", str(partition))
        await asyncio.to_thread(kafka_tool, "org.apache.kafka.tools.LeaderElectionCommand", *at, *elect)
        await sending
        await edge.drained(60)
        assert await asyncio.to_thread(cluster.leader, "move.readings", partition, 1) == other

    edge_directory = tmp_path
    edge = play(tmp_path, cluster.bootstrap, story, topic_prefix="move.", linger_ms=0)
    check(cluster.bootstrap, "move.", edge.number)


def test_a_throttled_producer_waits_as_long_as_it_is_told(
    cluster: Cluster, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A quota that stretches the drain over more than a request's time-out: no link goes down for it."""
    quota = ("--alter", "--add-config", "producer_byte_rate=20000", "--entity-type", "clients", "--entity-name")
    kafka_tool("configs", "--bootstrap-server", cluster.bootstrap, *quota, "headwater-edge-1")

    async def story(edge: EdgeNode) -> None:
        loop = asyncio.get_running_loop()
        edge.ingest(10)
        await edge.drained(60)
        began = loop.time()
        for _ in range(100):
            edge.ingest(100)
        await edge.drained(240)
        took.append(loop.time() - began)

    took: list[float] = []
    try:
        with caplog.at_level(logging.WARNING):
            edge = play(tmp_path, cluster.bootstrap, story, topic_prefix="slow.", request_timeout_ms=1_500,
                        compression="none", transaction_timeout_ms=60_000)  # fmt: skip
        assert took[0] > 3.0
        assert edge.uplink.status()["aborted"] == 0, caplog.text
        check(cluster.bootstrap, "slow.", edge.number)
    finally:
        kafka_tool("configs", "--bootstrap-server", cluster.bootstrap, "--alter", "--delete-config",
                   "producer_byte_rate", "--entity-type", "clients", "--entity-name", "headwater-edge-1")  # fmt: skip


def test_what_is_committed_is_on_all_three(cluster: Cluster) -> None:
    """The read-back above came from leaders; the other replicas say the same when they lead."""
    before = consumed(cluster.bootstrap, "k.readings")
    for number in (1, 2, 3):
        cluster.kill(number)
        try:
            assert consumed(cluster.address(number % 3 + 1), "k.readings") == before
        finally:
            cluster.start()
