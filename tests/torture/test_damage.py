"""Every byte prefix, zero and garbage tail and single-bit flip of every file of a small reference directory.

Both ways: stopped cleanly, and killed. The node starts, what it serves equals the original or the range is reported (by
the start, by `headwater log verify`, by the batch's own CRC), it takes records, and no offset is given twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import islice
from random import Random

import pytest

from tests.torture.damage import (
    Damage,
    Reference,
    build,
    every,
    flips,
    is_undetectable,
    judge,
    kind_of,
    prefixes,
    tails,
)


def run(reference: Reference, cases: Iterator[tuple[str, Damage]], *, clean: bool) -> Counter[str]:
    judged: Counter[str] = Counter()
    for path, damage in cases:
        if not is_undetectable(reference, path, damage, clean=clean):
            judge(reference, path, damage)
            judged[kind_of(path)] += 1
    return judged


@pytest.fixture(params=[True, False], ids=["stopped", "killed"])
def clean(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def test_a_sample_of_damage(clean: bool) -> None:
    reference = build(clean=clean)
    judged = run(reference, islice(every(reference, reference.files, Random(1)), 3, None, 151), clean=clean)
    assert judged.total() > 150
    assert judged.keys() >= {".log", ".snapshot", ".txnindex", "identity.json", "topics.json", "meta.properties"}


@pytest.mark.long("damage-cuts", count=3)
def test_every_prefix_and_every_tail(clean: bool, count: int) -> None:
    """`count`: so many kinds of garbage."""
    reference = build(clean=clean)
    judged: Counter[str] = Counter()
    for path, data in reference.files.items():
        judged += run(reference, ((path, each) for each in prefixes(data)), clean=clean)
        for seed in range(count):
            judged += run(reference, ((path, each) for each in tails(data, Random(seed))), clean=clean)
    print(
        f"{judged.total()} cuts and tails of {len(reference.files)} files: 0 refused, 0 served wrongly: {dict(judged)}"
    )


@pytest.mark.long("damage-bits", count=1)
def test_every_bit(clean: bool, count: int) -> None:
    """Every `count`-th bit."""
    reference = build(clean=clean)
    judged: Counter[str] = Counter()
    for path, data in reference.files.items():
        judged += run(reference, ((path, each) for each in islice(flips(data), 0, None, count)), clean=clean)
    print(f"{judged.total()} flips in {len(reference.files)} files: 0 refused, 0 served wrongly: {dict(judged)}")
