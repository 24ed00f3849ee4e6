from __future__ import annotations

import pytest

from gateway.replicate.partitioner import murmur2, partition_for

# From Kafka's own UtilsTest.testMurmur2 (signed there).
KAFKA_CASES = [
    (b"21", -973932308),
    (b"foobar", -790332482),
    (b"a-little-bit-long-string", -985981536),
    (b"a-little-bit-longer-string", -1486304829),
    (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
    (b"abc", 479470107),
]


@pytest.mark.parametrize(("key", "expected"), KAFKA_CASES)
def test_murmur2_is_kafkas(key: bytes, expected: int) -> None:
    assert murmur2(key) == expected & 0xFFFFFFFF


def test_it_agrees_with_another_client() -> None:
    kafka = pytest.importorskip("kafka.partitioner.default")
    for number in range(500):
        key = b"node-%d" % number * (number % 5)
        assert murmur2(key) == kafka.murmur2(key) & 0xFFFFFFFF


def test_partitions_are_in_range_and_used() -> None:
    assert {partition_for(b"node-%d" % n, 16) for n in range(500)} == set(range(16))
