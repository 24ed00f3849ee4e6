"""Drives long work beside everything else: slices of about a millisecond, and a thread for what blocks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Generator
from typing import TypeVar

from gateway.log.steps import Step

T = TypeVar("T")
SLICE_S = 0.001


async def drive(steps: Generator[Step, None, T]) -> T:
    """Do all of it. When cancelled, what blocks is waited for: nothing of it may still run when the log is closed."""
    error: Exception | None = None
    until = time.perf_counter() + SLICE_S
    try:
        while True:
            try:
                step = next(steps) if error is None else steps.throw(error)
            except StopIteration as end:
                result: T = end.value
                return result
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
