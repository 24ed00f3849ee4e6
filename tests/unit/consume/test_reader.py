"""The reader: aborted transactions left out, cut answers, errors; and over a real node, with the processors on top."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.consume.reader import Block, Reader, decode_fetched
from gateway.log.errors import CorruptBatch
from gateway.log.records import NO_HEADERS, Record, encode_batch, encode_control, patch
from gateway.log.settings import LogSettings
from gateway.log.store import LogStore
from gateway.serve import serve_kafka
from gateway.wire.broker import Broker
from gateway.wire.channel import Channel
from gateway.wire.errors import ErrorCode, KafkaError
from gateway.wire.schema import ApiKey
from headwater.clock import SystemClock
from headwater.disk import RealDisk
from headwater.errors import PeerError
from headwater.net import RealNet
from processors.inline import Processors, make_processors
from processors.rules.model import Rules
from processors.settings import ProcessorSettings
from tests.support import river
from tests.support.river import Row


def records(*values: str) -> list[Record]:
    return [(1_000 + row, b"k", value.encode(), NO_HEADERS) for row, value in enumerate(values)]


def log_of(*batches: bytearray) -> bytes:
    """The batches one behind the other, with offsets as a log gives them."""
    offset = 0
    for batch in batches:
        patch(batch, 0, offset, 0)
        offset += int.from_bytes(batch[57:61], "big")
    return b"".join(batches)


def transactional(producer: int, *values: str) -> bytearray:
    return encode_batch(records(*values), producer_id=producer, producer_epoch=0, base_sequence=0, transactional=True)


def marker(producer: int, *, commit: bool) -> bytearray:
    return encode_control(
        commit=commit, producer_id=producer, producer_epoch=0, coordinator_epoch=0, timestamp_ms=1_000
    )


def texts(block: Block) -> list[str]:
    return [(value or b"").decode() for value in block.values]


def test_records_come_as_columns_from_the_position_on() -> None:
    data = log_of(encode_batch(records("a", "b", "c")), encode_batch(records("d")))
    block = decode_fetched("t", 3, 1, data, [])
    assert (block.topic, block.partition, block.offsets, block.next_offset) == ("t", 3, [1, 2, 3], 4)
    assert texts(block) == ["b", "c", "d"]
    assert block.timestamps == [1_001, 1_002, 1_000]
    assert block.keys == [b"k"] * 3
    assert block.headers == [NO_HEADERS] * 3
    assert texts(decode_fetched("t", 3, 3, data, [])) == ["d"]


def test_aborted_transactions_and_markers_are_left_out() -> None:
    data = log_of(
        transactional(7, "aborted"),  # 0
        encode_batch(records("plain")),  # 1
        transactional(8, "kept"),  # 2
        transactional(7, "aborted too"),  # 3
        marker(7, commit=False),  # 4
        transactional(7, "kept later"),  # 5
        marker(8, commit=True),  # 6
        marker(7, commit=True),  # 7
    )
    block = decode_fetched("t", 0, 0, data, [(7, 0)])
    assert texts(block) == ["plain", "kept", "kept later"]
    assert (block.offsets, block.next_offset) == ([1, 2, 5], 8)


def test_two_transactions_of_one_producer_may_both_be_aborted() -> None:
    data = log_of(transactional(7, "a"), marker(7, commit=False), transactional(7, "b"), marker(7, commit=False))
    block = decode_fetched("t", 0, 0, data, [(7, 2), (7, 0)])
    assert (block.values, block.next_offset) == ([], 4)
    assert texts(decode_fetched("t", 0, 2, data[len(transactional(7, "a")) :], [(7, 2)])) == []


def test_a_batch_cut_short_at_the_byte_limit_waits_for_the_next_poll() -> None:
    first, second = encode_batch(records("a")), encode_batch(records("b"))
    data = log_of(first, second)
    for cut in range(1, len(second)):
        block = decode_fetched("t", 0, 0, data[:-cut], [])
        assert (texts(block), block.next_offset) == (["a"], 1)
    with pytest.raises(PeerError, match="no whole record batch"):
        decode_fetched("t", 0, 0, data[:40], [])


def test_damage_is_named() -> None:
    data = bytearray(log_of(encode_batch(records("a"))))
    data[-3] ^= 1
    with pytest.raises(CorruptBatch):
        decode_fetched("t", 0, 0, bytes(data), [])
    with pytest.raises(CorruptBatch):
        decode_fetched("t", 0, 0, bytes(70), [])


class Answers:
    """A channel that answers what it is told."""

    def __init__(self, *bodies: dict[str, Any]) -> None:
        self.bodies = list(bodies)
        self.asked: list[tuple[ApiKey, dict[str, Any]]] = []

    async def call(self, api: ApiKey, body: dict[str, Any], *, timeout_ms: float | None = None) -> dict[str, Any]:
        self.asked.append((api, body))
        return self.bodies.pop(0)

    def close(self) -> None:
        pass


def fetched(*parts: tuple[int, int, bytes]) -> dict[str, Any]:
    partitions = [
        {
            "partition_index": index,
            "error_code": error,
            "high_watermark": 9,
            "last_stable_offset": 8,
            "aborted_transactions": None,
            "records": memoryview(data) if data else None,
        }
        for index, error, data in parts
    ]
    return {"error_code": 0, "responses": [{"topic": "t", "partitions": partitions}]}


def test_an_error_of_one_partition_loses_nothing_of_another() -> None:
    data = log_of(encode_batch(records("a")))
    reader = Reader(Answers(fetched((0, 0, data), (1, 1, b"")), fetched((0, 0, data))))
    reader.assign({("t", 0): 0, ("t", 1): 5})
    with pytest.raises(KafkaError, match=r"reading t/1 at offset 5: OFFSET_OUT_OF_RANGE"):
        asyncio.run(reader.poll())
    assert reader.position("t", 0) == 0
    [block] = asyncio.run(reader.poll())
    assert texts(block) == ["a"]
    assert reader.ends["t", 0] == 8


def test_partitions_take_turns_at_being_first() -> None:
    channel = Answers(fetched(), fetched(), fetched())
    reader = Reader(channel)
    reader.assign({("t", 0): 0, ("t", 1): 0})
    orders = []
    for _ in range(3):
        assert asyncio.run(reader.poll()) == []
        [topic] = channel.asked[-1][1]["topics"]
        orders.append([part["partition"] for part in topic["partitions"]])
    assert orders == [[0, 1], [1, 0], [0, 1]]


def test_a_node_that_sends_what_was_not_asked_for_is_no_good() -> None:
    reader = Reader(Answers(fetched((4, 0, b""))))
    with pytest.raises(ValueError, match="poll before assign"):
        asyncio.run(reader.poll())
    reader.assign({("t", 0): 0})
    with pytest.raises(PeerError, match="t/4, which was not asked for"):
        asyncio.run(reader.poll())


def with_node(folder: Path, story: Callable[[str, int], Awaitable[None]]) -> None:
    """Run `story(host, port)` beside a node in this loop."""

    async def main() -> None:
        store = LogStore.open(
            str(folder / "data"),
            node="n1",
            settings=LogSettings(fsync_interval_ms=0),
            disk=RealDisk(),
            clock=SystemClock(),
            call_in_loop=asyncio.get_running_loop().call_soon_threadsafe,
        )
        listener = await serve_kafka(Broker(store, SystemClock()), RealNet(), "127.0.0.1", 0)
        try:
            async with asyncio.timeout(30):
                await story(*listener.address)
        finally:
            listener.close()
            store.close()

    asyncio.run(main())


def test_reading_and_writing_a_real_node(tmp_path: Path) -> None:
    async def story(host: str, port: int) -> None:
        reader = await Reader.connect(RealNet(), host, port, client_id="test")
        assert await reader.partitions("made") == 0
        await reader.ensure_topic("made", 2, {"cleanup.policy": "compact,delete"})
        await reader.ensure_topic("made", 5)
        assert await reader.partitions("made") == 2
        assert await reader.produce("made", 1, records("a", "b")) == 0
        producer = await reader.init_producer()
        assert await reader.produce("made", 1, records("c"), producer=producer, base_sequence=0) == 2
        assert await reader.produce("made", 1, records("c"), producer=producer, base_sequence=0) in (2, -1)
        with pytest.raises(KafkaError) as caught:
            await reader.produce("made", 1, records("x"), producer=producer, base_sequence=5)
        assert caught.value.code == ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
        assert await reader.offset("made", 1, "earliest") == 0
        assert await reader.offset("made", 1, "latest") == 3
        assert await reader.offset("made", 1, 1_001) == 1
        assert await reader.offset("made", 1, 9_000) == 3
        reader.assign({("made", 0): 0, ("made", 1): 0})
        [block] = await reader.poll()
        assert texts(block) == ["a", "b", "c"]
        assert await reader.poll(max_wait_ms=1) == []
        reader.assign({("made", 1): 99})
        with pytest.raises(KafkaError) as caught:
            await reader.poll()
        assert caught.value.code == ErrorCode.OFFSET_OUT_OF_RANGE
        await reader.close()
        await reader.close()
        with pytest.raises(ConnectionError):
            await reader.partitions("made")

    with_node(tmp_path, story)


def test_an_aborted_transaction_of_a_real_node_is_passed_over(tmp_path: Path) -> None:
    async def transaction(channel: Channel, value: str, *, commit: bool) -> None:
        body = {"transactional_id": "test", "transaction_timeout_ms": 10_000}
        answer = await channel.call(ApiKey.INIT_PRODUCER_ID, body)
        producer = {"producer_id": answer["producer_id"], "producer_epoch": answer["producer_epoch"]}
        topics = [{"name": "t", "partitions": [0]}]
        await channel.call(ApiKey.ADD_PARTITIONS_TO_TXN, {"transactional_id": "test", **producer, "topics": topics})
        batch = encode_batch(records(value), base_sequence=0, transactional=True, **producer)
        data = [{"name": "t", "partition_data": [{"index": 0, "records": batch}]}]
        produce = {"transactional_id": "test", "acks": -1, "timeout_ms": 5_000, "topic_data": data}
        written = await channel.call(ApiKey.PRODUCE, produce)
        assert written["responses"][0]["partition_responses"][0]["error_code"] == 0
        ended = await channel.call(ApiKey.END_TXN, {"transactional_id": "test", **producer, "committed": commit})
        assert ended["error_code"] == 0

    async def story(host: str, port: int) -> None:
        channel = await Channel.connect(RealNet(), host, port, client_id="writer")
        reader = await Reader.connect(RealNet(), host, port, client_id="test")
        everything = await Reader.connect(RealNet(), host, port, client_id="all", committed=False)
        await reader.ensure_topic("t", 1)
        await transaction(channel, "kept", commit=True)
        await transaction(channel, "aborted", commit=False)
        await transaction(channel, "kept too", commit=True)
        for one, expected in ((reader, ["kept", "kept too"]), (everything, ["kept", "aborted", "kept too"])):
            one.assign({("t", 0): 0})
            seen: list[str] = []
            while one.position("t", 0) < 6:
                for block in await one.poll():
                    seen += texts(block)
            assert seen == expected
            await one.close()
        channel.close()

    with_node(tmp_path, story)


def test_the_processors_over_a_real_node(tmp_path: Path) -> None:
    rules = Rules(windows=(river.window(),), alerts=(river.alert(for_s=0),))
    settings = ProcessorSettings(poll_wait_ms=20, checkpoint_every_ms=50)
    rows = [Row("a", second * 1000, {"t": 90 if second < 30 else 60}) for second in range(60)]
    rows = [*rows, river.health(55_000)]

    def processors(host: str, port: int) -> Processors:
        return make_processors(
            settings, rules, host, port, RealNet(), SystemClock(), str(tmp_path / "data"), RealDisk()
        )

    async def run(one: Processors, end: int) -> None:
        task = asyncio.create_task(one.run())
        while one.status()["positions"].get("readings/2") != end:  # noqa: ASYNC110 - a plain value, for any thread
            await asyncio.sleep(0.01)
        one.stop()
        await task

    async def story(host: str, port: int) -> None:
        reader = await Reader.connect(RealNet(), host, port, client_id="test")
        await reader.ensure_topic("readings", 3)
        block = river.block(rows)
        given: list[Record] = list(zip(block.timestamps, block.keys, block.values, block.headers, strict=True))
        await reader.produce("readings", 2, given[:25])
        await run(processors(host, port), 25)
        await reader.produce("readings", 2, given[25:])
        one = processors(host, port)
        await run(one, 61)
        assert one.status()["lag_records"] == 0
        assert [alert["state"] for alert in one.status()["alerts"]] == ["resolved"]
        reader.assign({("aggregates", 0): 0, ("alerts", 0): 0})
        found = {"aggregates": [], "alerts": []}  # type: dict[str, list[Any]]
        while len(found["aggregates"]) < 5 or len(found["alerts"]) < 4:
            for read in await reader.poll():
                found[read.topic] += [msgspec.json.decode(value or b"") for value in read.values]
        assert [(value["start"], value["count"]) for value in found["aggregates"]] == [
            (start, 10) for start in range(0, 50_000, 10_000)
        ]
        assert [value["state"] for value in found["alerts"]] == ["pending", "firing", "recovering", "resolved"]
        await reader.close()

    with_node(tmp_path, story)
