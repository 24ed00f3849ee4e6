"""One partition: what it takes, what is read of it and when, segments and indexes, a disk that refuses."""

from __future__ import annotations

import struct

import pytest

from gateway.log import records
from gateway.log.chain import CHAIN_START, chain_next
from gateway.log.errors import CorruptBatch, LogFailed, OffsetOutOfRange
from gateway.log.partition import PartitionLog
from gateway.log.recovery import Outcome
from gateway.log.segment import chain_in
from gateway.log.settings import LogSettings
from gateway.log.store import LogStore
from headwater.disk import ForgetfulDisk
from tests.support.logs import DATA, NOW_MS, SMALL, FlakyDisk, append, batch, open_log, read_all, segment_path


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


def test_the_chain_at_a_segments_end_is_known_where_an_anchor_stands_there() -> None:
    disk = FlakyDisk()
    _, log = open_log(disk, settings=LogSettings(index_interval_bytes=1))
    for value in (b"a", b"b", b"c"):
        append(log, value)
    expected = log.chain_at(2)
    (segment,) = log._segments.all()
    segment.size, segment.next_offset = segment.anchor_positions[-1], 2  # as when its last batch is taken back
    assert chain_in(disk, segment, 2) == expected


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
