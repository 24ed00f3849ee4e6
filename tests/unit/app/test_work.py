"""The work process' page: a taken port is one line, and the page's address is told once it is served."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

import headwater.dashboard.page as page
from headwater.app import work as module
from headwater.app.work import Work
from headwater.errors import UserError
from headwater.settings.model import Settings
from headwater.settings.page import PageSettings


def test_a_taken_port_is_said_once_and_forgotten_when_it_is_free(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tries = 0

    async def run_page(*_: Any, **__: Any) -> None:
        nonlocal tries
        tries += 1
        if tries <= 3:
            raise UserError("the page cannot listen on 127.0.0.1:8080: held by x", hint="Choose another address.")
        await asyncio.Event().wait()

    monkeypatch.setattr(page, "run_page", run_page)
    monkeypatch.setattr(module, "PAGE_RETRY_S", 0)
    monkeypatch.setattr(module, "PAGE_UP_S", 0.01)

    async def test() -> list[dict[str, Any]]:
        work = Work(Settings(page=PageSettings()))
        seen = []
        task = asyncio.create_task(work._page(("127.0.0.1", 9092)))
        async with asyncio.timeout(10):
            while not work._about()["page"]:
                if work._problems:
                    seen = [work._about()]
                await asyncio.sleep(0)
        seen.append(work._about())
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return seen

    with caplog.at_level(logging.INFO):
        failing, served = asyncio.run(test())
    said = "the page cannot listen on 127.0.0.1:8080: held by x. Choose another address."
    assert [(record.name, record.getMessage()) for record in caplog.records] == [("headwater.work", said)]
    assert (failing["problems"], failing["page"]) == ([said], False)
    assert (served["problems"], served["page"]) == ([], True)


def test_it_beats_when_there_is_nothing_new(
    monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    monkeypatch.setattr(module, "STATUS_EVERY_S", 0)

    async def test() -> None:
        work = Work(Settings())
        task = asyncio.create_task(work._report())
        for problem in ("", "the sink is slow"):
            if problem:
                work._say("sink", problem)
            for _ in range(4):
                await asyncio.sleep(0)
        task.cancel()

    asyncio.run(test())
    first, *lines = capfdbinary.readouterr().out.splitlines()
    assert first.startswith(b'{"problems":[],')
    assert lines[:3] == [b"", b"", b""]
    assert lines[3].startswith(b'{"problems":["the sink is slow"],')
    assert lines[4:] == [b"", b"", b""]
