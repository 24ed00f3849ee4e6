"""A decoder's own process: what hangs, dies or eats memory there is named, and the next message finds a new one."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import msgspec
import pytest

from devices.profile_files import read_profiles
from devices.reading import Reading
from devices.user_settings import DecoderSettings
from gateway.ingest.outcome import Outcome
from headwater.app.decoder_process import Answer, DecoderBroken, DecoderDied, DecoderProcess, Item
from headwater.app.decoder_rows import parts_of
from headwater.app.decoders import Pause

_T = TypeVar("_T")
CODE = """\
import os
print("loaded")

def spin():
    while True:
        pass

def decode(message):
    match message.payload:
        case b"loop":
            spin()
        case b"die":
            os._exit(7)
        case b"memory":
            "x" * (1 << 30)
        case b"much":
            return [{str(n): "y" * 1000 for n in range(1000)} for _ in range(10)]
    return {"n": message.payload[0]}
"""
# A busy machine takes its time over anything; only what never ends is to be killed soon.
LIMITS = msgspec.convert({"time_max_ms": 30_000, "memory_max_bytes": 512 << 20}, DecoderSettings)
HURRIED = msgspec.structs.replace(LIMITS, time_max_ms=400)


def item(payload: bytes) -> Item:
    return "own/d1", payload, 1_700_000_000_000, "mqtt:a", ""


def with_process(
    folder: Path, code: str, work: Callable[[DecoderProcess], Awaitable[_T]], limits: DecoderSettings = LIMITS
) -> _T:
    (folder / "own.py").write_text(code)
    (folder / "own.toml").write_text('name = "own"\ndecoder = "./own.py:decode"\ntopics = ["own/{device}"]\n')
    [profile] = read_profiles([str(folder / "own.toml")])

    async def run() -> _T:
        process = DecoderProcess(profile, limits)
        try:
            return await work(process)
        finally:
            await process.kill()

    return asyncio.run(run())


def test_what_hangs_is_named_and_killed(tmp_path: Path) -> None:
    async def work(process: DecoderProcess) -> str:
        with pytest.raises(DecoderDied) as died:
            await process.decode([item(b"loop")])
        return died.value.what

    hung = with_process(tmp_path, CODE, work, HURRIED)
    assert re.fullmatch(r"own\.py, line [56]: still at it after 0\.4 s, so it was killed", hung)


def test_what_dies_or_wants_too_much_is_named_and_the_next_message_is_decoded(tmp_path: Path) -> None:
    async def work(process: DecoderProcess) -> list[str]:
        with pytest.raises(DecoderDied) as died:
            await process.decode([item(b"a"), item(b"die")])
        told = [died.value.what]
        answers = await process.decode([item(b"a"), item(b"memory"), item(b"b")])
        assert [answer.readings for answer in answers] == [
            [Reading("d1", {"n": 97})],
            [],
            [Reading("d1", {"n": 98})],
        ]
        with pytest.raises(DecoderDied) as died:
            await process.decode([item(b"much")])
        return [*told, answers[1].reason, died.value.what]

    dead, memory, much = with_process(tmp_path, CODE, work)
    assert dead == "the decoder's process ended itself with status 7"
    assert memory == "own.py, line 15: MemoryError"
    assert "bytes of readings, 8388608 is the most" in much


def test_what_a_decoder_has_started_holds_nobody_up(tmp_path: Path) -> None:
    """A child of its own, out of its group, has its stderr open when it is killed or dies."""
    code = """\
import os
import subprocess

def decode(message):
    subprocess.Popen(["sleep", "8"], start_new_session=message.payload.startswith(b"away"))
    if message.payload.endswith(b"die"):
        os._exit(7)
    while True:
        pass
"""

    async def work(process: DecoderProcess) -> list[str]:
        told = []
        for payload in (b"away", b"away and die"):
            async with asyncio.timeout(5):
                with pytest.raises(DecoderDied) as died:
                    await process.decode([item(payload)])
            told.append(died.value.what)
        return told

    told = with_process(tmp_path, code, work, HURRIED)
    assert "so it was killed" in told[0]
    assert told[1] == "the decoder's process ended itself with status 7"


def test_a_file_that_cannot_be_loaded_blames_no_message(tmp_path: Path) -> None:
    async def work(process: DecoderProcess) -> str:
        with pytest.raises(DecoderBroken) as broken:
            await process.decode([item(b"a")])
        return broken.value.what

    assert "own.py, line 2: KeyError: 1" in with_process(tmp_path, "\n{}[1]\n", work)


GOOD, BAD = Answer([], "", failed=False), Answer([], "own.py, line 3: ValueError", failed=True)


def test_a_decoder_is_paused_after_failures_in_a_row_and_no_sooner() -> None:
    pause = Pause(msgspec.convert({"failures_max": 6, "pause_min_ms": 10, "pause_max_ms": 30}, DecoderSettings))
    assert all(pause.goes_on(answer, killed=False) for answer in [*[BAD] * 5, GOOD, *[BAD] * 5])
    assert not pause.goes_on(BAD, killed=False)
    assert pause.reason == BAD.reason
    assert [pause.next_wait_ms() for _ in range(4)] == [10, 20, 30, 30]
    assert not pause.goes_on(BAD, killed=False)  # the try that was to tell
    assert pause.goes_on(GOOD, killed=False)
    assert (pause.reason, pause.next_wait_ms()) == ("", 10)
    assert pause.goes_on(BAD, killed=True)
    assert not pause.goes_on(BAD, killed=True)


def test_what_goes_to_the_core_at_once_is_bounded() -> None:
    def outcome(offset: int, readings: int) -> Outcome:
        return Outcome(offset, "mqtt:a", 0, "t", [Reading("d", {"n": 1})] * readings)

    outcomes = [outcome(at, count) for at, count in enumerate([200, 200, 200, 5000, 0, 500, 1])]
    assert [[one.offset for one in part] for part in parts_of(outcomes)] == [[0, 1], [2], [3], [4, 5], [6]]
