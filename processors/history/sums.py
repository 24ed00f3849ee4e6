"""What SQLite does not see in the history's file: bits that flip in its rows, and rows that are gone.

Each row has a CRC-32C of its other columns; one without was written before there was any. Triggers, which are
no part of the file, keep how many points each series has, and the sum of their CRCs: that is compared when the file is
opened, a row's own CRC when it is read.
"""

from __future__ import annotations

import sqlite3

from crc32c import crc32c

_COLUMNS = {
    "settings": "name, value",
    "positions": "topic, partition, next",
    "series": "id, device, rule, field, aggregates, newest",
    "points": "series, level, start, length, revision, complete, readings, numbers",
}
_KEYS = {"settings": "name = ?", "positions": "topic = ? AND partition = ?", "series": "id = ?"}
_TOTALS = """
CREATE TABLE IF NOT EXISTS totals (series INTEGER PRIMARY KEY, points INTEGER, sum INTEGER);
CREATE TEMP TRIGGER point_comes AFTER INSERT ON main.points BEGIN
  INSERT OR IGNORE INTO totals VALUES (NEW.series, 0, 0);
  UPDATE totals SET points = points + 1, sum = sum + coalesce(NEW.crc, 0) WHERE series = NEW.series;
END;
CREATE TEMP TRIGGER point_changes AFTER UPDATE ON main.points BEGIN
  UPDATE totals SET sum = sum + coalesce(NEW.crc, 0) - coalesce(OLD.crc, 0) WHERE series = NEW.series;
END;
CREATE TEMP TRIGGER point_goes AFTER DELETE ON main.points BEGIN
  UPDATE totals SET points = points - 1, sum = sum - coalesce(OLD.crc, 0) WHERE series = OLD.series;
  DELETE FROM totals WHERE series = OLD.series AND points = 0;
END;
"""
_COUNTED = "SELECT series, count(*), sum(coalesce(crc, 0)) FROM points GROUP BY series"


def row_sum(*columns: object) -> int:
    """The CRC of a row with these columns, in the order of their table."""
    return int(crc32c(repr(columns).encode()))


def is_whole(row: tuple[object, ...]) -> bool:
    """Whether a row, its CRC last, is as it was written."""
    return row[-1] is None or row[-1] == row_sum(*row[:-1])


def prepare(db: sqlite3.Connection) -> None:
    """Give a file its totals, and one from before there were checksums their columns."""
    for table in _COLUMNS:
        if "crc" not in [row[1] for row in db.execute(f"PRAGMA table_info({table})")]:
            db.execute(f"ALTER TABLE {table} ADD COLUMN crc INTEGER")
    db.executescript(_TOTALS)
    if not db.execute("PRAGMA user_version").fetchone()[0]:
        _count_again(db)
        db.execute("PRAGMA user_version = 1")


def layout(db: sqlite3.Connection) -> list[object]:
    """The tables' columns, of which a bit may flip as well."""
    return [db.execute(f"PRAGMA table_info({table})").fetchall() for table in (*_COLUMNS, "totals")]


def mend(db: sqlite3.Connection) -> list[str]:
    """What is damaged, in words; it is taken out, and positions too, so that the topic is read again."""
    noted = {row[0]: row[1:] for row in db.execute("SELECT series, points, sum FROM totals")}
    found = {row[0]: row[1:] for row in db.execute(_COUNTED)}
    said = []
    for table, key in _KEYS.items():
        rows = db.execute(f"SELECT {_COLUMNS[table]}, crc FROM {table}").fetchall()  # noqa: S608 - constants of this module
        bad = [row for row in rows if not is_whole(row)]
        for row in bad:
            db.execute(f"DELETE FROM {table} WHERE {key}", row[: key.count("?")])  # noqa: S608 - constants; values go by ?
        if bad:
            said.append(f"{len(bad)} of {len(rows)} rows of table {table}")
    named = {at for (at,) in db.execute("SELECT id FROM series")}
    if wrong := {at for at in noted.keys() | found.keys() if noted.get(at) != found.get(at) or at not in named}:
        said.append(f"windows of {len(wrong)} series")
        db.execute("DELETE FROM points WHERE series NOT IN (SELECT id FROM series)")
        _count_again(db)
    if said:
        db.execute("DELETE FROM positions")
    return said


def _count_again(db: sqlite3.Connection) -> None:
    db.execute("BEGIN IMMEDIATE")
    db.execute("DELETE FROM totals")
    db.execute(f"INSERT INTO totals {_COUNTED}")
    db.execute("COMMIT")
