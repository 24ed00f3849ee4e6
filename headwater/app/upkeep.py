"""Drives the upkeep of the logs beside everything else."""

from __future__ import annotations

import asyncio

from gateway.driving import drive
from gateway.log.upkeep import Upkeep
from headwater.app.status import VERSION_DATE_MS, clock_trusted
from headwater.clock import Clock

EVERY_S = 1.0


def trusts(clock: Clock) -> bool:
    """Whether ages may be told by the wall clock: the kernel must say that it is synchronised."""
    return clock_trusted() is True and clock.wall_ms() >= VERSION_DATE_MS


async def run_upkeep(upkeep: Upkeep) -> None:
    """A turn about once a second, until cancelled."""
    while True:
        await drive(upkeep.turn())
        await asyncio.sleep(EVERY_S)
