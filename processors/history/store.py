"""Months of window results for the page, in one SQLite file of bounded size.

Nothing here is the only copy: the file is filled from topic `aggregates`, and how far is written in the same
transaction as what was read. So a power cut loses at most the last transactions, which are then read again. A
file whose structure is damaged is put aside and made anew; rows whose checksum is wrong are told, left out, and read
again from the topic as far back as that reaches. Layout and sizes: ADR 0019.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import sqlite3
import struct
import threading
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from headwater.errors import UNREADABLE
from processors.history import sums
from processors.history.levels import LEVELS, Row, joined, level_of
from processors.history.sums import is_whole, row_sum

log = logging.getLogger(__name__)

PENDING_MAX = 20_000
POINTS_MAX = 1_500
_SERIES_MAX = 20_000
_SCALE_STEP = 0.8
_decode = msgspec.json.Decoder(dict[str, Any]).decode
_UNITS_MS = (60_000, 600_000, 3_600_000, 21_600_000, 86_400_000, 604_800_000)

_SCHEMA = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = NORMAL;
PRAGMA journal_size_limit = 4194304;
CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value REAL, crc INTEGER);
CREATE TABLE IF NOT EXISTS positions (
  topic TEXT, partition INTEGER, next INTEGER, crc INTEGER, PRIMARY KEY (topic, partition)
);
CREATE TABLE IF NOT EXISTS series (
  id INTEGER PRIMARY KEY, device TEXT, rule TEXT, field TEXT, aggregates TEXT, newest INTEGER NOT NULL DEFAULT 0,
  crc INTEGER, UNIQUE (device, rule, field, aggregates)
);
CREATE TABLE IF NOT EXISTS points (
  series INTEGER, level INTEGER, start INTEGER, length INTEGER, revision INTEGER, complete INTEGER,
  readings INTEGER, numbers BLOB, crc INTEGER, PRIMARY KEY (series, level, start)
) WITHOUT ROWID;
"""
Key = tuple[str, str, str, tuple[str, ...]]  # device, rule, field, aggregates


class HistoryStore:
    """The file. `take` gathers, `flush` writes; any thread may call, one at a time gets in."""

    def __init__(self, path: str, *, bytes_max: int) -> None:
        self._path = path
        self._bytes_max = bytes_max
        self._lock = threading.Lock()
        self._pending: dict[tuple[Key, int], tuple[int, Row]] = {}  # and the revision
        self._gone: list[tuple[str, str, int]] = []
        self._following: dict[tuple[str, int], int] = {}
        self._ids: dict[Key, int] = {}
        self.put_aside = ""
        self.damaged = ""
        self.damaged_count = 0
        self.left_out = 0
        os.makedirs(os.path.dirname(path), exist_ok=True)
        try:
            self._db = self._open()
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # of a message that names what it has read
            if not is_damage(error):
                raise
            self.put_aside = str(error)
            for end in ("", "-wal", "-shm"):
                with contextlib.suppress(FileNotFoundError):
                    os.replace(path + end, f"{path}.damaged{end}")
            self._db = self._open()

    def _open(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        db.text_factory = _text
        try:
            db.executescript(_SCHEMA)
            if db.execute("PRAGMA integrity_check(1)").fetchone()[0] != "ok":
                raise sqlite3.DatabaseError("its pages do not fit together")
            sums.prepare(db)
            if sums.layout(db) != _layout():
                raise sqlite3.DatabaseError("its tables have other columns")
            self._tell(sums.mend(db))
            rows = db.execute("SELECT id, device, rule, field, aggregates FROM series").fetchall()
        except (sqlite3.DatabaseError, UnicodeDecodeError):
            db.close()
            raise
        self._ids = {(device, rule, field, tuple(named.split(","))): at for at, device, rule, field, named in rows}
        found = db.execute("SELECT value FROM settings WHERE name = 'scale'").fetchone()
        self._scale = found[0] if found else 1.0
        return db

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def _tell(self, found: list[str]) -> None:
        if found:
            self.damaged, self.damaged_count = ", ".join(found), self.damaged_count + 1
            log.warning("history: %s is damaged: %s; left out, and read again from the topic", self._path, self.damaged)

    # filling

    @property
    def pending(self) -> int:
        """Results that are not in the file yet."""
        return len(self._pending)

    def positions(self) -> dict[tuple[str, int], int]:
        """The next offset of each partition, as of what is in the file."""
        with self._lock:
            rows = self._db.execute("SELECT topic, partition, next FROM positions")
            return {(topic, partition): following for topic, partition, following in rows}

    def take(self, values: Iterable[bytes | None], where: tuple[str, int] | None = None, following: int = 0) -> None:
        """Records of topic `aggregates`, in their order; `following`: the offset behind them in partition `where`."""
        with self._lock:
            if where is not None:
                self._following[where] = following
            for value in values:
                try:
                    result = _decode(value or b"{}")
                    self._result(result)
                except (*UNREADABLE, KeyError, TypeError, ValueError, AttributeError):
                    self.left_out += 1  # somebody else's record

    def _result(self, result: dict[str, Any]) -> None:
        start, end, revision = int(result["start"]), int(result["end"]), int(result["revision"])
        if "merged_into" in result:  # a session that is no more
            gone = (str(result["group"]), str(result["rule"]))
            self._pending = {at: row for at, row in self._pending.items() if (at[0][:2], at[1]) != (gone, start)}
            self._gone.append((*gone, start))
        for field, aggregates in result["fields"].items():
            named = {name: value for name, value in aggregates.items() if name != "durations"}
            if not named or not all(value is None or _is_number(value) for value in named.values()):
                continue
            key = (str(result["group"]), str(result["rule"]), str(field), tuple(named))
            if key not in self._ids and len(self._ids) >= _SERIES_MAX:
                self.left_out += 1
                continue
            numbers = tuple(math.nan if value is None else float(value) for value in named.values())
            before = self._pending.get((key, start))
            if before is None or before[0] <= revision:
                row = Row(start, end, int(result["count"]), bool(result["complete"]), numbers)
                self._pending[key, start] = (revision, row)

    def flush(self) -> None:
        """Write what was gathered, and how far that is, in one transaction. Raises `sqlite3.Error`."""
        with self._lock:
            if self._pending or self._gone or self._following:
                self._flush()

    def _flush(self) -> None:
        db, touched = self._db, set()
        db.execute("BEGIN IMMEDIATE")
        try:
            for gone in self._gone:
                ids = "SELECT id FROM series WHERE device = ? AND rule = ?"
                db.execute(f"DELETE FROM points WHERE series IN ({ids}) AND start = ?", gone)  # noqa: S608 - a constant; values go by ?
            for (key, start), (revision, row) in sorted(self._pending.items()):
                touched.add(series := self._id(key))
                self._put(key, series, level_of(row.end - row.start), start, revision, row)
            for (topic, partition), following in self._following.items():
                position = (topic, partition, following)
                db.execute("INSERT OR REPLACE INTO positions VALUES (?, ?, ?, ?)", (*position, row_sum(*position)))
            aggregates_of = {at: key[3] for key, at in self._ids.items()}
            for series in touched:
                self._age(series, aggregates_of[series])
            db.execute("COMMIT")
        except BaseException:
            db.execute("ROLLBACK")
            known = db.execute("SELECT id FROM series").fetchall()
            self._ids = {key: at for key, at in self._ids.items() if (at,) in set(known)}
            raise
        self._pending.clear()
        self._gone.clear()
        self._following.clear()
        self._keep_within()

    def _id(self, key: Key) -> int:
        if key not in self._ids:
            device, rule, field, aggregates = key
            put = "INSERT INTO series (device, rule, field, aggregates) VALUES (?, ?, ?, ?)"
            cursor = self._db.execute(put, (device, rule, field, ",".join(aggregates)))
            self._ids[key] = int(cursor.lastrowid or 0)
            self._set_newest(key, 0)
        return self._ids[key]

    def _set_newest(self, key: Key, newest: int) -> None:
        at = self._ids[key]
        crc = row_sum(at, *key[:3], ",".join(key[3]), newest)
        self._db.execute("UPDATE series SET newest = ?, crc = ? WHERE id = ?", (newest, crc, at))

    def _put(self, key: Key, series: int, level: int, start: int, revision: int, row: Row) -> None:
        """A row, unless there is a later revision of it, or its time has been joined into a coarser one already."""
        (newest,) = self._db.execute("SELECT newest FROM series WHERE id = ?", (series,)).fetchone()
        if row.end <= self._horizon(level, newest):
            self.left_out += 1
            return
        self._db.execute(
            f"{_INSERT} ON CONFLICT DO UPDATE SET length = excluded.length,"
            " revision = excluded.revision, complete = excluded.complete, readings = excluded.readings,"
            " numbers = excluded.numbers, crc = excluded.crc WHERE excluded.revision >= revision",
            _point(series, level, revision, row),
        )
        if row.end > newest:
            self._set_newest(key, row.end)

    # growing old

    def _horizon(self, level: int, newest: int) -> int:
        """What ends by then is not kept in this level: whole units of the next one."""
        unit = LEVELS[min(level + 1, len(LEVELS) - 1)].unit_ms
        return int(newest - LEVELS[level].keep_ms * self._scale) // unit * unit

    def _age(self, series: int, aggregates: Sequence[str]) -> None:
        (newest,) = self._db.execute("SELECT newest FROM series WHERE id = ?", (series,)).fetchone()
        for level in range(len(LEVELS)):
            horizon = self._horizon(level, newest)
            where = "series = ? AND level = ? AND start + length <= ? AND start < ?"
            chosen = (series, level, horizon, horizon)
            if level + 1 < len(LEVELS):
                old = self._rows(f"{where} ORDER BY start", chosen)
                for row in joined(aggregates, old, LEVELS[level + 1].unit_ms):
                    self._db.execute(_INSERT.replace("INSERT", "INSERT OR IGNORE"), _point(series, level + 1, 0, row))
            self._db.execute(f"DELETE FROM points WHERE {where}", chosen)  # noqa: S608 - callers' constants; values go by ?

    @property
    def used_bytes(self) -> int:
        """Pages in use; those that were freed are used again."""
        pages, free, size = (
            self._db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * size)

    def _keep_within(self) -> None:
        """While the file is too large, everything grows old sooner."""
        while self.used_bytes > self._bytes_max and self._scale > 0.001:
            self._scale *= _SCALE_STEP
            self._db.execute("BEGIN IMMEDIATE")
            crc = row_sum("scale", self._scale)
            self._db.execute("INSERT OR REPLACE INTO settings VALUES ('scale', ?, ?)", (self._scale, crc))
            for key, series in self._ids.items():
                self._age(series, key[3])
            self._db.execute("COMMIT")

    # reading

    def series(self) -> list[dict[str, Any]]:
        """What there is: device, rule, field, aggregates, and how far it goes."""
        with self._lock:
            rows = self._db.execute("SELECT device, rule, field, aggregates, newest FROM series ORDER BY 1, 3, 2, 5")
            return [
                {"device": device, "rule": rule, "field": field, "aggregates": named.split(","), "newest_ms": newest}
                for device, rule, field, named, newest in rows
            ]

    def read(
        self, device: str, rule: str, field: str, aggregate: str, begin_ms: int, end_ms: int
    ) -> list[tuple[int, int, float | None, float | None, float | None, int, bool]]:
        """Points [start, end, value, min, max, readings, complete], at most about `POINTS_MAX`, oldest first."""
        found: list[tuple[int, int, float | None, float | None, float | None, int, bool]] = []
        unit = next((unit for unit in _UNITS_MS if (end_ms - begin_ms) / unit <= POINTS_MAX), _UNITS_MS[-1])
        with self._lock:
            ids = [(at, key[3]) for key, at in self._ids.items() if key[:3] == (device, rule, field)]
            for series, aggregates in ids:
                if aggregate not in aggregates:
                    continue
                rows: list[Row] = []
                for level in range(len(LEVELS)):
                    where = "series = ? AND level = ? AND start >= ? AND start < ?"
                    rows += self._rows(where, (series, level, begin_ms, end_ms))
                rows.sort()
                if len(rows) > POINTS_MAX:
                    rows = joined(aggregates, rows, unit)
                places = [aggregates.index(name) if name in aggregates else None for name in (aggregate, "min", "max")]
                for row in rows:
                    value, low, high = (None if place is None else _plain(row.values[place]) for place in places)
                    found.append((row.start, row.end, value, low, high, row.readings, row.complete))
        return sorted(found, key=lambda point: point[:2])

    def _rows(self, where: str, chosen: tuple[int, ...]) -> list[Row]:
        """Points that are as they were written; others go, and are read again from the topic."""
        found = self._db.execute(f"SELECT * FROM points WHERE {where}", chosen).fetchall()  # noqa: S608 - callers' constants; values go by ?
        rows = [each for each in found if is_whole(each)]
        if len(rows) < len(found):
            for each in found:
                if not is_whole(each):
                    self._db.execute("DELETE FROM points WHERE series = ? AND level = ? AND start = ?", each[:3])
            self._db.execute("DELETE FROM positions")
            self._following.clear()
            self._tell([f"{len(found) - len(rows)} windows of series {chosen[0]}"])
        return [_row(each) for each in rows]


_INSERT = "INSERT INTO points VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"


def _layout() -> list[object]:
    """What `_SCHEMA` makes."""
    with contextlib.closing(sqlite3.connect(":memory:")) as db:
        db.executescript(_SCHEMA)
        sums.prepare(db)
        return sums.layout(db)


_DAMAGE = (sqlite3.SQLITE_IOERR_READ, sqlite3.SQLITE_IOERR_SHORT_READ, sqlite3.SQLITE_ERROR)  # the last: other tables


def is_damage(error: Exception) -> bool:
    """Whether the file is damaged or lies on a bad sector, and not only busy or without room."""
    if isinstance(error, sqlite3.OperationalError):
        return getattr(error, "sqlite_errorcode", 0) in _DAMAGE
    return isinstance(error, sqlite3.DatabaseError | UnicodeDecodeError)


def _text(data: bytes) -> str:
    """What is no text any more: its row's checksum says so."""
    return data.decode(errors="replace")


def _point(series: int, level: int, revision: int, row: Row) -> tuple[Any, ...]:
    """A row of table `points`."""
    numbers = _pack(row.values)
    columns = (series, level, row.start, row.end - row.start, revision, int(row.complete), row.readings, numbers)
    return (*columns, row_sum(*columns))


def _row(found: tuple[Any, ...]) -> Row:
    _, _, start, length, _, complete, readings, numbers, _ = found
    return Row(start, start + length, readings, bool(complete), struct.unpack(f"<{len(numbers) // 8}d", numbers))


def _pack(values: Sequence[float]) -> bytes:
    return struct.pack(f"<{len(values)}d", *values)


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300
