"""Serial ports over real pseudo-terminals: late, unplugged, garbled, silent, and a disk that fails."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path

import pytest

from gateway.ingest.serial import run_serial
from headwater.clock import SystemClock
from tests.support.serial_ports import AIR, WIND, Line, Taken, mast, run
from tests.support.waiting import eventually


def test_sentences_reach_the_pipeline_under_the_ports_name(link: Path) -> None:
    line = Line(link)

    async def story(taken: Taken) -> None:
        await eventually(lambda: taken.source.connected)
        line.say(WIND + b"\r\n" + AIR[:10])
        await eventually(lambda: taken.frames == [WIND])
        line.say(AIR[10:] + b"\r\n")
        await eventually(lambda: taken.frames == [WIND, AIR])

    taken = run(mast(link), story)
    assert taken.source.id == "serial:mast"
    assert taken.topics == {"mast"}
    assert taken.profile is not None
    assert taken.profile.name == "met-mast"
    assert not taken.source.connected
    line.unplug()


def test_a_port_that_does_not_exist_yet_is_waited_for(link: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def story(taken: Taken) -> None:
        await eventually(lambda: "does not exist; waiting" in taken.problem)
        assert str(link) in taken.problem
        await asyncio.sleep(0.1)  # many tries, one line
        line = Line(link)
        await eventually(lambda: taken.source.connected)
        assert taken.source.problem is None
        line.say(WIND + b"\n")
        await eventually(lambda: taken.frames == [WIND])

    with caplog.at_level(logging.INFO, logger="headwater.serial"):
        run(mast(link), story)
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "is open" in caplog.text


def test_an_unplugged_port_recovers_alone(link: Path) -> None:
    async def story(taken: Taken) -> None:
        line = Line(link)
        for turn in range(3):
            await eventually(lambda: taken.source.connected)
            line.say(WIND + b"\r\n$WIMW")
            await eventually(lambda count=turn + 1: len(taken.frames) == count)  # type: ignore[misc]
            line.unplug()
            await eventually(lambda: "unplugged" in taken.problem or "does not exist" in taken.problem)
            assert not taken.source.connected
            line = Line(link)
        await eventually(lambda: taken.source.connected)
        line.unplug()

    assert run(mast(link), story).frames == [WIND] * 3  # and nothing of the half sentences


def test_garbage_is_passed_on_for_the_dead_letters_and_the_next_sentence_is_read(link: Path) -> None:
    line = Line(link)

    async def story(taken: Taken) -> None:
        await eventually(lambda: taken.source.connected)
        line.say(WIND + b"\r\n")
        for _ in range(6):
            line.say(b"\xfe\x81\x00noise\r\n")
        await eventually(lambda: "garbled" in taken.problem)
        assert "9600" in taken.problem
        line.say(b"$WIMWV,23" + AIR + b"\r\n")
        await eventually(lambda: taken.frames[-1] == AIR)
        assert taken.source.problem is None

    taken = run(mast(link), story)
    assert taken.frames == [WIND, *[b"\xfe\x81\x00noise"] * 6, b"$WIMWV,23", AIR]
    line.unplug()


def test_a_line_without_end_costs_no_memory(link: Path) -> None:
    line = Line(link)

    async def story(taken: Taken) -> None:
        await eventually(lambda: taken.source.connected)
        line.say(b"\n")
        for _ in range(20):
            line.say(b"x" * 500)
            await asyncio.sleep(0)
        line.say(b"\n" + WIND + b"\n")
        await eventually(lambda: taken.frames[-1:] == [WIND])

    taken = run(mast(link, frame_bytes_max=82), story)
    assert taken.frames == [b"x" * 82, WIND]
    line.unplug()


def test_a_silent_port_is_opened_anew_and_named_until_it_speaks(link: Path) -> None:
    first = Line(link)

    async def story(taken: Taken) -> None:
        await eventually(lambda: "silent" in taken.problem)
        second = Line(link)  # what hung was the adapter: the same name leads to a fresh one
        await eventually(lambda: os.get_blocking(second.near) and taken.source.connected)
        while not taken.frames:
            second.say(WIND + b"\n")
            await asyncio.sleep(0.005)
        assert taken.source.problem is None
        second.unplug()

    run(mast(link, silent_ms=30), story)
    first.unplug()


def test_what_the_disk_would_not_take_is_taken_again(link: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.ingest.retake.RETAKE_MS", 5.0)
    line = Line(link)

    async def story(taken: Taken) -> None:
        await eventually(lambda: taken.source.connected)
        taken.disk_fails = 2
        line.say(WIND + b"\n")
        await eventually(lambda: taken.frames == [WIND])
        assert not taken.disk_fails

    run(mast(link), story)
    line.unplug()


def test_a_full_pipeline_stops_the_reading_until_there_is_room(link: Path) -> None:
    line = Line(link)

    async def story(taken: Taken) -> None:
        await eventually(lambda: taken.source.connected)
        taken.full = True
        line.say(WIND + b"\n")
        await eventually(lambda: bool(taken.room))
        line.say(AIR + b"\n")
        await asyncio.sleep(0.05)
        assert taken.frames == [WIND]
        taken.full = False
        taken.room.pop()()
        await eventually(lambda: taken.frames == [WIND, AIR])

    run(mast(link), story)
    line.unplug()


def test_a_port_that_another_program_holds_is_named(link: Path) -> None:
    line = Line(link)
    settings = mast(link)

    async def story(taken: Taken) -> None:
        await eventually(lambda: taken.source.connected)
        other = Taken()
        second = asyncio.create_task(run_serial(other, settings, SystemClock()))
        await eventually(lambda: "in use by another program" in other.problem)
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)

    run(settings, story)
    line.unplug()


def test_what_is_no_serial_port_is_named(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("no port")

    async def story(taken: Taken) -> None:
        await eventually(lambda: "is no serial port" in taken.problem)

    run(mast(file), story)
