"""Rows encode to the bytes that `encode_batch` makes of the same records."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.log.records import encode_batch, encode_headers
from gateway.log.rows import Rows

sections = st.dictionaries(st.text(max_size=3), st.binary(max_size=40), max_size=2).map(
    lambda pairs: encode_headers(list(pairs.items()))
)
times = st.integers(0, 20_000) | st.integers(8_180, 8_200)
row = st.tuples(
    times.map(lambda delta: 1_700_000_000_000 - 9_000 + delta), st.binary(max_size=80), st.binary(max_size=80), sections
)


@given(st.lists(row, min_size=1, max_size=80))
def test_the_same_bytes(records: list[tuple[int, bytes, bytes, bytes]]) -> None:
    rows = Rows()
    for record in records:
        rows.add(*record)
    assert rows.records() == records
    assert rows.encode() == encode_batch(records)


@pytest.mark.parametrize("value_bytes", [0, 63, 64, 8_191, 8_192, 16_383, 16_384, 70_000])
def test_long_values_and_many_rows(value_bytes: int) -> None:
    rows = Rows()
    rows.extend([7, 7 + 8_191], [b"k", b"k" * value_bytes], [b"v" * value_bytes, b""], [b"\x00"] * 2)
    assert rows.encode() == encode_batch(rows.records())
    rows.extend([7] * 16_384, [b"k"] * 16_384, [b"v"] * 16_384, [b"\x00"] * 16_384)
    assert rows.encode() == encode_batch(rows.records())


def test_no_rows_are_no_batch() -> None:
    with pytest.raises(ValueError, match="at least one record"):
        Rows().encode()
