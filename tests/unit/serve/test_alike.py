"""Produces that are alike are handled together, and nobody can tell: answers and log are those of one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import pytest

from gateway.connection import Connection
from gateway.log.plan import PlannedBatch
from gateway.log.segment import Segment
from gateway.log.settings import LogSettings
from gateway.log.store import LogStore
from gateway.serve import KafkaListener
from gateway.wire.alike import ALIKE_BYTES_MAX, Alike, learn
from gateway.wire.broker import Broker
from gateway.wire.compiler import decoder
from gateway.wire.framing import Buffer
from gateway.wire.schema import ApiKey
from gateway.wire.session import ServerSession, encode_request, encode_response
from gateway.wire.settings import KafkaSettings
from headwater.clock import ManualClock
from tests.support.logs import FlakyDisk, batch

VERSIONS = range(3, 13)


def body(records: Buffer | None, topic: str = "t", **other: Any) -> dict[str, Any]:
    part = {"index": other.pop("index", 0), "records": records}
    common = {"transactional_id": None, "acks": -1, "timeout_ms": 5_000}
    return common | {"topic_data": [{"name": topic, "partition_data": [part]}]} | other


def frame(version: int, correlation_id: int, records: Buffer | None, client: str = "c", **other: Any) -> bytes:
    return encode_request(ApiKey.PRODUCE, version, correlation_id, client, body(records, **other))


def learnt(version: int, records: bytes, **other: Any) -> Alike | None:
    session = ServerSession()
    session.feed(frame(version, 1, records, **other))
    assert session.next_request() is not None
    return session.alike


@pytest.mark.parametrize("version", VERSIONS)
def test_only_records_and_correlation_ids_may_differ(version: int) -> None:
    alike = learnt(version, b"x" * 100)
    assert alike is not None
    for size in (1, 100, 126, 127, 20_000):
        records = bytes([size % 251]) * size
        whole = memoryview(frame(version, 77 + size, records))[4:]
        found = alike.match(whole)
        assert found is not None
        assert bytes(found) == records
        decoded, _ = decoder("Produce", version)(whole, 8 + 2 + 1 + (version >= 9))
        assert alike.whole(found) == decoded
    others: list[dict[str, Any]] = [
        {"topic": "u"}, {"topic": "tt"}, {"index": 1}, {"acks": 1}, {"timeout_ms": 4_999}, {"client": "d"},
        {"transactional_id": "x"},
    ]  # fmt: skip
    for other in others:
        assert alike.match(memoryview(frame(version, 1, b"x" * 100, **other))[4:]) is None
    assert alike.match(memoryview(frame(version, 1, None))[4:]) is None
    assert alike.match(memoryview(frame(version, 1, b"x" * ALIKE_BYTES_MAX))[4:]) is None
    another = 3 if version != 3 else 4
    assert alike.match(memoryview(frame(another, 1, b"x" * 100))[4:]) is None
    whole = memoryview(frame(version, 1, b"x" * 100))[4:]
    for end in range(len(whole)):
        assert alike.match(whole[:end]) is None
    assert alike.match(memoryview(bytes(whole) + b"\0")) is None


def test_a_request_with_tags_is_another_kind() -> None:
    alike = learnt(9, b"x" * 100)
    assert alike is not None
    whole = bytearray(frame(9, 1, b"x" * 100)[4:])
    assert alike.match(memoryview(whole)) is not None
    whole[-1] = 1  # one tag to come, which is for the decoder to refuse
    assert alike.match(memoryview(whole)) is None


@pytest.mark.parametrize("version", [7, 9])
def test_what_is_not_learnt(version: int) -> None:
    assert learnt(version, b"x", acks=0) is None
    assert learnt(version, b"x", acks=2) is None
    two = [{"index": 0, "records": b"x"}, {"index": 1, "records": b"x"}]
    assert learnt(version, b"", topic_data=[{"name": "t", "partition_data": two}]) is None
    topics = [{"name": name, "partition_data": [{"index": 0, "records": b"x"}]} for name in "tu"]
    assert learnt(version, b"", topic_data=topics) is None
    assert learnt(version, b"x" * ALIKE_BYTES_MAX) is None
    whole = frame(version, 1, b"x")[4:]
    decoded = body(b"x")
    assert learn(memoryview(whole), version, "c", decoded) is not None
    assert learn(memoryview(whole + b"\0"), version, "c", decoded) is None  # something that is not known comes after


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("topic", ["t", "t" * 126, "t" * 127, "t" * 249])
def test_answers_are_those_that_each_would_have_got(version: int, topic: str) -> None:
    alike = learnt(version, b"x", topic=topic)
    assert alike is not None

    def answer(correlation_id: int, base: int, code: int = 0) -> bytes:
        part = {"index": 0, "error_code": code, "base_offset": base, "log_start_offset": 3}
        answered = {"responses": [{"name": topic, "partition_responses": [part]}]}
        return encode_response(ApiKey.PRODUCE, version, correlation_id, answered)

    for _ in range(2):  # the second time it is a copy
        good = answer(7, 100) + answer(900, 105) + answer(8, 106)
        assert alike.answers([7, 900, 8], [5, 1, 2], 100, 3) == good
        failed = answer(7, -1, 56) + answer(900, -1, 56)
        assert alike.answers([7, 900], [5, 1], -1, 3, 56) == failed
    late = answer(7, 100, 7) + answer(900, 105, 7)
    assert alike.answers([7, 900], [5, 1], 100, 3, 7) == late


@pytest.mark.parametrize("version", VERSIONS)
def test_a_run_is_cut_at_once_or_one_by_one_with_the_same_result(version: int) -> None:
    """Whatever lengths follow one another, and whatever comes after them, in whatever pieces."""
    random = Random(version)
    quick, slow = learnt(version, b"x"), learnt(version, b"x")
    assert quick is not None
    assert slow is not None
    rows = 0
    for _ in range(300):
        sizes = random.choices([1, 100, 3_000, 5_000], k=random.randrange(1, 4))
        batches = [random.randbytes(size) for size in sizes for _ in range(random.randrange(1, 6))]
        parts = [frame(version, random.randrange(-5, 9_000), records) for records in batches]
        if random.random() < 0.3:
            parts[random.randrange(len(parts))] = frame(version, 1, random.randbytes(100), topic="u")
        if version >= 9 and random.random() < 0.3:
            parts[-1] = parts[-1][:-1] + b"\x01"  # a tag
        stream = memoryview(b"before" + b"".join(parts) + parts[0][: random.randrange(30)])
        if random.random() < 0.2:
            stream = stream[: random.randrange(6, len(stream))]
        count_max, bytes_max = random.choice([2, 50]), random.choice([200, 3_100, 1 << 20])
        ids, records, at = list[int](), list[bytes](), 6
        while True:
            run, at = quick.cut(stream, at, count_max - len(ids), bytes_max)
            rows += type(run.records) is tuple
            ids += run.correlation_ids
            records += [bytes(each) for each in run.records]
            if not run.records:
                break
        expected, expected_end = slow._cut_slowly(stream, 6, count_max, bytes_max)
        assert at == expected_end
        assert ids == expected.correlation_ids
        assert records == [bytes(each) for each in expected.records]
    assert rows > 20  # it was worth it


class Pipe:
    """A connection whose bytes the test hands over and collects; syncs and turns of the loop come when it says so."""

    def __init__(self, *, together: bool, alone: bool | None = None) -> None:
        self.calls: list[tuple[Callable[..., object], tuple[Any, ...]]] = []
        self.sent = b""
        self.writes = 0
        self.closed = False
        self.disk = FlakyDisk()
        self.clock = ManualClock()
        self.store = LogStore.open(
            "/data", node="n", settings=LogSettings(fsync_interval_ms=0), disk=self.disk, clock=self.clock,
            call_in_loop=lambda call: self.call_soon(call), call_soon=lambda call: self.call_soon(call),
            flusher="manual" if alone is None else "thread", alarm=lambda _: None,
        )  # fmt: skip
        self.store.create_topic("t", partitions=2)
        self.broker = Broker(self.store, self.clock)
        self.host = KafkaListener(self.broker, KafkaSettings(), self)  # type: ignore[arg-type]
        self.host.one_alone = lambda: bool(alone)
        self.connection = Connection(self.host)
        self.connection.connection_made(self)  # type: ignore[arg-type]
        if not together:
            self.connection.session.next_alike = lambda count_max: None  # type: ignore[method-assign]

    def call_soon(self, call: Callable[..., object], *arguments: Any) -> None:
        self.calls.append((call, arguments))

    def turn(self) -> None:
        while self.calls:
            calls, self.calls = self.calls, []
            for call, arguments in calls:
                call(*arguments)

    def receive(self, data: bytes) -> None:
        for at in range(0, len(data), len(self.host.buffer)):
            part = data[at : at + len(self.host.buffer)]
            self.host.buffer[: len(part)] = part
            self.connection.buffer_updated(len(part))
            self.host.buffer[: len(part)] = b"\xee" * len(part)
            self.turn()

    def sync(self) -> None:
        self.store.flush_now()
        self.turn()

    def write(self, data: bytes) -> None:
        self.sent += data
        self.writes += 1

    def get_extra_info(self, name: str) -> None:
        return None

    def set_write_buffer_limits(self, high: int) -> None: ...
    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def stored(self) -> list[bytes]:
        parts = [self.store.partition("t", index) for index in range(2)]
        return [part.read(0, 1 << 24).data for part in parts if part is not None]

    def indexed(self) -> list[object]:
        parts = [part for index in range(2) if (part := self.store.partition("t", index)) is not None]
        chains = [[part.chain_at(offset) for offset in range(part.log_end_offset + 1)] for part in parts]
        times = [part.newest_timestamp() for part in parts]
        return [chains, times, [part.active_segment.index_files() for part in parts]]


def request(random: Random, correlation_id: int) -> bytes:
    """Mostly alike, and whatever else may come between them."""
    records = bytearray(batch(*[random.randbytes(random.randrange(40)) for _ in range(random.randrange(1, 4))]))
    kind = random.randrange(12)
    version = 7
    if kind == 0:
        records[-1] ^= 0x55  # its CRC is wrong
    elif kind == 1:
        records[16] = 1
    elif kind == 2:
        records = bytearray(batch(b"v", producer_id=9, producer_epoch=0, base_sequence=correlation_id))
    elif kind == 3:
        version = 12
    elif kind == 4:
        return encode_request(ApiKey.FIND_COORDINATOR, 0, correlation_id, "c", {"key": "group"})
    elif kind == 5:
        records *= 2  # two batches where there must be one
    return frame(version, correlation_id, bytes(records), index=random.choice([0, 0, 0, 0, 0, 1, 2]))


@pytest.mark.parametrize("alone", [None, True])
@pytest.mark.parametrize("seed", range(12))
def test_together_is_as_one_by_one(seed: int, alone: bool | None) -> None:
    """The same bytes, cut anywhere, with syncs between that may fail: the same bytes come back, the same are stored."""
    random = Random(seed)
    pipes = Pipe(together=True, alone=alone), Pipe(together=False, alone=alone)
    stream = b"".join(request(random, number) for number in range(150))
    while stream:
        size = random.choice([1, 100, 700, 5_000, 20_000])
        fails = random.random() < 0.05
        for pipe in pipes:
            if fails and alone:
                pipe.disk.fail_next["sync"] = OSError(5, "Input/output error")
            pipe.receive(stream[:size])
            if fails:
                pipe.disk.fail_next["sync"] = OSError(5, "Input/output error")
            pipe.sync()
        stream = stream[size:]
    for pipe in pipes:
        pipe.sync()
    together, one_by_one = pipes
    assert together.sent == one_by_one.sent
    assert together.stored() == one_by_one.stored()
    assert together.indexed() == one_by_one.indexed()
    assert together.broker.status() == one_by_one.broker.status()
    assert len(together.sent) > 4_000
    for pipe in pipes:
        pipe.store.close()


def test_a_pipeline_of_produces_is_one_append_and_one_answer() -> None:
    pipe = Pipe(together=True)
    pipe.receive(frame(7, 0, batch(b"first")))
    pipe.sync()
    appends, pipe.writes = 0, 0
    append = pipe.disk.append

    def counted(handle: int, data: bytes | bytearray | memoryview) -> None:
        nonlocal appends
        appends += 1
        append(handle, data)

    pipe.disk.append = counted  # type: ignore[method-assign]
    pipe.receive(b"".join(frame(7, number, batch(b"%d" % number)) for number in range(1, 41)))
    assert (appends, pipe.writes, pipe.connection.outstanding) == (1, 0, 40)
    pipe.sync()
    assert (appends, pipe.writes, pipe.connection.outstanding) == (1, 1, 0)


def test_what_a_sync_releases_is_sent_before_the_loop_turns() -> None:
    pipe = Pipe(together=True)
    pipe.receive(frame(7, 0, batch(b"first")) + encode_request(ApiKey.FIND_COORDINATOR, 0, 1, "c", {"key": "group"}))
    assert pipe.writes == 0
    pipe.store.flush_now()
    assert (pipe.writes, pipe.calls) == (1, [])  # the second answer had waited for its turn behind the first
    assert pipe.connection.outstanding == 0


def test_those_that_wait_too_long_for_the_disk_hear_so_each() -> None:
    pipe = Pipe(together=True)
    pipe.receive(b"".join(frame(7, number, batch(b"v")) for number in range(3)))
    pipe.clock.advance(7_000)
    pipe.broker.tick()
    pipe.turn()
    size = len(pipe.sent) // 3
    code_at = 4 + 4 + 4 + 2 + 1 + 4 + 4
    assert [pipe.sent[size * n + code_at : size * n + code_at + 2] for n in range(3)] == [b"\0\x07"] * 3
    assert [int.from_bytes(pipe.sent[size * n + 4 : size * n + 8], "big") for n in range(3)] == [0, 1, 2]


@pytest.mark.parametrize("alone", [False, True])
def test_what_comes_alone_is_synced_and_answered_in_the_turn_that_brought_it(alone: bool) -> None:
    pipe = Pipe(together=True, alone=alone)
    for turn in range(3):
        data = b"".join(frame(7, number, batch(b"v")) for number in range(3))
        pipe.host.buffer[: len(data)] = data
        pipe.connection.buffer_updated(len(data))
        assert (pipe.writes, bool(pipe.calls)) == ((turn + 1, False) if alone else (turn, True))
        pipe.turn()
        assert pipe.writes == turn + 1
        assert pipe.store.flusher.rounds_in_loop == turn + 1
    pipe.store.close()


def test_what_comes_alone_is_answered_before_it_is_indexed(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = Pipe(together=True, alone=True)
    noted, note_all = list[int](), Segment.note_all

    def noting(segment: Segment, position: int, batches: list[PlannedBatch], chains: Sequence[int] | None) -> None:
        noted.append(pipe.writes)
        note_all(segment, position, batches, chains)

    monkeypatch.setattr(Segment, "note_all", noting)
    for turn in (1, 2):
        pipe.receive(b"".join(frame(7, number, batch(b"v")) for number in range(3)))
        assert pipe.writes == turn
    assert noted[-1] == 2
    pipe.store.close()


def test_what_comes_alone_hears_in_the_same_turn_that_the_disk_failed() -> None:
    pipe = Pipe(together=True, alone=True)
    pipe.receive(frame(7, 0, batch(b"first")))
    pipe.sent = b""
    pipe.disk.fail_next["sync"] = OSError(5, "Input/output error")
    pipe.receive(b"".join(frame(7, number, batch(b"v")) for number in range(3)))
    size = len(pipe.sent) // 3
    code_at = 4 + 4 + 4 + 2 + 1 + 4 + 4
    assert [pipe.sent[size * n + code_at : size * n + code_at + 2] for n in range(3)] == [b"\0\x38"] * 3
    assert (pipe.connection.outstanding, len(pipe.broker.waits.open)) == (0, 0)
    pipe.store.close()
