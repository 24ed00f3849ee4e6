"""Drives the upkeep of the logs beside everything else: slices of about a millisecond, and a thread for what blocks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from gateway.log.steps import Steps
from gateway.log.upkeep import Upkeep
from headwater.app.status import VERSION_DATE_MS, clock_trusted
from headwater.clock import Clock

EVERY_S = 1.0
SLICE_S = 0.001


def trusts(clock: Clock) -> bool:
    """Whether ages may be told by the wall clock: the kernel must say that it is synchronised."""
    return clock_trusted() is True and clock.wall_ms() >= VERSION_DATE_MS


async def run_upkeep(upkeep: Upkeep) -> None:
    """A turn about once a second, until cancelled."""
    while True:
        await drive(upkeep.turn())
        await asyncio.sleep(EVERY_S)


async def drive(steps: Steps) -> None:
    """Do all of it. When cancelled, what blocks is waited for: nothing of it may still run when the log is closed."""
    error: Exception | None = None
    until = time.perf_counter() + SLICE_S
    try:
        while True:
            try:
                step = next(steps) if error is None else steps.throw(error)
            except StopIteration:
                return
            error = None
            if step is not None:
                error = await _off_the_loop(step)
                until = time.perf_counter() + SLICE_S
            elif time.perf_counter() >= until:
                await asyncio.sleep(0)
                until = time.perf_counter() + SLICE_S
    finally:
        steps.close()


async def _off_the_loop(step: Callable[[], None]) -> Exception | None:
    """What the call raises is returned."""
    call = asyncio.get_running_loop().run_in_executor(None, step)
    try:
        await asyncio.wait([call])
    except asyncio.CancelledError:
        await asyncio.wait([call])
        raise
    found = call.exception()
    if found is not None and not isinstance(found, Exception):
        raise found
    return found
