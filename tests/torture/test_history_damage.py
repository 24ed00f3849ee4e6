"""Damage to the page's history, a SQLite file: what is shown is what was written, and what is missing is told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import msgspec
import pytest

from processors.history.levels import DAY_MS, HOUR_MS
from processors.history.store import HistoryStore
from tests.torture.damage import Damage
from tests.torture.ledger import Violation

T0 = 1_700_000_000_000 // DAY_MS * DAY_MS
STEP_MS = 600_000
WHERE = ("aggregates", 0)
DEVICES = ("n/a", "n/b")


def results(first: int, last: int) -> list[bytes]:
    return [
        msgspec.json.encode(
            {"rule": "w", "group": device, "start": T0 + at * STEP_MS, "end": T0 + (at + 1) * STEP_MS, "revision": 0}
            | {"complete": True, "count": at, "fields": {"t": {"mean": at / 7, "max": float(at)}}}
        )
        for at in range(first, last)
        for device in DEVICES
    ]


class Known(NamedTuple):
    """What a history shows, and how far it has read the topic."""

    points: frozenset[Any]
    series: str
    positions: dict[tuple[str, int], int]


def look(store: HistoryStore) -> Known:
    points = {
        (device, *point) for device in DEVICES for point in store.read(device, "w", "t", "mean", T0, T0 + 99 * DAY_MS)
    }
    return Known(frozenset(points), repr(store.series()), store.positions())


class Written(NamedTuple):
    """The files of a history, by what follows `history.db` in their names; `killed`: with its write-ahead log."""

    files: dict[str, bytes]
    known: Known
    before: Known  # what the last transaction made of it is gone with a damaged write-ahead log, and read again


def build(folder: Path, *, killed: bool) -> Written:
    path = folder / "history.db"
    store = HistoryStore(str(path), bytes_max=64 << 20)
    store.take(results(0, 20), WHERE, 40)
    store.flush()
    before = look(store)
    store.take(results(2_050, 2_080), WHERE, 100)  # what is older becomes hours
    store.flush()
    store.read(DEVICES[0], "w", "t", "mean", T0, T0 + HOUR_MS)
    known = look(store)
    if not killed:
        store.close()
    files = {each.name.removeprefix("history.db"): each.read_bytes() for each in folder.iterdir()}
    if killed:
        store.close()
    return Written(files, known, before)


def judge(folder: Path, written: Written, end: str, damage: Damage) -> bool:
    """Whether the damage was told. Raises `Violation`."""
    for each in folder.iterdir():
        each.unlink()
    for name, data in written.files.items():
        (folder / f"history.db{name}").write_bytes(data)
    assert damage.data is not None
    (folder / f"history.db{end}").write_bytes(damage.data)
    where = f"history.db{end}, {damage.what}"
    try:
        store = HistoryStore(str(folder / "history.db"), bytes_max=64 << 20)
        known = look(store)
        told = store.put_aside or store.damaged
        positions = store.positions()
        store.take(results(2_080, 2_081), WHERE, 102)
        store.flush()
        if not {(device, T0 + 2_080 * STEP_MS) for device in DEVICES} <= {each[:2] for each in look(store).points}:
            raise Violation(f"{where}: nothing more is taken")
        store.close()
    except Violation:
        raise
    except Exception as error:  # whatever it is: no damage may raise anything, and this says which one did
        raise Violation(f"{where}: {error!r}") from error
    if wrong := known.points - written.known.points - written.before.points:
        raise Violation(f"{where}: {wrong} is shown")
    if not told and known != written.known and positions.get(WHERE, 0) >= written.known.positions[WHERE]:
        raise Violation(f"{where}: {written.known} became {known}, and nothing is told")
    if told and positions:
        raise Violation(f"{where}: {told}, and nothing is read again: {positions}")
    return bool(told)


def cases(data: bytes, every: int) -> Iterator[Damage]:
    """Cuts and tails at some places, each `every`-th bit of what is in use, and some of what is not."""
    for size in range(0, len(data), 2 * every):
        rest = len(data) - size
        for what, tail in (("nothing", b""), ("zeros", bytes(rest)), ("garbage", Random(size).randbytes(rest))):
            yield Damage(f"{what} from byte {size} on", data[:size] + tail)
    used = [at for at, byte in enumerate(data) if byte or not at % 211]
    for bit in range(0, 8 * len(used), every):
        at = used[bit // 8]
        flipped = bytearray(data)
        flipped[at] ^= 1 << bit % 8
        yield Damage(f"bit {bit % 8} of byte {at}", bytes(flipped))


@pytest.fixture
def room(tmp_path: Path) -> Path:
    (tmp_path / "made").mkdir()
    (tmp_path / "damaged").mkdir()
    return tmp_path


def run(room: Path, every: int) -> tuple[int, int]:
    """How many cases there were, and of how many the damage was told."""
    done = told = 0
    for killed in (False, True):
        folder = room / "made" / str(killed)
        folder.mkdir()
        written = build(folder, killed=killed)
        for end in written.files:
            if end != "-shm":
                for damage in cases(written.files[end], every):
                    told += judge(room / "damaged", written, end, damage)
                    done += 1
    return done, told


def test_a_sample_of_damage_to_the_history(room: Path) -> None:
    done, told = run(room, every=4_999)
    assert done > 60
    assert told > done // 8


@pytest.mark.long("damage-small", count=1)
def test_everything_to_the_history(room: Path, count: int) -> None:
    """Each 61 times `count`-th bit that is in use, and cuts and tails."""
    done, told = run(room, 61 * count)
    print(f"{done} cuts, tails and flips in history.db: 0 shown wrongly, 0 in silence, {told} told")
