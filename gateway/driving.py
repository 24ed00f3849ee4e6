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
                try:
                    await off_the_loop(step)
                except Exception as raised:
                    error = raised
                until = time.perf_counter() + SLICE_S
            elif time.perf_counter() >= until:
                await asyncio.sleep(0)
                until = time.perf_counter() + SLICE_S
    finally:
        steps.close()


async def off_the_loop(call: Callable[[], None]) -> None:
    """Made in a thread; raises what it raises. When cancelled, even twice, its end is waited for."""
    future = asyncio.get_running_loop().run_in_executor(None, call)
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError as error:
            cancelled = error
    found = future.exception()
    if cancelled is not None:
        raise cancelled
    if found is not None:
        raise found
