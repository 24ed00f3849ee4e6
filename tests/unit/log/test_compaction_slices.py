"""A batch of many records is compacted a slice at a time: others wait for a slice, not for the batch."""

from __future__ import annotations

from functools import cache

import pytest

from gateway.log import columns, records
from gateway.log.compaction import SLICE_RECORDS, decode_in_steps
from gateway.log.compression import Compression
from gateway.log.errors import CorruptBatch
from gateway.log.steps import run_steps
from tests.support.counted import most_lines
from tests.support.logs import NOW_MS, FlakyDisk
from tests.support.upkeep import cleaner, open_compacted, put, rows_of

COUNT = 3_000
# A line each for reading and writing a record's few fields, with room for another: a whole batch takes ten times that.
LINES_MAX = 60 * SLICE_RECORDS


def batch(count: int, codec: Compression = Compression.NONE) -> bytearray:
    rows = [(NOW_MS + at, b"key%d" % (at % (count // 2)), b"%d" % at, records.NO_HEADERS) for at in range(count)]
    return records.encode_batch(rows, compression=codec)


@pytest.mark.parametrize("codec", [Compression.NONE, Compression.ZSTD])
@pytest.mark.parametrize("compiled", [True, False])
def test_a_batch_of_many_records_is_compacted_in_many_steps(
    codec: Compression, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not compiled:
        monkeypatch.setattr(columns, "_compiled_decoder", cache(lambda: None))
    disk = FlakyDisk()
    store, log = open_compacted(disk)
    log.append(batch(COUNT, codec), now_ms=NOW_MS)
    put(log, [(b"other", b"")])
    log.roll_now()
    store.flush_now()
    one = cleaner(store, log)
    count, most, _ = most_lines(one.steps())
    assert one.result is not None
    assert one.result.records_removed == COUNT // 2
    assert [row[:2] for row in rows_of(log)][: COUNT // 2] == [
        (at, b"key%d" % (at - COUNT // 2)) for at in range(COUNT // 2, COUNT)
    ]
    assert most < LINES_MAX
    # Read twice, its keys taken, looked at, and half of it written.
    assert count > 4 * COUNT // SLICE_RECORDS


@pytest.mark.parametrize("codec", list(Compression))
@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("count", [2, SLICE_RECORDS, SLICE_RECORDS + 1, 3 * SLICE_RECORDS])
def test_what_slices_read_is_what_one_reading_gives(
    codec: Compression, compiled: bool, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not compiled:
        monkeypatch.setattr(columns, "_compiled_decoder", cache(lambda: None))
    data = batch(count, codec)
    found, wanted = run_steps(decode_in_steps(data)), records.decode_batch(data)
    for name in columns.Columns.__slots__:
        assert getattr(found, name) == getattr(wanted, name)


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("more", [-1, 1])
def test_a_batch_with_another_number_of_records_is_damage_in_slices_too(
    compiled: bool, more: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not compiled:
        monkeypatch.setattr(columns, "_compiled_decoder", cache(lambda: None))
    for count in (2, SLICE_RECORDS, 2 * SLICE_RECORDS):
        data = batch(count)
        data[57:61] = (count + more).to_bytes(4, "big")
        with pytest.raises(CorruptBatch):
            run_steps(decode_in_steps(data))
        with pytest.raises(CorruptBatch):
            records.decode_batch(data)
