"""The uplink between the product's own log and its own broker, both dying at any time: exactly once, in order.

The network is the imaginary one of `uplink_world`; the oracle reads the central's log by transaction markers alone.
"""

from __future__ import annotations

import os

import pytest

from tests.support.uplink_store_world import StoreWorld

SEEDS = int(os.environ.get("HEADWATER_SEEDS", "60")) // 6


@pytest.mark.parametrize("seed", range(SEEDS), ids=lambda seed: f"seed-{seed}")
def test_exactly_once_while_both_nodes_die(seed: int) -> None:
    world = StoreWorld(seed, faults=(0.02, 0.1, 0.3)[seed % 3])
    random = world.random
    for _ in range(120):
        chance = random.random()
        if chance < 0.15:
            world.ingest(random.randint(1, 40))
        elif chance < 0.20:
            world.ingest(random.randint(1, 5), "events")
        elif chance < 0.23:
            world.ingest_aborted(random.randint(1, 5))
        elif chance < 0.40:
            world.sync()
        elif chance < 0.43:
            world.kill()
        elif chance < 0.46:
            world.central.crash(random.choice([0, 0, 9, 200, 2_000]))
        world.step()
    world.settle()
    world.check()
