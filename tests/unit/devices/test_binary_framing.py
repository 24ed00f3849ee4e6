"""Length-prefixed and COBS frames: every shape, cut anywhere, behind garbage, and hostile bytes."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.binary_framing import CobsFramer, FramingSettings, LengthFramer, cobs_decode
from devices.checksums import CHECKS
from devices.framing import Frame, Framer
from headwater.errors import UserError

MAX = 64


def length(**keys: Any) -> FramingSettings:
    return FramingSettings(kind="length", **keys)


def frame_of(settings: FramingSettings, payload: bytes) -> bytes:
    """A frame as a device makes it, written down step by step."""
    start, end, check = bytes.fromhex(settings.start), bytes.fromhex(settings.end), CHECKS[settings.check]
    rest_bytes = len(payload) + check.size + len(end)
    number = {
        "payload": len(payload),
        "rest": rest_bytes,
        "all": len(start) + settings.length_bytes + rest_bytes,
    }[settings.counts]
    size = number.to_bytes(settings.length_bytes, settings.order)
    covered = {"payload": payload, "length": size + payload, "all": start + size + payload}[settings.check_covers]
    return start + size + payload + check.of(covered).to_bytes(check.size, settings.order) + end


def fed(framer: Framer, stream: bytes, cuts: list[int]) -> list[Frame]:
    frames: list[Frame] = []
    while stream:
        size = cuts.pop() if cuts else 11
        frames += framer.feed(stream[:size])
        stream = stream[size:]
    return frames


shapes = st.builds(
    length,
    start=st.sampled_from(["", "AA", "AA55", "7e 7e"]),
    length_bytes=st.sampled_from([1, 2, 4]),
    order=st.sampled_from(["big", "little"]),
    counts=st.sampled_from(["payload", "rest", "all"]),
    check=st.sampled_from(list(CHECKS)),
    check_covers=st.sampled_from(["payload", "length", "all"]),
    end=st.sampled_from(["", "0d0a"]),
)
cut_sizes = st.lists(st.integers(1, 9), max_size=40)


def test_checks_give_the_catalogues_values() -> None:
    """CRC RevEng's catalogue: the check value of each is that of the text 123456789."""
    found = {name: check.of(b"123456789") for name, check in CHECKS.items()}
    assert found == {
        "none": 0,
        "sum8": 0xDD,
        "xor8": 0x31,
        "crc16-modbus": 0x4B37,
        "crc16-ccitt": 0x29B1,
        "crc16-xmodem": 0x31C3,
        "crc32": 0xCBF43926,
    }


@given(shapes, st.lists(st.binary(max_size=MAX), max_size=6), cut_sizes)
def test_every_shape_however_it_is_cut(settings: FramingSettings, payloads: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(frame_of(settings, payload) for payload in payloads)
    assert fed(LengthFramer(settings, MAX), stream, cuts) == [Frame(payload) for payload in payloads]


@given(st.binary(max_size=80), st.lists(st.binary(min_size=1, max_size=20), min_size=3, max_size=6), cut_sizes)
def test_frames_with_start_and_check_are_found_behind_garbage(
    garbage: bytes, payloads: list[bytes], cuts: list[int]
) -> None:
    """At most what garbage swallows is lost: it may say that it is a frame of up to the longest length."""
    settings = length(start="AA55", check="crc32")
    good = b"".join(frame_of(settings, payload) for payload in payloads)
    framer = LengthFramer(settings, MAX)
    frames = fed(framer, good + garbage + good + bytes(2 * MAX), cuts)
    read = [frame.data for frame in frames if not frame.problem]
    assert read[: len(payloads)] == payloads
    assert read[len(payloads) :] == payloads
    told = sum(len(frame.data) for frame in frames if frame.problem)
    assert told <= len(garbage) + 2 * MAX


def test_garbage_between_frames_is_one_problem_and_before_the_first_none() -> None:
    settings = length(start="AA55", check="crc16-ccitt")
    framer = LengthFramer(settings, MAX)
    one = frame_of(settings, b"one")
    assert framer.feed(b"xyz" + one) == [Frame(b"one")]
    assert framer.skipped_bytes == 3
    broken = one[:-1] + b"\0"
    [noise, good] = framer.feed(b"noise" + broken + one)
    assert good == Frame(b"one")
    assert noise.data == b"noise" + broken
    assert "no frame begins in it (aa 55)" in noise.problem


def test_a_wrong_check_and_a_wrong_end_are_named() -> None:
    settings = length(check="sum8", end="03")
    framer = LengthFramer(settings, MAX)
    assert framer.feed(frame_of(settings, b"ok")) == [Frame(b"ok")]
    assert framer.feed(b"\0\2ab\xc4\x03") == []
    assert framer.feed(frame_of(settings, b"ok"))[0].problem == "no frame: its sum8 is c3, it says c4"
    framer.feed(b"\0\2ab\xc3\x04")
    assert framer.feed(frame_of(settings, b"ok"))[0].problem == "no frame: it does not end with 03"


def test_a_pause_in_the_middle_of_a_frame_begins_anew() -> None:
    """Where nothing else tells, a device that was restarted in the middle of a frame is found by its pauses."""
    settings = length(pause_ms=100)
    framer = LengthFramer(settings, MAX)
    assert framer.feed(frame_of(settings, b"one"), 0.0) == [Frame(b"one")]
    assert framer.feed(b"\0\x09half", 1_000.0) == []
    assert framer.feed(b"er", 1_050.0) == []
    [lost, found] = framer.feed(frame_of(settings, b"two"), 2_000.0)
    assert lost == Frame(b"\0\x09halfer", "no frame: the rest of it never came")
    assert found == Frame(b"two")


def test_a_length_that_cannot_be_is_passed_over() -> None:
    settings = length(length_bytes=4)
    framer = LengthFramer(settings, MAX)
    frames = framer.feed(frame_of(settings, b"x") + b"\xff\xff\xff\xff\xff" + frame_of(settings, b"y"))
    assert [frame.data for frame in frames] == [b"x", b"\xff" * 5, b"y"]
    assert "its length is said to be 4294967295" in frames[1].problem


@given(shapes, st.lists(st.binary(max_size=200), max_size=8))
def test_hostile_bytes_raise_nothing_and_hold_little(settings: FramingSettings, parts: list[bytes]) -> None:
    framer = LengthFramer(settings, MAX)
    frames: list[Frame] = []
    for part in parts:
        frames += framer.feed(part)
        held = len(framer._held) + len(framer._noise)
        assert held <= 2 * MAX + 32 + 200
    assert sum(len(frame.data) for frame in frames) + framer.skipped_bytes <= sum(map(len, parts))


def test_frames_that_are_all_wrong_cost_little() -> None:
    """Each byte could begin a frame of the longest length: looking into each would take minutes."""
    framer = LengthFramer(length(start="20", length_bytes=2, check="crc16-modbus"), 65_000)
    began = time.process_time()
    for _ in range(50):
        framer.feed(b"\x20" * 4_096)
    assert time.process_time() - began < 2.0


def test_bad_hex_is_named() -> None:
    with pytest.raises(UserError, match=r"framing\.start: “AA5” are no hex digits"):
        LengthFramer(length(start="AA5"), MAX)


RISING = bytes(range(256))


@pytest.mark.parametrize(
    ("payload", "stuffed"),
    [
        # the cases of Cheshire and Baker's paper: zeros alone, between, at the ends; 254 bytes without one, and around
        (b"\0", b"\x01\x01"),
        (b"\0\0", b"\x01\x01\x01"),
        (b"\0\x11\0", b"\x01\x02\x11\x01"),
        (b"\x11\x22\0\x33", b"\x03\x11\x22\x02\x33"),
        (b"\x11\x22\x33\x44", b"\x05\x11\x22\x33\x44"),
        (b"\x11\0\0\0", b"\x02\x11\x01\x01\x01"),
        (RISING[1:255], b"\xff" + RISING[1:255]),
        (RISING[:255], b"\x01\xff" + RISING[1:255]),
        (RISING[1:], b"\xff" + RISING[1:255] + b"\x02\xff"),
        (RISING[2:] + b"\0", b"\xff" + RISING[2:] + b"\x01\x01"),
        (RISING[3:] + b"\0\x01", b"\xfe" + RISING[3:] + b"\x02\x01"),
    ],
)
def test_cobs_examples(payload: bytes, stuffed: bytes) -> None:
    assert cobs_decode(stuffed) == payload
    assert cobs_encode(payload) == stuffed


def cobs_encode(payload: bytes) -> bytes:
    """The other way, byte by byte."""
    blocks = [b""]
    for at, byte in enumerate(payload):
        if byte:
            blocks[-1] += bytes([byte])
            if len(blocks[-1]) == 254 and at + 1 < len(payload):
                blocks.append(b"")
        else:
            blocks.append(b"")
    return b"".join(bytes([len(block) + 1]) + block for block in blocks)


def test_what_is_no_cobs_frame() -> None:
    assert cobs_decode(b"\x03a\0") is None
    assert cobs_decode(b"\x03a") is None


@given(st.binary(max_size=600))
def test_cobs_comes_back(payload: bytes) -> None:
    assert cobs_decode(cobs_encode(payload)) == payload


@given(st.binary(max_size=300))
def test_cobs_reads_no_more_than_was_said(stuffed: bytes) -> None:
    payload = cobs_decode(stuffed)
    if payload is not None:
        assert 0 not in stuffed
        assert len(payload) <= len(stuffed)


@given(
    st.lists(st.binary(min_size=1, max_size=MAX), min_size=1, max_size=6),
    st.binary(max_size=200),
    st.sampled_from(["none", "crc32"]),
    cut_sizes,
)
def test_cobs_frames_behind_garbage(payloads: list[bytes], garbage: bytes, check: Any, cuts: list[int]) -> None:
    settings = FramingSettings(kind="cobs", check=check)
    size = CHECKS[check].size
    good = [cobs_encode(one + CHECKS[check].of(one).to_bytes(size, "big")) + b"\0" for one in payloads]
    framer = CobsFramer(settings, MAX)
    frames = fed(framer, b"\0" + b"".join(good) + garbage + b"\0" + b"".join(good), cuts)
    read = [frame.data for frame in frames if not frame.problem]
    assert read[: len(payloads)] == payloads
    assert read[-len(payloads) :] == payloads
    assert all(len(frame.data) <= MAX + 5 for frame in frames)


def test_cobs_problems_are_named() -> None:
    framer = CobsFramer(FramingSettings(kind="cobs", check="crc16-ccitt"), 8)
    assert framer.feed(b"\x05tail\0") == []  # nobody heard its beginning
    problems = [frame.problem for frame in framer.feed(b"\x09cut\0" + b"\x02a\0" + b"\x04abc\0" + b"x" * 40 + b"\0")]
    assert problems == [
        "a part of it is missing: it is no COBS frame",
        "it is shorter than its crc16-ccitt",
        "its crc16-ccitt is 9d77, it says 6263",
        "no zero within 11 bytes: wrong baudrate?",
    ]
