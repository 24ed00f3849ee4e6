from __future__ import annotations

from pathlib import Path

import pytest

from gateway.replicate.progress import (
    CHAIN_MAX,
    GONE_MAX,
    Destination,
    Part,
    Progress,
    UnreadableProgressError,
    decode,
    encode,
    spaced,
    with_gone,
)

GOLDEN = Path(__file__).parents[2] / "golden" / "progress-v1.json"

RECORD = Progress(
    node="ridge-7",
    version="0.1.0",
    log="b0Gd8u0CQp2mT3cS0bVn5w",
    epoch=2,
    txn=4711,
    runs=[("00c5a1f09d3be2a7", {"readings/0": 1200, "deadletter/0": 3}), ("f3e09911aa20bb01", {"readings/0": 0})],
    parts={
        "readings/0": Part(
            done=1500,
            end=1600,
            oldest_unsent=1_700_000_000_123,
            ranges=[(1520, 1530)],
            gone=[(10, 20, "expired")],
            chain=[(1500, "0123456789abcdef"), (1200, "fedcba9876543210")],
        ),
        "deadletter/0": Part(done=3, end=3),
    },
    to=Destination(
        cluster="MkU3OEVBNTcwNTJENDM2Qk",
        topics={"readings": ("q1Sh-9_xT5mOq1fVJzDrLg", 5)},
        at={"readings": (90210, "ridge-7/2/0/1499")},
    ),
)


def test_the_record_is_byte_for_byte_what_docs_say() -> None:
    assert encode(RECORD) == GOLDEN.read_bytes().rstrip(b"\n")


def test_it_reads_what_it_writes() -> None:
    assert decode(encode(RECORD)) == RECORD


def test_fields_of_a_later_minor_addition_are_passed_over() -> None:
    assert decode(encode(RECORD)[:-1] + b',"later":1}') == RECORD


def test_a_newer_version_is_left_alone() -> None:
    with pytest.raises(UnreadableProgressError, match="version 2"):
        decode(encode(RECORD).replace(b'{"v":1', b'{"v":2', 1))


@pytest.mark.parametrize(
    "value", [b"", b"null", b"{}", b'{"v":1}', b'{"v":1,"node":5}', b"\xff\x00", encode(RECORD)[:-1]]
)
def test_damage_is_named(value: bytes) -> None:
    with pytest.raises(UnreadableProgressError, match="cannot be read"):
        decode(value)


def test_chain_points_thin_out_exponentially() -> None:
    points: list[tuple[int, str]] = []
    for done in range(100, 3_000_000, 100):
        points = spaced([*points, (done, f"{done:016x}")], done)
        assert len(points) <= CHAIN_MAX
        assert points[0] == (done, f"{done:016x}")
    distances = [done - offset for offset, _ in points]
    assert distances == sorted(distances)
    assert distances[-1] > 200_000
    assert len(points) >= 5
    assert all(later > 8 * earlier for earlier, later in zip(distances[1:-1], distances[3:], strict=False))


def test_chain_points_above_done_are_dropped() -> None:
    assert spaced([(10, "a"), (30, "b")], 20) == [(10, "a")]


def test_gone_ranges_merge_and_stay_bounded() -> None:
    gone = with_gone([(0, 5, "expired")], 5, 9, "expired")
    assert gone == [(0, 9, "expired")]
    assert with_gone(gone, 9, 10, "damaged") == [(0, 9, "expired"), (9, 10, "damaged")]
    for number in range(100):
        gone = with_gone(gone, 10 * number, 10 * number + 1, "refused")
    assert len(gone) == GONE_MAX
    assert gone[-1] == (990, 991, "refused")
