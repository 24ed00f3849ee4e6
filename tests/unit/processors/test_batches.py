"""Record batches by NumPy: the same columns and the same errors as record by record."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest

from gateway.consume.batches import RecordColumns
from gateway.log import columns as general
from gateway.log.columns import Columns
from gateway.log.compression import Compression
from gateway.log.errors import CorruptBatch
from gateway.log.headers import NO_HEADERS, encode_headers
from gateway.log.layout import ATTRIBUTE_LOG_APPEND_TIME
from gateway.log.records import Record, encode_batch
from processors.batches import RECORDS_MIN, decode_batches

FIELDS = ("offsets", "timestamps", "keys", "values", "headers")


def told(columns: Columns | RecordColumns) -> dict[str, object]:
    return {name: getattr(columns, name) for name in FIELDS}


def decode(batch: bytes) -> RecordColumns:
    return decode_batches([batch])


def records(random: Random, count: int, *, value_bytes_max: int, steps_ms: int) -> list[Record]:
    """Sizes on both sides of every length of a number."""
    found: list[Record] = []
    for row in range(count):
        headers = [("hw", b"n/1/%d" % row)] if random.random() < 0.8 else []
        headers += [("hw-mark", random.randbytes(random.choice([0, 3, 70, 200])))] if random.random() < 0.1 else []
        value = random.randbytes(random.randrange(value_bytes_max))
        key = random.randbytes(random.choice([0, 1, 12, 63, 64, 65, 130]))
        at = 1_700_000_000_000 + random.randrange(-steps_ms, steps_ms)
        found.append((at, key, value, encode_headers(headers) if headers else NO_HEADERS))
    return found


@pytest.fixture
def unusual(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each batch that went the general way."""
    seen: list[int] = []
    one_by_one = general.decode_batch

    def counting(view: memoryview, **more: bool) -> Columns:
        if not more:
            seen.append(len(view))
        return one_by_one(view, **more)

    monkeypatch.setattr("gateway.consume.batches.decode_batch", counting)
    return seen


@pytest.mark.parametrize("compression", [Compression.NONE, Compression.ZSTD, Compression.GZIP, Compression.LZ4])
def test_the_same_columns(compression: Compression) -> None:
    random = Random(compression)
    for count in (RECORDS_MIN, RECORDS_MIN + 1, 150, 2_000):
        for value_bytes_max, steps_ms in ((20, 10), (70, 100), (300, 9_000), (9_000 if count < 200 else 90, 10**11)):
            given = records(random, count, value_bytes_max=value_bytes_max, steps_ms=steps_ms)
            batch = bytes(encode_batch(given, base_offset=123_456_789_012, compression=compression))
            assert told(decode(batch)) == told(general.decode_batch(batch, accelerate=False))


def test_usual_batches_take_the_quick_way_and_unusual_ones_the_general(unusual: list[int]) -> None:
    random = Random(1)
    usual = records(random, RECORDS_MIN, value_bytes_max=300, steps_ms=9_000)
    decode(bytes(encode_batch(usual)))
    assert unusual == []
    at, key, value, headers = usual[50]
    for odd in ((at, None, value, headers), (at, key, None, headers), (at, key, bytes(9_000), headers)):
        batch = bytes(encode_batch([*usual[:50], odd, *usual[51:]]))
        assert told(decode(batch)) == told(general.decode_batch(batch, accelerate=False))
    decode(bytes(encode_batch(usual[1:])))
    assert len(unusual) == 4


def test_times_of_the_broker() -> None:
    batch = encode_batch(records(Random(2), RECORDS_MIN, value_bytes_max=30, steps_ms=50))
    batch[22] |= ATTRIBUTE_LOG_APPEND_TIME
    batch[35:43] = (1_234_567).to_bytes(8, "big")
    assert decode(bytes(batch)).timestamps == [1_234_567] * RECORDS_MIN


def test_batches_that_follow_each_other_are_read_together(unusual: list[int]) -> None:
    random = Random(5)
    batches: list[bytes] = []
    one_by_one: dict[str, list[object]] = {name: [] for name in FIELDS}
    for number, count in enumerate([1, 30, 2, 200, 1, 70]):
        given = records(random, count, value_bytes_max=200, steps_ms=9_000)
        codec = Compression.ZSTD if number % 3 == 1 else Compression.NONE
        batch = encode_batch(given, base_offset=1_000 * number, compression=codec)
        if number == 2:
            batch[22] |= ATTRIBUTE_LOG_APPEND_TIME
        batches.append(bytes(batch))
        columns = general.decode_batch(batches[-1], accelerate=False)
        for name in FIELDS:
            one_by_one[name] += getattr(columns, name)
    assert told(decode_batches(batches)) == one_by_one
    assert unusual == []


def test_where_one_batch_ends_another_must_begin() -> None:
    given = records(Random(6), 60, value_bytes_max=30, steps_ms=50)
    first, second = bytearray(encode_batch(given)), bytearray(encode_batch(given, base_offset=60))
    first[57:61], second[57:61] = (61).to_bytes(4, "big"), (59).to_bytes(4, "big")  # as many records together
    with pytest.raises(CorruptBatch):
        decode_batches([bytes(first), bytes(second)])


def test_damage_is_found_and_named_as_record_by_record() -> None:
    random = Random(3)
    some = [encode_headers([("hw", b"n/1/%d" % row)]) if row % 2 else NO_HEADERS for row in range(RECORDS_MIN)]
    whole = bytes(encode_batch([(1_000 + row, b"key", b"v", headers) for row, headers in enumerate(some)]))
    refused = 0
    for _ in range(600):
        batch = bytearray(whole)
        for _ in range(random.choice([1, 1, 2, 5])):
            batch[random.randrange(61, len(batch))] = random.choice([0, 1, 0x7F, 0x80, 0xFF, random.randrange(256)])
        expected = said_of(bytes(batch), lambda view: general.decode_batch(view, accelerate=False))
        compiled = said_of(bytes(batch), general.decode_batch)  # may name it otherwise, and looks into headers too
        refused += isinstance(expected, str)
        assert said_of(bytes(batch), decode) in (expected, compiled)
    assert 100 < refused < 500


def said_of(batch: bytes, decode: Callable[[bytes], Columns | RecordColumns]) -> object:
    try:
        return told(decode(batch))
    except CorruptBatch as error:
        return str(error)
