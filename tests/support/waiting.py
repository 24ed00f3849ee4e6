"""Waiting for what is done elsewhere: behind a socket, in another process, by the kernel.

Nothing sleeps for luck: a condition is asked for again and again, and only a test that fails waits to the limit.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

_Found = TypeVar("_Found")


def until(
    condition: Callable[[], _Found | None], what: str | Callable[[], str] = "in vain", *, within_s: float = 40.0
) -> _Found:
    """The first true answer; after `within_s` a failure that says `what` was waited for."""
    deadline = time.monotonic() + within_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited {within_s:g} s: {what if isinstance(what, str) else what()}"
        time.sleep(0.02)
    return found


async def eventually(condition: Callable[[], object], *, within_s: float = 10.0) -> None:
    """As `until`, beside others in a loop."""
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.002)
