"""Compaction: what of each key stays and where, tombstones, transactions, and failures in the middle of a pass."""

from __future__ import annotations

import re

import pytest

from gateway.log import records
from gateway.log.errors import CorruptBatch, OutOfOrderSequence
from gateway.log.partition import PartitionLog
from gateway.log.records import Compression
from gateway.log.recovery import Outcome
from gateway.log.steps import run_steps
from gateway.log.store import LogStore
from gateway.log.topic_config import DAY_MS
from tests.support.logs import DATA, NOW_MS, FlakyDisk, append, marker, segment_path
from tests.support.upkeep import FatefulDisk, PowerCutError, cleaner, compact, headers_of, open_compacted, put, rows_of


def filled(store: LogStore, log: PartitionLog, count: int = 60, keys: int = 7) -> dict[bytes, bytes]:
    """Batches of three records over a few keys; the latest value of each."""
    latest: dict[bytes, bytes] = {}
    for number in range(count):
        rows = [(b"key-%d" % ((number + more) % keys), b"%d" % number + bytes(40)) for more in range(3)]
        put(log, rows)
        latest |= dict(rows)
    store.flush_now()
    return latest


def test_the_latest_record_of_each_key_stays_at_its_offset() -> None:
    store, log = open_compacted(FlakyDisk())
    latest = filled(store, log)
    before = {row[0]: row for row in rows_of(log)}
    result = compact(store, log)
    after = rows_of(log)
    assert {key: value for _, key, value in after} == latest
    assert len(after) == len(latest)
    assert all(before[row[0]] == row for row in after)
    assert (log.log_start_offset, log.log_end_offset) == (0, 180)
    assert result.records_removed == 180 - len(latest)
    assert result.bytes_after < result.bytes_before / 4


def test_segments_that_became_small_are_merged_and_each_read_gets_on() -> None:
    store, log = open_compacted(FlakyDisk())
    filled(store, log, keys=2)
    assert log.segments_count > 8
    compact(store, log)
    assert log.segments_count < 8
    for offset in range(180):
        data = log.read(offset, 1).data
        assert records.read_header(data).last_offset >= offset
    assert log.offset_for_timestamp(NOW_MS) == (rows_of(log)[0][0], NOW_MS)


def test_a_second_pass_takes_what_was_written_since_and_merges_on() -> None:
    store, log = open_compacted(FlakyDisk())
    latest = filled(store, log)
    compact(store, log)
    for _ in range(20):
        latest |= filled(store, log, 12)
        compact(store, log)
    assert {key: value for _, key, value in rows_of(log)} == latest
    assert log.segments_count < 6
    assert log.size_bytes < 4_096


def test_nothing_is_rewritten_before_enough_is_new() -> None:
    store, log = open_compacted(FlakyDisk(), {"min.cleanable.dirty.ratio": "0.5"})
    for number in range(100):
        put(log, [(b"%d" % number, bytes(60))])
    compact(store, log)
    put(log, [(b"1", bytes(60))])
    store.flush_now()
    log.roll_now()
    store.flush_now()
    assert not cleaner(store, log).worth()
    for number in range(150):
        put(log, [(b"%d" % (number % 100), bytes(60))])
    store.flush_now()
    assert cleaner(store, log).worth()


@pytest.mark.parametrize("codec", [Compression.NONE, Compression.GZIP, Compression.ZSTD])
def test_a_batch_keeps_its_frame_and_its_codec(codec: Compression) -> None:
    store, log = open_compacted(FlakyDisk())
    rows = [(b"a", b"old"), (b"b", b"kept"), (b"a", b"old too")]
    batch = records.encode_batch(
        [(NOW_MS + n, key, value, records.encode_headers([("h", b"%d" % n)])) for n, (key, value) in enumerate(rows)],
        compression=codec,
    )
    log.append(batch, now_ms=NOW_MS)
    put(log, [(b"a", b"new")])
    compact(store, log)
    data = log.read(0, 1).data
    header = records.check_batch(data)
    columns = records.decode_batch(data)
    assert (header.base_offset, header.last_offset, header.count, header.compression) == (0, 2, 1, codec)
    assert (columns.offsets, columns.timestamps, columns.values) == ([1], [NOW_MS + 1], [b"kept"])
    assert records.decode_headers(columns.headers[0]) == [("h", b"1")]
    assert header.max_timestamp == NOW_MS + 1


def test_records_without_a_key_stay_for_they_were_acknowledged() -> None:
    store, log = open_compacted(FlakyDisk())
    put(log, [(None, b"nobody's"), (b"a", b"1")])
    compact(store, log)
    assert [row[2] for row in rows_of(log)] == [b"nobody's", b"1"]


def test_a_tombstone_stays_for_its_time_after_the_pass_that_met_it() -> None:
    store, log = open_compacted(FlakyDisk())
    put(log, [(b"a", b"1"), (b"b", b"1")])
    put(log, [(b"a", None)])
    put(log, [(b"c", b"1")])
    compact(store, log)
    assert [row[1:] for row in rows_of(log)] == [(b"b", b"1"), (b"a", None), (b"c", b"1")]
    columns = records.decode_batch(log.read(2, 1).data)
    assert columns.timestamps == [NOW_MS]  # the base timestamp is the horizon now, the record's is as it was
    put(log, [(b"d", b"1")])
    compact(store, log, now_ms=NOW_MS + DAY_MS - 1)
    assert (b"a", None) in [row[1:] for row in rows_of(log)]
    put(log, [(b"d", b"2")])
    compact(store, log, now_ms=None)
    assert (b"a", None) in [row[1:] for row in rows_of(log)]
    put(log, [(b"d", b"3")])
    compact(store, log, now_ms=NOW_MS + DAY_MS)
    assert [row[1:] for row in rows_of(log)] == [(b"b", b"1"), (b"c", b"1"), (b"d", b"3")]


def test_no_horizon_is_set_by_a_clock_that_is_not_trusted() -> None:
    store, log = open_compacted(FlakyDisk())
    put(log, [(b"a", None)])
    compact(store, log, now_ms=None)
    assert not any(header.attributes & 0x40 for header in headers_of(log))


def test_aborted_records_go_and_markers_stay_as_long_as_anything_needs_them() -> None:
    store, log = open_compacted(FlakyDisk())
    put(log, [(b"a", b"before")])
    put(log, [(b"a", b"aborted")], producer_id=7, producer_epoch=0, base_sequence=0, transactional=True)
    put(log, [(b"a", b"committed"), (b"b", b"1")], producer_id=8, producer_epoch=0, base_sequence=0, transactional=True)
    marker(log, 7, commit=False)
    marker(log, 8, commit=True)
    put(log, [(b"b", b"2")], producer_id=8, producer_epoch=0, base_sequence=2, transactional=True)
    marker(log, 8, commit=True)
    put(log, [(b"c", b"1")], producer_id=7, producer_epoch=0, base_sequence=1, transactional=True)
    marker(log, 7, commit=True)
    expected = [(b"a", b"committed"), (b"b", b"2"), (b"c", b"1")]
    for days in range(4):
        compact(store, log, now_ms=NOW_MS + days * 2 * DAY_MS)
        assert [row[1:] for row in rows_of(log, committed=True)] == expected
        if days == 0:
            assert [row[1:] for row in rows_of(log)] == expected
            assert sum(header.is_control for header in headers_of(log)) == 4
        put(log, [(b"d%d" % days, b"1")])
        expected.append((b"d%d" % days, b"1"))
    # The abort's marker went when nothing of its transaction was left; those of committed records stay.
    assert [header.base_offset for header in headers_of(log) if header.is_control] == [5, 7, 9]


def test_an_aborted_transaction_does_not_taint_the_same_producers_next_one() -> None:
    store, log = open_compacted(FlakyDisk())
    aborted = [(b"a", b"aborted"), (b"nobody else's", b"aborted")]
    put(log, aborted, producer_id=7, producer_epoch=0, base_sequence=0, transactional=True)
    marker(log, 7, commit=False)
    compact(store, log)
    assert rows_of(log) == []
    put(log, [(b"a", b"old")], producer_id=7, producer_epoch=0, base_sequence=2, transactional=True)
    put(log, [(b"a", b"new")], producer_id=7, producer_epoch=0, base_sequence=3, transactional=True)
    marker(log, 7, commit=True)
    compact(store, log)
    assert [row[1:] for row in rows_of(log, committed=True)] == [(b"a", b"new")]
    assert [row[1:] for row in rows_of(log)] == [(b"a", b"new")]


def test_what_an_open_transaction_may_still_change_is_left_alone() -> None:
    store, log = open_compacted(FlakyDisk())
    filled(store, log, 30)
    put(log, [(b"key-1", b"open")], producer_id=7, producer_epoch=0, base_sequence=0, transactional=True)
    filled(store, log, 30)
    compact(store, log)
    tail = [row for row in rows_of(log) if row[0] >= 90]
    assert len(tail) == 91
    marker(log, 7, commit=False)
    compact(store, log)
    assert b"open" not in [row[2] for row in rows_of(log)]
    assert len(rows_of(log)) == 7


def test_a_producers_last_batch_stays_empty_for_its_sequence() -> None:
    disk = FlakyDisk()
    store, log = open_compacted(disk)
    put(log, [(b"a", b"1"), (b"a", b"2")], producer_id=7, producer_epoch=3, base_sequence=0)
    put(log, [(b"a", b"3"), (b"b", b"3")], producer_id=7, producer_epoch=3, base_sequence=2)
    put(log, [(b"a", b"4"), (b"b", b"4")])
    compact(store, log)
    assert [(h.base_offset, h.last_offset, h.count, h.base_sequence) for h in headers_of(log)] == [
        (2, 3, 0, 2),
        (4, 5, 2, -1),
    ]
    store.close()
    for name in disk.names(f"{DATA}/log/t-0"):
        if name.endswith(".snapshot"):
            disk.remove(f"{DATA}/log/t-0/{name}")
    store, log = open_compacted(disk)
    with pytest.raises(OutOfOrderSequence):
        put(log, [(b"a", b"9")], producer_id=7, producer_epoch=3, base_sequence=9)
    again = records.encode_batch(
        [(NOW_MS, b"a", b"3", records.NO_HEADERS)] * 2, producer_id=7, producer_epoch=3, base_sequence=2
    )
    assert log.append(again, now_ms=NOW_MS).duplicate
    put(log, [(b"a", b"5")], producer_id=7, producer_epoch=3, base_sequence=4)


def test_with_more_keys_than_fit_it_goes_as_far_as_they_reach() -> None:
    store, log = open_compacted(FlakyDisk())
    for turn in range(2):
        for number in range(40):
            put(log, [(b"a-key-longer-than-a-digest-%d" % number, b"%d" % turn + bytes(40))])
    ends = [compact(store, log, keys_max=15).end_offset for _ in range(6)]
    assert ends == sorted(ends)
    assert ends[0] == 15
    assert ends[-1] == 80
    assert len(rows_of(log)) == 40


def test_an_abort_beyond_the_keys_that_fit_stays_an_abort() -> None:
    store, log = open_compacted(FlakyDisk(), {"segment.bytes": "8192"})
    for _ in range(2):
        put(log, [(b"a", b"1"), (b"b", b"1")])
    put(log, [(b"c", b"aborted")], producer_id=7, producer_epoch=0, base_sequence=0, transactional=True)
    marker(log, 7, commit=False)
    assert compact(store, log, keys_max=1).end_offset == 2
    assert [row[1] for row in rows_of(log, committed=True)] == [b"a", b"b"] * 2


def test_appends_and_reads_go_on_between_any_two_steps() -> None:
    store, log = open_compacted(FlakyDisk())
    latest = filled(store, log, 20)
    log.roll_now()
    store.flush_now()
    one = cleaner(store, log)
    for number, blocking in enumerate(one.steps()):
        if blocking is not None:
            blocking()
        put(log, [(b"late", b"%d" % number)])
        if number % 3 == 0:
            store.flush_now()
        assert {key: value for _, key, value in rows_of(log) if key != b"late"} == latest
    assert one.result is not None
    assert one.result.end_offset == 60


def test_a_failed_sync_meanwhile_ends_the_pass_and_costs_nothing() -> None:
    disk = FlakyDisk()
    store, log = open_compacted(disk, alarm=lambda text: None)
    latest = filled(store, log)
    log.roll_now()
    store.flush_now()
    one = cleaner(store, log)
    for number, blocking in enumerate(one.steps()):
        if blocking is not None:
            blocking()
        if number == 30:
            append(log, b"lost")
            disk.syncs_until_failure = 0
            store.flush_now()
    assert one.result is None
    assert {key: value for _, key, value in rows_of(log)} == latest
    _, log = open_compacted(disk)
    assert {key: value for _, key, value in rows_of(log)} == latest


def test_a_damaged_batch_ends_the_pass_with_everything_as_it_was() -> None:
    disk = FlakyDisk()
    store, log = open_compacted(disk)
    filled(store, log)
    log.roll_now()
    store.flush_now()
    names = disk.names(f"{DATA}/log/t-0")
    disk._live[segment_path(0)].data[200] ^= 1
    with pytest.raises(CorruptBatch, match=r"wrong CRC in .*00\.log at byte 0"):
        run_steps(cleaner(store, log).steps())
    assert disk.names(f"{DATA}/log/t-0") == names


@pytest.mark.parametrize("operation", ["append", "sync", "replace_file", "sync_directory"])
def test_a_disk_that_fails_meanwhile_leaves_a_log_that_serves_and_starts(operation: str) -> None:
    disk = FlakyDisk()
    store, log = open_compacted(disk)
    latest = filled(store, log)
    log.roll_now()
    store.flush_now()
    disk.fail_next[operation] = OSError(28, "No space left on device")
    with pytest.raises(OSError, match="No space"):
        run_steps(cleaner(store, log).steps())
    assert {key: value for _, key, value in rows_of(log)} == latest
    run_steps(cleaner(store, log).steps())
    assert len(rows_of(log)) == 7
    disk.power_cut()
    _, log = open_compacted(disk)
    assert len(rows_of(log)) == 7


def test_a_power_cut_before_any_change_of_the_disk_loses_nothing() -> None:
    disk = FatefulDisk()
    store, log = open_compacted(disk)
    filled(store, log, 25)
    start = disk.changes
    compact(store, log)
    changes = disk.changes - start
    assert changes > 30
    for number in range(1, changes + 1):
        disk = FatefulDisk()
        store, log = open_compacted(disk)
        latest = filled(store, log, 25)
        disk.cut_at = disk.changes + number
        with pytest.raises(PowerCutError):
            compact(store, log)
        disk.cut_at = None
        disk.power_cut(keep_tail_bytes=number % 5 * 40)
        store, log = open_compacted(disk)
        assert log.log_end_offset == 75
        assert {key: value for _, key, value in rows_of(log)} == latest
        assert {each.outcome for each in store.recovered} <= {Outcome.CLEAN, Outcome.INDEX_REBUILT}
        assert not [name for name in disk.names(f"{DATA}/log/t-0") if re.search(r"\.(cleaned|swap|deleted|tmp)$", name)]
        compact(store, log)
        assert len(rows_of(log)) == 7
        assert log.read(0, 700, committed=True).aborted == []


def test_a_compacted_log_starts_clean_with_its_gaps_even_when_the_list_of_topics_is_lost() -> None:
    disk = FlakyDisk()
    store, log = open_compacted(disk)
    filled(store, log, keys=2)
    compact(store, log)
    rows = rows_of(log)
    store.close()
    for name in ("topics.json", "topics.copy.json"):
        disk.remove(f"{DATA}/node/{name}")
    store, log = open_compacted(disk, alarm=lambda text: None)
    assert [each.outcome for each in store.recovered] == [Outcome.CLEAN]
    assert rows_of(log) == rows
    assert store.topics["t"].config == {"cleanup.policy": "compact"}


def test_a_compacted_topic_has_no_chain_and_others_keep_theirs() -> None:
    disk = FlakyDisk()
    store, log = open_compacted(disk)
    other = store.create_topic("readings").partitions[0]
    filled(store, log)
    append(other, b"1")
    store.flush_now()
    value = other.chain_at(1)
    compact(store, log)
    store.close()
    store, log = open_compacted(disk)
    assert (log.chain_at(0), log.chain_at(log.log_end_offset)) == (None, None)
    assert store.topics["readings"].partitions[0].chain_at(1) == value is not None
