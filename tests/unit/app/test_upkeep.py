from __future__ import annotations

import asyncio
import threading

import pytest

from gateway.driving import drive
from gateway.log.steps import Steps
from headwater.app.status import VERSION_DATE_MS
from headwater.app.upkeep import trusts
from headwater.clock import ManualClock


def test_the_loop_has_its_turn_and_what_blocks_is_done_in_another_thread() -> None:
    threads: list[int] = []
    ticks = 0

    def work() -> Steps:
        yield lambda: threads.append(threading.get_ident())
        threads.append(threading.get_ident())
        while ticks < 3:
            yield None

    async def run() -> None:
        nonlocal ticks

        async def tick() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0)

        ticking = asyncio.create_task(tick())
        await asyncio.wait_for(drive(work()), 10)
        ticking.cancel()

    asyncio.run(run())
    assert threads[0] != threads[1] == threading.get_ident()


def test_what_a_call_raises_is_the_works_to_deal_with() -> None:
    seen: list[str | None] = []

    def fail() -> None:
        raise OSError(28, "No space left on device")

    def work() -> Steps:
        try:
            yield fail
        except OSError as error:
            seen.append(error.strerror)
        yield fail

    with pytest.raises(OSError, match="No space"):
        asyncio.run(drive(work()))
    assert seen == ["No space left on device"]


def test_when_cancelled_the_call_that_blocks_is_waited_for_and_the_work_cleans_up() -> None:
    order: list[str] = []
    begun, go = threading.Event(), threading.Event()

    def block() -> None:
        begun.set()
        go.wait(10)
        order.append("call")

    def work() -> Steps:
        try:
            yield block
        finally:
            order.append("cleaned")

    async def run() -> None:
        task = asyncio.create_task(drive(work()))
        await asyncio.to_thread(begun.wait, 10)
        for _ in range(2):  # a second wish changes nothing
            task.cancel()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
    assert order == ["call", "cleaned"]


def test_a_clock_from_before_this_version_is_never_trusted() -> None:
    assert not trusts(ManualClock(wall_ms=VERSION_DATE_MS - 1))
