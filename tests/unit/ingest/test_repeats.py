"""The two memories of repeats, rule by rule."""

from __future__ import annotations

import struct

import pytest

from gateway.ingest.eventtime import FUTURE_MAX_MS, record_time
from gateway.ingest.repeats import (
    USES_MAX,
    DupMemory,
    NaturalMemory,
    companion,
)


def ids(*packet_ids: int) -> bytes:
    return struct.pack(f">{len(packet_ids)}H", *packet_ids)


def crcs(*values: int) -> bytes:
    return struct.pack(f">{len(values)}I", *values)


def memory() -> DupMemory:
    made = DupMemory(5_000)
    made.connection_began(resumed=True)
    made.use(1, 111)
    return made


def test_an_unwritten_puback_makes_a_repeat_on_any_connection() -> None:
    uses = memory()
    assert uses.is_repeat(1, 111)
    uses.connection_ended(1_000)
    uses.connection_began(resumed=True)
    assert uses.is_repeat(1, 111)


@pytest.mark.parametrize(("written_ms", "repeat"), [(5_001, True), (10_000, True), (5_000, False), (1_000, False)])
def test_a_written_puback_counts_for_five_seconds_before_the_end(written_ms: float, repeat: bool) -> None:
    uses = memory()
    uses.written(ids(1), written_ms)
    uses.connection_ended(10_000)
    uses.connection_began(resumed=True)
    assert uses.is_repeat(1, 111) is repeat


def test_another_payload_or_identifier_is_another_message() -> None:
    uses = memory()
    assert not uses.is_repeat(1, 112)
    assert not uses.is_repeat(2, 111)


def test_only_the_latest_use_of_an_identifier_counts() -> None:
    uses = memory()
    uses.use(1, 222)
    assert not uses.is_repeat(1, 111)


def test_what_was_acknowledged_on_this_connection_is_a_new_message() -> None:
    uses = memory()
    uses.connection_ended(10_000)
    uses.connection_began(resumed=True)
    uses.written(ids(1), 11_000)
    assert not uses.is_repeat(1, 111)


def test_a_session_that_is_not_resumed_forgets() -> None:
    uses = memory()
    uses.connection_began(resumed=False)
    assert not uses.is_repeat(1, 111)


def test_uses_that_came_together_are_settled_together_or_one_by_one() -> None:
    uses = DupMemory(5_000)
    uses.connection_began(resumed=True)
    uses.use_all(ids(1, 2, 3), crcs(11, 22, 33))
    uses.use_all(ids(4, 5), crcs(44, 55))
    uses.written(ids(1, 2, 3), 1_000)
    assert [uses.is_repeat(packet_id, packet_id * 11) for packet_id in range(1, 6)] == [False] * 3 + [True] * 2
    uses.written(ids(5), 2_000)  # out of order
    assert [uses.is_repeat(packet_id, packet_id * 11) for packet_id in (4, 5)] == [True, False]
    uses.forget([4])
    assert not uses.is_repeat(4, 44)
    assert len(uses) == 4


def test_a_repeat_that_was_acknowledged_again_counts_from_then() -> None:
    uses = memory()
    uses.written(ids(1), 1_000)
    uses.connection_ended(1_500)
    uses.connection_began(resumed=True)
    assert uses.is_repeat(1, 111)
    uses.written(ids(1), 5_500)
    uses.connection_ended(9_000)
    uses.connection_began(resumed=True)
    assert uses.is_repeat(1, 111)


def test_memory_is_bounded_by_count_and_by_age() -> None:
    uses = DupMemory(5_000)
    for packet_id in range(1, USES_MAX + 100):
        uses.use(packet_id, packet_id)
    assert len(uses) == USES_MAX
    uses.written(ids(*range(100, USES_MAX + 100)), 1_000)
    uses.use(9, 9)
    uses.written(ids(9), 7_000)
    assert len(uses) == 1


def test_natural_keys_within_their_horizon() -> None:
    keys = NaturalMemory(horizon=7)
    for number in range(20):
        assert not keys.is_repeat(b"d", number, 1_000 + number)
    assert keys.is_repeat(b"d", 19, 1_019)
    assert keys.is_repeat(b"d", 13, 1_013)
    assert not keys.is_repeat(b"d", 12, 1_012)  # beyond the horizon
    assert not keys.is_repeat(b"other", 19, 1_019)


def test_a_sequence_that_starts_again_loses_nothing() -> None:
    keys = NaturalMemory()
    assert not keys.is_repeat(b"d", 0, 1_000)
    assert not keys.is_repeat(b"d", 0, 2_000)
    assert keys.is_repeat(b"d", 0, 2_000)


def test_zero_and_texts_and_huge_numbers_are_keys_too() -> None:
    keys = NaturalMemory()
    for key in (0, "", "x9", -1, 1 << 70, -(1 << 70)):
        assert not keys.is_repeat(b"d", key, companion(0, b""))
        assert keys.is_repeat(b"d", key, companion(0, b""))


def test_without_a_claimed_time_the_value_must_agree() -> None:
    assert companion(None, b'{"x":1}') == companion(None, b'{"x":1}') != companion(None, b'{"x":2}')
    assert companion(None, b"") < 0 <= companion(-5, b"")
    assert companion(1 << 80, b"") < 1 << 63


def test_devices_remembered_are_bounded() -> None:
    keys = NaturalMemory(devices_max=2)
    for device in (b"a", b"b", b"c"):
        keys.is_repeat(device, 1, 1)
    assert keys.is_repeat(b"c", 1, 1)
    assert not keys.is_repeat(b"a", 1, 1)


def test_who_was_silent_longest_makes_room() -> None:
    keys = NaturalMemory(devices_max=2)
    for device in (b"a", b"b", b"a", b"c"):
        keys.is_repeat(device, 1, 1)
    assert keys.repeats([b"a", b"c"], [1, 1], [1, 1]) == [0, 1]
    assert keys.forgotten == 1
    assert not keys.is_repeat(b"b", 1, 1)
    assert keys.forgotten == 2


def test_more_devices_than_long_rings_are_remembered_with_fewer_keys_each() -> None:
    keys = NaturalMemory.of_node(10_000)
    devices = [b"%d" % number for number in range(4_200)]
    for number in range(2):
        assert not any(keys.is_repeat(device, number, number) for device in devices)
    assert all(keys.is_repeat(device, 0, 0) for device in devices)
    assert keys.forgotten == 0
    for number in range(2, 200):
        assert keys.repeats([devices[0], devices[-1]], [number] * 2, [number] * 2) == []
    assert keys.is_repeat(devices[0], 2, 2)
    assert not keys.is_repeat(devices[-1], 2, 2)
    assert keys.is_repeat(devices[-1], 199, 199)


@pytest.mark.parametrize("long", [1, 2])
def test_a_device_takes_over_the_room_of_the_one_forgotten(long: int) -> None:
    keys = NaturalMemory(devices_max=2, devices_long=long)
    for device in (b"a", b"b", b"c"):  # c in the place of a
        for number in range(300):
            keys.is_repeat(device, number, number)
    assert keys.is_repeat(b"c", 0, 0)
    assert keys.is_repeat(b"b", 0, 0) == (long == 2)


@pytest.mark.parametrize(
    ("claim", "expected"),
    [
        (None, (10_000_000, None)),
        (10_000_000 + FUTURE_MAX_MS, (10_000_000 + FUTURE_MAX_MS, None)),
        (10_000_001 + FUTURE_MAX_MS, (10_000_000, 10_000_001 + FUTURE_MAX_MS)),
        (9_999_000, (9_999_000, None)),
        (9_998_999, (10_000_000, 9_998_999)),
    ],
)
def test_the_time_rule_at_its_edges(claim: int | None, expected: tuple[int, int | None]) -> None:
    assert record_time(claim, 10_000_000, 1_000) == expected
