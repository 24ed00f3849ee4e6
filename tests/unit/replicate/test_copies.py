from __future__ import annotations

import pytest

from gateway.log.errors import CorruptBatch
from gateway.log.records import NO_HEADERS, Record, decode_batch, decode_headers, encode_batch, encode_headers
from gateway.replicate.copies import copy_records, epoch_for, identity, identity_in


def copied(records: list[Record], *, base: int = 0, start: int = 0, end: int = 1 << 40, epoch: int = 3) -> list[Record]:
    columns = decode_batch(encode_batch(records, base_offset=base))
    return copy_records(columns, node="ridge", partition=2, epoch=epoch, start=start, end=end)


def test_key_value_and_timestamp_stay_and_the_identity_comes() -> None:
    (record,) = copied([(5, b"k", b"v", NO_HEADERS)], base=41)
    assert record[:3] == (5, b"k", b"v")
    assert decode_headers(record[3]) == [("hw", b"ridge/3/2/41")]
    assert identity_in(record[3]) == identity("ridge", 3, 2, 41)


def test_null_key_and_value_stay_null() -> None:
    assert copied([(5, None, None, NO_HEADERS)])[0][:3] == (5, None, None)


def test_the_mqtt_message_stays_at_the_edge() -> None:
    alone = encode_headers([("hw-m", b"17:deadbeef:pump-1")])
    among = encode_headers([("hw-q", b"estimated"), ("hw-m", b"17:deadbeef:pump-1"), ("hw-t", b"9")])
    first, second = copied([(1, b"k", b"v", alone), (2, b"k", b"v", among)])
    assert decode_headers(first[3]) == [("hw", b"ridge/3/2/0")]
    assert decode_headers(second[3]) == [("hw-q", b"estimated"), ("hw-t", b"9"), ("hw", b"ridge/3/2/1")]


def test_a_null_or_empty_mqtt_message_header_goes_too() -> None:
    for value in (None, b""):
        (record,) = copied([(1, b"k", b"v", encode_headers([("hw-m", value)]))])
        assert decode_headers(record[3]) == [("hw", b"ridge/3/2/0")]


def test_a_header_that_only_begins_like_it_stays() -> None:
    (record,) = copied([(1, b"k", b"v", encode_headers([("hw-mark", b"not json")]))])
    assert decode_headers(record[3]) == [("hw-mark", b"not json"), ("hw", b"ridge/3/2/0")]


def test_a_mark_is_widened_for_one_lane() -> None:
    mark = b'{"v":1,"node":"ridge","n":7,"src":{"mqtt:a":["connected",5]},"every_ms":1000}'
    (record,) = copied([(1, b"k", b"v", encode_headers([("hw-mark", mark), ("hw-m", b"1:0:a")]))])
    assert decode_headers(record[3]) == [
        ("hw-mark", mark[:-1] + b',"open":[],"lost":[]}'),
        ("hw", b"ridge/3/2/0"),
    ]


def test_only_the_offsets_asked_for() -> None:
    records: list[Record] = [(n, b"k", b"%d" % n, NO_HEADERS) for n in range(10)]
    assert [record[2] for record in copied(records, base=100, start=103, end=106)] == [b"3", b"4", b"5"]


def test_identities_grow_by_a_digit_inside_a_batch() -> None:
    records: list[Record] = [(n, b"k", b"v", NO_HEADERS) for n in range(4)]
    found = [identity_in(record[3]) for record in copied(records, base=98)]
    assert found == ["ridge/3/2/98", "ridge/3/2/99", "ridge/3/2/100", "ridge/3/2/101"]


def test_a_long_node_name_has_a_long_length() -> None:
    columns = decode_batch(encode_batch([(1, b"k", b"v", NO_HEADERS)]))
    (record,) = copy_records(columns, node="n" * 100, partition=0, epoch=0, start=0, end=1)
    assert decode_headers(record[3]) == [("hw", b"n" * 100 + b"/0/0/0")]


def test_damaged_headers_are_named() -> None:
    columns = decode_batch(encode_batch([(1, b"k", b"v", encode_headers([("a", b"b"), ("c", b"d")]))]))
    columns.headers[0] = columns.headers[0][:-1]
    with pytest.raises(CorruptBatch, match="damaged headers"):
        copy_records(columns, node="n", partition=0, epoch=0, start=0, end=1)


def test_a_restored_card_raises_the_epoch_from_where_histories_part() -> None:
    raised = [(100, 4), (200, 6)]
    assert [epoch_for(1, offset, raised) for offset in (99, 100, 199, 200)] == [1, 4, 4, 6]
    assert epoch_for(9, 200, raised) == 9
