"""Batches that are indexed together leave the indexes of Kafka's way, one after the other."""

from __future__ import annotations

from random import Random

import pytest

from gateway.log.errors import LogFailed
from gateway.log.segment import Segment
from tests.support.logs import NOW_MS, FlakyDisk, all_files, append, open_log
from tests.support.logs import batch as make_batch

OTHERS = ["lend", "hold", "let go", "flush", "flush", "roll", "sync fails", "write fails"]
OTHERS += ["ask for the newest", "ask for a time", "ask for a time", "ask for the chain"]


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


@pytest.mark.parametrize("seed", range(12))
def test_a_turn_that_is_held_leaves_what_one_by_one_leaves_whatever_comes_between(seed: int) -> None:
    random, disks = Random(seed), (FlakyDisk(), FlakyDisk())
    stores, logs = zip(*(open_log(disk, alarm=lambda _: None) for disk in disks), strict=True)
    flusher = stores[0].flusher  # the second log is never held, and never lent anything
    for step in range(300):
        what = random.choice(["append"] * 6 + OTHERS)
        values, at = [b"v" * random.randint(1, 90)] * random.randint(1, 6), NOW_MS + random.randint(0, 10_000)
        if what == "hold":
            flusher.hold()
        elif what == "let go":
            flusher.let_go()
        answers: list[object] = []
        for disk, store, log in zip(disks, stores, logs, strict=True):
            if what == "append" or (what == "lend" and log is not logs[0]):
                append(log, *values, timestamp=at)
            elif what == "lend":
                lent = make_batch(*values, timestamp=at)
                log.append(memoryview(lent), now_ms=NOW_MS)
                lent[:] = bytes(len(lent))
            elif what == "roll":
                log.roll_now()
            elif what == "ask for the newest":
                answers.append(log.newest_timestamp())
            elif what == "ask for a time":
                answers.append(log.offset_for_timestamp(at))
            elif what == "ask for the chain":
                answers.append(log.chain_at(log.log_end_offset))
            elif what == "write fails":
                disk.tear_next_append, disk.refuse_truncate = True, step % 2 == 0
                with pytest.raises(LogFailed):
                    append(log, b"lost", timestamp=NOW_MS + 20_000)
                disk.refuse_truncate = False
            elif what in ("flush", "sync fails"):
                disk.syncs_until_failure = 0 if what == "sync fails" else None
                store.flush_now()
                disk.syncs_until_failure = None
        assert answers[:1] == answers[1:]
    for store in stores:
        store.close()
    assert left(disks[0]) == left(disks[1])


def left(disk: FlakyDisk) -> dict[str, bytes]:
    """The files of the log, and what says how it was left; not those with ids, which are drawn."""
    files = all_files(disk).items()
    return {path: data for path, data in files if path.endswith("stop") or ("/t-0" in path and "meta" not in path)}
