"""The outside ledger: what the devices sent and what was acknowledged to them, kept apart from what it judges.

One SQLite file, written by simulator processes in batches and safe to read by others meanwhile (WAL). Nothing in
it comes from the gateway except the PUBACK itself. Times are wall-clock milliseconds of the simulator's machine.

    sent(device, seq, ts, fields)   one row per reading when it is handed to the MQTT client; fields: its JSON payload
    acked(device, seq, at)          one row per reading whose PUBACK came
    repeated(device, seq)           one row per reading that was sent again on purpose, as a message of its own
    garbage(device, n, at, payload) bytes that no decoder understands, sent on purpose
    garbage_acked(device, n, at)
    totals(name, value)             counters: resent, sessions_present, ...; `resent/1` where several processes count
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from types import TracebackType
from typing import NamedTuple

from headwater.errors import UserError

_TABLES = """
CREATE TABLE IF NOT EXISTS sent(device TEXT, seq INTEGER, ts INTEGER, fields BLOB,
  PRIMARY KEY(device, seq)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS acked(device TEXT, seq INTEGER, at INTEGER, PRIMARY KEY(device, seq)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS repeated(device TEXT, seq INTEGER, PRIMARY KEY(device, seq)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS garbage(device TEXT, n INTEGER, at INTEGER, payload BLOB,
  PRIMARY KEY(device, n)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS garbage_acked(device TEXT, n INTEGER, at INTEGER, PRIMARY KEY(device, n)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS totals(name TEXT PRIMARY KEY, value INTEGER) WITHOUT ROWID;
"""


WAIT_S = 30.0
"""How long a process waits for another one's batch to be written."""


def begin_ledger(path: str) -> None:
    """Make the file before anything is sent. Raises `UserError` when it is none, or has an earlier run's readings.

    Devices number their readings from 1 again, so a second run's would be those of the first.
    """
    try:
        with Ledger(path) as ledger:
            earlier = ledger.rows()
    except sqlite3.Error as error:
        raise UserError(f"--ledger {path}: {error}", hint="Name a new file in a directory that is yours.") from None
    if earlier:
        raise UserError(
            f"--ledger {path} holds an earlier run's readings ({earlier:,}), and each run numbers its own from 1",
            hint="Name a new file; or remove this one if nothing is to be verified with it any more.",
        )


class Sent(NamedTuple):
    """One reading as its device sent it."""

    device: str
    seq: int
    ts: int
    fields: bytes
    acked: bool


class Ledger:
    """The writing side; one per process. `commit` writes what has gathered, at most `buffered_max` rows at a time."""

    def __init__(self, path: str, *, buffered_max: int = 5000) -> None:
        self._db = sqlite3.connect(path, isolation_level=None, timeout=WAIT_S)
        self._db.execute("PRAGMA journal_mode=WAL")
        # The judge outlives the crashes that it provokes; an fsync of its own would compete with the judged one.
        self._db.execute("PRAGMA synchronous=OFF")
        self._db.executescript(_TABLES)
        self._buffered_max = buffered_max
        self._sent: list[tuple[str, int, int, bytes]] = []
        self._acked: list[tuple[str, int, int]] = []
        self._repeated: list[tuple[str, int]] = []
        self._garbage: list[tuple[str, int, int, bytes]] = []
        self._garbage_acked: list[tuple[str, int, int]] = []
        self._totals: dict[str, int] = {}

    def rows(self) -> int:
        """What is sent or garbage in the file, this process's or not."""
        tables = self._db.execute("SELECT (SELECT count(*) FROM sent) + (SELECT count(*) FROM garbage)")
        return int(tables.fetchone()[0])

    def sent(self, device: str, seq: int, ts: int, fields: bytes) -> None:
        self._sent.append((device, seq, ts, fields))
        if len(self._sent) >= self._buffered_max:
            self.commit()

    def acked(self, device: str, seq: int, at: int) -> None:
        self._acked.append((device, seq, at))
        if len(self._acked) >= self._buffered_max:
            self.commit()

    def repeated(self, device: str, seq: int) -> None:
        self._repeated.append((device, seq))

    def garbage(self, device: str, n: int, at: int, payload: bytes) -> None:
        self._garbage.append((device, n, at, payload))

    def garbage_acked(self, device: str, n: int, at: int) -> None:
        self._garbage_acked.append((device, n, at))

    def total(self, name: str, value: int) -> None:
        """Set a counter to its newest value."""
        self._totals[name] = value

    def commit(self) -> None:
        """Write everything gathered since the last call, in one transaction."""
        self._db.execute("BEGIN IMMEDIATE")
        self._db.executemany("INSERT INTO sent VALUES(?,?,?,?)", self._sent)
        self._db.executemany("INSERT OR IGNORE INTO acked VALUES(?,?,?)", self._acked)
        self._db.executemany("INSERT OR IGNORE INTO repeated VALUES(?,?)", self._repeated)
        self._db.executemany("INSERT INTO garbage VALUES(?,?,?,?)", self._garbage)
        self._db.executemany("INSERT OR IGNORE INTO garbage_acked VALUES(?,?,?)", self._garbage_acked)
        self._db.executemany("INSERT OR REPLACE INTO totals VALUES(?,?)", self._totals.items())
        self._db.execute("COMMIT")
        for rows in (self._sent, self._acked, self._repeated, self._garbage, self._garbage_acked):
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
        """A counter, summed over the processes that kept it; 0 when it was never written."""
        query = "SELECT coalesce(sum(value), 0) FROM totals WHERE name = ? OR name LIKE ? || '/%'"
        return int(self._db.execute(query, (name, name)).fetchone()[0])

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

    def reading(self, device: str, seq: int) -> bytes | None:
        """What a device sent under a sequence number; None when it never did."""
        row = self._db.execute("SELECT fields FROM sent WHERE device=? AND seq=?", (device, seq)).fetchone()
        return None if row is None else bytes(row[0])

    def repeated(self, device: str) -> Iterator[int]:
        """The sequence numbers of the readings that a device sent again on purpose."""
        for row in self._db.execute("SELECT seq FROM repeated WHERE device=?", (device,)).fetchall():
            yield row[0]

    def garbage_acked(self) -> Iterator[bytes]:
        """The acknowledged garbage."""
        query = "SELECT g.payload FROM garbage g JOIN garbage_acked a ON a.device = g.device AND a.n = g.n"
        with contextlib.closing(self._db.execute(query)) as rows:
            for row in rows:
                yield row[0]

    def garbage_payloads(self) -> Iterator[bytes]:
        with contextlib.closing(self._db.execute("SELECT payload FROM garbage")) as rows:
            for row in rows:
                yield row[0]
