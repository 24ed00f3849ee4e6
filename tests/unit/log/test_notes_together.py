"""Batches that are indexed together leave the indexes of Kafka's way, one after the other."""

from __future__ import annotations

from random import Random

import pytest

from gateway.log.errors import LogFailed
from gateway.log.segment import Segment
from tests.support.logs import NOW_MS, FlakyDisk, append, open_log


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
            batches, chains = [], []
            for _ in range(random.randint(1, 40)):
                count = random.randint(1, 5)
                batches.append((random.randint(61, largest), offset + count - 1, random.randint(0, 50)))
                chains.append(random.getrandbits(64))
                offset += count
            position = together.size
            together.grow(sum(size for size, _, _ in batches), offset)
            together.note_all(position, batches, chains if chained else None)
            for batch, chain in zip(batches, chains, strict=True):
                alone.note(*batch, chain if chained else None)
            assert together.size == alone.size
            assert together.unindexed == alone.unindexed
            assert together.newest_offset == alone.newest_offset
        assert len(together.index_files()[".index"]) > 100
        assert told(together) == told(alone)


def test_what_a_turn_has_synced_is_indexed_even_if_its_next_write_fails() -> None:
    disk = FlakyDisk()
    store, log = open_log(disk, alarm=lambda _: None)
    flusher = store.flusher
    flusher.hold()
    append(log, b"kept")
    flusher.flush_now()
    chain = log.chain_at(1)
    append(log, b"kept too", timestamp=NOW_MS + 5)
    flusher.flush_now()
    disk.tear_next_append = disk.refuse_truncate = True
    with pytest.raises(LogFailed):
        append(log, b"lost", timestamp=NOW_MS + 9)
    flusher.let_go()
    assert log.newest_timestamp() == (1, NOW_MS + 5)
    assert log.chain_at(1) == chain
    assert log.segments_count == 2
    store.close()
