"""The uplink beside the log's upkeep: what expires unreplicated is told as gone, what is replicated may go."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from gateway.driving import drive
from gateway.log.records import decode_batch, read_header, split_batches
from gateway.log.upkeep import Upkeep
from gateway.replicate import progress
from headwater.clock import ManualClock
from headwater.net import free_port
from tests.support.uplink_node import CentralNode, EdgeNode

HOUR_MS = 3_600_000


def play(tmp_path: Path, story: Callable[[EdgeNode, CentralNode], Awaitable[None]]) -> None:
    async def run() -> None:
        central = CentralNode(tmp_path, free_port())
        edge = EdgeNode(tmp_path, f"127.0.0.1:{central.port}", linger_ms=0)
        try:
            await story(edge, central)
        finally:
            await edge.stop()
            central.stop()

    asyncio.run(run())


async def fill(edge: EdgeNode, batches: int = 20) -> None:
    for _ in range(batches):
        edge.ingest(50)
        await edge.until(lambda: edge.log.synced_offset == edge.log.log_end_offset)


def gone(central: CentralNode) -> set[int]:
    """Every offset that a committed progress record names as gone."""
    found: set[int] = set()
    for log in central.store.topics["headwater.progress"].partitions:
        offset = log.log_start_offset
        while data := log.read(offset, 1 << 20, committed=True).data:
            for batch in split_batches(data):
                header = read_header(batch)
                offset = header.next_offset
                for value in [] if header.is_control else decode_batch(batch).values:
                    part = progress.decode(value or b"").parts["readings/0"]
                    for start, end, reason in part.gone:
                        assert reason == "expired"
                        found |= set(range(start, end))
    return found


def test_what_expired_before_the_central_had_it_is_gone_there_and_the_rest_arrives(tmp_path: Path) -> None:
    async def story(edge: EdgeNode, central: CentralNode) -> None:
        edge.store.configure_topic("readings", {"segment.bytes": "4096", "retention.bytes": "8192"})
        upkeep = Upkeep(edge.store, clock=edge.clock, trusted=lambda: True, settled=edge.uplink.settled)
        await fill(edge)
        assert edge.uplink.settled("readings", 0) == 0
        for _ in range(3):
            await drive(upkeep.turn())
        start = edge.log.log_start_offset
        assert 0 < start < 1_000
        assert upkeep.status()["expired"]["readings/0"]["owed_records"] == start
        await central.start()
        await edge.drained()
        assert central.numbers() == list(range(start, 1_000))
        assert gone(central) == set(range(start))
        assert edge.uplink.status()["gone"] == start

    play(tmp_path, story)


def test_what_a_client_deletes_before_the_central_has_it_is_gone_there_and_the_rest_arrives(tmp_path: Path) -> None:
    """In the middle of a batch: what is above stays, and arrives."""

    async def story(edge: EdgeNode, central: CentralNode) -> None:
        await fill(edge)
        edge.store.delete_records({("readings", 0): 125})
        await central.start()
        await edge.drained()
        assert central.numbers() == list(range(125, 1_000))
        assert gone(central) == set(range(125))
        assert edge.uplink.status()["gone"] == 125

    play(tmp_path, story)


def test_what_expires_while_it_is_being_sent_arrives_or_is_gone_and_never_both_or_neither(tmp_path: Path) -> None:
    async def story(edge: EdgeNode, central: CentralNode) -> None:
        edge.store.configure_topic("readings", {"segment.bytes": "4096", "retention.bytes": "4096"})
        upkeep = Upkeep(edge.store, clock=edge.clock, trusted=lambda: True, settled=edge.uplink.settled)
        await central.start()
        for turn in range(12):
            edge.net.hole = turn % 4 == 1
            await fill(edge, 8)
            await drive(upkeep.turn())
            await asyncio.sleep(0.02 * (turn % 3))
        edge.net.hole = False
        for tap in list(edge.net.taps):
            assert tap.transport is not None
            tap.transport.abort()
        await edge.drained()
        numbers = central.numbers()
        assert len(set(numbers)) == len(numbers)
        assert set(numbers) | gone(central) == set(range(edge.number))
        assert not set(numbers) & gone(central)

    play(tmp_path, story)


def test_what_the_central_has_stays_for_a_day_and_then_goes_without_being_missed(tmp_path: Path) -> None:
    async def story(edge: EdgeNode, central: CentralNode) -> None:
        edge.store.configure_topic("readings", {"segment.bytes": "4096"})
        clock = ManualClock()
        upkeep = Upkeep(edge.store, clock=clock, trusted=lambda: True, settled=edge.uplink.settled)
        await fill(edge)
        await drive(upkeep.turn())
        clock.advance(100 * HOUR_MS)
        await drive(upkeep.turn())
        assert edge.log.log_start_offset == 0
        await central.start()
        await edge.drained()
        assert edge.uplink.settled("readings", 0) == 1_000
        assert edge.uplink.settled("alerts", 0) is None
        await drive(upkeep.turn())
        assert edge.log.log_start_offset > 900
        await fill(edge)
        await drive(upkeep.turn())
        clock.advance(23 * HOUR_MS)
        start = edge.log.log_start_offset
        await drive(upkeep.turn())
        assert edge.log.log_start_offset == start
        await edge.drained()
        assert central.numbers() == list(range(2_000))
        assert gone(central) == set()
        assert upkeep.status()["owed"] == []

    play(tmp_path, story)
