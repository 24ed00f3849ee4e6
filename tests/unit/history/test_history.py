"""Months of window results in a file of bounded size: filled from the log, right after a repeat and after a cut."""

from __future__ import annotations

import asyncio
import contextlib
import math
import sqlite3
import struct
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.consume.reader import Block
from headwater.clock import SystemClock
from processors.history.feed import History
from processors.history.levels import DAY_MS, HOUR_MS, LEVELS, Row, joined, level_of
from processors.history.store import HistoryStore, is_damage

T0 = 1_700_000_000_000 // DAY_MS * DAY_MS
TEN = 600_000


def result(start: int, *, length: int = TEN, revision: int = 0, device: str = "n/a", **fields: Any) -> bytes:
    fields = fields or {"t": {"count": 10, "mean": 1.5, "min": 1.0, "max": 2.0}}
    return msgspec.json.encode(
        {"rule": "w", "group": device, "start": start, "end": start + length, "revision": revision, "complete": True}
        | {"cause": "close", "count": 10, "fields": fields}
    )


def mean(value: float, count: int = 10) -> dict[str, Any]:
    return {"count": count, "mean": value, "min": value - 1, "max": value + 1}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[HistoryStore]:
    store = HistoryStore(str(tmp_path / "h" / "history.db"), bytes_max=64 << 20)
    yield store
    store.close()


def read(store: HistoryStore, aggregate: str = "mean", *, begin: int = 0, end: int = 1 << 50) -> list[Any]:
    return store.read("n/a", "w", "t", aggregate, begin, end)


def test_the_latest_revision_stays_whatever_is_read_twice(store: HistoryStore) -> None:
    first, second = result(T0, t=mean(1.0)), result(T0, revision=1, t=mean(3.0))
    store.take([first, second], ("aggregates", 0), 2)
    store.flush()
    assert read(store) == [(T0, T0 + TEN, 3.0, 2.0, 4.0, 10, True)]
    store.take([first], ("aggregates", 0), 1)  # a replay begins: the older revision comes again
    store.flush()
    assert read(store)[0][2] == 3.0
    assert store.positions() == {("aggregates", 0): 1}


def test_what_is_not_flushed_is_not_in_the_file_and_neither_is_its_position(tmp_path: Path) -> None:
    path = str(tmp_path / "history.db")
    one = HistoryStore(path, bytes_max=64 << 20)
    one.take([result(T0)], ("aggregates", 0), 1)
    one.flush()
    one.take([result(T0 + TEN)], ("aggregates", 0), 2)  # and the power goes
    other = HistoryStore(path, bytes_max=64 << 20)
    assert len(read(other)) == 1
    assert other.positions() == {("aggregates", 0): 1}
    other.close()
    one.close()


def test_old_windows_become_hours_and_hours_become_days(store: HistoryStore) -> None:
    days = 220
    for day in range(days):
        store.take([result(T0 + day * DAY_MS + step * TEN, t=mean(float(step % 6), 10)) for step in range(144)])
        store.flush()
    now = T0 + days * DAY_MS
    fine = read(store, begin=now - DAY_MS)
    assert len(fine) == 144
    hours = read(store, begin=now - 30 * DAY_MS, end=now - 29 * DAY_MS)
    assert hours[0] == (now - 30 * DAY_MS, now - 30 * DAY_MS + HOUR_MS, 2.5, -1.0, 6.0, 60, True)
    assert len(hours) == 24
    assert len(read(store, begin=T0, end=T0 + DAY_MS)) == 1  # older than 190 days
    assert sum(point[2] for point in read(store, "count", end=now)) == days * 1440
    late = result(T0 + DAY_MS + TEN, revision=7, t=mean(99.0))
    store.take([late])
    store.flush()
    assert store.left_out == 1  # its window is part of a day by now
    assert max(point[4] for point in read(store)) == 6.0


def test_half_a_year_of_fifty_devices_is_as_large_as_said(tmp_path: Path) -> None:
    """ADR 0019's size for 50 devices with five fields of four aggregates, from one field of one device."""
    store = HistoryStore(str(tmp_path / "history.db"), bytes_max=1 << 30)
    empty = store.used_bytes
    for day in range(0, 182, 7):
        store.take([result(T0 + day * DAY_MS + step * TEN, t=mean(day / 7)) for step in range(7 * 144)])
        store.flush()
    assert 10 << 20 < (store.used_bytes - empty) * 250 < 120 << 20
    store.close()


def test_a_file_that_grows_too_large_lets_things_grow_old_sooner(tmp_path: Path) -> None:
    store = HistoryStore(str(tmp_path / "history.db"), bytes_max=300_000)
    for day in range(40):
        store.take(
            [result(T0 + day * DAY_MS + step * TEN, device=f"n/{name}") for step in range(144) for name in "abcd"]
        )
        store.flush()
        assert store.used_bytes <= 300_000
    points = read(store)
    assert points[0][0] == T0  # coarser, but from the start on
    assert sum(point[2] for point in read(store, "count")) == 40 * 1440
    store.close()


def test_a_damaged_file_is_put_aside(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    path.write_bytes(b"SQLite format 3\0" + b"\xff" * 8000)
    store = HistoryStore(str(path), bytes_max=64 << 20)
    assert store.put_aside
    assert (tmp_path / "history.db.damaged").exists()
    store.take([result(T0)])
    store.flush()
    assert len(read(store)) == 1
    store.close()


def test_sessions_that_were_joined_leave(store: HistoryStore) -> None:
    store.take([result(T0), result(T0 + TEN)])
    store.flush()
    gone = msgspec.json.decode(result(T0 + TEN, revision=1)) | {"fields": {}, "count": 0, "merged_into": T0}
    store.take([msgspec.json.encode(gone), result(T0, length=2 * TEN, revision=1)])
    store.flush()
    assert [point[:2] for point in read(store)] == [(T0, T0 + 2 * TEN)]


def test_what_is_no_result_is_left_out(store: HistoryStore) -> None:
    store.take([None, b"7", b"{", b'{"start":1}', result(T0, t={"durations": {"0": 3}}), result(T0, t={"mean": "x"})])
    store.flush()
    assert store.series() == []


def test_a_long_span_is_read_in_at_most_a_screen_of_points(store: HistoryStore) -> None:
    store.take([result(T0 + second * 10_000, length=10_000, t=mean(1.0)) for second in range(2_000)])
    store.flush()
    assert len(read(store, begin=T0, end=T0 + 20_000_000)) < 500
    assert len(read(store, begin=T0, end=T0 + 3_000_000)) == 300


def test_overlapping_windows_are_not_counted_twice() -> None:
    rows = [Row(start * 1000, start * 1000 + 20_000, 2, True, (2.0, 5.0)) for start in range(0, 60, 10)]
    assert joined(("count", "mean"), rows, 60_000) == [Row(0, 60_000, 6, True, (6.0, 5.0))]


def test_directions_are_joined_as_directions() -> None:
    rows = [Row(0, 10, 1, True, (350.0,)), Row(10, 20, 1, True, (20.0,))]
    [one] = joined(("circular_mean",), rows, 60_000)
    assert one.values[0] == pytest.approx(5.0)


def test_what_is_missing_stays_missing() -> None:
    [one] = joined(("mean", "max"), [Row(0, 10, 1, False, (math.nan, math.nan))], 60_000)
    assert math.isnan(one.values[0])
    assert not one.complete


def test_levels_hold_windows_of_their_length_and_longer() -> None:
    assert [level_of(length) for length in (1_000, TEN, HOUR_MS - 1, HOUR_MS, DAY_MS, 7 * DAY_MS)] == [0, 1, 1, 2, 3, 3]
    assert all(a.unit_ms < b.unit_ms and a.keep_ms < b.keep_ms for a, b in pairwise(LEVELS))


class MemoryLog:
    """Topic `aggregates` in memory."""

    def __init__(self, values: list[bytes], start: int = 0) -> None:
        self.values, self.start = values, start
        self.ends = {("aggregates", 0): start + len(values)}
        self.at = start
        self.asked: list[int] = []

    async def partitions(self, topic: str) -> int:
        return 1

    async def offset(self, topic: str, partition: int, at: str | int) -> int:
        return self.start if at == "earliest" else self.start + len(self.values)

    def assign(self, positions: Mapping[tuple[str, int], int]) -> None:
        self.at = positions["aggregates", 0]
        self.asked.append(self.at)

    async def poll(self, *, max_wait_ms: int = 0, max_bytes: int = 0) -> list[Block]:
        await asyncio.sleep(0)
        some = self.values[self.at - self.start :][:3]
        if not some:
            return []
        begin, self.at = self.at, self.at + len(some)
        empty: list[Any] = [b""] * len(some)
        return [Block("aggregates", 0, list(range(begin, self.at)), [0] * len(some), empty, list(some), empty, self.at)]

    async def close(self) -> None:
        pass


async def follow(path: Path, log: MemoryLog, points: int, *, damaged: bool = False) -> History:
    """Until so many points are there; `damaged`: and some were told to be damaged before."""

    async def connect() -> MemoryLog:
        return log

    history = History(str(path), bytes_max=64 << 20, connect=connect, clock=SystemClock())
    running = asyncio.create_task(history.run())
    found = 0
    while found < points or bool(history.status()["damaged"]) < damaged:
        await asyncio.sleep(0.01)
        with contextlib.suppress(sqlite3.Error):
            found = len(history.read("n/a", "w", "t", "mean", 0, 1 << 50))
    history.stop()
    await running
    return history


def test_the_feed_goes_on_where_it_was(tmp_path: Path) -> None:
    values = [result(T0 + step * TEN) for step in range(10)]
    asyncio.run(follow(tmp_path / "history.db", MemoryLog(values[:4]), 4))
    log = MemoryLog(values)
    history = asyncio.run(follow(tmp_path / "history.db", log, 10))
    assert log.asked[0] == 4
    assert history.status()["lag_records"] == 0
    shorter = MemoryLog(values[:2])  # another log under the same name: from its start
    asyncio.run(follow(tmp_path / "history.db", shorter, 10))
    assert shorter.asked[0] == 0


def spoil(path: Path, statement: str) -> None:
    """Change the file behind its owner's back, as a flipped bit does."""
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute(statement)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE points SET numbers = substr(numbers, 9) || substr(numbers, 1, 8) WHERE start / 600000 % 2",
        "UPDATE points SET complete = 0 WHERE start = (SELECT max(start) FROM points)",
        "DELETE FROM points WHERE start = (SELECT max(start) FROM points)",
        "UPDATE series SET field = 'u'",
        "UPDATE positions SET next = 99",
        "DELETE FROM series",
    ],
)  # fmt: skip
def test_what_was_changed_in_the_file_is_told_and_read_again(
    tmp_path: Path, statement: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TOPICS_EVERY_MS", "READ_AGE_MS_MAX"):
        monkeypatch.setattr(f"processors.history.feed.{name}", 10)
    path, values = tmp_path / "history.db", [result(T0 + step * TEN, t=mean(float(step))) for step in range(10)]
    asyncio.run(follow(path, MemoryLog(values), 10))
    spoil(path, statement)
    log = MemoryLog(values)
    history = asyncio.run(follow(path, log, 10, damaged=True))
    assert history.status()["damaged"]
    assert 0 in log.asked
    again = HistoryStore(str(path), bytes_max=64 << 20)
    assert (again.damaged, again.put_aside) == ("", "")
    assert [point[2] for point in read(again)] == [float(step) for step in range(10)]
    again.close()


def test_a_file_that_turns_out_to_be_damaged_while_it_is_open_is_opened_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("processors.history.feed.RETRY_S", 0.01)
    flush, opened = HistoryStore.flush, []

    def opening(path: str, *, bytes_max: int) -> HistoryStore:
        opened.append(HistoryStore(path, bytes_max=bytes_max))
        return opened[-1]

    def failing(store: HistoryStore) -> None:
        monkeypatch.setattr(HistoryStore, "flush", flush)
        raise sqlite3.DatabaseError("database disk image is malformed")

    monkeypatch.setattr("processors.history.feed.HistoryStore", opening)
    monkeypatch.setattr(HistoryStore, "flush", failing)
    asyncio.run(follow(tmp_path / "history.db", MemoryLog([result(T0 + step * TEN) for step in range(10)]), 10))
    assert len(opened) == 2


def test_a_file_from_before_there_were_checksums_is_read_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    with contextlib.closing(sqlite3.connect(path)) as old, old:
        old.executescript(OLD_SCHEMA)
        old.execute("INSERT INTO series VALUES (1, 'n/a', 'w', 't', 'mean', ?)", (T0 + TEN,))
        old.execute("INSERT INTO points VALUES (1, 1, ?, ?, 0, 1, 10, ?)", (T0, TEN, struct.pack("<d", 1.5)))
        old.execute("INSERT INTO positions VALUES ('aggregates', 0, 1)")
    for _ in range(2):
        store = HistoryStore(str(path), bytes_max=64 << 20)
        assert (store.put_aside, store.damaged) == ("", "")
        assert read(store)[0] == (T0, T0 + TEN, 1.5, None, None, 10, True)
        assert store.positions() == {("aggregates", 0): 1}
        store.take([result(T0 + TEN, t={"mean": 2.5})])
        store.flush()
        assert len(read(store)) == 2
        store.close()


def test_a_file_on_a_bad_sector_is_put_aside_and_one_that_is_busy_is_not() -> None:
    def failed(code: int) -> sqlite3.Error:
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = code
        return error

    assert is_damage(failed(sqlite3.SQLITE_IOERR_READ))
    assert not is_damage(failed(sqlite3.SQLITE_BUSY))
    assert not is_damage(failed(sqlite3.SQLITE_FULL))


OLD_SCHEMA = """
CREATE TABLE settings (name TEXT PRIMARY KEY, value REAL);
CREATE TABLE positions (topic TEXT, partition INTEGER, next INTEGER, PRIMARY KEY (topic, partition));
CREATE TABLE series (
  id INTEGER PRIMARY KEY, device TEXT, rule TEXT, field TEXT, aggregates TEXT, newest INTEGER NOT NULL DEFAULT 0,
  UNIQUE (device, rule, field, aggregates)
);
CREATE TABLE points (
  series INTEGER, level INTEGER, start INTEGER, length INTEGER, revision INTEGER, complete INTEGER,
  readings INTEGER, numbers BLOB, PRIMARY KEY (series, level, start)
) WITHOUT ROWID;
"""


def test_the_files_own_checks_hold(store: HistoryStore, tmp_path: Path) -> None:
    store.take([result(T0 + step * TEN) for step in range(500)])
    store.flush()
    database = sqlite3.connect(tmp_path / "h" / "history.db")
    assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    database.close()
