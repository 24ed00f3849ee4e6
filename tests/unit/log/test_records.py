from __future__ import annotations

import struct
from typing import Any

import pytest
from aiokafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder

from gateway.log import columns as columns_module
from gateway.log import compression, records
from gateway.log.errors import CorruptBatch, MissingCodec
from gateway.log.records import NO_HEADERS, Compression, Record

ROWS: list[Record] = [
    (1_700_000_000_000, b"edge/t1", b'{"power":812}', NO_HEADERS),
    (1_700_000_000_007, None, b"", records.encode_headers([("hw-t", b"12"), ("leer", None), ("\u00e4", b"")])),
    (1_699_999_999_990, b"", None, NO_HEADERS),
    (1_700_000_900_000, b"k" * 300, b"v" * 70_000, NO_HEADERS),
]
# kafka-python 3.0.12: DefaultRecordBatchBuilder(magic=2, compression_type=0, is_transactional=1, producer_id=77,
# producer_epoch=3, base_sequence=9), two records with base offset 0.
GOLDEN = bytes.fromhex(
    "00000000000000000000004500000000024eb32a920010000000010000018bcfe568000000018bcfe56807000000000000004d0003"
    "00000009000000021200000002610468690012000e02010002026801"
)
GOLDEN_ROWS: list[Record] = [
    (1_700_000_000_000, b"a", b"hi", NO_HEADERS),
    (1_700_000_000_007, None, b"", records.encode_headers([("h", None)])),
]


PRODUCER: Any = {"transactional": True, "producer_id": 77, "producer_epoch": 3, "base_sequence": 9}


def aiokafka_batch(rows: list[Record], codec: int = 0) -> bytes:
    builder = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=codec,
        is_transactional=1,
        producer_id=77,
        producer_epoch=3,
        base_sequence=9,
        batch_size=1 << 20,
    )
    for offset, (timestamp, key, value, headers) in enumerate(rows):
        assert builder.append(offset, timestamp, key, value, records.decode_headers(headers)) is not None
    return bytes(builder.build())


def rows_of(view: bytes | bytearray, *, accelerate: bool = True) -> list[Record]:
    found = records.decode_batch(view, accelerate=accelerate)
    assert found.offsets == list(range(found.base_offset, found.base_offset + len(found)))
    return list(zip(found.timestamps, found.keys, found.values, found.headers, strict=True))


@pytest.mark.parametrize("rows", [ROWS, ROWS[:1], [(1, b"k", b"v", NO_HEADERS)] * 20_000], ids=["odd", "one", "many"])
def test_encode_is_byte_for_byte_what_a_foreign_codec_writes(rows: list[Record]) -> None:
    ours = records.encode_batch(rows, leader_epoch=-1, **PRODUCER)
    assert bytes(ours) == aiokafka_batch(rows)


def test_golden_batch_of_a_second_foreign_codec() -> None:
    assert bytes(records.encode_batch(GOLDEN_ROWS, **PRODUCER)) == GOLDEN
    assert rows_of(GOLDEN) == GOLDEN_ROWS


@pytest.mark.parametrize("codec", list(Compression))
def test_every_codec_of_a_foreign_writer_decodes(codec: Compression) -> None:
    foreign = aiokafka_batch(ROWS, int(codec))
    header = records.check_batch(foreign)
    assert header.compression == codec
    assert rows_of(foreign) == ROWS


@pytest.mark.parametrize("codec", list(Compression))
def test_every_codec_of_ours_is_read_by_a_foreign_reader(codec: Compression) -> None:
    ours = DefaultRecordBatch(bytes(records.encode_batch(ROWS, compression=codec)))
    assert ours.validate_crc()
    assert [(r.timestamp, r.key, r.value, records.encode_headers(r.headers)) for r in ours] == ROWS


@pytest.mark.parametrize("codec", [Compression.NONE, Compression.ZSTD])
def test_compiled_and_pure_decoder_give_the_same(codec: Compression) -> None:
    plain = [(timestamp, key, value, NO_HEADERS) for timestamp, key, value, _ in ROWS]
    for rows in (plain, [*plain, ROWS[1]]):  # the first record decides who decodes: headers may come later
        encoded = records.encode_batch(rows, compression=codec, base_offset=50)
        assert columns_module._compiled_decoder() is not None
        assert rows_of(encoded, accelerate=True) == rows_of(encoded, accelerate=False) == rows


def test_snappy_in_the_blocks_of_java_clients_decodes() -> None:
    whole = compression.compress(Compression.SNAPPY, b"abc" * 50)
    framed = b"\x82SNAPPY\x00" + struct.pack(">ii", 1, 1)
    for _ in range(2):
        framed += struct.pack(">i", len(whole)) + whole
    assert compression.decompress(Compression.SNAPPY, framed) == b"abc" * 100


@pytest.mark.parametrize("codec", [Compression.GZIP, Compression.SNAPPY, Compression.LZ4, Compression.ZSTD])
def test_what_expands_beyond_the_limit_is_refused(codec: Compression) -> None:
    packed = compression.compress(codec, bytes(1 << 20))
    assert compression.decompress(codec, packed, 1 << 20) == bytes(1 << 20)
    with pytest.raises(CorruptBatch):
        compression.decompress(codec, packed, (1 << 20) - 1)


@pytest.mark.parametrize("codec", [Compression.GZIP, Compression.SNAPPY, Compression.LZ4, Compression.ZSTD])
def test_damaged_compressed_data_raises_only_our_own_error(codec: Compression) -> None:
    packed = compression.compress(codec, b"some words that repeat, some words that repeat" * 20)
    for cut in range(0, len(packed), 3):
        with pytest.raises(CorruptBatch):
            records.decode_batch(_with_body(packed[:cut], codec))
    with pytest.raises(CorruptBatch, match="codec 7"):
        records.decode_batch(_with_body(packed, 7))


def test_a_codec_without_its_library_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = records.encode_batch(ROWS, compression=Compression.LZ4)

    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr("importlib.import_module", missing)
    with pytest.raises(MissingCodec, match="lz4") as caught:
        records.decode_batch(encoded)
    assert "cramjam" in caught.value.hint


def _with_body(body: bytes, codec: int, count: int = 1) -> bytes:
    encoded = records.encode_batch([(0, b"", b"", NO_HEADERS)])
    fields = list(records.read_header(encoded))
    fields[1], fields[5], fields[6], fields[12] = 49 + len(body), codec, count - 1, count
    return struct.pack(">qiibIhiqqqhii", *fields) + body


def test_header_fields_read_back() -> None:
    encoded = records.encode_batch(
        ROWS[:2], producer_id=5, producer_epoch=2, base_sequence=8, transactional=True, base_offset=90, leader_epoch=4
    )
    header = records.check_batch(encoded)
    assert (header.base_offset, header.last_offset, header.next_offset, header.leader_epoch) == (90, 91, 92, 4)
    assert (header.producer_id, header.producer_epoch, header.base_sequence, header.count) == (5, 2, 8, 2)
    assert header.is_transactional
    assert not header.is_control
    assert (header.base_timestamp, header.max_timestamp) == (ROWS[0][0], ROWS[1][0])
    assert header.size_bytes == len(encoded)


def test_offset_and_epoch_are_outside_the_crc() -> None:
    encoded = records.encode_batch(ROWS)
    records.patch(encoded, 0, 1 << 40, 12)
    header = records.check_batch(encoded)
    assert (header.base_offset, header.leader_epoch) == (1 << 40, 12)


def test_every_flipped_byte_under_the_crc_is_found() -> None:
    encoded = records.encode_batch(ROWS[:3])
    for position in [*range(8, 12), *range(16, len(encoded))]:
        damaged = bytearray(encoded)
        damaged[position] ^= 0x40
        with pytest.raises(CorruptBatch):
            records.check_batch(damaged)


@pytest.mark.parametrize("accelerate", [True, False])
def test_hostile_records_raise_only_our_own_error(*, accelerate: bool) -> None:
    encoded = bytes(records.encode_batch([(1, b"key", b"value", NO_HEADERS)] * 3))
    body = encoded[61:]
    for position in range(len(body)):
        for byte in (0x00, 0x7F, 0x80, 0xFF, 0x01):
            damaged = bytearray(encoded)
            damaged[61 + position] = byte
            try:
                records.decode_batch(damaged, accelerate=accelerate)
            except CorruptBatch:
                continue
    for cut in range(len(body)):
        with pytest.raises(CorruptBatch):
            records.decode_batch(_with_body(body[:cut], 0, count=3), accelerate=accelerate)
    with pytest.raises(CorruptBatch):
        records.decode_batch(_with_body(body + b"\x00", 0, count=3), accelerate=accelerate)
    with pytest.raises(CorruptBatch, match="2147483647"):
        records.decode_batch(_with_body(body, 0, count=(1 << 31) - 1), accelerate=accelerate)


def test_split_gives_whole_batches_and_names_where_a_cut_one_is() -> None:
    one, two = records.encode_batch(ROWS), records.encode_batch(ROWS[:1])
    assert [bytes(view) for view in records.split_batches(one + two)] == [one, two]
    for cut in range(1, len(two)):
        with pytest.raises(CorruptBatch, match=f"byte {len(one)} of"):
            records.split_batches(one + two[:cut])


def test_marker_is_a_control_batch_that_says_which() -> None:
    for commit in (True, False):
        control = records.encode_control(
            commit=commit, producer_id=9, producer_epoch=1, coordinator_epoch=7, timestamp_ms=1_000
        )
        header = records.check_batch(control)
        assert header.is_control
        assert header.is_transactional
        assert header.size_bytes == 78  # as Kafka's own
        assert records.control_type(control) is commit
        foreign = DefaultRecordBatch(bytes(control))
        assert foreign.is_control_batch
        assert next(iter(foreign)).key == struct.pack(">hh", 0, int(commit))
    with pytest.raises(CorruptBatch):
        records.control_type(records.encode_batch(ROWS))


def test_no_record_is_no_batch() -> None:
    with pytest.raises(ValueError, match="at least one"):
        records.encode_batch([])


def test_headers_round_trip_and_refuse_damage() -> None:
    pairs = [("hw", b"edge/0/0/12"), ("", b""), ("\u00fc", None)]
    blob = records.encode_headers(pairs)
    assert records.decode_headers(blob) == pairs
    assert records.encode_headers([]) == NO_HEADERS
    for cut in range(len(blob)):
        with pytest.raises(CorruptBatch):
            records.decode_headers(blob[:cut])
    with pytest.raises(CorruptBatch):
        records.decode_headers(blob + b"\x00")


def test_a_batch_with_more_records_than_memory_is_meant_for_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    data = records.encode_batch([(1, None, b"", NO_HEADERS)] * 6, compression=Compression.ZSTD)
    monkeypatch.setattr(columns_module, "DECODED_RECORDS_MAX", 5)
    with pytest.raises(CorruptBatch, match="6 records"):
        records.decode_batch(data)
