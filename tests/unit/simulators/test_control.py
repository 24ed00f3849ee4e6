from __future__ import annotations

import os

import msgspec
import pytest

from simulators.control import LINE_BYTES_MAX, CommandLines, Console


def test_commands_are_cut_at_line_ends_wherever_the_chunks_end() -> None:
    text = b"overheat on\n\n  garbage \r\nstop"
    for cut in range(len(text)):
        lines = CommandLines()
        assert lines.feed(text[:cut]) + lines.feed(text[cut:]) == [["overheat", "on"], ["garbage"]]
        assert lines.feed(b"\n") == [["stop"]]


def test_a_line_without_end_is_dropped() -> None:
    lines = CommandLines()
    assert lines.feed(b"x" * (LINE_BYTES_MAX + 1)) == []
    assert lines.feed(b"\nstop\n") == [["stop"]]


def test_the_end_of_a_parents_pipe_means_stop() -> None:
    inner, outer = os.pipe()
    console = Console(inner, outer)
    os.write(outer, b"garbage\n")
    assert console.commands() == [["garbage"]]
    os.close(outer)
    assert console.commands() == [["stop"]]
    assert console.inputs == []
    os.close(inner)


def test_a_null_input_is_no_order_to_stop() -> None:
    with open(os.devnull, "rb") as null:
        console = Console(null.fileno(), 1)
        assert console.commands() == []
        assert console.inputs == []


def test_what_is_said_is_one_json_line() -> None:
    inner, outer = os.pipe()
    Console(inner, outer).say("counters", {"sent": 3})
    line = os.read(inner, 1000)
    assert line.endswith(b"\n")
    assert msgspec.json.decode(line) == {"event": "counters", "sent": 3}
    os.close(inner)
    Console(0, outer).say("nobody reads this")
    os.close(outer)
    with pytest.raises(OSError, match="Bad file descriptor"):
        Console(0, outer).say("a programming mistake is not hidden")
