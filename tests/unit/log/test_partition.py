from __future__ import annotations

import struct
from typing import Any

import pytest

from gateway.log import records
from gateway.log.chain import CHAIN_START, chain_next
from gateway.log.errors import (
    CorruptBatch,
    DuplicateSequence,
    InvalidProducerEpoch,
    InvalidTransactionState,
    LogFailed,
    OffsetOutOfRange,
    OutOfOrderSequence,
)
from gateway.log.partition import PartitionLog
from gateway.log.recovery import Outcome
from gateway.log.settings import LogSettings
from gateway.log.store import LogStore
from headwater.disk import ForgetfulDisk
from tests.support.logs import (
    DATA,
    NOW_MS,
    SMALL,
    FlakyDisk,
    append,
    batch,
    marker,
    open_log,
    read_all,
    segment_path,
    values,
)


@pytest.fixture(name="disk")
def _disk() -> ForgetfulDisk:
    return ForgetfulDisk()


@pytest.fixture(name="store_and_log")
def _store_and_log(disk: ForgetfulDisk) -> tuple[LogStore, PartitionLog]:
    return open_log(disk)


@pytest.fixture(name="store")
def _store(store_and_log: tuple[LogStore, PartitionLog]) -> LogStore:
    return store_and_log[0]


@pytest.fixture(name="log")
def _log(store_and_log: tuple[LogStore, PartitionLog]) -> PartitionLog:
    return store_and_log[1]


def naive_index(data: bytes, base: int, interval: int) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Offset and time index as Kafka's LogSegment.append makes them, and its last entry at a roll."""
    entries: list[tuple[int, int]] = []
    times: list[tuple[int, int]] = []
    position = since = 0
    newest = (-1, 0)
    for view in records.split_batches(data):
        header = records.read_header(view)
        if header.max_timestamp > newest[0]:
            newest = (header.max_timestamp, header.last_offset - base)
        if since > interval:
            entries.append((header.last_offset - base, position))
            if not times or newest[0] > times[-1][0]:
                times.append(newest)
            since = 0
        position += len(view)
        since += len(view)
    if not times or newest[0] > times[-1][0]:
        times.append(newest)
    return entries, times


def fill(store: LogStore, log: PartitionLog, count: int) -> list[tuple[int, bytes | None]]:
    """Batches of 1 to 3 records over several segments, synced; the rows."""
    for number in range(count):
        append(log, *(b"%d-%d" % (number, part) + b"x" * 90 for part in range(1 + number % 3)))
    store.flush_now()
    return read_all(log)


def test_nobody_reads_past_the_synced_end(store: LogStore, log: PartitionLog) -> None:
    heard: list[str] = []
    log.subscribe(lambda: heard.append("advance"))
    assert append(log, b"a", b"b") == 0
    log.when_synced(2, lambda: heard.append("synced"))
    assert (log.log_end_offset, log.synced_offset) == (2, 0)
    assert log.read(0, 1_000).data == b""
    store.flush_now()
    assert heard == ["synced", "advance"]
    assert log.read(0, 1_000).high_watermark == 2
    assert read_all(log) == [(0, b"a"), (1, b"b")]
    log.when_synced(2, lambda: heard.append("at once"))
    assert heard[-1] == "at once"


def test_unsynced_segments_are_not_read_either(store: LogStore, log: PartitionLog) -> None:
    append(log, b"synced")
    store.flush_now()
    for _ in range(100):
        append(log, b"x" * 200)
    assert log.segments_count > 3
    for offset in (0, 1, 50, 100):
        assert len(read_all(log, offset)) == (offset == 0)
        assert log.read(offset, 99_999).high_watermark == 1


def test_a_subscription_ends(store: LogStore, log: PartitionLog) -> None:
    heard: list[int] = []
    end = log.subscribe(lambda: heard.append(1))
    end()
    end()
    append(log, b"a")
    store.flush_now()
    assert not heard


def test_one_listener_that_fails_keeps_no_other_back(store: LogStore, log: PartitionLog) -> None:
    heard: list[int] = []

    def fail() -> None:
        raise RuntimeError("a listener's mistake")

    append(log, b"a")
    log.when_synced(1, fail)
    log.when_synced(1, lambda: heard.append(1))
    store.flush_now()
    assert heard == [1]


def test_reads_find_every_offset_over_segments_at_any_size(store: LogStore, log: PartitionLog) -> None:
    rows = fill(store, log, 120)
    assert log.segments_count > 3
    assert [offset for offset, _ in rows] == list(range(log.log_end_offset))
    for offset in range(log.log_end_offset):
        assert read_all(log, offset, max_bytes=10_000) == rows[offset:]
    for max_bytes in (0, 1, 150, 400, 4_000):
        assert read_all(log, max_bytes=max_bytes) == rows


def test_a_read_holds_whole_batches_within_its_limit_but_one_at_least(store: LogStore, log: PartitionLog) -> None:
    fill(store, log, 30)
    size = len(batch(b"0-0" + b"x" * 90))
    assert len(records.split_batches(log.read(0, 1).data)) == 1
    for max_bytes in range(size, 2_000, 97):
        data = log.read(0, max_bytes).data
        assert len(data) <= max_bytes
        assert len(records.split_batches(data)) >= 1


def test_reads_outside_the_log_are_refused(store: LogStore, log: PartitionLog) -> None:
    append(log, b"a")
    store.flush_now()
    assert log.read(1, 100).data == b""
    for offset in (-1, 2):
        with pytest.raises(OffsetOutOfRange, match="t-0 holds 0 to 1"):
            log.read(offset, 100)


def test_several_batches_in_one_append(store: LogStore, log: PartitionLog) -> None:
    appended = log.append(batch(b"a", b"b") + batch(b"c"), now_ms=NOW_MS)
    assert (appended.base_offset, appended.next_offset, appended.duplicate) == (0, 3, False)
    store.flush_now()
    assert read_all(log) == [(0, b"a"), (1, b"b"), (2, b"c")]


def test_the_callers_bytes_are_copied_but_a_bytearray_is_patched(log: PartitionLog) -> None:
    append(log, b"a")
    frozen = bytes(batch(b"b"))
    log.append(memoryview(frozen), now_ms=NOW_MS)
    assert records.read_header(frozen).base_offset == 0
    given = batch(b"c")
    log.append(given, now_ms=NOW_MS)
    assert records.read_header(given).base_offset == 2


def test_what_is_no_whole_valid_batch_is_refused_and_nothing_is_written(store: LogStore, log: PartitionLog) -> None:
    good = bytes(batch(b"a", b"b"))
    bad: list[bytes] = [b"", *(good[:cut] for cut in range(1, len(good), 7)), good + good[:-1], good + b"\x00"]
    for position in (16, 17, 23, 26, 57, 60, len(good) - 1):  # magic, CRC, delta, count, body
        damaged = bytearray(good)
        damaged[position] ^= 1
        bad += [bytes(damaged), good + bytes(damaged)]
    for data in bad:
        with pytest.raises(CorruptBatch):
            log.append(data, now_ms=NOW_MS)
    append(log, b"z")
    store.flush_now()
    assert read_all(log) == [(0, b"z")]


def test_verify_false_spares_the_crc(log: PartitionLog) -> None:
    damaged = batch(b"a")
    damaged[17] ^= 1
    assert log.append(damaged, now_ms=NOW_MS, verify=False).next_offset == 1


def test_segments_roll_by_age_of_arrival_not_by_record_time(disk: ForgetfulDisk) -> None:
    _, log = open_log(disk, settings=LogSettings(segment_ms=1_000))
    log.append(batch(b"a", timestamp=5), now_ms=NOW_MS)
    log.append(batch(b"b", timestamp=NOW_MS * 2), now_ms=NOW_MS + 1_000)
    assert log.segments_count == 1
    log.append(batch(b"c"), now_ms=NOW_MS + 1_001)
    assert log.segments_count == 2
    log.append(batch(b"d"), now_ms=NOW_MS - 5_000)  # the clock stepped back
    assert log.segments_count == 2


def test_index_files_hold_the_entries_that_kafka_would_write(
    disk: ForgetfulDisk, store: LogStore, log: PartitionLog
) -> None:
    for number in range(100):
        append(log, b"x" * (number * 7 % 300), b"y", timestamp=NOW_MS + number * 17 % 40)
    store.close()
    bases = [int(name[:20]) for name in disk.names(f"{DATA}/log/t-0") if name.endswith(".log")]
    assert len(bases) > 3
    for base in bases:
        entries, times = naive_index(disk.read_file(segment_path(base)), base, SMALL.index_interval_bytes)
        assert entries
        assert disk.read_file(segment_path(base, ".index")) == b"".join(struct.pack(">ii", *each) for each in entries)
        assert disk.read_file(segment_path(base, ".timeindex")) == b"".join(struct.pack(">qi", *each) for each in times)


def test_a_roll_for_a_batch_that_is_then_refused_is_finished_too(
    disk: ForgetfulDisk, store: LogStore, log: PartitionLog
) -> None:
    append(log, b"x" * 3_900)
    put(log, numbered(0))
    store.flush_now()
    assert put(log, numbered(0)) == (1, 2, True)
    damaged = batch(b"y" * 300)
    damaged[-1] ^= 1
    with pytest.raises(CorruptBatch):
        log.append(damaged, now_ms=NOW_MS)
    assert log.segments_count == 2
    store.close()
    store, _ = open_log(disk)
    assert [finding.outcome for finding in store.recovered] == [Outcome.CLEAN]


def test_times_are_looked_up_over_segments(store: LogStore, log: PartitionLog) -> None:
    times = [NOW_MS + 100 * (number if number != 7 else 60) for number in range(80)]
    for time in times:
        append(log, b"x" * 90, b"y", timestamp=time)
    assert log.offset_for_timestamp(0) is None  # nothing is synced yet
    store.flush_now()
    everything = [stamp for time in times for stamp in (time, time + 1)]
    for asked in (0, NOW_MS, NOW_MS + 1, NOW_MS + 50, NOW_MS + 650, NOW_MS + 4_950, NOW_MS + 7_901):
        expected = next((offset, stamp) for offset, stamp in enumerate(everything) if stamp >= asked)
        assert log.offset_for_timestamp(asked) == expected
    assert log.offset_for_timestamp(NOW_MS + 7_902) is None
    assert log.newest_timestamp() == (159, NOW_MS + 7_901)


def test_the_chain_covers_every_header_and_is_known_at_each_boundary(store: LogStore, log: PartitionLog) -> None:
    fill(store, log, 60)
    value, at = CHAIN_START, 0
    while data := log.read(at, 1).data:
        assert log.chain_at(at) == value
        value = chain_next(value, data[:61])
        header = records.read_header(data)
        if header.count > 1:
            assert log.chain_at(at + 1) is None  # no boundary
        at = header.next_offset
    assert log.chain_at(at) == value
    assert log.chain_at(at + 1) is None


# -- idempotent producers


def numbered(sequence: int, *payload: bytes, epoch: int = 0, **more: Any) -> bytearray:
    return batch(*(payload or (b"p",)), producer_id=7, producer_epoch=epoch, base_sequence=sequence, **more)


def put(log: PartitionLog, data: bytearray) -> tuple[int, int, bool]:
    base_offset, next_offset, duplicate = log.append(data, now_ms=NOW_MS)
    return base_offset, next_offset, duplicate


def test_a_repeated_batch_is_answered_with_its_first_offsets(store: LogStore, log: PartitionLog) -> None:
    for sequence in range(0, 12, 2):
        put(log, numbered(sequence, b"a", b"b"))
    assert put(log, numbered(10, b"a", b"b")) == (10, 12, True)
    assert put(log, numbered(2, b"a", b"b")) == (2, 4, True)
    with pytest.raises(DuplicateSequence):  # older than the five that are remembered
        put(log, numbered(0, b"a", b"b"))
    assert log.log_end_offset == 12


def test_a_gap_is_refused_and_an_unknown_producer_is_not(log: PartitionLog) -> None:
    put(log, numbered(500))
    with pytest.raises(OutOfOrderSequence, match="501 is next"):
        put(log, numbered(502))
    assert put(log, numbered(501)) == (1, 2, False)


def test_epochs_fence_and_begin_at_sequence_zero(log: PartitionLog) -> None:
    put(log, numbered(0, epoch=3))
    with pytest.raises(InvalidProducerEpoch):
        put(log, numbered(1, epoch=2))
    with pytest.raises(OutOfOrderSequence):
        put(log, numbered(1, epoch=4))
    put(log, numbered(0, epoch=4))
    with pytest.raises(InvalidProducerEpoch):
        put(log, numbered(1, epoch=3))


def test_sequences_wrap(log: PartitionLog) -> None:
    put(log, numbered((1 << 31) - 2, b"a", b"b", b"c"))
    assert put(log, numbered((1 << 31) - 2, b"a", b"b", b"c")) == (0, 3, True)
    assert put(log, numbered(1)) == (3, 4, False)


def test_wrapped_sequences_survive_a_restart(disk: ForgetfulDisk, store: LogStore, log: PartitionLog) -> None:
    put(log, numbered((1 << 31) - 2, b"a", b"b", b"c"))
    for _ in range(40):
        append(log, b"x" * 200)
    store.close()
    _, log = open_log(disk)
    assert put(log, numbered((1 << 31) - 2, b"a", b"b", b"c")) == (0, 3, True)


def test_what_overlaps_a_remembered_batch_is_no_repeat(log: PartitionLog) -> None:
    put(log, numbered(0, b"a", b"b"))
    put(log, numbered(2, b"a", b"b"))
    for first, count in ((0, 3), (1, 2), (1, 1), (2, 1), (2, 3)):
        with pytest.raises(OutOfOrderSequence):
            put(log, numbered(first, *[b"x"] * count))


def test_a_batch_with_a_producer_id_comes_alone_and_complete(log: PartitionLog) -> None:
    for data in (
        numbered(0) + numbered(1),
        batch(b"a") + numbered(0),
        batch(b"a", producer_id=7, producer_epoch=0),
        batch(b"a", producer_id=-2, base_sequence=1),
    ):
        with pytest.raises(CorruptBatch):
            log.append(data, now_ms=NOW_MS)


# -- transactions


def test_read_committed_stops_at_the_first_open_transaction_until_its_marker_is_on_disk(
    store: LogStore, log: PartitionLog
) -> None:
    append(log, b"plain")
    put(log, numbered(0, b"t", transactional=True))
    append(log, b"after")
    store.flush_now()
    assert (log.synced_offset, log.last_stable_offset) == (3, 1)
    assert log.open_transactions() == [(7, 0, 1, NOW_MS)]
    assert [row[0] for row in values(log.read(0, 9_999, committed=True).data)] == [0]
    assert log.read(1, 9_999, committed=True).data == b""
    assert marker(log, 7, commit=True) == 3
    assert log.last_stable_offset == 1
    store.flush_now()
    assert log.last_stable_offset == 4
    assert log.open_transactions() == []
    assert log.read(0, 9_999, committed=True).aborted == []


def test_aborted_transactions_are_named_to_readers_of_their_range(store: LogStore, log: PartitionLog) -> None:
    put(log, numbered(0, b"x", b"y", transactional=True))  # 0-1
    append(log, b"plain", producer_id=8, producer_epoch=0, base_sequence=0, transactional=True)  # 2
    marker(log, 7, commit=False)  # 3
    marker(log, 8, commit=True)  # 4
    for _ in range(60):
        append(log, b"z" * 90)
    put(log, numbered(2, b"x", transactional=True))  # 65
    marker(log, 7, commit=False)  # 66
    store.flush_now()
    assert log.segments_count > 1
    assert log.read(0, 500, committed=True).aborted == [(7, 0)]
    assert log.read(3, 100, committed=True).aborted == [(7, 0)]
    assert log.read(4, 100, committed=True).aborted == []
    assert log.read(65, 100, committed=True).aborted == [(7, 65)]
    assert log.read(0, 500).aborted == []


def test_rules_of_transactions(log: PartitionLog) -> None:
    control = records.encode_control(
        commit=True, producer_id=7, producer_epoch=0, coordinator_epoch=0, timestamp_ms=NOW_MS
    )
    with pytest.raises(InvalidTransactionState, match="coordinator"):
        log.append(bytes(control), now_ms=NOW_MS)
    with pytest.raises(InvalidTransactionState, match="without a producer id"):
        append(log, b"a", transactional=True)
    put(log, numbered(0, transactional=True))
    with pytest.raises(InvalidTransactionState, match="outside"):
        put(log, numbered(1))
    marker(log, 7, commit=False, epoch=1)  # the coordinator fences a producer that timed out
    with pytest.raises(InvalidProducerEpoch):
        put(log, numbered(1, transactional=True))
    with pytest.raises(InvalidProducerEpoch):
        marker(log, 7, commit=True, epoch=0)
    put(log, numbered(0, epoch=1, transactional=True))


# -- a disk that refuses


def test_a_full_disk_refuses_the_batch_and_leaves_no_part_of_it() -> None:
    disk = FlakyDisk()
    store, log = open_log(disk)
    append(log, b"a")
    disk.tear_next_append = True
    with pytest.raises(LogFailed, match="No space") as caught:
        append(log, b"b")
    assert "Free some space" in caught.value.hint
    append(log, b"c")
    store.flush_now()
    assert read_all(log) == [(0, b"a"), (1, b"c")]
    disk.power_cut()
    store, log = open_log(disk)
    assert store.recovered[0].outcome is Outcome.CLEAN
    assert read_all(log) == [(0, b"a"), (1, b"c")]


def test_a_file_with_half_a_batch_that_cannot_be_cut_off_is_left_behind() -> None:
    disk = FlakyDisk()
    store, log = open_log(disk, alarm=lambda text: None)
    append(log, b"a")
    store.flush_now()
    disk.tear_next_append = disk.refuse_truncate = True
    with pytest.raises(LogFailed):
        append(log, b"b")
    disk.refuse_truncate = False
    append(log, b"c")
    store.flush_now()
    assert read_all(log) == [(0, b"a"), (1, b"c")]
    disk.power_cut(keep_tail_bytes=999)
    assert read_all(open_log(disk)[1]) == [(0, b"a"), (1, b"c")]


def test_a_closed_log_takes_nothing(store: LogStore, log: PartitionLog) -> None:
    store.close()
    with pytest.raises(LogFailed, match="closed"):
        append(log, b"a")
