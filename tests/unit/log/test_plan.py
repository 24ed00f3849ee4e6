"""What is appended is checked and patched: several batches of one size at once, with the same result as one by one."""

from __future__ import annotations

from random import Random

import pytest

from gateway.log import plan
from gateway.log.errors import CorruptBatch
from tests.support.logs import NOW_MS, batch


def spoilt(random: Random, batches: list[bytearray]) -> None:
    """One of them in one of many ways, CRCs included or not."""
    one = random.choice(batches)
    how = random.randrange(9)
    if how == 0:
        one[random.randrange(len(one))] ^= 1 << random.randrange(8)
    elif how == 1:
        one[:] = batch(bytes(len(one)), producer_id=7, producer_epoch=0, base_sequence=0)
    elif how == 2:
        one[-1:] = b""
    elif how == 3:
        one += b"x"
    elif how == 4:
        one[8:12] = (len(one) - 12 + random.choice([-1, 1, 1 << 20, -(1 << 20)])).to_bytes(4, "big", signed=True)
    elif how == 5:
        one[57:61] = random.choice([b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff"])
    elif how == 6:
        one[22] |= 0x10
    elif how == 7:
        one[16] = 1


@pytest.mark.parametrize("seed", range(8))
def test_at_once_is_as_one_by_one(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    random = Random(seed)
    quick, at_once, refused = plan._plan_equal, 0, 0

    def planned(data: bytes, **options: bool) -> tuple[object, bytes]:
        own = bytearray(data)
        try:
            return plan.plan_append(own, 1_000, 7, **options), bytes(own)
        except CorruptBatch as error:
            return str(error), b""

    for _ in range(150):
        size = random.choice([0, 1, 100, 5_000])
        values = random.choice([1, 1, 3])
        batches = [
            bytearray(batch(*[random.randbytes(size) for _ in range(values)])) for _ in range(random.randrange(1, 9))
        ]
        if random.random() < 0.5:
            spoilt(random, batches)
        data = b"".join(batches)
        options = {"verify": random.random() < 0.8}
        with monkeypatch.context() as patched:
            patched.setattr(plan, "_plan_equal", lambda *arguments, **options: None)
            expected = planned(data, **options)
        assert planned(data, **options) == expected
        own = bytearray(data)
        if quick(own, memoryview(own), 1_000, 7, verify=options["verify"]) is not None:
            at_once += 1
        else:
            assert own == data  # nothing has happened
        refused += not expected[1]
    assert at_once > 30
    assert refused > 20


def test_offsets_and_epoch_are_those_of_batches_behind_one_another() -> None:
    data = bytearray(batch(b"a", b"b") * 3)
    size = len(data) // 3
    planned, end = plan.plan_append(data, 10, 5, verify=True)
    assert planned == [(size, last_offset, NOW_MS + 1) for last_offset in (11, 13, 15)]
    assert end == 16
    assert [int.from_bytes(data[size * n : size * n + 8], "big") for n in range(3)] == [10, 12, 14]
    assert [data[size * n + 12 : size * n + 16] for n in range(3)] == [b"\0\0\0\x05"] * 3


def test_a_hundred_of_one_size_are_planned_as_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    data = b"".join(bytes(batch(bytes([number]) * 50)) for number in range(100))
    at_once, alone = bytearray(data), bytearray(data)
    planned = plan._plan_equal(at_once, memoryview(at_once), 5, 3, verify=True)
    assert planned is not None
    monkeypatch.setattr(plan, "_plan_equal", lambda *_, **__: None)
    assert planned == plan.plan_append(alone, 5, 3, verify=True)
    assert at_once == alone
    assert len(planned[0]) == 100
