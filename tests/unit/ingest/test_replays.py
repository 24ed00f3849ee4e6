"""Dead letters that become readings: each once, with its own times, whatever ends in between."""

from __future__ import annotations

import asyncio
import errno

from devices.reading import Reading
from gateway.ingest.outcome import Outcome
from gateway.ingest.replays import Replays
from headwater.app.replaying import Replayer
from tests.support.ingest import Edge


def test_offsets_are_kept_as_ranges() -> None:
    replays = Replays()
    replays.begun([3, 4, 9], 0)
    replays.finished([3, 4, 9])
    replays.finished([5, 10])
    assert replays.done == [(3, 6), (9, 11)]
    assert [offset for offset in range(12) if offset in replays] == [3, 4, 5, 9, 10]
    replays.forget_below(5)
    assert Replays.of(replays.members()).done == [(5, 6), (9, 11)]


def test_what_was_pending_is_settled_by_what_the_log_has() -> None:
    replays = Replays()
    replays.begun([1, 2, 3], 40)
    again = Replays.of(replays.members())
    assert again.unsettled == 40
    again.found([b"2", b"7", b"x" * 9])
    assert again.done == [(2, 3)]
    assert again.unsettled is None


class Shed:
    """An edge with three dead letters, and who replays them."""

    def __init__(self) -> None:
        self.edge = Edge()
        self.edge.disk.make_directory("/data/node")
        self.edge.take(self.edge.attach("a"), *[("pump", b"{%d" % n, 0, 0) for n in range(3)])
        self.edge.sync()
        self.arrival_ms = self.edge.clock.wall_ms()
        self.edge.clock.advance(50_000)

    def replay(self, *offsets: int, sync: bool = True) -> int | None:
        edge, arrival_ms = self.edge, self.arrival_ms
        outcomes = [
            Outcome(at, "mqtt:a", arrival_ms, "pump", [Reading("pump", {"n": at}, arrival_ms - 500)]) for at in offsets
        ]

        async def run() -> int | None:
            task = asyncio.ensure_future(Replayer(edge.ingest, edge.disk, "/data").replay(None, outcomes))
            while not task.done() and (sync or not edge.ingest.status()["replayed"]):
                await asyncio.sleep(0.001)
                if sync:
                    edge.store.flush_now()
            task.cancel()
            return None if task.cancelled() or not task.done() else task.result()

        return asyncio.run(run())

    def numbers(self) -> list[int]:
        return [one.value["n"] for one in self.edge.readings() if one.key == "edge/pump"]


def test_a_second_replay_stores_nothing() -> None:
    shed = Shed()
    assert shed.replay(0, 2) == 2
    assert shed.replay(0, 1, 2) == 1
    assert shed.replay(0, 1, 2) == 0
    assert shed.numbers() == [0, 2, 1]
    first = shed.edge.readings()[0]
    assert (first.timestamp, first.headers["hw-replay"]) == (shed.arrival_ms - 500, b"0")
    status = shed.edge.ingest.status()
    assert (status["replayed"], status["stored"], status["dead_letters"]) == (3, 3, 3)


def test_a_replay_that_a_power_cut_ended_is_neither_lost_nor_doubled() -> None:
    shed = Shed()
    shed.replay(0, sync=False)  # written, and not on disk
    shed.edge.power_cut()
    assert shed.numbers() == []
    shed.replay(0, 1, sync=False)
    shed.edge.store.flush_now()  # on disk, and nobody has noted it
    shed.edge.power_cut()
    assert shed.replay(0, 1, 2) == 1
    assert sorted(shed.numbers()) == [0, 1, 2]


def test_marks_know_nothing_of_old_readings_that_come_now() -> None:
    shed = Shed()
    source = shed.edge.attach("b")
    for _ in range(2):  # the second is not marked yet
        shed.edge.clock.advance(600)
        shed.edge.take(source, ("meter", b"1", 0, 0))
        shed.edge.sync()
    at_ms = shed.edge.clock.wall_ms()
    shed.replay(0, 1)
    shed.edge.clock.advance(2_500)
    shed.edge.ingest.tick()
    shed.edge.sync()
    assert shed.edge.ingest.marks.live == at_ms - 2_000


def test_a_disk_that_fails_settles_nothing() -> None:
    shed = Shed()
    shed.edge.disk.fail_next["append"] = OSError(errno.ENOSPC, "No space left on device")
    assert shed.replay(0) is None
    assert shed.replay(0) == 1
    assert shed.numbers() == [0]
