"""Long frames are received in memory that is used again: nobody looks at one any more when the next comes."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from gateway.wire.framing import Buffer
from gateway.wire.rooms import ROOM_BYTES
from gateway.wire.schema import ApiKey
from gateway.wire.session import encode_request
from tests.support.logs import batch, read_all
from tests.unit.serve.test_alike import Pipe, frame

JOIN = {"group_id": "g", "session_timeout_ms": 30_000, "rebalance_timeout_ms": 30_000, "member_id": ""}


class Rooms(Pipe):
    """As the loop does it: received where the connection says, and overwritten as soon as it is free again."""

    def __init__(self, *, rooms: bool) -> None:
        super().__init__(together=True)
        self.used = 0
        if not rooms:
            self.host.rooms.take = lambda: None  # type: ignore[method-assign]

    def receive(self, data: bytes, piece: int = 1 << 30) -> None:
        while data:
            buffer = self.connection.get_buffer(-1)
            self.used += buffer is not self.host.buffer
            part, data = data[: min(piece, len(buffer))], data[min(piece, len(buffer)) :]
            buffer[: len(part)] = part
            self.connection.buffer_updated(len(part))
            self.host.buffer[:] = bytes(len(self.host.buffer))
            self.turn()
            for room in self.host.rooms._free:
                room[:] = bytes(ROOM_BYTES)

    def busy(self, meanwhile: Callable[[], None]) -> None:
        """Sync, and do `meanwhile` while the disk is at it."""
        sync = self.disk.sync
        calls = [meanwhile]

        def slow(handle: int) -> None:
            while calls:
                calls.pop()()
            sync(handle)

        self.disk.sync = slow  # type: ignore[method-assign]
        self.sync()
        self.disk.sync = sync  # type: ignore[method-assign]
        assert not calls


def served(*, rooms: bool, seed: int) -> tuple[bytes, list[Any], list[Any]]:
    """What is answered, what is in the log, and what the group knows of its members."""
    pipe, random = Rooms(rooms=rooms), Random(seed)
    log = pipe.store.topics["t"].partitions[0]
    written: list[bytes] = []

    def produce(number: int, size: int) -> bytes:
        written.append(random.randbytes(size))
        return frame(9, number, batch(written[-1]))

    def long_ones(first: int) -> None:
        for number in range(first, first + 6):
            data = produce(number, random.choice([100_000, 300_000, 700_000]))
            if number % 2:
                data += produce(number + 100, random.choice([10, 90_000, 200_000]))
            pipe.receive(data, random.choice([70_000, 200_000, 1 << 30]))

    pipe.receive(produce(0, 10))
    pipe.busy(lambda: long_ones(1))
    long_ones(11)
    pipe.sync()
    said: Buffer = random.randbytes(400_000)
    join = JOIN | {"protocol_type": "consumer", "protocols": [{"name": "range", "metadata": said}]}
    pipe.receive(encode_request(ApiKey.JOIN_GROUP, 2, 50, "c", join), 100_000)
    pipe.receive(produce(51, 300_000) + produce(52, 300_000), 100_000)
    pipe.sync()
    assert [value for _, value in read_all(log, max_bytes=1 << 20)] == written
    assert pipe.broker.groups.all["g"].metadata_bytes == len("range") + len(said)
    (member,) = pipe.broker.groups.all["g"].members.values()
    assert member.metadata("range") == said
    assert (pipe.used > 0) is rooms
    assert pipe.host.rooms._used == 0
    return len(pipe.sent).to_bytes(4, "big"), read_all(log, max_bytes=1 << 20), written


@pytest.mark.parametrize("seed", range(3))
def test_what_is_acknowledged_during_a_sync_is_not_what_came_into_the_room_after_it(seed: int) -> None:
    assert served(rooms=True, seed=seed) == served(rooms=False, seed=seed)
