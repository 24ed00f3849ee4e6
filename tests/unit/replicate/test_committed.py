from __future__ import annotations

from gateway.log.records import NO_HEADERS, encode_batch, encode_control, patch
from gateway.replicate.committed import settled_batches, whole_batches


def batch(base: int, producer: int = -1, *, size: int = 2) -> bytes:
    data = encode_batch(
        [(1, b"k", b"v", NO_HEADERS)] * size,
        producer_id=producer,
        producer_epoch=0,
        base_sequence=0,
        transactional=producer >= 0,
    )
    patch(data, 0, base, 0)
    return bytes(data)


def marker(base: int, producer: int, *, commit: bool) -> bytes:
    data = encode_control(commit=commit, producer_id=producer, producer_epoch=0, coordinator_epoch=0, timestamp_ms=1)
    patch(data, 0, base, 0)
    return bytes(data)


def counted(data: bytes, aborted: list[tuple[int, int]]) -> list[int]:
    return [header.base_offset for header, _, counts in settled_batches(data, aborted) if counts]


def test_aborted_interleaved_with_committed() -> None:
    data = (
        batch(0)
        + batch(2, producer=7)
        + batch(4, producer=8)
        + marker(6, 7, commit=False)
        + batch(7, producer=7)
        + marker(9, 8, commit=True)
        + marker(10, 7, commit=True)
        + batch(11)
    )
    assert counted(data, [(7, 2)]) == [0, 4, 7, 11]


def test_two_aborted_in_a_row_of_one_producer() -> None:
    data = batch(0, 7) + marker(2, 7, commit=False) + batch(3, 7) + marker(5, 7, commit=False) + batch(6, 7)
    assert counted(data, [(7, 3), (7, 0)]) == [6]


def test_an_abort_that_began_before_what_was_fetched() -> None:
    assert counted(batch(10, 7) + marker(12, 7, commit=False) + batch(13, 7), [(7, 2)]) == [13]


def test_a_batch_cut_short_at_the_end_is_left_for_the_next_fetch() -> None:
    data = batch(0) + batch(2)
    for cut in range(1, len(batch(2)) + 1):
        assert len(whole_batches(data[:-cut])) == 1
    assert whole_batches(b"") == []
