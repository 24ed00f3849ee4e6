"""The outside ledger: what the devices sent and what was acknowledged to them, kept apart from what it judges.

One SQLite file, written by one simulator process in batches and safe to read by others meanwhile (WAL). Nothing in
it comes from the gateway except the PUBACK itself. Times are wall-clock milliseconds of the simulator's machine.

    sent(device, seq, ts, fields)   one row per reading when it is handed to the MQTT client; fields: its JSON payload
    acked(device, seq, at)          one row per reading whose PUBACK came
    garbage(device, n, at, payload) bytes that no decoder understands, sent on purpose
    garbage_acked(device, n, at)
    totals(name, value)             counters: resent, sessions_present, ...
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from types import TracebackType
from typing import NamedTuple

_TABLES = """
CREATE TABLE IF NOT EXISTS sent(device TEXT, seq INTEGER, ts INTEGER, fields BLOB,
  PRIMARY KEY(device, seq)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS acked(device TEXT, seq INTEGER, at INTEGER, PRIMARY KEY(device, seq)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS garbage(device TEXT, n INTEGER, at INTEGER, payload BLOB,
  PRIMARY KEY(device, n)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS garbage_acked(device TEXT, n INTEGER, at INTEGER, PRIMARY KEY(device, n)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS totals(name TEXT PRIMARY KEY, value INTEGER) WITHOUT ROWID;
"""


class Sent(NamedTuple):
    """One reading as its device sent it."""

    device: str
    seq: int
    ts: int
    fields: bytes
    acked: bool


class Ledger:
    """The writing side; one per file. `commit` writes what has gathered, at most `buffered_max` rows at a time."""

    def __init__(self, path: str, *, buffered_max: int = 5000) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        # The judge outlives the crashes that it provokes; an fsync of its own would compete with the judged one.
        self._db.execute("PRAGMA synchronous=OFF")
        self._db.executescript(_TABLES)
        self._buffered_max = buffered_max
        self._sent: list[tuple[str, int, int, bytes]] = []
        self._acked: list[tuple[str, int, int]] = []
        self._garbage: list[tuple[str, int, int, bytes]] = []
        self._garbage_acked: list[tuple[str, int, int]] = []
        self._totals: dict[str, int] = {}

    def sent(self, device: str, seq: int, ts: int, fields: bytes) -> None:
        self._sent.append((device, seq, ts, fields))
        if len(self._sent) >= self._buffered_max:
            self.commit()

    def acked(self, device: str, seq: int, at: int) -> None:
        self._acked.append((device, seq, at))
        if len(self._acked) >= self._buffered_max:
            self.commit()

    def garbage(self, device: str, n: int, at: int, payload: bytes) -> None:
        self._garbage.append((device, n, at, payload))

    def garbage_acked(self, device: str, n: int, at: int) -> None:
        self._garbage_acked.append((device, n, at))

    def total(self, name: str, value: int) -> None:
        """Set a counter to its newest value."""
        self._totals[name] = value

    def commit(self) -> None:
        """Write everything gathered since the last call, in one transaction."""
        self._db.execute("BEGIN")
        self._db.executemany("INSERT INTO sent VALUES(?,?,?,?)", self._sent)
        self._db.executemany("INSERT OR IGNORE INTO acked VALUES(?,?,?)", self._acked)
        self._db.executemany("INSERT INTO garbage VALUES(?,?,?,?)", self._garbage)
        self._db.executemany("INSERT OR IGNORE INTO garbage_acked VALUES(?,?,?)", self._garbage_acked)
        self._db.executemany("INSERT OR REPLACE INTO totals VALUES(?,?)", self._totals.items())
        self._db.execute("COMMIT")
        for rows in (self._sent, self._acked, self._garbage, self._garbage_acked):
            rows.clear()
        self._totals.clear()

    def close(self) -> None:
        self.commit()
        self._db.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class LedgerView:
    """The reading side: a ledger file, opened read-only; each call sees what is committed by then."""

    def __init__(self, path: str) -> None:
        self._db = sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)

    def close(self) -> None:
        self._db.close()

    def _count(self, table: str) -> int:
        return int(self._db.execute(f"SELECT count(*) FROM {table}").fetchone()[0])  # noqa: S608 - our own table names

    @property
    def sent(self) -> int:
        return self._count("sent")

    @property
    def acknowledged(self) -> int:
        return self._count("acked")

    @property
    def garbage_sent(self) -> int:
        return self._count("garbage")

    def total(self, name: str) -> int:
        """A counter; 0 when it was never written."""
        row = self._db.execute("SELECT value FROM totals WHERE name=?", (name,)).fetchone()
        return int(row[0]) if row else 0

    def devices(self) -> dict[str, int]:
        """Each device that sent anything, with its highest sequence number."""
        return dict(self._db.execute("SELECT device, max(seq) FROM sent GROUP BY device"))

    def readings(self, device: str) -> Iterator[Sent]:
        """A device's readings in the order of their sequence numbers, streamed."""
        query = (
            "SELECT s.device, s.seq, s.ts, s.fields, a.seq IS NOT NULL FROM sent s"
            " LEFT JOIN acked a ON a.device = s.device AND a.seq = s.seq WHERE s.device = ? ORDER BY s.seq"
        )
        with contextlib.closing(self._db.execute(query, (device,))) as rows:
            for name, seq, ts, fields, acked in rows:
                yield Sent(name, seq, ts, fields, bool(acked))

    def acked_seqs(self, device: str) -> Iterator[int]:
        """The sequence numbers of a device's acknowledged readings, ascending."""
        with contextlib.closing(
            self._db.execute("SELECT seq FROM acked WHERE device=? ORDER BY seq", (device,))
        ) as rows:
            for row in rows:
                yield row[0]

    def garbage_payloads(self) -> Iterator[bytes]:
        with contextlib.closing(self._db.execute("SELECT payload FROM garbage")) as rows:
            for row in rows:
                yield row[0]
