"""Backfill by source offsets: the fast way and the slow way are one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.consume.reader import Block
from gateway.log.records import NO_HEADERS, encode_headers
from processors.columns import KeyTable, Lanes, to_columns

copies = st.lists(st.tuples(st.sampled_from(["n1/0/0", "n1/0/0", "n1/1/0"]), st.integers(0, 120)), max_size=12)


def header(log: str, offset: int) -> bytes:
    return encode_headers([("hw", f"{log}/{offset}".encode())])


@given(st.lists(copies, max_size=4))
def test_backfill_is_what_lies_below_the_highest_seen(blocks: list[list[tuple[str, int]]]) -> None:
    lanes = Lanes()
    highest: dict[str, int] = {}
    for block in blocks:
        expected = []
        for log, offset in block:
            expected.append(offset < highest.get(log, -1))
            highest[log] = max(offset, highest.get(log, -1))
        assert lanes.backfill([header(log, offset) for log, offset in block]).tolist() == expected
    assert lanes.highest == {log.encode(): offset for log, offset in highest.items()}


@pytest.mark.parametrize("start", [10, 40, 95])
def test_a_block_of_one_log_by_the_fast_way(start: int) -> None:
    lanes = Lanes()
    lanes.highest[b"n1/0/0"] = 50
    offsets = [start, start + 2, start + 1, start + 7]
    assert lanes.backfill([header("n1/0/0", offset) for offset in sorted(offsets)]).tolist() == [
        offset < 50 for offset in sorted(offsets)
    ]
    lanes = Lanes()
    lanes.backfill([header("n1/0/0", 1)])
    assert lanes.backfill([header("n1/0/0", offset) for offset in offsets]).tolist() == [False, False, True, False]


def test_other_headers_do_not_hide_the_place() -> None:
    lanes = Lanes()
    both = encode_headers([("hw-q", b"bad/7"), ("hw", b"n1/0/0/9"), ("hw-t", b"1/2")])
    assert lanes.backfill([both, header("n1/0/0", 8), NO_HEADERS, b"\x02\x04hw\x7f"]).tolist() == [
        False,
        True,
        False,
        False,
    ]
    assert (
        lanes.backfill([encode_headers([("hw", b"n1/0/0/x")]), encode_headers([("hw", None)])]).tolist() == [False] * 2
    )


@pytest.mark.parametrize(
    "section",
    [
        header("n/0/0", 10**19),
        encode_headers([("x", b"1"), ("hw", b"n/0/0/" + b"9" * 30)]),
        encode_headers([("hw", b"n/0/0/" + b"9" * 5_000)]),
        encode_headers([("hw", b"n/0/0/-1")]),
        *[
            encode_headers([("hw-mark", b'{"node":"n",%b}' % member)])
            for member in (
                b'"live":1%b' % (b"0" * 20),
                b'"live":9223372036854775807',
                b'"live":1,"open":[[0,1%b]]' % (b"0" * 20),
                b'"live":1,"lost":[[0,1%b,1]]' % (b"0" * 20),
                b'"live":1,"n":1%b' % (b"0" * 20),
                b'"live":1,"epoch":%b' % (b"9" * 5_000),
            )
        ],
        encode_headers([("hw-mark", b"[" * 5_000)]),
        encode_headers([("hw-mark", b'{"node":"\xff"}')]),
    ],
)
def test_a_number_that_no_header_of_ours_has_is_passed_over(section: bytes) -> None:
    """What is read here ends in a checkpoint, whose numbers have 64 bits."""
    lanes = Lanes()
    block = Block("readings", 0, [0], [1], [b"n/x"], [b'{"v":1}'], [section], 1)
    columns = to_columns(block, KeyTable(), lanes)
    assert (columns.marks, lanes.highest, len(columns)) == ([], {}, 1)


def test_what_is_no_key_of_a_reading_has_no_number() -> None:
    keys = KeyTable()
    assert keys.ids([b"n/a", None, b"n/a", b"n", b"/a", b"n/", b"\xff/a", b"m/b/c"]) == [0, -1, 0, -1, -1, -1, -1, 1]
    assert keys.device(1) == ("m", "b/c")
    other = KeyTable()
    other.restore(keys.snapshot())
    assert other.ids([b"m/b/c", b"n/a"]) == [1, 0]
    assert (other.node_of, other.nodes) == (keys.node_of, keys.nodes)
