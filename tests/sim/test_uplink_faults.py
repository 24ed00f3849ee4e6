"""The replicator against an imaginary central, a network that fails and an edge that dies: exactly once, in order.

A failure names its seed: `pytest tests/sim/test_uplink_faults.py -k "seed-17"`. More seeds: HEADWATER_SEEDS=5000.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from copy import deepcopy

import pytest

from gateway.replicate.actions import Failed, Send, Stop, Wait
from gateway.wire.schema import ApiKey
from tests.support.uplink_world import World

SEEDS = int(os.environ.get("HEADWATER_SEEDS", "60"))
FAULTS = (0.02, 0.1, 0.3)


@pytest.mark.parametrize("seed", range(SEEDS), ids=lambda seed: f"seed-{seed}")
def test_exactly_once_through_any_faults(seed: int) -> None:
    world = World(seed, faults=FAULTS[seed % 3])
    world.central.concurrent = seed % 4
    world.central.graceful = seed % 2 == 1
    random = world.random
    for _ in range(150):
        chance = random.random()
        if chance < 0.15:
            world.ingest(random.randint(1, 40))
        elif chance < 0.20:
            world.ingest(random.randint(1, 5), "events")
        elif chance < 0.25:
            world.ingest_aborted(random.randint(1, 5))
        elif chance < 0.40:
            world.sync()
        elif chance < 0.43:
            world.kill()
        world.step()
    world.settle()
    world.check()


def story() -> Iterator[World]:
    """A run without faults; yields before each step."""
    world = World(5)
    world.central.concurrent = 1
    for _ in range(2):
        world.ingest(20)
        world.ingest(2, "events")
        world.sync()
        for _ in range(12):
            yield world
            world.step()
    yield world


STEPS = sum(1 for _ in story())


@pytest.mark.parametrize("executed", [False, True], ids=["before", "after"])
def test_the_edge_dies_at_each_step(*, executed: bool) -> None:
    """Power off at every step; the request that was under way is lost, or done without an answer."""
    for number in range(STEPS):
        for step, world in enumerate(story()):
            if step == number:
                if executed and isinstance(world.action, Send):
                    for request in world.action.requests:
                        world.central.handle(request.api, request.body, world.now)
                world.kill()
                world.ingest(5)
                world.settle()
                world.check()
                break


@pytest.mark.parametrize("answer", ["lost before", "lost after", "much later"])
def test_each_answer_is_lost_once(answer: str) -> None:
    """At every request of a run in turn: it never arrives, or is done unanswered, or is done long after."""
    for number in range(STEPS):
        for step, world in enumerate(story()):
            if step == number and isinstance(world.action, Send):
                request = world.action.requests[0]
                if answer == "lost after":
                    world.central.handle(request.api, request.body, world.now)
                if answer == "much later":
                    world.late.append((world.now + 12_000, (request.api, request.body)))
                world.action = world.core.handle(Failed("lost", timed_out=True), world.now + 3_000, 0)
                world.now += 3_000
                world.settle()
                world.check()
                break


def test_a_transaction_that_times_out_at_the_central_is_seen_as_that(caplog: pytest.LogCaptureFixture) -> None:
    """A hole after the data was sent: the central aborts and fences; the uplink says so and goes on."""
    world = World(3)
    world.ingest(50)
    world.sync()
    while not (isinstance(world.action, Send) and world.action.requests[0].api is ApiKey.END_TXN):
        world.step()
    world.faults = 1.0
    world.kinds = ["lost"]
    until = world.now + 15_000
    with caplog.at_level("INFO"):
        while world.now < until:
            world.step()
        world.settle()
    world.check()
    assert world.central.timeouts == 1
    assert world.core.link.fenced == 1
    assert world.core.link.aborted == 1
    lines = [record.getMessage() for record in caplog.records]
    assert sum("transaction aborted" in line for line in lines) == 1
    assert sum("fenced by time-out" in line for line in lines) == 1
    assert sum("link down" in line for line in lines) == 1
    assert sum("link up" in line for line in lines) == 1
    assert len(lines) < 10


@pytest.mark.parametrize("hole_ms", [2_000, 7_300, 15_000, 15_900, 17_250, 120_000])
def test_the_drain_begins_within_five_seconds_of_a_holes_end(hole_ms: int) -> None:
    world = World(8)
    world.ingest(50)
    world.sync()
    world.settle()
    world.faults, world.kinds = 1.0, ["lost"]
    world.ingest(50)
    world.sync()
    end = world.now + hole_ms
    while world.now < end:
        world.step()
    world.faults = 0.0  # what was under way when the hole ended is lost still
    before = world.core.link.transactions
    while world.core.link.transactions == before:
        world.step()
    assert world.now - end <= 5_000
    world.check()


def test_a_twin_stops_and_the_other_goes_on() -> None:
    """Two nodes of one name and one card: the one that finds the other's record stops and re-initialises no more."""
    world = World(11)
    world.ingest(30)
    world.sync()
    world.settle()
    twin = World(12, central=world.central)
    twin.disk, twin.logs = deepcopy(world.disk), deepcopy(world.logs)  # a copy of the card, at this moment
    twin.start()
    twin.logs["readings/0"].add([(1, b"k", b"twin", b"\x00")])
    twin.logs["readings/0"].sync()
    while twin.core.link.transactions == 0:
        twin.step()
    world.logs["readings/0"].add([(1, b"k", b"mine", b"\x00")])
    world.logs["readings/0"].sync()
    while not isinstance(world.action, Stop):
        world.step()
    assert "twin" in world.action.reason
    assert world.core.link.state == "stopped"
    assert isinstance(twin.action, Wait)
