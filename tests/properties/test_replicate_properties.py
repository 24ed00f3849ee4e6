"""Replication's pure parts against naive models."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.log.records import Compression, Record, decode_batch, decode_headers, encode_batch, encode_headers
from gateway.replicate.copies import copy_records
from gateway.replicate.gather import Load, Position, Producer
from gateway.replicate.partitioner import partition_for
from gateway.replicate.progress import CHAIN_MAX, Destination, Part, Progress, decode, encode, spaced
from tests.support.edge import NaiveLog, reading

MS = st.integers(0, 1 << 42)
DATA = st.none() | st.binary(max_size=40)
HEADERS = st.lists(st.tuples(st.sampled_from(["hw-m", "hw-q", "hw-mar", "x", "hw-"]), DATA), max_size=4)
RECORDS = st.lists(st.tuples(MS, DATA, DATA, HEADERS.map(encode_headers)), min_size=1, max_size=30)
RANGE = st.tuples(st.integers(0, 1 << 50), st.integers(0, 1 << 50))


@given(
    RECORDS, st.integers(0, 1 << 40), st.text("abc-1", min_size=1, max_size=80), st.integers(0, 9), st.integers(0, 99)
)
def test_a_copy_differs_in_its_headers_alone(
    records: list[Record], base: int, node: str, partition: int, epoch: int
) -> None:
    columns = decode_batch(encode_batch(records, base_offset=base))
    copies = copy_records(columns, node=node, partition=partition, epoch=epoch, start=0, end=1 << 60)
    assert [copy[:3] for copy in copies] == [record[:3] for record in records]
    for number, (copy, record) in enumerate(zip(copies, records, strict=True)):
        kept = [pair for pair in decode_headers(record[3]) if pair[0] != "hw-m"]
        assert decode_headers(copy[3]) == [*kept, ("hw", f"{node}/{epoch}/{partition}/{base + number}".encode())]
    assert decode_batch(encode_batch(copies)).values == columns.values


@settings(max_examples=60)
@given(
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=25),
    begin=st.integers(0, 60),
    ranges=st.lists(st.tuples(st.integers(0, 150), st.integers(1, 20)), max_size=5),
    condemned=st.sets(st.integers(0, 150), max_size=4),
    bytes_max=st.integers(1, 6_000),
)
def test_every_offset_is_settled_once_and_for_a_reason(
    sizes: list[int], begin: int, ranges: list[tuple[int, int]], condemned: set[int], bytes_max: int
) -> None:
    """Whatever the batches, the holes and the size of a transaction: what is sent is the model's list."""
    log = NaiveLog()
    for size in sizes:
        log.add([reading(log.log_end_offset + n) for n in range(size)])
    log.sync()
    end = log.log_end_offset
    begin = min(begin, end)
    holes: list[tuple[int, int]] = []
    for start, length in sorted(ranges):
        if not holes or start > holes[-1][1]:
            holes.append((start, start + length))
    settled = {offset for start, stop in holes for offset in range(start, stop)}
    wrong = {offset: "refused" for offset in condemned if begin <= offset < end and offset not in settled}
    position = Position.resume(begin, log, None)
    position.ranges = [hole for hole in holes if hole[1] > begin]
    positions = {"readings/0": position}
    producer = Producer(1, 0, Compression.NONE)
    sent: list[bytes | None] = []
    for _ in range(1_000):
        if positions["readings/0"].done >= end:
            break
        load = Load(
            {"readings/0": log},
            positions,
            producer,
            node="n",
            raised={},
            until={},
            condemned={"readings/0": wrong},
            bytes_max=bytes_max,
        )
        while not load.step():
            pass
        sent += [value for batch in load.batches for value in decode_batch(batch.data).values]
        assert load.positions["readings/0"].done > positions["readings/0"].done
        positions = load.positions
    expected = [offset for offset in range(begin, end) if offset not in settled and offset not in wrong]
    assert sent == [reading(offset)[2] for offset in expected]
    assert positions["readings/0"].chain_value == log.chain_at(end)
    assert {start for start, stop, _ in positions["readings/0"].gone for start in range(start, stop)} == set(wrong)


@given(st.lists(st.integers(0, 1 << 40), max_size=60), st.integers(0, 1 << 40))
def test_chain_points_are_a_bounded_choice_of_what_was_given(offsets: list[int], done: int) -> None:
    points = [(offset, f"{offset:016x}") for offset in offsets]
    kept = spaced(points, done)
    assert len(kept) <= CHAIN_MAX
    assert set(kept) <= {point for point in points if point[0] <= done}
    assert [offset for offset, _ in kept] == sorted((offset for offset, _ in kept), reverse=True)
    assert bool(kept) == any(offset <= done for offset in offsets)


@given(
    st.dictionaries(
        st.text(max_size=8), st.builds(Part, done=st.integers(0), end=st.integers(0), ranges=st.lists(RANGE))
    ),
    st.lists(st.tuples(st.text(max_size=16), st.dictionaries(st.text(max_size=8), st.integers(0, 1 << 60)))),
    st.text(max_size=30),
)
def test_progress_survives_its_encoding(
    parts: dict[str, Part], runs: list[tuple[str, dict[str, int]]], node: str
) -> None:
    to = Destination(cluster="c", topics={"readings": ("t", 1)}, at={"readings": (7, "hw")})
    record = Progress(node=node, version="1", log="l", epoch=3, txn=9, runs=runs, parts=parts, to=to)
    assert decode(encode(record)) == record


@given(st.binary(max_size=40), st.integers(1, 1_000))
def test_a_partition_is_in_range(key: bytes, partitions: int) -> None:
    assert 0 <= partition_for(key, partitions) < partitions
