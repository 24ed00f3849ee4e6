"""Batches that are indexed together leave the indexes of Kafka's way, one after the other."""

from __future__ import annotations

from random import Random

import pytest

from gateway.log.segment import Segment


def told(segment: Segment) -> tuple[object, ...]:
    positions, chains = list(segment.anchor_positions), list(segment.anchor_chains)
    whole = segment.size, segment.unindexed, segment.next_offset, segment.newest_timestamp, segment.newest_offset
    return *whole, positions, chains, segment.index_files()


@pytest.mark.parametrize("largest", [90, 700, 3000, 9000])
def test_together_or_one_by_one_the_indexes_are_the_same(largest: int) -> None:
    random = Random(largest)
    for chained in (True, False):
        together, alone = Segment("/d", 1000, 4096), Segment("/d", 1000, 4096)
        offset = 1000
        for _ in range(60):
            batches = []
            for _ in range(random.randint(1, 40)):
                count = random.randint(1, 5)
                chain = random.getrandbits(64) if chained else None
                batches.append((random.randint(61, largest), offset + count - 1, random.randint(0, 50), chain))
                offset += count
            together.note_all(batches)
            for batch in batches:
                alone.note(*batch)
            assert together.size == alone.size
            assert together.unindexed == alone.unindexed
            assert together.newest_offset == alone.newest_offset
        assert len(together.index_files()[".index"]) > 100
        assert told(together) == told(alone)
