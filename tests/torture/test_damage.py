"""Every byte prefix, zero and garbage tail, single-bit flip, and a bad sector under every file of small directories.

The log both ways: stopped cleanly, and killed; and killed in the middle of compaction's swap. The node starts, what it
serves equals the original or the range is reported (by the start, by `headwater log verify`, by the batch's own CRC),
it takes records, and no offset is given twice. The node's small files: what a start knows from each is what it knew
before, or it says which file is damaged. No start is refused.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from random import Random

import pytest

from gateway.log import records
from tests.support.data_files import DAMAGED, KINDS, is_known, kind_of, unknown_files
from tests.torture import small_files
from tests.torture.damage import (
    DATA,
    UNREADABLE,
    Damage,
    Reference,
    build,
    damaged,
    every,
    flips,
    is_undetectable,
    judge,
    on,
    open_store,
    prefixes,
    tails,
    views_of,
)
from tests.torture.ledger import Violation
from tests.torture.simulated_os import SimulatedOs
from tests.torture.small_files import KEEPERS
from tests.torture.swaps import swapping
from tests.torture.world import World, script


def run(reference: Reference, cases: Iterator[tuple[str, Damage]], *, clean: bool) -> Counter[str]:
    judged: Counter[str] = Counter()
    for path, damage in cases:
        if not is_undetectable(reference, path, damage, clean=clean):
            judge(reference, path, damage)
            judged[kind(path)] += 1
    return judged


def run_small(cases: Iterator[tuple[small_files.Small, str, Damage]], name: str) -> Counter[str]:
    judged: Counter[str] = Counter()
    for small, path, damage in cases:
        where = f"{path}, {damage.what}"
        small_files.judge(KEEPERS[name], small, damaged(small.files, path, damage), where)
        judged[kind(path)] += 1
    return judged


def every_small(name: str, random: Random) -> Iterator[tuple[small_files.Small, str, Damage]]:
    small = small_files.build(KEEPERS[name])
    for path in small.own:
        data = small.files[path]
        for damage in (UNREADABLE, *prefixes(data), *tails(data, random), *flips(data)):
            yield small, path, damage


def kind(path: str) -> str:
    return kind_of(path.removeprefix(f"{DATA}/"))


def swaps(reference: Reference) -> list[str]:
    return [path for path in reference.files if path.endswith(".swap") or "/rewritten/" in path]


@pytest.fixture(params=[True, False], ids=["stopped", "killed"])
def clean(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def test_a_sample_of_damage(clean: bool) -> None:
    reference = build(clean=clean)
    judged = run(reference, islice(every(reference, reference.files, Random(1)), 3, None, 151), clean=clean)
    assert judged.total() > 150


def test_a_bad_sector_under_each_file(clean: bool) -> None:
    """Only that of the batches themselves loses any."""
    reference = build(clean=clean)
    lost = {path for path in reference.files if judge(reference, path, UNREADABLE)}
    assert lost == {path for path in reference.files if path.endswith(".log")}


def test_a_sample_of_damage_in_a_swap_under_way() -> None:
    references = swapping()
    assert len(references) > 3
    for number, reference in enumerate(references):
        paths = swaps(reference)
        run(reference, ((path, UNREADABLE) for path in paths), clean=False)
        run(reference, islice(every(reference, paths, Random(1)), number, None, 1_997), clean=False)
        for path in [path for path in paths if path.endswith(".log.swap")]:
            data = reference.files[path]
            ends = itertools.accumulate(len(view) for view in records.split_batches(data))
            run(reference, ((path, Damage(f"{end} bytes", data[:end])) for end in (0, *ends)), clean=False)


def test_another_offset_in_a_swap_under_way() -> None:
    """Each bit of each base offset, which no CRC covers: what was to be replaced stays, and nothing else is served."""
    reference = swapping()[0]
    [path] = [path for path in reference.files if path.endswith(".log.swap")]
    wanted = frozenset(reference.views["c"][0]) | reference.dropped
    data, start = reference.files[path], 0
    for view in records.split_batches(data):
        for bit in range(64):
            flipped = bytearray(data)
            flipped[start + bit // 8] ^= 1 << bit % 8
            store = open_store(on({**reference.files, path: bytes(flipped)}).disk())
            assert frozenset(views_of(store)["c"][0]) == wanted, (start, bit)
            store.close()
        start += len(view)
    assert start == len(data)


@pytest.mark.parametrize("name", list(KEEPERS))
def test_a_sample_of_damage_to_small_files(name: str) -> None:
    small = small_files.build(KEEPERS[name])
    run_small(((small, path, UNREADABLE) for path in small.own), name)
    cases = list(every_small(name, Random(1)))
    run_small(iter(cases[:: max(1, len(cases) // 150)]), name)


def test_no_damage_is_passed_over_in_silence() -> None:
    keeper = KEEPERS["arrivals"]
    small = small_files.build(keeper)
    [path] = small.own
    younger = small.files[path].replace(b"1700000000002", b"1600000000002")
    lying = keeper._replace(read=lambda disk: disk.read_file(path))
    assert small.files[path] != younger
    with pytest.raises(Violation, match="nothing is told"):
        small_files.judge(lying, small, damaged(small.files, path, Damage("another time", younger)), path)


def test_each_kind_of_file_is_in_a_reference_set() -> None:
    """A new file needs a row in tests/support/data_files.py, and a reference that it is damaged in."""
    found = {kind(path) for clean in (True, False) for path in build(clean=clean).files}
    found |= {kind(path) for path in swaps(swapping()[0])}
    for keeper in KEEPERS.values():
        found |= {kind(path) for path in small_files.build(keeper).own}
    wanted = {kind for kind, how in KINDS.items() if how == DAMAGED}
    assert wanted - found == set()
    assert {each for each in found if KINDS.get(each) != DAMAGED} == set()


def test_a_new_kind_of_file_below_a_data_directory_is_seen(tmp_path: Path) -> None:
    """What tests/conftest.py asks after every test with a node."""
    for name in ("log/readings-0/00000000000000000000.log", "node/sessions", "node/users.7.new", "work/lab.checkpoint"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "headwater.toml").touch()
    assert list(unknown_files(tmp_path)) == []
    for name in ("node/ledger", "work/new.json"):
        (tmp_path / name).touch()
    assert list(unknown_files(tmp_path)) == ["node/ledger", "work/new.json"]


def test_what_the_reference_workload_writes_is_of_known_kinds() -> None:
    simulated = SimulatedOs()
    first = World(simulated.disk())
    paths: set[str] = set()
    for _ in script(first, lambda *_: None, lambda old: World(old.disk, old.ledger, wall_ms=old.clock.wall_ms())):
        paths |= simulated.files().keys()
    assert len(paths) > 50
    assert [path for path in sorted(paths) if not is_known(path.removeprefix(f"{DATA}/"))] == []


@pytest.mark.long("damage-cuts", count=3)
def test_every_prefix_and_every_tail(clean: bool, count: int) -> None:
    """`count`: so many kinds of garbage."""
    reference = build(clean=clean)
    judged: Counter[str] = Counter()
    for path, data in reference.files.items():
        judged += run(reference, ((path, each) for each in (UNREADABLE, *prefixes(data))), clean=clean)
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


@pytest.mark.long("damage-small", count=1)
def test_everything_to_a_swap_under_way(count: int) -> None:
    """Each `count`-th cut, tail and bit, before anything is moved, and when all is but the segment itself."""
    references = swapping()
    judged: Counter[str] = Counter()
    for reference in (references[0], references[-1]):
        cases = every(reference, swaps(reference), Random(1))
        judged += run(reference, islice(cases, 0, None, count), clean=False)
    print(f"{judged.total()} cuts, tails and flips in a swap under way: 0 refused, 0 served wrongly: {dict(judged)}")


@pytest.mark.long("damage-small", count=1)
def test_everything_to_small_files(count: int) -> None:
    """Each `count`-th cut, tail and bit."""
    judged: Counter[str] = Counter()
    for name in KEEPERS:
        judged += run_small(islice(every_small(name, Random(1)), 0, None, count), name)
    print(f"{judged.total()} cuts, tails and flips in small files: 0 refused, 0 in silence: {dict(judged)}")
