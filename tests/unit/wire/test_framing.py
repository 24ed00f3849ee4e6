"""Frames: any split of the bytes gives the same ones, and a length is never trusted with memory."""

from __future__ import annotations

import tracemalloc
from random import Random

import pytest

from gateway.wire.framing import FrameReader, join_frame
from gateway.wire.rooms import ROOM_BYTES, ROOMS_MAX, Rooms
from headwater.errors import LimitError


def take_all(reader: FrameReader, data: bytes) -> list[bytes]:
    reader.feed(data)
    frames = []
    while (frame := reader.next()) is not None:
        frames.append(bytes(frame))
    reader.keep()
    return frames


def test_frames_do_not_depend_on_how_the_bytes_arrive() -> None:
    random = Random(1)
    sent = [random.randbytes(random.choice((1, 5, 300, 5000))) for _ in range(50)]
    stream = b"".join(join_frame([b"", frame]) for frame in sent)
    for split in (1, 2, 3, 7, 1000, len(stream)):
        reader = FrameReader(frame_bytes_max=10_000)
        got: list[bytes] = []
        for start in range(0, len(stream), split):
            got += take_all(reader, stream[start : start + split])
        assert got == sent, split
        assert reader.unread_bytes == 0


def test_frames_outlive_the_shared_buffer_only_through_keep() -> None:
    shared = bytearray(64)
    reader = FrameReader(frame_bytes_max=1000)
    stream = join_frame([b"", b"first"]) + join_frame([b"", b"second"])
    shared[: len(stream) - 2] = stream[:-2]
    reader.feed(memoryview(shared)[: len(stream) - 2])
    first = reader.next()
    assert first is not None
    assert bytes(first) == b"first"
    assert reader.next() is None
    reader.keep()
    shared[:] = b"\xee" * 64
    shared[:2] = stream[-2:]
    reader.feed(memoryview(shared)[:2])
    second = reader.next()
    assert second is not None
    assert bytes(second) == b"second"


def test_what_is_not_taken_waits_for_later() -> None:
    reader = FrameReader(frame_bytes_max=1000)
    reader.feed(join_frame([b"", b"a"]) + join_frame([b"", b"b"]))
    assert bytes(reader.next() or b"") == b"a"
    reader.keep()
    assert reader.unread_bytes == 5
    reader.feed(join_frame([b"", b"c"]))
    reader.keep()
    assert bytes(reader.next() or b"") == b"b"
    reader.keep()
    assert bytes(reader.next() or b"") == b"c"
    reader.keep()
    assert reader.next() is None


@pytest.mark.parametrize("hostile", [b"GET / HTTP/1.1\r\n", b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff", b"\0\0\0\0"])
def test_a_wild_length_is_refused_before_any_memory_is_taken(hostile: bytes) -> None:
    reader = FrameReader(frame_bytes_max=32 << 20)
    tracemalloc.start()
    try:
        reader.feed(hostile)
        with pytest.raises(LimitError, match="the limit is"):
            reader.next()
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_a_long_length_takes_memory_only_as_its_bytes_come() -> None:
    reader = FrameReader(frame_bytes_max=32 << 20)
    tracemalloc.start()
    try:
        assert take_all(reader, (32 << 20).to_bytes(4, "big") + b"x" * 1000) == []
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_long_frames_in_pieces_are_received_where_they_are_read_and_rooms_go_back() -> None:
    random = Random(2)
    rooms = Rooms()
    in_place = 0
    for split in (5_000, 70_001, 262_144, 900_000, 3 << 20):
        sizes = (1_000_000, 10, 70_000, 430_000, 430_000, 430_000, ROOM_BYTES - 4, ROOM_BYTES, 1_500_000, 65_000, 1)
        sent = [random.randbytes(size) for size in sizes]
        stream = b"".join(join_frame([b"", frame]) for frame in sent)
        readers = [FrameReader(frame_bytes_max=2 << 20, rooms=rooms) for _ in range(ROOMS_MAX + 1)]
        got: list[list[bytes]] = [[] for _ in readers]
        shared = memoryview(bytearray(3 << 20))
        at = [0] * len(readers)
        while any(position < len(stream) for position in at):
            for number, reader in enumerate(readers):
                room = reader.room()
                into = shared if room is None else room
                piece = stream[at[number] :][: min(split, len(into))]
                into[: len(piece)] = piece
                at[number] += len(piece)
                if room is None:
                    reader.feed(shared[: len(piece)])
                elif not reader.received(len(piece)):
                    continue
                else:
                    in_place += 1
                while (frame := reader.next()) is not None:
                    got[number].append(bytes(frame))
                reader.keep()
                shared[: len(piece)] = b"\xee" * len(piece)
        assert got == [sent] * len(readers), split
        assert not any(reader.unread_bytes for reader in readers)
        found = [rooms.take() is None for _ in range(ROOMS_MAX + 1)]
        assert found == [False] * ROOMS_MAX + [True], "one did not go back"
        for _ in range(ROOMS_MAX):
            rooms.give(memoryview(bytearray(ROOM_BYTES)))
    assert in_place > 20


def test_a_reader_that_ends_in_the_middle_of_a_frame_gives_its_room_back() -> None:
    rooms = Rooms()
    for _ in range(ROOMS_MAX + 1):
        reader = FrameReader(frame_bytes_max=2 << 20, rooms=rooms)
        reader.feed((1_000_000).to_bytes(4, "big") + bytes(100_000))
        assert reader.next() is None
        reader.keep()
        assert reader.room() is not None
        reader.forget()
        assert reader.room() is None
        assert reader.unread_bytes == 0
