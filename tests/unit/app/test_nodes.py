"""The table of nodes that report here: read from progress records, in memory and over a real log."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec

from gateway.log.records import NO_HEADERS, encode_batch
from gateway.log.settings import LogSettings
from gateway.log.store import LogStore
from gateway.serve import serve_kafka
from gateway.wire.broker import Broker
from headwater.app.nodes import FORGET_MS, NODES_MAX, PROGRESS_TOPIC, NodeTable, NodeWatch
from headwater.clock import SystemClock
from headwater.disk import RealDisk
from headwater.net import RealNet

NOW = 1_800_000_000_000


def progress(node: str, *, end: int = 10, done: int = 7) -> bytes:
    parts = {"readings/0": {"done": done, "end": end}, "events/0": {"done": 5, "end": 5}}
    return msgspec.json.encode({"v": 1, "node": node, "version": "0.1.0", "parts": parts})


def test_a_node_s_newest_record_counts() -> None:
    table = NodeTable()
    table.take([b"b", b"a"], [NOW - 90_000, NOW - 50_000], [progress("b"), progress("a")], NOW, past=True)
    table.take([b"b", b"b"], [NOW, NOW + 3_600_000], [progress("b"), progress("b", done=10)], NOW, past=False)
    assert table.rows(NOW) == [
        {"node": "a", "mark_ms": NOW - 50_000, "silent_ms": 50_000, "backlog_records": 3, "version": "0.1.0"},
        {"node": "b", "mark_ms": NOW, "silent_ms": 0, "backlog_records": 0, "version": "0.1.0"},
    ]


def test_what_cannot_be_read_is_passed_over_and_old_nodes_leave() -> None:
    table = NodeTable()
    values = [None, b"{", b'{"node":"x","parts":[]}', progress("a")]
    table.take([b"n", b"o", b"x", b"a"], [NOW] * 4, values, NOW, past=False)
    assert [row["node"] for row in table.rows(NOW)] == ["a"]
    assert table.rows(NOW + FORGET_MS + 1) == []
    names = [f"n{n}" for n in range(NODES_MAX + 5)]
    table.take(
        [name.encode() for name in names], [NOW] * len(names), [progress(name) for name in names], NOW, past=False
    )
    assert len(table.rows(NOW)) == NODES_MAX


def test_a_watch_reads_what_was_there_and_what_comes(tmp_path: Path) -> None:
    async def test() -> None:
        clock = SystemClock()
        store = LogStore.open(
            str(tmp_path),
            node="central",
            settings=LogSettings(),
            disk=RealDisk(),
            clock=clock,
            call_in_loop=asyncio.get_running_loop().call_soon_threadsafe,
        )
        log = store.create_topic(PROGRESS_TOPIC).partitions[0]

        def write(node: str, ago_ms: int) -> None:
            record = (clock.wall_ms() - ago_ms, node.encode(), progress(node), NO_HEADERS)
            log.append(encode_batch([record]), now_ms=clock.wall_ms())
            store.flush_now()

        write("edge-old", 100_000)
        kafka = await serve_kafka(Broker(store, clock), RealNet(), "127.0.0.1", 0)
        watch = NodeWatch(net=RealNet(), clock=clock, kafka=kafka.address)
        task = asyncio.create_task(watch.run())

        async def until(count: int) -> list[dict[str, Any]]:
            async with asyncio.timeout(10):
                while len(watch.rows()) < count:  # noqa: ASYNC110 - the table has no event
                    await asyncio.sleep(0.01)
            return watch.rows()

        try:
            await until(1)
            write("edge-new", 100_000)
            new, old = await until(2)
            assert clock.wall_ms() - old["mark_ms"] >= 100_000
            assert clock.wall_ms() - new["mark_ms"] < 10_000
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            kafka.close()
            store.close()

    asyncio.run(test())
